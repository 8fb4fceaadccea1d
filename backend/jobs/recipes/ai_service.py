"""Kinds that a host of ``runtime: ai-service`` runs: the commands of its own documentation, in its own checkout.

Commands, flags and texts are those of the reference installation (``docs/MODEL_LIFECYCLE.md`` and the programs that
it names). What its programs say is read by :mod:`backend.jobs.reader`, which an attempt brings along: their exit codes
say too little. An export that found no games ends with 0, so does a gauntlet whose model could not be loaded and was
replaced by Heuristic.

There is no self-play: the documentation gives no command for it, and the games would be of other tables than ours.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

from backend.configs import parse_config
from backend.jobs import reader
from backend.jobs.recipes.base import AI_SERVICE, Input, Output, Params, Recipe, away_name, never
from backend.paths import Paths

READER = ".ringrift/reader.py"
"""Where an attempt finds the reader in its root."""
OUR_MARK = b"ringrift-moves-"
"""The move encoding that every checkpoint of this program names, see ``backend.training.checkpoint``."""

_EXPORTED = r"Exported (?P<samples>[\d,]+) samples from (?P<games>[\d,]+) games"
_EPOCH = r"Epoch \[(?P<done>\d+)/(?P<total>\d+)\]"
_LOSSES = (
    r"Epoch \[(?P<epochs>\d+)/\d+\].*Train Loss: (?P<train_loss>[\w.+-]+)",
    r"Epoch \[\d+/\d+\].*Val Loss: (?P<val_loss>[\w.+-]+)",
    r"Early stopping triggered at epoch (?P<early_stop>\d+)",
)
_GAUNTLET = (
    r"Gauntlet Result: (?P<model_file>\S+) ===",
    r"Model type: (?P<model_type>\S+)",
    r"vs Random: (?P<random_percent>[\d.]+)%",
    r"vs Heuristic: (?P<heuristic_percent>[\d.]+)%",
    r"Composite score: (?P<composite>[\d.]+)",
    r"Games played: (?P<games_played>\d+)",
    r"Running (?P<players>\d+)-player games",
)
_REPLACED = "it could not load the model and played Heuristic in its place, so its numbers are not the model's"
_PROMOTE = (
    r"Total games: (?P<games_played>\d+)",
    r"vs RANDOM: (?P<random_percent>[\d.]+)%",
    r"vs HEURISTIC: (?P<heuristic_percent>[\d.]+)%",
    r"Estimated ELO: (?P<estimated_elo>[\d.]+)",
)


def made_here(path: Path) -> bool:
    """Whether a checkpoint is one of this program, told from its bytes without reading anything into objects.

    The reference installation cannot load such a file, and its gauntlet would play Heuristic in its place.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((one for one in archive.namelist() if one.endswith("data.pkl")), None)
            return name is not None and OUR_MARK in archive.read(name)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False


def read_argv(paths: Paths, *words: str | int) -> list[str]:
    """A command under the reader that lies in the attempt's root, with the host's interpreter for both."""
    return [sys.executable, "-I", str(paths.root / READER), sys.executable, *map(str, words)]


def reader_input() -> Input:
    return Input(Path(reader.__file__), READER)


def _options(params: Params) -> list[str]:
    return [str(word) for word in params.get("options") or ()]


def _told(unit: str, **more: Any) -> dict[str, Any]:
    return {"unit": unit, "result": {"runtime": AI_SERVICE}} | more


# export: of the games that the checkout finds on its host


def _export_name(config: str) -> str:
    return f"data/training/{config}.npz"


def _export_argv(paths: Paths, config: str, params: Params) -> list[str]:
    made, output = parse_config(config), paths.root / _export_name(config)
    words = ["--use-discovery", "--board-type", made.board, "--num-players", made.players, "--output", output]
    return read_argv(paths, "scripts/export_replay_dataset.py", *map(str, words), *_options(params))


def _export_reading(paths: Paths, config: str, params: Params) -> dict[str, Any]:
    return _told(
        "samples",
        present=["scripts/export_replay_dataset.py"],
        outputs=[_export_name(config)],
        fresh=True,
        facts=[_EXPORTED],
        fatal=[("No samples generated", "it found no games to make samples of")],
        least={"samples": 1},
    )


def _export_inputs(paths: Paths, config: str, params: Params) -> tuple[Input, ...]:
    return (reader_input(),)


def _export_outputs(config: str, params: Params) -> tuple[Output, ...]:
    return (Output(_export_name(config)),)


# train: on a dataset that is sent there, or on the one that lies in the checkout


def _train_argv(paths: Paths, config: str, params: Params) -> list[str]:
    made = parse_config(config)
    data = str(paths.root / _data_name(params)) if params.get("data") else _export_name(config)
    words = ["--board-type", made.board, "--num-players", str(made.players), "--data-path", data]
    words += ["--save-path", str(paths.root / away_name(params["save"])), "--epochs", str(params["epochs"])]
    return read_argv(paths, "-m", "app.training.train", *words, *_options(params))


def _data_name(params: Params) -> str:
    return f"data/training/{Path(params['data']).name}"


def _train_reading(paths: Paths, config: str, params: Params) -> dict[str, Any]:
    return _told(
        "epochs",
        present=["app/training", *([] if params.get("data") else [_export_name(config)])],
        outputs=[away_name(params["save"])],
        fresh=True,
        total=params["epochs"],
        progress=[_EPOCH],
        facts=list(_LOSSES),
    )


def _train_inputs(paths: Paths, config: str, params: Params) -> tuple[Input, ...]:
    if not params.get("data"):
        return (reader_input(),)
    return (reader_input(), Input(paths.root / params["data"], _data_name(params)))


def _train_outputs(config: str, params: Params) -> tuple[Output, ...]:
    return (Output(away_name(params["save"])),)


# gauntlet and promote: of a checkpoint that is sent there


def _model_inputs(paths: Paths, config: str, params: Params) -> tuple[Input, ...]:
    return (reader_input(), Input(paths.root / params["save"], away_name(params["save"])))


def _gauntlet_argv(paths: Paths, config: str, params: Params) -> list[str]:
    model, board = paths.root / away_name(params["save"]), parse_config(config).board
    words = [str(model), "--board", board, "--games", str(params["games"])]
    return read_argv(paths, "scripts/baseline_gauntlet.py", *words, *_options(params))


def _gauntlet_reading(paths: Paths, config: str, params: Params) -> dict[str, Any]:
    model = away_name(params["save"])
    games = int(params["games"])
    return _told(
        "games",
        present=["scripts/baseline_gauntlet.py"],
        inputs={model: params.get("sha256")},
        phase=r"\[vs (?P<phase>\w+)\] Starting",
        phases=2,
        total=2 * games,
        progress=[r"\[(?P<done>\d+)/(?P<total>\d+)\] wins"],
        facts=list(_GAUNTLET),
        fatal=[
            ("UnifiedModelLoader failed", _REPLACED),
            ("Model path not found", _REPLACED),
            ("[Uu]sing HeuristicAI", _REPLACED),
        ],
        need=["model_file", "games_played", "random_percent", "heuristic_percent"],
        # How many play it takes from the checkpoint, and says so only where its log is on.
        equal={"games_played": 2 * games, "model_file": Path(model).name, "players": parse_config(config).players},
    )


def _promote_argv(paths: Paths, config: str, params: Params) -> list[str]:
    made, model = parse_config(config), str(paths.root / away_name(params["save"]))
    words = ["--gauntlet", "--model", model, "--board-type", made.board, "--num-players", str(made.players)]
    words += ["--games", str(params["games"])]
    return read_argv(paths, "scripts/auto_promote.py", *words, *_options(params))


def _promote_reading(paths: Paths, config: str, params: Params) -> dict[str, Any]:
    model = away_name(params["save"])
    return _told(
        "games",
        present=["scripts/auto_promote.py"],
        inputs={model: params.get("sha256")},
        facts=list(_PROMOTE),
        fatal=[("GAUNTLET FAILED", "its gauntlet rejected the model, nothing was promoted")],
        need=["games_played"],
        least={"games_played": 1},
        same={f"models/canonical_{config}.pth": model},
    )


AI_SERVICE_RECIPES: dict[str, Recipe] = {
    recipe.kind: recipe
    for recipe in (
        Recipe(
            "export", "e", True, _export_argv, never, inputs=_export_inputs, outputs=_export_outputs,
            merge="ai-service dataset", reading=_export_reading,
        ),
        Recipe(
            "train", "t", True, _train_argv, never, inputs=_train_inputs, outputs=_train_outputs,
            merge="ai-service model", reading=_train_reading,
        ),
        Recipe(
            "gauntlet", "g", True, _gauntlet_argv, never, inputs=_model_inputs,
            merge="ai-service gauntlet", reading=_gauntlet_reading,
        ),
        Recipe(
            "promote", "m", False, _promote_argv, never, inputs=_model_inputs,
            merge="ai-service promote", reading=_promote_reading,
        ),
    )
}  # fmt: skip
