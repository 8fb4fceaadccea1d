"""The transactions that move models between stages; the one that moves the production pointer is the heart of it.

Each is one IMMEDIATE transaction that compares what it was planned from with what is there, and may be repeated under
the same operation: the second time changes nothing and returns the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.errors import RefusedError
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.changes import Author, Decision, expect, record, recorded, row_of, set_path, set_stage
from backend.registry.rows import read_rows
from backend.registry.schema import reading, writing
from backend.registry.stages import PROTECTED

EVENTS = {
    "staging": "MODEL_STAGED", "rejected": "MODEL_REJECTED", "archived": "MODEL_ARCHIVED",
    "development": "MODEL_RESTORED",
}  # fmt: skip
PROMOTED, ROLLED_BACK = "MODEL_PROMOTED", "MODEL_ROLLED_BACK"


@dataclass(frozen=True, slots=True)
class Planned:
    """A model as it was when a change was planned."""

    label: str
    sha256: str
    stage: str


@dataclass(frozen=True, slots=True)
class Ground:
    """The production pointer as it was when a change was planned."""

    config: str
    label: str | None
    revision: int


def was_done(paths: Paths, author: Author, event: str, label: str) -> dict[str, Any] | None:
    """What an operation did to a model in an earlier run, or None.

    Raises:
        RefusedError: it did something else.
    """
    with reading(paths.registry_db) as db:
        return None if db is None else recorded(db, author.operation, event, label)


def change_stage(
    paths: Paths, model: Planned, after: str, decision: Decision, author: Author, *, stored: str | None = None
) -> dict[str, Any]:
    """Moves a model to any stage but production.

    Args:
        stored: where its file lies from now on, when that changes with the stage.

    Raises:
        LockedError: the model is not as planned, or the registry is held by another program.
        RefusedError: it is the production model of its config; only another one can take its place.
    """
    with writing(paths.registry_db) as db:
        done = recorded(db, author.operation, EVENTS[after], model.label)
        if done is not None:
            return done
        row = row_of(db, model.label)
        expect(row, model.sha256, model.stage)
        if row.config is not None and pointers.current(db, row.config).label == row.label:
            raise RefusedError(
                f"it is the production model of {row.config}", where=row.label, hint="promote or roll back first"
            )
        set_stage(db, row, after, decision.reason, author)
        if stored is not None:
            set_path(db, row, stored)
        payload = {"path": stored or row.path}
        return record(db, row, after, decision, author, EVENTS[after], payload)


def switch(
    paths: Paths, ground: Ground, model: Planned, decision: Decision, author: Author, *, left: str
) -> dict[str, Any]:
    """Makes a model the production model of its config, and archives the one that was.

    The file of the archived one stays where it is: it is what a rollback needs.

    Args:
        left: why the other one is archived.

    Raises:
        LockedError: the pointer or the model has moved since the plan was made.
        RefusedError: it is in production already.
    """
    event = ROLLED_BACK if decision.action == "rollback" else PROMOTED
    with writing(paths.registry_db) as db:
        done = recorded(db, author.operation, event, model.label)
        if done is not None:
            return done
        pointer = pointers.Pointer(ground.config, ground.label, revision=ground.revision)
        if pointer.label == model.label:
            raise RefusedError("it is in production already", where=model.label)
        row = row_of(db, model.label)
        moved = pointers.move(
            db, pointer, row.label, row.sha256,
            action=decision.action, reason=decision.reason, by=author.by, at=author.at, operation=author.operation,
        )  # fmt: skip
        expect(row, model.sha256, model.stage)
        others = [other for other in pointers.in_production(db, ground.config) if other.label != row.label]
        for other in others:
            set_stage(db, other, "archived", left, author)
        set_stage(db, row, "production", decision.reason, author)
        payload = {"path": row.path, "revision": moved.revision, "previous": moved.previous, "replaced": ground.label}
        return record(db, row, "production", decision, author, event, payload)


def protected(paths: Paths) -> dict[str, str]:
    """Labels that neither policy nor hand may archive or move, each with the reason."""
    found: dict[str, str] = {}
    with reading(paths.registry_db) as db:
        if db is None:
            return found
        for row in read_rows(db, None, f"WHERE v.stage IN ({', '.join('?' * len(PROTECTED))})", PROTECTED):
            found[row.label] = f"it is in {row.stage}"
        for pointer in pointers.all_pointers(db):
            if pointer.previous:
                found.setdefault(pointer.previous, f"a rollback of {pointer.config} goes to it")
    return found
