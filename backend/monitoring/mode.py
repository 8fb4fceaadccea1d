"""Whether a root is monitored, and with how many games a day: one row, off until somebody switches it on."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from backend.databases import tables
from backend.paths import Paths
from backend.registry.schema import reading

GAMES_PER_DAY = 96
"""Background games a config and day, unless said otherwise: a fall by ten points is found in two or three days."""


@dataclass(frozen=True, slots=True)
class Mode:
    """The mode in force; ``games_per_day`` is for each config that has a production model."""

    on: bool = False
    games_per_day: int = GAMES_PER_DAY
    by: str = ""
    at: str = ""

    @property
    def text(self) -> str:
        return f"on, {self.games_per_day} games a day and config" if self.on else "off"


def mode_of(paths: Paths) -> Mode:
    """The mode of a root.

    Raises:
        UnverifiedError, SchemaError, LockedError: the registry cannot be read.
    """
    with reading(paths.registry_db) as db:
        return Mode() if db is None else read_mode(db)


def read_mode(db: sqlite3.Connection) -> Mode:
    """:func:`mode_of` on a connection."""
    row = db.execute("SELECT * FROM monitor_mode").fetchone() if "monitor_mode" in tables(db) else None
    return Mode() if row is None else Mode(row["mode"] == "on", row["games_per_day"], row["by"], row["at"])
