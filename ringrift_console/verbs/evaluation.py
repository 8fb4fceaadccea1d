"""``ringrift gauntlet``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from backend.configs import Config
from backend.errors import Exit, NotFoundError, SchemaError, UsageError
from backend.evaluation.gauntlet import (
    Candidate,
    GauntletSettings,
    run_id_from_environment,
    seed_of,
    whole_blocks,
)
from backend.evaluation.gauntlet import (
    gauntlet as play_gauntlet,
)
from backend.paths import Paths
from backend.players import built_in
from backend.progress import Progress
from backend.registry.files import full_path
from backend.registry.store import find
from backend.text import plain
from ringrift_console.verbs.common import config_of, table, to_json


def gauntlet(args: argparse.Namespace, paths: Paths) -> int:
    """Plays a model against the baselines, every opening from every seat."""
    candidate, config = _candidate(args, paths)
    opponents = tuple(dict.fromkeys(name.strip() for name in args.opponents.split(",") if name.strip()))
    if not opponents:
        raise UsageError("no opponents named", hint="--opponents random,heuristic")
    run_id = args.run or run_id_from_environment()
    if args.seed is not None and args.seed < 0:
        raise UsageError("the seed must not be negative", where=str(args.seed))
    seed = seed_of(run_id) if args.seed is None else args.seed
    games = whole_blocks(args.games, config.players) * config.players
    if games != args.games:
        sys.stderr.write(f"{games} games instead of {args.games}: every opening is played from all seats\n")
    if args.first_block < 0:
        raise UsageError("--first-block must not be negative", where=str(args.first_block))
    settings = GauntletSettings(config, candidate, opponents, seed)
    progress = Progress(games * len(opponents), "games", echo=not args.json)
    result = play_gauntlet(
        paths, settings, games, run_id=run_id, workers=args.workers, progress=progress, first_block=args.first_block
    )
    progress.result(result)
    print(to_json(result) if args.json else _text(result))
    return Exit.DONE


def _candidate(args: argparse.Namespace, paths: Paths) -> tuple[Candidate, Config]:
    """Who is to be measured and in which config: a baseline by name, a checkpoint file, or a registered model."""
    return candidate_of(paths, args.model, config_of(args, required=False), args.simulations)


def candidate_of(paths: Paths, name: str, named: Config | None, simulations: int | None) -> tuple[Candidate, Config]:
    """The player that ``name`` means, and its config.

    Raises:
        UsageError, NotFoundError, SchemaError: there is none, or it is of another config than ``named``.
    """
    if built_in(name):
        if named is None:
            raise UsageError("a baseline needs a config", hint="--config hex8_2p")
        return Candidate(name), named
    path, label = Path(name), None
    if not path.exists():
        if path.suffix in (".pth", ".pt") or "/" in name:
            raise NotFoundError("no such file", where=name)
        row = find(paths, name)
        path = full_path(paths, row.path)
        label = row.label
    from backend.training.checkpoint import load_model

    model = load_model(path)
    config = model.config
    if named is not None and named != config:
        raise SchemaError(f"the model is for {config.key}, not {named.key}", where=str(path))
    if label is None:
        label = _label(paths, model.sha256)
    return Candidate("neural", str(path), model.sha256, label, simulations), config


def _label(paths: Paths, sha256: str) -> str | None:
    try:
        return find(paths, sha256).label
    except NotFoundError:
        return None


def _text(result: dict[str, Any]) -> str:
    rows = []
    for line in result["opponents"]:
        rows.append(
            (
                line["opponent"],
                str(line["games"]),
                str(line["wins"]),
                f"{line['rate']:.1%}",
                f"{line['low']:.1%}..{line['high']:.1%}",
                f"{line['unique']}/{line['games']}",
                str(line["crashes"]),
                "-" if line["target"] is None else f"{line['requirement']} {'met' if line['meets'] else 'missed'}",
                "-" if line["target"] is None else f"{line['verdict']}, {line['reason']}",
            )
        )
    heads = ("OPPONENT", "GAMES", "WON", "RATE", "95 % (WILSON)", "UNIQUE", "CRASHES", "TARGET", "VERDICT")
    who = result["label"] or result["candidate"]
    title = f"{who} in {result['config']}, run {result['run_id']}; equal strength would win {result['chance']:.0%}"
    return f"{plain(title)}\n{table(heads, rows)}"
