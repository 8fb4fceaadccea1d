"""Which model of a config is in production: one pointer a config, moved by compare-and-swap, with all its moves.

The functions work inside a transaction of :func:`backend.registry.schema.writing`, or on a connection for reading.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.databases import tables
from backend.errors import LockedError
from backend.registry.rows import read_rows, time_of
from backend.snapshot import ModelRow


@dataclass(frozen=True, slots=True)
class Pointer:
    """The production model of a config.

    Attributes:
        label, sha256: None when the config has never had one.
        previous: label of the model that a rollback goes to; None when there is none.
        revision: counts the moves; 0 before the first one that this program made.
    """

    config: str
    label: str | None = None
    sha256: str | None = None
    previous: str | None = None
    revision: int = 0
    moved_by: str = ""
    moved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a pointer; ``action`` is ``promote`` or ``rollback``."""

    config: str
    revision: int
    action: str
    before: str | None
    after: str
    sha256: str
    reason: str
    by: str
    at: datetime
    operation: str


def current(db: sqlite3.Connection, config: str) -> Pointer:
    """The pointer as it is; one that this program never moved is told by the stage that the registry gives."""
    if "pointers" in tables(db):
        row = db.execute("SELECT * FROM pointers WHERE config = ?", (config,)).fetchone()
        if row is not None:
            return Pointer(
                config, row["label"], row["sha256"], row["previous"], row["revision"], row["moved_by"],
                time_of(row["moved_at"]),
            )  # fmt: skip
    found = in_production(db, config)
    return Pointer(config, found[0].label, found[0].sha256, moved_at=found[0].stage_since) if found else Pointer(config)


def in_production(db: sqlite3.Connection, config: str) -> tuple[ModelRow, ...]:
    """Models of a config whose stage says production, newest first; one, unless another program wrote them."""
    return tuple(row for row in read_rows(db, None, "WHERE v.stage = 'production'") if row.config == config)


def all_pointers(db: sqlite3.Connection) -> tuple[Pointer, ...]:
    """The pointers that this program has moved."""
    if "pointers" not in tables(db):
        return ()
    return tuple(current(db, row["config"]) for row in db.execute("SELECT config FROM pointers ORDER BY config"))


def moves(db: sqlite3.Connection, config: str | None = None) -> tuple[Move, ...]:
    """All moves of a config, or of all configs, oldest first."""
    if "pointer_moves" not in tables(db):
        return ()
    rows = db.execute("SELECT * FROM pointer_moves WHERE ?1 IS NULL OR config = ?1 ORDER BY seq", (config,)).fetchall()
    return tuple(
        Move(
            row["config"], row["revision"], row["action"], row["from_label"], row["to_label"], row["to_sha256"],
            row["reason"], row["by"], datetime.fromisoformat(row["at"]), row["operation"],
        )
        for row in rows
    )  # fmt: skip


def production_on(history: Sequence[Move], at: datetime) -> Move | None:
    """The move that made the model which was in production at that time; None before the first."""
    return next((move for move in reversed(history) if move.at <= at), None)


def previous_of(history: Sequence[Move], now: str) -> str | None:
    """The model that was last in production besides ``now`` and was not left behind by a rollback."""
    return next(iter(earlier(history, now)), None)


def earlier(history: Sequence[Move], now: str) -> tuple[str, ...]:
    """Models that were in production besides ``now`` and were not left behind by a rollback, the last one first."""
    regressed = left_behind(history)
    found = [move.after for move in reversed(history)]
    found += [history[0].before] if history and history[0].before else []  # what was there before our first move
    return tuple(label for label in dict.fromkeys(found) if label != now and label not in regressed)


def left_behind(history: Sequence[Move]) -> set[str]:
    """Models that a rollback has left behind as regressed, and that nobody has put back since.

    A rollback leaves behind everything that came after its target. One to a model that was left behind takes an earlier
    rollback back, so it leaves nothing behind; a model that is promoted again counts as sound.
    """
    regressed: set[str] = set()
    for n, move in enumerate(history):
        if move.action == "rollback" and move.after not in regressed:
            reached = max((k for k in range(n) if history[k].after == move.after), default=-1)
            regressed |= {one.after for one in history[reached + 1 : n]}
        regressed.discard(move.after)
    return regressed


def move(
    db: sqlite3.Connection, pointer: Pointer, label: str, sha256: str, *, action: str, reason: str, by: str, at: str,
    operation: str,
) -> Pointer:  # fmt: skip
    """Moves a pointer on from ``pointer``, as it was when the change was planned.

    Raises:
        LockedError: somebody else has moved it since; the message says who and where to.
    """
    now = current(db, pointer.config)
    if (now.revision, now.label) != (pointer.revision, pointer.label):
        raise LockedError(
            f"production of {pointer.config} has moved to {now.label or 'none'} (revision {now.revision}"
            f"{f', by {now.moved_by}' if now.moved_by else ''})",
            where=f"planned from revision {pointer.revision}",
            hint="plan it again",
        )
    revision = now.revision + 1
    db.execute(
        "INSERT INTO pointer_moves (config, revision, action, from_label, from_sha256, to_label, to_sha256, reason, by,"
        " at, operation) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (pointer.config, revision, action, now.label, now.sha256, label, sha256, reason, by, at, operation),
    )
    previous = previous_of(moves(db, pointer.config), label)
    db.execute(
        "INSERT INTO pointers (config, label, sha256, previous, revision, moved_by, moved_at) VALUES (?,?,?,?,?,?,?)"
        " ON CONFLICT (config) DO UPDATE SET label = excluded.label, sha256 = excluded.sha256,"
        " previous = excluded.previous, revision = excluded.revision, moved_by = excluded.moved_by,"
        " moved_at = excluded.moved_at",
        (pointer.config, label, sha256, previous, revision, by, at),
    )
    return current(db, pointer.config)
