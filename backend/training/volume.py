"""How much data each config has: cheap enough to ask several times a second, and safe while games are being written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.configs import Config
from backend.databases import columns, open_reader, sqlite_errors
from backend.errors import NotFoundError, RingRiftError
from backend.paths import Paths
from backend.snapshot import DataStatus
from backend.thresholds import thresholds


@dataclass(frozen=True, slots=True)
class Volume:
    """Games with a winner in a config's database.

    Attributes:
        games: how many; None when that cannot be known, and then ``note`` says why.
        status: ``empty``, ``scaling``, ``ready`` (enough to train on) or ``unknown``.
    """

    games: int | None
    status: DataStatus
    note: str = ""


def data_status(games: int | None, ready_games: int) -> DataStatus:
    """The status of a count of games, e.g. ``ready`` from ``ready_games`` on."""
    if games is None:
        return "unknown"
    if games == 0:
        return "empty"
    return "ready" if games >= ready_games else "scaling"


def volume(paths: Paths, config: Config) -> Volume:
    """The volume of ``config`` under a root; never raises for a file that cannot be read, but says so."""
    try:
        games = count_games(paths.games_db(config))
    except NotFoundError:
        games = 0
    except RingRiftError as error:
        return Volume(None, "unknown", error.what)
    return Volume(games, data_status(games, thresholds(config).ready_games))


def count_games(path: Path) -> int:
    """Games with a winner in a games database, ours or the reference installation's.

    Raises:
        NotFoundError, UnverifiedError, LockedError, ResourceError: it cannot be read.
        RingRiftError: it holds no games table.
    """
    connection = open_reader(path, timeout_s=0.2)
    try:
        with sqlite_errors(path):
            if "winner" not in columns(connection, "games"):
                raise RingRiftError("not a games database", where=str(path))
            return int(connection.execute("SELECT count(*) FROM games WHERE winner > 0").fetchone()[0])
    finally:
        connection.close()


def count_between(path: Path, seed: int, first: int, last: int) -> int:
    """Games with a winner of a run's indices ``first`` up to, not including, ``last``; 0 without a database.

    Raises:
        UnverifiedError, LockedError, ResourceError: it cannot be read.
    """
    found = _ask_slots(
        path,
        "SELECT count(DISTINCT g.game_id) FROM game_slots s JOIN games g ON g.game_id = s.game_id "
        "WHERE s.seed = ? AND s.slot >= ? AND s.slot < ? AND g.winner > 0",
        (seed, first, last),
    )
    return found or 0


def highest_index(path: Path, seed: int) -> int | None:
    """The highest index that was played of a seed; None when there is none.

    Raises:
        UnverifiedError, LockedError, ResourceError: the database cannot be read.
    """
    return _ask_slots(path, "SELECT max(slot) FROM game_slots WHERE seed = ?", (seed,))


def _ask_slots(path: Path, sql: str, values: tuple[int, ...]) -> int | None:
    if not path.exists():
        return None
    connection = open_reader(path)
    try:
        with sqlite_errors(path):
            if not columns(connection, "game_slots"):
                return None
            value = connection.execute(sql, values).fetchone()[0]
    finally:
        connection.close()
    return None if value is None else int(value)
