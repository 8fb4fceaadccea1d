"""Where a model comes from and where it went: data, run, model, evaluation, deployment, read both ways."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.databases import open_reader, sqlite_errors, tables
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.rows import read_rows
from backend.registry.schema import reading
from backend.registry.store import find
from backend.snapshot import ModelRow

ANCESTORS = 6
RUNS = 20


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """A run in which a model played: its id, when it began, how many games it has, and against whom."""

    run: str
    at: datetime | None
    games: int
    opponents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """Everything that led to a model and everything that followed from it.

    Attributes:
        data: what is known of the dataset; ``digest`` is of its content.
        run: the job that trained it, None when nobody said.
        source: who registered it, e.g. ``training``.
        ancestors: parent, grandparent, ...; the last may be a SHA-256 that is not registered.
        siblings: other models of the same data. children: models that were trained on from this one.
        evaluations: oldest first.
        moves: when it came into production, and when it left.
        previous: whether a rollback would go to it.
    """

    model: ModelRow
    digest: str | None
    data: dict[str, Any]
    run: str | None
    source: str | None
    ancestors: tuple[ModelRow | str, ...]
    siblings: tuple[ModelRow, ...]
    children: tuple[ModelRow, ...]
    evaluations: tuple[EvaluationRun, ...]
    moves: tuple[pointers.Move, ...]
    previous: bool


def lineage(paths: Paths, model: str) -> Lineage:
    """The lineage of a model.

    Raises:
        NotFoundError, UsageError: it is not there, or not one.
        UnverifiedError, LockedError: the registry or the match records cannot be read.
    """
    row = find(paths, model)
    with reading(paths.registry_db) as db:
        assert db is not None
        ours = "artifacts" in tables(db)
        digest = _digest(db, row) if ours else None
        ancestors = _ancestors(db, row)
        children = read_rows(db, paths, "WHERE a.parent_sha256 = ?", (row.sha256,)) if ours else ()
        siblings = read_rows(db, paths, "WHERE a.data_digest = ? AND a.sha256 != ?", (digest, row.sha256)) if (
            digest
        ) else ()  # fmt: skip
        moved = pointers.moves(db, row.config) if row.config else ()
        pointer = pointers.current(db, row.config) if row.config else None
        first = db.execute(
            "SELECT transitioned_by FROM stage_transitions WHERE model_id = ? AND version = ? ORDER BY id LIMIT 1",
            (row.model_id, row.version),
        ).fetchone() if "stage_transitions" in tables(db) else None  # fmt: skip
    data = row.metadata.get("data")
    run = row.metadata.get("run") or row.metadata.get("job")
    return Lineage(
        model=row,
        digest=digest,
        data=data if isinstance(data, dict) else {},
        run=str(run) if run else None,
        source=first[0] if first else None,
        ancestors=ancestors,
        siblings=siblings,
        children=children,
        evaluations=evaluations(paths, row.sha256),
        moves=tuple(move for move in moved if row.label in (move.before, move.after)),
        previous=pointer is not None and pointer.previous == row.label,
    )


def _digest(db: sqlite3.Connection, row: ModelRow) -> str | None:
    found = db.execute("SELECT data_digest FROM artifacts WHERE sha256 = ?", (row.sha256,)).fetchone()
    return str(found[0]) if found and found[0] else None


def _ancestors(db: sqlite3.Connection, row: ModelRow) -> tuple[ModelRow | str, ...]:
    found: list[ModelRow | str] = []
    seen, parent = {row.sha256}, row.parent
    while parent and parent not in seen and len(found) < ANCESTORS:
        seen.add(parent)
        rows = read_rows(db, None, "WHERE v.file_hash = ?", (parent,))
        found.append(rows[0] if rows else parent)
        parent = rows[0].parent if rows else None
    return tuple(found)


def evaluations(paths: Paths, sha256: str) -> tuple[EvaluationRun, ...]:
    """The newest runs in which a model was a candidate, oldest first; none without match records."""
    path = paths.elo_db
    if not path.exists():
        return ()
    with closing(open_reader(path)) as db, sqlite_errors(path):
        if not {"match_runs", "match_slots"} <= tables(db):
            return ()
        rows = db.execute(
            "SELECT run_id, spec, started_at FROM match_runs WHERE spec LIKE ? ORDER BY started_at DESC LIMIT ?",
            (f"%{sha256}%", RUNS),
        ).fetchall()
        return tuple(
            EvaluationRun(
                str(run), _time(at),
                int(db.execute("SELECT count(*) FROM match_slots WHERE run_id = ?", (run,)).fetchone()[0]),
                _opponents(spec),
            )
            for run, spec, at in reversed(rows)
        )  # fmt: skip


def _opponents(text: str) -> tuple[str, ...]:
    try:
        named = json.loads(text).get("opponents") or ()
    except (ValueError, AttributeError):
        return ()
    return tuple(str(one) for one in named) if isinstance(named, list) else ()


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, TypeError):
        return None
