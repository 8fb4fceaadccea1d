"""``ringrift registry list | info | archive``."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from typing import Any

from backend.configs import parse_config
from backend.errors import Exit, UsageError
from backend.paths import Paths
from backend.registry.schema import STAGES
from backend.registry.store import ModelInfo, Registry
from backend.text import plain, size_text
from ringrift_console.verbs.common import table, to_json


def list_models(args: argparse.Namespace, paths: Paths) -> int:
    """Registered models, newest first."""
    if args.stage and args.stage.lower() not in STAGES:
        raise UsageError("unknown stage", where=args.stage, hint="one of " + " ".join(STAGES))
    key = parse_config(args.config).key if args.config else None
    rows = asyncio.run(_rows(paths))
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
                    row.stage if row.present else f"{row.stage} (file missing)",
                    row.config or "unknown",
                    row.sha256[:12],
                    size_text(row.size),
                    f"{row.created_at:%Y-%m-%d %H:%M} UTC",
                )
                for row in rows
            ],
        )
    )
    return Exit.DONE


async def _rows(paths: Paths) -> list[Any]:
    registry = await Registry.open(paths)
    return list(await registry.model_rows())


def info(args: argparse.Namespace, paths: Paths) -> int:
    """Everything known of one model."""
    found = asyncio.run(_info(paths, args.model))
    if args.json:
        print(to_json(dataclasses.asdict(found) | {"file": str(found.file), "label": found.row.label}))
        return Exit.DONE
    print("\n".join(map(plain, _lines(found))))
    return Exit.DONE


def archive(args: argparse.Namespace, paths: Paths) -> int:
    """Moves a model into the archive, through the supervisor."""
    from backend.registry.plans import plan_archive
    from ringrift_console.verbs.operations import carry_out

    return carry_out(args, paths, plan_archive(paths, model=args.model, reason=args.reason))


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
