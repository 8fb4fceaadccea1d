"""Is a model fit to be in production again: its file, its stage, and how its golden positions were last found."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from backend.databases import tables
from backend.errors import NotFoundError, RingRiftError
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.deployment import check_source
from backend.registry.schema import reading
from backend.registry.store import find
from backend.snapshot import ModelRow

FAULTS: frozenset[str] = frozenset({"missing", "changed", "unloadable", "drift"})
"""Outcomes of a golden check with which nobody should play (``backend.evaluation.golden.check``)."""


@dataclass(frozen=True, slots=True)
class Health:
    """A model that was in production before, and why it should not be again; ``why`` is empty when it may."""

    row: ModelRow
    why: str
    checked: bool  # its golden positions were compared once

    @property
    def sound(self) -> bool:
        return not self.why


def health(paths: Paths, row: ModelRow) -> Health:
    """How fit a model is; reads its whole file."""
    with reading(paths.registry_db) as db:
        last = None if db is None else last_check(db, row.sha256)
    if row.stage == "rejected":
        why = "it was rejected"
    else:
        try:
            check_source(paths, row)
            why = ""
        except RingRiftError as error:
            why = error.what
    if not why and last is not None and last["outcome"] in FAULTS - {"missing", "changed"}:
        why = str(last["detail"])
    return Health(row, why, last is not None)


def last_check(db: sqlite3.Connection, sha256: str) -> sqlite3.Row | None:
    """The row of a model's last golden check."""
    if "golden_checks" not in tables(db):
        return None
    row: sqlite3.Row | None = db.execute("SELECT * FROM golden_checks WHERE sha256 = ?", (sha256,)).fetchone()
    return row


def earlier_models(paths: Paths, config: str) -> tuple[ModelRow, ...]:
    """Models that a rollback of a config may go to, the last in production first."""
    with reading(paths.registry_db) as db:
        if db is None:
            return ()
        pointer, history = pointers.current(db, config), pointers.moves(db, config)
    if pointer.label is None:
        return ()
    found = []
    for label in pointers.earlier(history, pointer.label):
        try:
            found.append(find(paths, label))
        except NotFoundError:  # of a row that another program has removed
            continue
    return tuple(found)


def rollback_targets(paths: Paths, config: str) -> tuple[tuple[Health, ...], Health | None]:
    """The candidates for a rollback that come before the first sound one, and that one; None when none is sound."""
    unfit: list[Health] = []
    for row in earlier_models(paths, config):
        found = health(paths, row)
        if found.sound:
            return tuple(unfit), found
        unfit.append(found)
    return tuple(unfit), None
