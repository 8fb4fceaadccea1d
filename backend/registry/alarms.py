"""Alarms about production models: raised once for a cause, with their event and audit entry in one transaction.

An alarm is *open* until somebody acknowledges it or its model is out of production, which a rollback does: nothing has
to be written for that, so an alarm can never stay open about a model that has gone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from backend.databases import tables
from backend.errors import NotFoundError, RefusedError
from backend.paths import Paths
from backend.registry import audit, pointers
from backend.registry.changes import Author
from backend.registry.schema import reading, writing
from backend.snapshot import AlarmRow, AlarmState

RAISED, ACKNOWLEDGED = "REGRESSION_DETECTED", "REGRESSION_ACKNOWLEDGED"
BY = "monitor"


def alarms(paths: Paths, *, config: str | None = None) -> tuple[AlarmRow, ...]:
    """All alarms, newest first.

    Raises:
        UnverifiedError, SchemaError, LockedError: the registry cannot be read.
    """
    with reading(paths.registry_db) as db:
        return () if db is None else read_alarms(db, config)


def read_alarms(db: sqlite3.Connection, config: str | None = None) -> tuple[AlarmRow, ...]:
    """:func:`alarms` on a connection."""
    if "alarms" not in tables(db):
        return ()
    rows = db.execute("SELECT * FROM alarms WHERE ?1 IS NULL OR config = ?1 ORDER BY id DESC", (config,)).fetchall()
    live = {row["config"]: pointers.current(db, row["config"]).sha256 for row in rows}
    return tuple(_alarm(row, live[row["config"]]) for row in rows)


def _alarm(row: sqlite3.Row, live: str | None) -> AlarmRow:
    state: AlarmState = "closed" if live != row["sha256"] else "acknowledged" if row["acked_at"] else "open"
    return AlarmRow(
        id=row["id"], config=row["config"], model=row["model"], sha256=row["sha256"], cause=row["cause"],
        detail=row["detail"], state=state, raised_at=datetime.fromisoformat(row["raised_at"]), target=row["target"],
        evidence=json.loads(row["evidence"]), acked_by=row["acked_by"] or "", ack_reason=row["ack_reason"] or "",
        acked_at=None if row["acked_at"] is None else datetime.fromisoformat(row["acked_at"]),
    )  # fmt: skip


def find_alarm(paths: Paths, text: str | int) -> AlarmRow:
    """The alarm of a number, ``3`` or ``a3``.

    Raises:
        NotFoundError: there is none.
    """
    name = str(text).removeprefix("a")
    found = next((one for one in alarms(paths) if str(one.id) == name), None)
    if found is None:
        raise NotFoundError("no such alarm", where=str(text), hint="ringrift monitor list shows all")
    return found


def raise_alarm(
    paths: Paths, pointer: pointers.Pointer, cause: str, detail: str, *, evidence: Mapping[str, Any],
    target: str | None, since: str | None = None,
) -> int | None:  # fmt: skip
    """Raises an alarm about the production model that ``pointer`` names.

    Args:
        since: an alarm of the same cause that was raised after this time (ISO) stands for this one too, even when it
            was acknowledged: a fault that goes on is told once.

    Returns:
        Its number; None when an alarm of that cause is there already, or the pointer has moved on.
    """
    assert pointer.label is not None and pointer.sha256 is not None
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    with writing(paths.registry_db) as db:
        if pointers.current(db, pointer.config).sha256 != pointer.sha256:
            return None
        there = db.execute(
            "SELECT 1 FROM alarms WHERE sha256 = ? AND cause = ? AND (acked_at IS NULL OR (?3 IS NOT NULL AND"
            " raised_at > ?3))",
            (pointer.sha256, cause, since),
        ).fetchone()
        if there is not None:
            return None
        cursor = db.execute(
            "INSERT INTO alarms (config, model, sha256, cause, detail, evidence, target, raised_at)"
            " VALUES (?,?,?,?,?,?,?,?)",
            (pointer.config, pointer.label, pointer.sha256, cause, detail, json.dumps(dict(evidence)), target, at),
        )
        number = int(cursor.lastrowid or 0)
        told = {
            "alarm": number, "model": pointer.label, "sha256": pointer.sha256, "config": pointer.config,
            "cause": cause, "reason": detail, "target": target, "evidence": dict(evidence),
            "command": rollback_command(number),
        }  # fmt: skip
        _tell(db, RAISED, pointer.label, told, Author(BY, f"alarm {number}", at))
    return number


def rollback_command(alarm: int) -> str:
    """The command that an alarm recommends."""
    return f"ringrift monitor rollback {alarm}"


def acknowledge(paths: Paths, alarm: int, reason: str, author: Author) -> dict[str, Any]:
    """Closes an open alarm by hand: it was looked at, and the model stays.

    Raises:
        NotFoundError: there is no such alarm.
        RefusedError: it is not open.
    """
    with writing(paths.registry_db) as db:
        row = db.execute("SELECT * FROM alarms WHERE id = ?", (alarm,)).fetchone()
        if row is None:
            raise NotFoundError("no such alarm", where=str(alarm), hint="ringrift monitor list shows all")
        told = {"alarm": alarm, "model": row["model"], "config": row["config"], "cause": row["cause"], "reason": reason}
        if row["ack_operation"] == author.operation:
            return told
        if row["acked_at"] is not None:
            raise RefusedError(f"it was acknowledged by {row['acked_by']}: {row['ack_reason']}", where=f"alarm {alarm}")
        db.execute(
            "UPDATE alarms SET acked_at = ?, acked_by = ?, ack_reason = ?, ack_operation = ? WHERE id = ?",
            (author.at, author.by, reason, author.operation, alarm),
        )
        return _tell(db, ACKNOWLEDGED, row["model"], told | {"by": author.by}, author)


def _tell(db: sqlite3.Connection, type: str, subject: str, told: dict[str, Any], author: Author) -> dict[str, Any]:
    """Writes the audit entry and the event to be published; returns the event's payload."""
    entry = audit.append(db, type, subject, told, at=author.at, by=author.by, operation=author.operation)
    told = told | {"audit": entry}
    db.execute(
        "INSERT INTO outbox (type, subject, payload, operation) VALUES (?,?,?,?)",
        (type, subject, json.dumps(told), author.operation),
    )
    return told
