"""What an operator does about monitoring: switch it, acknowledge an alarm, roll back from one."""

from __future__ import annotations

import asyncio
import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backend.errors import RefusedError, UsageError
from backend.monitoring.mode import Mode, mode_of
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.registry import audit
from backend.registry.alarms import acknowledge, find_alarm, rollback_command
from backend.registry.changes import Author, author_of, recorded
from backend.registry.outbox import publish
from backend.registry.rollback import plan_rollback
from backend.registry.schema import writing
from backend.snapshot import AlarmRow

if TYPE_CHECKING:
    from backend.state.store import StateStore

MODES = ("on", "off")
MOST_GAMES = 10_000
LEAST_GAMES = 4


async def plan_set(paths: Paths, *, mode: str, games_per_day: int | None = None) -> Plan:
    """What switching the monitor on or off will do.

    Raises:
        UsageError: no such mode, or a number of games that makes no sense.
        RefusedError: it is so already.
    """
    if mode not in MODES:
        raise UsageError("no such mode", where=mode, hint="on or off")
    if games_per_day is not None and not 0 <= games_per_day <= MOST_GAMES:
        raise UsageError(f"--games-per-day has to be within 0..{MOST_GAMES}", where=str(games_per_day))
    if games_per_day is not None and 0 < games_per_day < LEAST_GAMES:
        what = f"--games-per-day has to be 0 or at least {LEAST_GAMES}, one game from each seat of four"
        raise UsageError(what, where=str(games_per_day))
    now = await asyncio.to_thread(mode_of, paths)
    after = Mode(mode == "on", now.games_per_day if games_per_day is None else games_per_day)
    if (now.on, now.games_per_day) == (after.on, after.games_per_day):
        raise RefusedError("it is so already", where=f"monitor {now.text}")
    given = [] if games_per_day is None else ["--games-per-day", str(games_per_day)]
    steps = (
        "compare golden positions and deployed files of all production models every hour",
        "play background matches against Heuristic, as jobs of low priority",
        "raise an alarm with its cause and a recommended rollback; nothing is rolled back without you",
    )
    return Plan(
        action="monitor.set",
        title=f"Switch the monitor {mode}",
        params={"mode": mode, "games_per_day": after.games_per_day},
        changes=(Change("monitor", now.text, after.text),),
        steps=steps if after.on else ("start nothing any more; background jobs that run are finished",),
        command=shlex.join(["ringrift", "monitor", "set", mode, *given]),
        undo=f"ringrift monitor set {'on' if now.on else 'off'}",
    )


async def apply_set(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_set`; a second time changes nothing."""
    author = await author_of(store)
    done = await asyncio.to_thread(_set, paths, plan.params, author)
    await publish(paths, store)
    return done


def _set(paths: Paths, params: dict[str, Any], author: Author) -> dict[str, Any]:
    mode, games = str(params["mode"]), int(params["games_per_day"])
    with writing(paths.registry_db) as db:
        done = recorded(db, author.operation, "MONITOR_SET", "monitor")
        if done is not None:
            return done
        db.execute(
            "INSERT OR REPLACE INTO monitor_mode VALUES (1, ?, ?, ?, ?, ?)",
            (mode, games, author.by, author.at, author.operation),
        )
        told = {"mode": mode, "games_per_day": games, "by": author.by}
        at, by, operation = author.at, author.by, author.operation
        told["audit"] = audit.append(db, "MONITOR_SET", "monitor", told, at=at, by=by, operation=operation)
        db.execute(
            "INSERT INTO outbox (type, subject, payload, operation) VALUES (?,?,?,?)",
            ("MONITOR_SET", "monitor", json.dumps(told), operation),
        )
    return told


async def plan_ack(paths: Paths, *, alarm: str, reason: str | None = None) -> Plan:
    """What acknowledging an alarm will do.

    Raises:
        NotFoundError: there is no such alarm.
        RefusedError: it is not open.
    """
    found = await asyncio.to_thread(find_alarm, paths, alarm)
    _open(found)
    why = reason or "looked at it, the model stays"
    return Plan(
        action="monitor.ack",
        title=f"Acknowledge alarm {found.id} about {found.model}",
        params={"alarm": found.id, "reason": why},
        changes=(Change(f"alarm {found.id}", found.state, "acknowledged"),),
        steps=(
            "the model stays in production",
            "its chart starts anew" if found.cause in ("win rate", "crashes") else
            "the same fault is told again only after it was gone",
        ),
        command=shlex.join(["ringrift", "monitor", "ack", str(found.id), *(["--reason", reason] if reason else ())]),
        undo="it cannot be undone; a new fall raises a new alarm",
        warnings=(f"{found.cause}: {found.detail}",),
        guard={f"alarm {found.id}": found.state},
    )  # fmt: skip


async def apply_ack(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_ack`; a second time changes nothing."""
    author = await author_of(store)
    number, reason = int(plan.params["alarm"]), str(plan.params["reason"])
    done = await asyncio.to_thread(acknowledge, paths, number, reason, author)
    await publish(paths, store)
    return done


def _open(alarm: AlarmRow) -> None:
    if alarm.state != "open":
        what = f"it was acknowledged by {alarm.acked_by}: {alarm.ack_reason}"
        raise RefusedError(
            what if alarm.state == "acknowledged" else f"{alarm.model} is out of production",
            where=f"alarm {alarm.id}",
        )


async def plan_alarm_rollback(paths: Paths, *, alarm: str, to: str | None = None, reason: str | None = None) -> Plan:
    """The rollback that an alarm recommends, ready to be confirmed: config, target and reason are filled in.

    It is a plan of :func:`backend.registry.rollback.plan_rollback`, carried out as any other rollback.

    Raises:
        NotFoundError: there is no such alarm, or nothing sound to go back to.
        RefusedError: the alarm is about a model that is out of production.
        UnverifiedError: the file to go back to is not the one that was registered.
    """
    found = await asyncio.to_thread(find_alarm, paths, alarm)
    if found.state == "closed":
        _open(found)
    why = reason or f"alarm {found.id}, {found.cause}: {found.detail}"
    plan = await plan_rollback(paths, config=found.config, to=to, reason=why)
    given = [*(["--to", to] if to else ()), *(["--reason", reason] if reason else ())]
    gain = found.evidence.get("elo")
    told = () if not gain else (
        f"expected Elo {gain['now']:.0f} -> {gain['after']:.0f}, the gain is known to +-{gain['gain_se']:.0f}",
    )  # fmt: skip
    return replace(
        plan,
        params=plan.params | {"alarm": found.id},
        command=shlex.join([*shlex.split(rollback_command(found.id)), *given]),
        warnings=(f"{found.cause}: {found.detail}", *told, *plan.warnings),
    )


async def guard_alarm(paths: Paths, store: StateStore, name: str) -> str:
    """The state of an alarm, for the guard of a plan."""
    return (await asyncio.to_thread(find_alarm, paths, name)).state
