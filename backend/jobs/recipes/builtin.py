"""The kinds of this program itself: its own verbs, in a root of this program."""

from __future__ import annotations

import sys

from backend.configs import parse_config
from backend.jobs.recipes.base import Input, Output, Params, Recipe, away_name
from backend.jobs.shards import INDICES
from backend.paths import Paths


def _verb(paths: Paths, *words: str | int | float) -> list[str]:
    return [
        sys.executable, "-m", "ringrift_console.cli", *map(str, words), "--root", str(paths.root),
    ]  # fmt: skip


def _seed(params: Params) -> list[str]:
    return ["--seed", str(params["seed"])] if params.get("seed") is not None else []


def _more(params: Params) -> list[str]:
    """The seed, and what an operator handed to the command itself."""
    return [*_seed(params), *map(str, params.get("options") or ())]


# self-play: `--until` makes a repeated run add only what is missing


AWAY_FIRST = 1_000_000_000
"""Index from which games are played in roots of their own: no run on this machine gets there."""
AWAY_ROOM = 1000
"""Indices a game may use up: some games are stopped at their cap and count for nothing."""


def _selfplay_argv(paths: Paths, config: str, params: Params) -> list[str]:
    first = ["--first", params["first"]] if params.get("first") else []
    return _verb(paths, "selfplay", "--config", config, "--until", params["games"], *first, *_more(params))


def _selfplay_satisfied(paths: Paths, config: str, params: Params) -> str | None:
    from backend.training.volume import count_between, volume

    wanted = int(params["games"])
    if "shard" in params:
        first = int(params["first"])
        there = count_between(paths.games_db(parse_config(config)), int(params["seed"]), first, first + INDICES)
        return f"its {there} games are there" if there >= wanted else None
    games = volume(paths, parse_config(config)).games
    return f"{games} games are there, {wanted} were asked for" if games is not None and games >= wanted else None


def _selfplay_outputs(config: str, params: Params) -> tuple[Output, ...]:
    return (Output(f"data/games/canonical_{config}.db", "sqlite"),)


def _selfplay_away(paths: Paths, config: str, params: Params) -> Params:
    """An empty root needs only the games that are missing here; a shard knows its own number."""
    from backend.training.volume import volume

    if "shard" in params:
        return params
    games = volume(paths, parse_config(config)).games or 0
    # Games of the same seed that came from elsewhere would be played again there, so the run begins behind them.
    first = AWAY_FIRST + AWAY_ROOM * games
    return dict(params) | {"games": max(1, int(params["games"]) - games), "first": first}


# export


def _export_argv(paths: Paths, config: str, params: Params) -> list[str]:
    made = parse_config(config)
    database, output = str(paths.games_db(made)), str(paths.dataset(made))
    return _verb(paths, "export", "--config", config, "--db", database, "--output", output, *_more(params))


def _export_satisfied(paths: Paths, config: str, params: Params) -> str | None:
    from backend.training.dataset import verify_dataset
    from backend.training.export import covers

    made = parse_config(config)
    dataset = paths.dataset(made)
    if params.get("options"):  # another share of the games: what is there was made otherwise
        return None
    if not dataset.exists() or not covers(dataset, paths.games_db(made)):
        return None
    info = verify_dataset(dataset, config=made)
    return f"the dataset holds all {info.games} games ({info.samples} samples)"


def _export_inputs(paths: Paths, config: str, params: Params) -> tuple[Input, ...]:
    path = paths.games_db(parse_config(config))
    return (Input(path, f"data/games/{path.name}", "sqlite"),)


def _export_outputs(config: str, params: Params) -> tuple[Output, ...]:
    return (Output(f"data/training/{config}.npz"),)


# train: the save path is the run's own, and training carries on from its own saved state


def _train_argv(paths: Paths, config: str, params: Params) -> list[str]:
    data, save = str(paths.dataset(parse_config(config))), str(paths.root / params["save"])
    epochs = ["--epochs", params["epochs"]] if params.get("epochs") is not None else []
    return _verb(paths, "train", "--config", config, "--data-path", data, "--save-path", save, *epochs, *_more(params))


def _train_satisfied(paths: Paths, config: str, params: Params) -> str | None:
    from backend.registry.store import find
    from backend.training.dataset import verify_dataset

    save = paths.root / params["save"]
    if not save.is_file():
        return None
    row = find(paths, str(save))  # by its SHA-256
    used = (row.metadata.get("data") or {}).get("content_digest")
    made = parse_config(config)
    if row.config != config or used != verify_dataset(paths.dataset(made), config=made).content_digest:
        return None
    return f"{row.label} was trained on this dataset"


def _train_inputs(paths: Paths, config: str, params: Params) -> tuple[Input, ...]:
    return (Input(paths.dataset(parse_config(config)), f"data/training/{config}.npz"),)


def _train_outputs(config: str, params: Params) -> tuple[Output, ...]:
    if params.get("member", 1) > 1:  # of a gang, the first member alone writes
        return ()
    return (Output(away_name(params["save"])),)


def _train_away(paths: Paths, config: str, params: Params) -> Params:
    """Another root has a registry that nobody asks; the checkpoint is registered here when it has come."""
    options = [*(params.get("options") or ()), "--no-register"]
    return dict(params) | {"save": away_name(params["save"]), "options": options}


# gauntlet: its run is named by the job, so a repeated attempt plays only what is missing


def _gauntlet_argv(paths: Paths, config: str, params: Params) -> list[str]:
    model = str(paths.root / params["save"])
    run = ["--run", params["run"]] if params.get("run") else []
    first = ["--first-block", params["first_block"]] if params.get("first_block") else []
    return _verb(paths, "gauntlet", model, "--config", config, "--games", params["games"], *run, *first, *_more(params))


def _gauntlet_satisfied(paths: Paths, config: str, params: Params) -> str | None:
    if params.get("options"):  # other opponents or another search: what was played tells nothing of these
        return None
    from backend.evaluation.records import run_slots, win_rates
    from backend.registry.hashing import sha256_file

    save = paths.root / params["save"]
    if not save.is_file():
        return None
    played = run_slots(paths, str(params["run"])) if params.get("run") else set()
    if "shard" in params and _slots(config, params) <= played:
        return f"its {len(_slots(config, params))} games are there"
    if played:  # this very run is under way: its result is that of all its parts
        return None
    found = {rate.opponent.partition(":")[0]: rate for rate in win_rates(paths).get(sha256_file(save), ())}
    wanted = int(params.get("of") or params["games"])
    if any(name not in found or found[name].games < wanted for name in ("random", "heuristic")):
        return None
    return "; ".join(f"{name} {found[name].wins}/{found[name].games}" for name in ("random", "heuristic"))


def _slots(config: str, params: Params) -> set[str]:
    """The places of a run that a shard fills."""
    players = parse_config(config).players
    first = int(params["first_block"])
    blocks = range(first, first + int(params["games"]) // players)
    return {
        f"{opponent}/{block}/{seat}"
        for opponent in ("random", "heuristic")
        for block in blocks
        for seat in range(1, players + 1)
    }


def _gauntlet_inputs(paths: Paths, config: str, params: Params) -> tuple[Input, ...]:
    model = Input(paths.root / params["save"], away_name(params["save"]))
    if params.get("run") and "shard" not in params and paths.elo_db.exists():  # its parts were played already
        return (model, Input(paths.elo_db, "data/unified_elo.db", "sqlite"))
    return (model,)


def _gauntlet_outputs(config: str, params: Params) -> tuple[Output, ...]:
    return (Output("data/unified_elo.db", "sqlite"),)


def _gauntlet_away(paths: Paths, config: str, params: Params) -> Params:
    return dict(params) | {"save": away_name(params["save"])}


# any other command


def _command_argv(paths: Paths, config: str, params: Params) -> list[str]:
    return [str(word) for word in params["argv"]]


def _command_satisfied(paths: Paths, config: str, params: Params) -> str | None:
    wanted = params.get("output")
    return f"{wanted} is there" if wanted and (paths.root / wanted).exists() else None


def _command_inputs(paths: Paths, config: str, params: Params) -> tuple[Input, ...]:
    return tuple(Input(paths.root / name, str(name)) for name in params.get("inputs") or ())


def _command_outputs(config: str, params: Params) -> tuple[Output, ...]:
    named = [*(params.get("outputs") or ()), *([params["output"]] if params.get("output") else ())]
    return tuple(Output(str(name)) for name in named)


BUILTIN_RECIPES: dict[str, Recipe] = {
    recipe.kind: recipe
    for recipe in (
        Recipe(
            "selfplay", "s", True, _selfplay_argv, _selfplay_satisfied, "SELFPLAY_COMPLETED",
            outputs=_selfplay_outputs, away=_selfplay_away,
        ),
        Recipe(
            "export", "e", True, _export_argv, _export_satisfied, "EXPORT_COMPLETED",
            inputs=_export_inputs, outputs=_export_outputs,
        ),
        Recipe(
            "train", "t", True, _train_argv, _train_satisfied, "TRAINING_COMPLETED",
            inputs=_train_inputs, outputs=_train_outputs, away=_train_away,
        ),
        Recipe(
            "gauntlet", "g", True, _gauntlet_argv, _gauntlet_satisfied, "GAUNTLET_COMPLETED",
            inputs=_gauntlet_inputs, outputs=_gauntlet_outputs, away=_gauntlet_away,
        ),
        Recipe(
            "command", "c", False, _command_argv, _command_satisfied,
            inputs=_command_inputs, outputs=_command_outputs,
        ),
    )
}  # fmt: skip
