"""What becomes of that which the reference installation's programs made: kept under its hash, told apart from ours.

None of it is trusted: archives are read by their headers, checkpoints as plain tensors only. None of it is mixed with
what this program made: a dataset of theirs is of another encoding, a network of theirs cannot play here, and what
their gauntlet says is no match record. Files go to ``data/foreign/ai-service/<config>/<sha256>.<suffix>``, where
nothing else looks.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.atomic import atomic_file
from backend.configs import parse_config
from backend.errors import NoEvidenceError, SchemaError, UnverifiedError
from backend.jobs.recipes import AI_SERVICE, Params, recipe_of
from backend.paths import Paths
from backend.registry.hashing import sha256_file, write_sidecar

Result = dict[str, Any]
DIGITS = 16
"""Of a SHA-256 in a file's name."""
BASELINES = ("random", "heuristic")

DATASET_NOTE = "a dataset of runtime ai-service, kept as a file; training here does not read it"
MODEL_NOTE = "a checkpoint of runtime ai-service, kept as a file and not registered; it cannot play here"
GAUNTLET_NOTE = "told by baseline_gauntlet.py of runtime ai-service; no match record was made of it"
PROMOTION_NOTE = "promoted in the checkout on that host; the registry here is as it was"


def keep(paths: Paths, config: str, source: Path) -> tuple[Path, str]:
    """Puts a file under its hash, once; returns where it lies and its SHA-256."""
    sha256 = sha256_file(source)
    target = paths.root / "data" / "foreign" / AI_SERVICE / config / f"{sha256[:DIGITS]}{source.suffix}"
    if not target.is_file() or sha256_file(target) != sha256:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reader, atomic_file(target) as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
        write_sidecar(target, sha256)
    return target, sha256


def keep_dataset(paths: Paths, config: str, params: Params, folder: Path, reported: Mapping[str, Any]) -> Result:
    """Keeps a dataset once its headers say that it is one of this config, with samples.

    Raises:
        UnverifiedError, UntrustedError: it is truncated, corrupted or no dataset.
        SchemaError: it is of another board, or its arrays do not fit together.
        NoEvidenceError: it holds no samples.
    """
    from backend.training.npz import read_headers

    source = folder / recipe_of("export", params).outputs(config, params)[0].name
    headers, words = read_headers(source)
    missing = [name for name in ("features", "values") if name not in headers]
    if missing:
        raise UnverifiedError(f"the dataset has no {' '.join(missing)}", where=source.name)
    lengths = {name: shape[0] for name, (shape, _) in headers.items() if shape}
    samples = lengths.get("features", 0)
    if not samples:
        raise NoEvidenceError("the dataset holds no samples", where=source.name)
    odd = [name for name, length in lengths.items() if length != samples]
    if odd:
        raise SchemaError(f"the dataset has {samples} features and {lengths[odd[0]]} {odd[0]}", where=source.name)
    board = parse_config(config).board
    if words.get("board_type", board) != board:
        raise SchemaError(f"the dataset is for {words['board_type']}, not {board}", where=source.name)
    told = reported.get("samples")
    if told not in (None, samples):
        raise SchemaError(f"it told of {told} samples, and the dataset has {samples}", where=source.name)
    path, sha256 = keep(paths, config, source)
    arrays = {name: f"{dtype} {'x'.join(map(str, shape))}".strip() for name, (shape, dtype) in headers.items()}
    return dict(reported) | {
        "path": str(path), "sha256": sha256, "samples": samples, "arrays": arrays, "note": DATASET_NOTE,
    }  # fmt: skip


def keep_model(paths: Paths, config: str, params: Params, folder: Path, reported: Mapping[str, Any]) -> Result:
    """Keeps a checkpoint once it has been read as plain tensors.

    Raises:
        UntrustedError: it carries code or objects; nothing of it was run.
        UnverifiedError: it is truncated or corrupted.
        NoEvidenceError: it holds no weights.
    """
    from torch import Tensor

    from backend.training.checkpoint import METADATA, read_container

    source = folder / recipe_of("train", params).outputs(config, params)[0].name
    content = read_container(source)
    found = content.get("model_state_dict") or content.get("state_dict") or content
    named = found if isinstance(found, dict) else {}
    weights = {str(name): value for name, value in named.items() if isinstance(value, Tensor)}
    if not weights:
        raise NoEvidenceError("the checkpoint holds no weights", where=source.name)
    stated = content.get(METADATA)
    about = stated if isinstance(stated, dict) else {}
    path, sha256 = keep(paths, config, source)
    return dict(reported) | {
        "path": str(path),
        "sha256": sha256,
        "registered": False,
        "model_class": str(about.get("model_class") or "unknown"),
        "architecture_version": str(about.get("architecture_version") or "unknown"),
        "parameters": sum(value.numel() for value in weights.values()),
        "note": MODEL_NOTE,
    }


def keep_gauntlet(paths: Paths, config: str, params: Params, folder: Path, reported: Mapping[str, Any]) -> Result:
    """What their gauntlet said, under names of its own.

    Raises:
        NoEvidenceError: it said nothing.
    """
    games = int(params["games"])
    try:
        rates = {name: float(reported[f"{name}_percent"]) / 100 for name in BASELINES}
    except (KeyError, ValueError, TypeError):
        raise NoEvidenceError("it told no win rates", where=str(params["save"])) from None
    return {
        "runtime": AI_SERVICE,
        "model": params["save"],
        "model_sha256": params.get("sha256"),
        "foreign_opponents": {
            name: {"games": games, "wins": round(rate * games), "win_rate": rate} for name, rate in rates.items()
        },
        "games_played": reported.get("games_played"),
        "composite": reported.get("composite"),
        # It takes the number of players from the checkpoint and says so only where its log is on.
        "players": reported.get("players"),
        "note": GAUNTLET_NOTE,
    }


def keep_promotion(paths: Paths, config: str, params: Params, folder: Path, reported: Mapping[str, Any]) -> Result:
    """What their promotion said; its evidence is the file that the reader compared on the host."""
    return dict(reported) | {
        "model": params["save"], "model_sha256": params.get("sha256"), "canonical": f"models/canonical_{config}.pth",
        "note": PROMOTION_NOTE,
    }  # fmt: skip
