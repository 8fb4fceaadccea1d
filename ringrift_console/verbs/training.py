"""``ringrift export`` and ``ringrift train``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from backend.errors import Exit, RingRiftError, UsageError
from backend.paths import Paths
from backend.progress import Progress
from backend.text import plain
from ringrift_console.verbs.common import config_of, to_json


def _say(line: str) -> None:
    print(plain(line), file=sys.stderr)


def export(args: argparse.Namespace, paths: Paths) -> int:
    """Turns recorded games into a dataset."""
    config = config_of(args)
    assert config is not None
    if args.use_discovery and args.db:
        raise UsageError("--use-discovery and --db exclude each other")
    if not 0 <= args.validation < 1:
        raise UsageError("--validation has to lie between 0 and 1", where=str(args.validation))
    if args.max_games is not None and args.max_games < 1:
        raise UsageError("--max-games has to be at least 1", where=str(args.max_games))
    from backend.training.export import export as write_dataset

    result = write_dataset(
        paths,
        config,
        databases=[Path(path) for path in args.db or ()],
        output=Path(args.output) if args.output else None,
        validation=args.validation,
        max_games=args.max_games,
        tell=_say,
        echo=not args.json,
    )
    Progress(None, "games").result(result)
    if args.json:
        print(to_json(result))
    else:
        print(
            f"{plain(result['output'])}: {result['samples']} samples of {result['games']} games,"
            f" {result['games_validation']} of them held out; SHA-256 {result['sha256'][:12]}"
        )
    return Exit.DONE


def train(args: argparse.Namespace, paths: Paths) -> int:
    """Trains a network and registers it."""
    config = config_of(args)
    assert config is not None
    from backend.training.group import join
    from backend.training.settings import Settings
    from backend.training.train import assist
    from backend.training.train import train as run

    given = {
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "learning_rate": args.lr,
        "blocks": args.blocks,
        "channels": args.channels,
        "seed": args.seed,
    }
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    data_path = Path(args.data_path) if args.data_path else paths.dataset(config)
    parent = Path(args.init_weights) if args.init_weights else None
    with join(args.device) as group:
        if not group.first:
            assist(data_path, config, settings, group, device=args.device, init_weights=parent)
            return Exit.DONE
        trained = run(
            data_path,
            Path(args.save_path) if args.save_path else None,
            config,
            settings,
            candidates=paths.models / "candidates",
            resume=args.resume,
            device=args.device,
            init_weights=parent,
            tell=_say,
            echo=not args.json,
            group=group,
        )
    result: dict[str, Any] = {
        "config": config.key,
        "model_id": None,
        "version": None,
        "label": None,
        "sha256": trained.sha256,
        "path": str(trained.path),
        "epochs": settings.epochs,
        "train_loss": trained.train_loss,
        "val_policy_accuracy": trained.measures.policy_accuracy,
        "val_value_accuracy": trained.measures.value_accuracy,
        "samples": (trained.metadata.data or {}).get("samples"),
        "processes": (trained.metadata.training_info or {}).get("processes", 1),
    }
    if not args.no_register:
        from backend.training.register import candidate_of

        result |= asyncio.run(_register(paths, candidate_of(trained)))
    Progress(None, "samples").result(result)
    if args.json:
        print(to_json(result))
    else:
        named = f"registered as {result['label']}" if result["label"] else "not registered"
        print(f"{plain(result['path'])}: {named}; SHA-256 {result['sha256'][:12]}")
    return Exit.DONE


def _fingerprint(paths: Paths, label: str) -> None:
    """Keeps what the new model says about the golden positions; the monitor makes up for what fails here."""
    from backend.evaluation.golden.check import check_model
    from backend.registry.store import find

    try:
        check_model(paths, find(paths, label))
    except RingRiftError as error:
        sys.stderr.write(f"no fingerprint was kept of {label}: {error.line()}\n")


async def _register(paths: Paths, candidate: Any) -> dict[str, Any]:
    from backend.registry.store import Registry

    registry = await Registry.open(paths)
    done = await registry.register(candidate)
    await asyncio.to_thread(_fingerprint, paths, done.label)
    return {"model_id": done.model_id, "version": done.version, "label": done.label, "registered_path": str(done.path)}
