"""``ringrift policies`` and ``ringrift registry archive-policy``: what is done without being asked."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from backend.configs import parse_config
from backend.errors import Exit
from backend.paths import Paths
from ringrift_console.verbs.common import table, to_json

if TYPE_CHECKING:
    from backend.registry.archival import Ruled


def list_policies(args: argparse.Namespace, paths: Paths) -> int:
    """Every policy with its mode, who set it, and why."""
    from backend.registry.policies import read_policies

    rows = read_policies(paths).rows
    if args.json:
        print(to_json([asdict(row) for row in rows]))
        return Exit.DONE
    print(
        table(
            ("POLICY", "WHERE", "MODE", "SET BY", "AT", "REASON"),
            [
                (
                    row.name, row.config or "all configs", row.mode, row.by or "nobody",
                    f"{row.at:%Y-%m-%d %H:%M} UTC" if row.at else "-", row.reason or "-",
                )
                for row in rows
            ],
        )
    )  # fmt: skip
    return Exit.DONE


def set_policy(args: argparse.Namespace, paths: Paths) -> int:
    """Switches a policy."""
    from backend.registry.policies import plan_set
    from ringrift_console.verbs.operations import carry_out

    plan = plan_set(paths, name=args.name, mode=args.mode, config=args.config, reason=args.reason)
    return carry_out(args, paths, plan)


def archive_policy(args: argparse.Namespace, paths: Paths) -> int:
    """The rulings on all models; with ``--apply`` they are carried out."""
    from backend.registry.archival import plan_of, rulings, summary

    configs = [parse_config(args.config).key] if args.config else None
    ruled = asyncio.run(rulings(paths, configs))
    due = [one for one in ruled if one.acts]
    if args.apply and not args.dry_run and due:
        from ringrift_console.verbs.operations import carry_out

        async def plan() -> Any:
            return plan_of(paths, ruled, configs)

        return carry_out(args, paths, plan())
    shown = ruled if args.all else due
    if args.json:
        print(to_json({"due": len(due), "kept": len(ruled) - len(due), "models": [_told(one) for one in shown]}))
        return Exit.DONE
    if shown:
        print(table(("MODEL", "RULING", "REASON", "FOLDER"), [_cells(one) for one in shown]))
    counted = ", ".join(f"{count} {what}" for what, count in summary(ruled).items()) or "nothing to archive"
    sys.stderr.write(f"{len(ruled)} models: {counted}, {len(ruled) - len(due)} kept\n")
    if due:
        sys.stderr.write("nothing was changed; --apply does it\n")
    return Exit.DONE


def _told(one: Ruled) -> dict[str, Any]:
    standing = one.known.standing
    return asdict(one.ruling) | {
        "sha256": one.known.row.sha256, "stage": one.known.row.stage, "path": one.known.row.path,
        "rating": standing.to_json() if standing else None,
    }  # fmt: skip


def _cells(one: Ruled) -> tuple[str, ...]:
    ruling = one.ruling
    return ruling.label, ruling.action, ruling.reason, ruling.folder or "-"
