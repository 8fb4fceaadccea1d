"""Changes of the registry, inside one transaction: a stage with its transitions, the decision, the audit, the event.

What belongs together is stored together or not at all; nothing here opens, commits or touches a file.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backend.databases import tables
from backend.errors import LockedError, NotFoundError, RefusedError
from backend.registry import audit
from backend.registry.rows import read_rows
from backend.registry.stages import hops
from backend.snapshot import ModelRow

if TYPE_CHECKING:
    from backend.state.store import StateStore


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, under which operation, and when (ISO, UTC)."""

    by: str
    operation: str
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))


async def author_of(store: StateStore) -> Author:
    """Whoever confirmed the operation that the store is bound to."""
    return Author(await store.operator(), await store.lasting_operation())


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a model was moved: what was asked, what the evidence said, and what was done against it.

    Attributes:
        outcome: of the criteria, e.g. ``PASS``; ``""`` where none apply.
        override: the reason of the person who acted against the outcome; None when nobody did.
        record: the criteria with their evidence and the thresholds in force, as JSON values.
    """

    action: str
    reason: str
    outcome: str = ""
    override: str | None = None
    record: dict[str, Any] = field(default_factory=dict)


def row_of(db: sqlite3.Connection, label: str) -> ModelRow:
    """A model by its label.

    Raises:
        NotFoundError: there is none.
    """
    model_id, _, version = label.rpartition(":v")
    found = read_rows(db, None, "WHERE v.model_id = ? AND v.version = ?", (model_id, int(version)))
    if not found:
        raise NotFoundError("no such model", where=label)
    return found[0]


def refuse_foreign(row: ModelRow) -> None:
    """Says no to a change of a model that is another installation's.

    Raises:
        RefusedError: it was not adopted.
    """
    if row.foreign:
        raise RefusedError(
            "it belongs to another installation and is only read", where=row.label, hint="ringrift adopt takes it in"
        )


def expect(row: ModelRow, sha256: str, stage: str) -> None:
    """Refuses to go on when a model is not as it was planned with.

    Raises:
        RefusedError: it is another installation's.
        LockedError: its stage or its file has changed.
    """
    refuse_foreign(row)
    if row.stage != stage or row.sha256 != sha256:
        what = f"the model is {row.stage} now, not {stage}" if row.stage != stage else "the label means another file"
        raise LockedError(what, where=row.label, hint="plan it again")


def set_stage(db: sqlite3.Connection, row: ModelRow, after: str, reason: str, author: Author) -> None:
    """Moves a model to a stage by legal steps, each with its transition."""
    key = (row.model_id, row.version)
    for before, there in hops(row.stage, after):
        db.execute(
            "INSERT INTO stage_transitions (model_id, version, from_stage, to_stage, reason, transitioned_by,"
            " transitioned_at) VALUES (?,?,?,?,?,?,?)",
            (*key, before, there, reason, author.by, author.at),
        )
    db.execute(
        "UPDATE versions SET stage = ?, updated_at = ? WHERE model_id = ? AND version = ?", (after, author.at, *key)
    )


def set_path(db: sqlite3.Connection, row: ModelRow, stored: str) -> None:
    """Notes where a model's file lies."""
    key = (row.model_id, row.version)
    db.execute("UPDATE versions SET file_path = ? WHERE model_id = ? AND version = ?", (stored, *key))
    db.execute("UPDATE artifacts SET path = ? WHERE model_id = ? AND version = ?", (stored, *key))


def record(
    db: sqlite3.Connection, row: ModelRow, after: str, decision: Decision, author: Author, event: str,
    payload: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Stores decision, audit entry and the event to be published; returns the event's payload."""
    db.execute(
        "INSERT INTO decisions (operation, at, by, action, config, model, sha256, from_stage, to_stage, outcome,"
        " override, reason, record) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            author.operation, author.at, author.by, decision.action, row.config, row.label, row.sha256, row.stage,
            after, decision.outcome, decision.override, decision.reason, json.dumps(decision.record, sort_keys=True),
        ),
    )  # fmt: skip
    told = {
        "model": row.label, "sha256": row.sha256, "config": row.config, "from": row.stage, "to": after,
        "reason": decision.reason, "by": author.by, **payload,
    }  # fmt: skip
    told |= {"override": decision.override} if decision.override else {}
    logged = told | {"decision": {"outcome": decision.outcome, "record": decision.record}}
    told["audit"] = audit.append(db, event, row.label, logged, at=author.at, by=author.by, operation=author.operation)
    db.execute(
        "INSERT INTO outbox (type, subject, payload, operation) VALUES (?,?,?,?)",
        (event, row.label, json.dumps(told), author.operation),
    )
    return told


def recorded(db: sqlite3.Connection, operation: str, event: str, subject: str) -> dict[str, Any] | None:
    """The event's payload of an operation that was committed before, or None.

    Raises:
        RefusedError: what was committed under that name is something else.
    """
    if "outbox" not in tables(db):
        return None
    row = db.execute("SELECT type, subject, payload FROM outbox WHERE operation = ?", (operation,)).fetchone()
    if row is None:
        return None
    if (row["type"], row["subject"]) != (event, subject):
        raise RefusedError(
            f"the registry knows an operation {operation} that did something else: {row['type']} {row['subject']}",
            where=f"{event} {subject}", hint="nothing was changed; ask for it again",
        )  # fmt: skip
    return dict(json.loads(row["payload"]))
