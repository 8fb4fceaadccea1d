"""``ringrift monitor``."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from typing import Any

from backend.configs import parse_config
from backend.errors import Exit
from backend.paths import Paths
from backend.registry.alarms import alarms, find_alarm, rollback_command
from backend.snapshot import AlarmRow
from backend.text import plain
from ringrift_console.verbs.common import change, table, to_json


def list_alarms(args: argparse.Namespace, paths: Paths) -> int:
    """Open alarms, or all of them."""
    config = parse_config(args.config).key if args.config else None
    rows = [row for row in alarms(paths, config=config) if args.all or row.state == "open"]
    if args.json:
        print(to_json([dataclasses.asdict(row) for row in rows]))
    elif not rows:
        print("no alarms" if args.all else "no alarm is open", file=sys.stderr)
    else:
        heads = ("ALARM", "STATE", "RAISED", "MODEL", "CAUSE", "GO BACK TO", "DETAIL")
        print(table(heads, [_cells(row) for row in rows]))
    return Exit.DONE


def _cells(row: AlarmRow) -> tuple[str, ...]:
    at = f"{row.raised_at:%Y-%m-%d %H:%M} UTC"
    return str(row.id), row.state, at, row.model, row.cause, row.target or "nothing sound", row.detail


def show(args: argparse.Namespace, paths: Paths) -> int:
    """One alarm."""
    row = find_alarm(paths, args.alarm)
    if args.json:
        print(to_json(dataclasses.asdict(row) | {"command": rollback_command(row.id)}))
        return Exit.DONE
    pairs = {
        "alarm": str(row.id), "state": row.state, "model": row.model, "config": row.config, "SHA-256": row.sha256,
        "cause": row.cause, "detail": row.detail, "raised": f"{row.raised_at:%Y-%m-%d %H:%M:%S} UTC",
        "go back to": row.target or "nothing sound", "with": rollback_command(row.id),
    }  # fmt: skip
    elo = row.evidence.get("elo")
    if elo:
        pairs["expected Elo"] = f"{elo['now']:.0f} -> {elo['after']:.0f}, the gain is known to +-{elo['gain_se']:.0f}"
    if row.acked_at is not None:
        pairs["acknowledged"] = f"{row.acked_at:%Y-%m-%d %H:%M} UTC by {row.acked_by}: {row.ack_reason}"
    print("\n".join(plain(f"{name:<14}{value}") for name, value in pairs.items()))
    return Exit.DONE


def status(args: argparse.Namespace, paths: Paths) -> int:
    """The mode, and what is known of every production model."""
    from backend.monitoring.overview import watch_rows

    mode, rows = watch_rows(paths)
    if args.json:
        print(to_json({"mode": dataclasses.asdict(mode), "configs": [dataclasses.asdict(row) for row in rows]}))
        return Exit.DONE
    print(f"the monitor is {mode.text}")
    if rows:
        heads = ("CONFIG", "PRODUCTION", "LAST LOOK", "GOLDEN", "GAMES", "WON", "CHART", "ALARMS")
        print(table(heads, [(*row.cells(), str(row.alarms) if row.alarms else "-") for row in rows]))
    return Exit.DONE


def _watched(args: argparse.Namespace, paths: Paths) -> list[str]:
    """The config that is named, else all with a production model of ours; what is left out of them is told."""
    from backend.monitoring.overview import in_production

    if args.config:
        return [parse_config(args.config).key]
    live = in_production(paths)
    own = [key for key, row in live.items() if not row.foreign]
    for key, row in live.items():
        if own and row.foreign:
            told = f"{key}: {row.label} is another installation's and is not watched (ringrift adopt takes it in)"
            print(plain(told), file=sys.stderr)
    return own or list(live)  # where all are foreign, the first look says so


def golden(args: argparse.Namespace, paths: Paths) -> int:
    """Golden checks of the models that are named, else of those in production and of their rollback targets."""
    from backend.evaluation.golden.check import SOUND, check_model
    from backend.monitoring.check import check_golden
    from backend.registry.store import find

    named = args.model or ()
    keys = _watched(args, paths) if args.config or not named else []
    if named:
        found = [check_model(paths, find(paths, name)) for name in named]
    else:
        found = [one for key in keys for one in check_golden(paths, key)]
    if args.json:
        print(to_json([dataclasses.asdict(one) for one in found]))
    elif not found:
        print("nothing is in production", file=sys.stderr)
    else:
        rows = [(one.model, one.outcome, "-" if one.drift is None else f"{one.drift:.1g}", one.detail) for one in found]
        print(table(("MODEL", "OUTCOME", "DRIFT", "DETAIL"), rows))
    good = all(one.outcome in SOUND or one.outcome == "unsupported" for one in found)
    return Exit.DONE if good else Exit.UNVERIFIED


def check(args: argparse.Namespace, paths: Paths) -> int:
    """One look at every production model; exit code 7 while an alarm is open about one of them."""
    from backend.monitoring.check import look

    keys = _watched(args, paths)
    found = [look(paths, key) for key in keys]
    asyncio.run(_publish(paths))
    open_now = [row for row in alarms(paths) if row.state == "open" and row.config in keys]
    if args.json:
        print(to_json({"looked": [dataclasses.asdict(one) for one in found], "open": [row.id for row in open_now]}))
    elif not any(one.model for one in found):
        print("nothing is in production", file=sys.stderr)
    else:
        for one in found:
            print(plain(f"{one.config}: {one.model}, {'; '.join(_told(one))}") if one.model else f"{one.config}: none")
        for row in open_now:
            print(plain(f"alarm {row.id}, {row.cause}: {row.detail} ({rollback_command(row.id)})"), file=sys.stderr)
    return Exit.UNVERIFIED if open_now else Exit.DONE


def _told(one: Any) -> list[str]:
    chart = one.chart
    told = [one.golden[0].detail, *([one.serving] if one.serving else ())]
    if chart is not None:
        total = "the first games are its baseline" if chart.h is None else f"chart {chart.total:.1f} of {chart.h:.1f}"
        told.append(f"{chart.wins} of {chart.games} background games won, {total}")
    return told


async def _publish(paths: Paths) -> None:
    """Brings events of new alarms into state.db."""
    from backend.registry.outbox import pending, publish
    from backend.state.store import StateStore

    if await asyncio.to_thread(pending, paths):
        async with await StateStore.open(paths) as store:
            await publish(paths, store)


ack = change("backend.monitoring.plans:plan_ack")
rollback = change("backend.monitoring.plans:plan_alarm_rollback")
set_mode = change("backend.monitoring.plans:plan_set")
