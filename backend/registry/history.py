"""Looking back: what was in production when, who decided what on which evidence, two models side by side."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.databases import tables
from backend.errors import NotFoundError
from backend.evaluation.records import win_rates
from backend.paths import Paths
from backend.registry import audit, pointers
from backend.registry.schema import reading
from backend.registry.store import find
from backend.state.store import StateStore


@dataclass(frozen=True, slots=True)
class PastDecision:
    """One decision about a model; ``record`` is the table of criteria as it was stored."""

    at: datetime
    action: str
    model: str
    sha256: str
    before: str
    after: str
    outcome: str
    override: str | None
    reason: str
    by: str
    operation: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """The production pointer of a config with all its moves and decisions, oldest first."""

    config: str
    pointer: pointers.Pointer
    moves: tuple[pointers.Move, ...]
    decisions: tuple[PastDecision, ...]


def config_history(paths: Paths, config: str) -> History:
    """Everything that was decided about the models of a config."""
    with reading(paths.registry_db) as db:
        if db is None:
            return History(config, pointers.Pointer(config), (), ())
        rows = db.execute("SELECT * FROM decisions WHERE config = ? ORDER BY rowid", (config,)).fetchall() if (
            "decisions" in tables(db)
        ) else []  # fmt: skip
        return History(
            config, pointers.current(db, config), pointers.moves(db, config), tuple(_decision(row) for row in rows)
        )


def decisions_of(paths: Paths, sha256: str) -> tuple[PastDecision, ...]:
    """Everything that was decided about one model, oldest first."""
    with reading(paths.registry_db) as db:
        if db is None or "decisions" not in tables(db):
            return ()
        rows = db.execute("SELECT * FROM decisions WHERE sha256 = ? ORDER BY rowid", (sha256,)).fetchall()
    return tuple(_decision(row) for row in rows)


def _decision(row: Any) -> PastDecision:
    return PastDecision(
        datetime.fromisoformat(row["at"]), row["action"], row["model"], row["sha256"], row["from_stage"],
        row["to_stage"], row["outcome"], row["override"], row["reason"], row["by"], row["operation"],
        json.loads(row["record"]),
    )  # fmt: skip


def production_at(paths: Paths, config: str, at: datetime) -> pointers.Move | None:
    """The move that made the production model of a moment; None where there was none that we know of."""
    with reading(paths.registry_db) as db:
        return None if db is None else pointers.production_on(pointers.moves(db, config), at)


def compare(paths: Paths, first: str, second: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two models by the same names: stage, config, file, results against each opponent, what training measured.

    Raises:
        NotFoundError, UsageError: one of them is not there, or not one.
    """
    rows = find(paths, first), find(paths, second)
    rates = win_rates(paths)
    told: list[dict[str, Any]] = []
    for row in rows:
        own = {rate.opponent: rate for rate in rates.get(row.sha256, ())}
        values: dict[str, Any] = {
            "model": row.label, "stage": row.stage, "config": row.config, "sha256": row.sha256[:16],
            "size": row.size, "architecture": row.architecture, "parent": row.parent,
            "registered": f"{row.created_at:%Y-%m-%d %H:%M} UTC",
        }  # fmt: skip
        for opponent in sorted({rate.opponent for one in rows for rate in rates.get(one.sha256, ())}):
            rate = own.get(opponent)
            values[f"against {opponent}"] = f"{rate.wins}/{rate.games}" if rate else None
        measured = row.metadata.get("metrics")
        values |= {f"training {name}": value for name, value in (measured or {}).items()}
        told.append(values)
    names = list(dict.fromkeys([*told[0], *told[1]]))
    return {name: told[0].get(name) for name in names}, {name: told[1].get(name) for name in names}


async def verify_audit(paths: Paths) -> tuple[int, str]:
    """Checks the audit log of a root against itself and against the events in ``state.db``.

    Returns:
        How many entries it has, and the hash of the last.

    Raises:
        UnverifiedError: it is not what was written.
        NotFoundError: there is no registry.
    """
    known: list[str] = []
    if paths.state_db.exists():
        async with await StateStore.open(paths) as store:
            told = await store.events(after=0)
        known = [str(event.payload["audit"]) for event in told if "audit" in event.payload]
    return await asyncio.to_thread(_verify, paths, known)


def _verify(paths: Paths, known: list[str]) -> tuple[int, str]:
    with reading(paths.registry_db) as db:
        if db is None:
            raise NotFoundError("no model is registered yet", where=str(paths.registry_db))
        return audit.verify(audit.entries(db), known)
