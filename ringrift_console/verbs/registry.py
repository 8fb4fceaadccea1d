"""``ringrift registry`` and ``ringrift audit``."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend.configs import parse_config
from backend.errors import Exit, UsageError
from backend.paths import Paths
from backend.reference.listing import all_models
from backend.registry.stages import STAGES
from backend.registry.store import ModelInfo, Registry
from backend.text import plain, size_text
from ringrift_console.verbs.common import change, table, to_json


def list_models(args: argparse.Namespace, paths: Paths) -> int:
    """Registered models, newest first."""
    if args.stage and args.stage.lower() not in STAGES:
        raise UsageError("unknown stage", where=args.stage, hint="one of " + " ".join(STAGES))
    key = parse_config(args.config).key if args.config else None
    rows = list(all_models(paths))
    if args.stage:
        rows = [row for row in rows if row.stage == args.stage.lower()]
    if key:
        rows = [row for row in rows if row.config == key]
    if args.json:
        print(to_json([dataclasses.asdict(row) | {"label": row.label} for row in rows]))
        return Exit.DONE
    if not rows:
        print("no models", file=sys.stderr)
        return Exit.DONE
    print(
        table(
            ("MODEL", "STAGE", "CONFIG", "SHA-256", "SIZE", "REGISTERED"),
            [
                (
                    row.label,
                    row.stage + ("" if row.present else " (file missing)") + (" (foreign)" if row.foreign else ""),
                    row.config or "unknown",
                    row.sha256[:12] or "unknown",
                    size_text(row.size),
                    f"{row.created_at:%Y-%m-%d %H:%M} UTC",
                )
                for row in rows
            ],
        )
    )
    if any(row.foreign for row in rows):
        print("foreign: another installation's, only read here; ringrift adopt takes them in", file=sys.stderr)
    return Exit.DONE


def info(args: argparse.Namespace, paths: Paths) -> int:
    """Everything known of one model."""
    found = asyncio.run(_info(paths, args.model))
    if args.json:
        print(to_json(dataclasses.asdict(found) | {"file": str(found.file), "label": found.row.label}))
        return Exit.DONE
    print("\n".join(map(plain, _lines(found))))
    return Exit.DONE


def history(args: argparse.Namespace, paths: Paths) -> int:
    """What was in production of a config, and every decision about its models."""
    from backend.registry.history import config_history, production_at

    config = parse_config(args.config).key
    if args.on:
        move = production_at(paths, config, _moment(args.on))
        if args.json:
            print(to_json(None if move is None else dataclasses.asdict(move)))
        else:
            print(move.after if move else f"nothing was in production of {config} then")
        return Exit.DONE
    found = config_history(paths, config)
    if args.json:
        print(to_json(dataclasses.asdict(found)))
        return Exit.DONE
    print(f"production of {config}: {found.pointer.label or 'none'} (revision {found.pointer.revision})")
    rows = [
        (
            f"{one.at:%Y-%m-%d %H:%M} UTC", one.action, one.model, f"{one.before} -> {one.after}",
            f"OVERRIDE {one.outcome}: {one.override}" if one.override else one.outcome or "-", one.reason, one.by,
        )
        for one in found.decisions
    ]  # fmt: skip
    if rows:
        print(table(("AT", "ACTION", "MODEL", "STAGE", "EVIDENCE", "REASON", "BY"), rows))
    return Exit.DONE


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise UsageError("not a time", where=text, hint="as 2026-11-25 or 2026-11-25T14:00+01:00") from None


def compare(args: argparse.Namespace, paths: Paths) -> int:
    """Two models side by side."""
    from backend.registry.history import compare as side_by_side

    found = side_by_side(paths, args.first, args.second)
    if args.json:
        print(to_json(found))
        return Exit.DONE
    print(table(("", found[0]["model"], found[1]["model"]), [
        (name.replace("_", " "), *(_number(one[name]) if one[name] is not None else "-" for one in found))
        for name in found[0] if name != "model"
    ]))  # fmt: skip
    return Exit.DONE


def criteria(args: argparse.Namespace, paths: Paths) -> int:
    """The criteria of a model's next stage, or of the one asked for."""
    from backend.registry.promotion import assess, target
    from backend.registry.store import find

    row = find(paths, args.model)
    stage = target(row, args.stage)
    found = assess(paths, row, stage)
    if args.json:
        print(to_json(found.record() | {"model": row.label, "more": found.more}))
        return Exit.DONE
    heading, *rows = found.table()
    more = f", about {found.more} more games" if found.more else ""
    print(f"{row.label} to {stage}: {found.outcome}{more}")
    print(table(heading, rows))
    return Exit.DONE


def lineage(args: argparse.Namespace, paths: Paths) -> int:
    """Where a model comes from, and where it went."""
    from backend.registry.lineage import lineage as trace

    found = trace(paths, args.model)
    if args.json:
        print(to_json(dataclasses.asdict(found)))
        return Exit.DONE
    chain = [one if isinstance(one, str) else one.label for one in found.ancestors]
    pairs = [
        ("data", f"{found.data.get('samples', '?')} samples, content {found.digest or 'unknown'}"),
        ("run", found.run or "unknown"),
        ("registered", f"{found.model.created_at:%Y-%m-%d %H:%M} UTC by {found.source or 'unknown'}"),
        ("parents", " <- ".join(chain) or "none"),
        ("model", f"{found.model.label} ({found.model.stage}) {found.model.sha256}"),
        *(("evaluation", f"{run.run}: {run.games} games, {' '.join(run.opponents)}") for run in found.evaluations),
        *(
            ("deployment", f"{move.at:%Y-%m-%d %H:%M} UTC {move.action}: {move.before or 'none'} -> {move.after}")
            for move in found.moves
        ),
        *(("trained on", f"{one.label} ({one.stage})") for one in found.children),
        *(("same data", f"{one.label} ({one.stage})") for one in found.siblings),
    ]
    print("\n".join(plain(f"{name:<12}{text}") for name, text in pairs))
    return Exit.DONE


def export(args: argparse.Namespace, paths: Paths) -> int:
    """Copies a model's file, verified on both sides."""
    from backend.registry.deployment import check_source
    from backend.registry.files import copy_verified
    from backend.registry.store import find

    row = find(paths, args.model)
    target = Path(args.output)
    copy_verified(check_source(paths, row), target, row.sha256)
    print(f"{target}: {row.label}, SHA-256 {row.sha256}")
    return Exit.DONE


def verify_audit(args: argparse.Namespace, paths: Paths) -> int:
    """Checks the audit log, and that what events say of it is there."""
    from backend.registry.history import verify_audit as check

    count, head = asyncio.run(check(paths))
    if args.json:
        print(to_json({"entries": count, "hash": head}))
    else:
        print(f"{count} entries, as they were written; the last is {head[:16]}")
    return Exit.DONE


archive = change("backend.registry.archive:plan_archive")
promote = change("backend.registry.promotion:plan_promote")
reject = change("backend.registry.reject:plan_reject")
restore = change("backend.registry.archive:plan_restore")
rollback = change("backend.registry.rollback:plan_rollback")


async def _info(paths: Paths, model: str) -> ModelInfo:
    registry = await Registry.open(paths)
    return await registry.info(model)


def _lines(found: ModelInfo) -> list[str]:
    row = found.row
    data = row.metadata.get("data") or {}
    pairs = {
        "model": row.label,
        "config": row.config or "unknown",
        "stage": row.stage,
        "SHA-256": row.sha256,
        "file": f"{row.path}{'' if row.present else '  (missing)'}",
        "size": size_text(row.size),
        "registered": f"{row.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "architecture": row.architecture or "unknown",
        "parent": row.parent or "none",
        "data": f"{data.get('samples', '?')} samples, content {str(data.get('content_digest'))[:12]}"
        if data
        else "unknown",
        "tags": " ".join(found.tags) or "none",
    }
    pairs |= {name.replace("_", " "): _number(value) for name, value in found.metrics.items() if value is not None}
    lines = [f"{name:<16}{value}" for name, value in pairs.items()]
    for step in found.transitions:
        at = f"{step.at:%Y-%m-%d %H:%M} UTC" if step.at else "unknown time"
        lines.append(f"{'':<16}{at}  {step.before or '-'} -> {step.after or 'unknown'}  {step.reason or ''}".rstrip())
    return lines


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
