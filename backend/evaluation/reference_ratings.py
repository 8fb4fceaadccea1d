"""The reference installation's table ``elo_ratings``: read where it is theirs, filled where it is ours.

Ours has one column more (``fit_seq``), by which it is known; a table without it is never written to.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from backend.configs import parse_config
from backend.databases import columns, open_reader, sqlite_errors
from backend.evaluation.rated_games import RatedGames
from backend.evaluation.ratings import Ratings
from backend.evaluation.ratings_choices import Ints
from backend.paths import Paths

_OURS = "fit_seq"
_TABLE = f"""CREATE TABLE elo_ratings (
    participant_id TEXT NOT NULL, board_type TEXT NOT NULL, num_players INTEGER NOT NULL, rating REAL DEFAULT 1500,
    games_played INTEGER DEFAULT 0, wins INTEGER DEFAULT 0, losses INTEGER DEFAULT 0, draws INTEGER DEFAULT 0,
    rating_deviation REAL DEFAULT 350, peak_rating REAL, last_update REAL, harness_type TEXT, simulation_count INTEGER,
    archived_at REAL, archive_reason TEXT, {_OURS} INTEGER, PRIMARY KEY (participant_id, board_type, num_players))"""


@dataclass(frozen=True, slots=True)
class StoredRating:
    """A rating that the reference's own software wrote: incremental, on its own scale (Heuristic at 1200)."""

    participant: str
    rating: float
    games: int


def stored_ratings(paths: Paths, config: str) -> list[StoredRating]:
    """What a foreign ``elo_ratings`` says of a config, best first; empty when there is none, or it is ours.

    Raises:
        UnverifiedError, LockedError, ResourceError: the database cannot be read.
    """
    if not paths.elo_db.exists():
        return []
    made = parse_config(config)
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        there = columns(db, "elo_ratings")
        if _OURS in there or not {"participant_id", "board_type", "num_players", "rating"} <= there.keys():
            return []
        games = "games_played" if "games_played" in there else "0"
        rows = db.execute(
            f"SELECT participant_id, rating, {games} FROM elo_ratings WHERE board_type = ? AND num_players = ? "
            "AND rating IS NOT NULL ORDER BY rating DESC, participant_id",
            (made.board, made.players),
        ).fetchall()
    return [StoredRating(str(who), float(rating), int(count or 0)) for who, rating, count in rows]


def fill_reference(db: sqlite3.Connection, games: RatedGames, kept: Ints, found: Ratings) -> None:
    """Writes a config's ratings into ``elo_ratings`` if the table is absent or ours; rated players only."""
    there = columns(db, "elo_ratings")
    if not there:
        db.execute(_TABLE)
    elif _OURS not in there:
        return
    made = parse_config(games.config)
    identity = dict(zip(games.players, games.identities, strict=True))
    index = {player: number for number, player in enumerate(games.players)}
    for number, player in enumerate(found.players):
        wins, losses, draws = _results(games, kept, index[player])
        elo = float(found.elo[number])
        db.execute(
            "INSERT INTO elo_ratings (participant_id, board_type, num_players, rating, games_played, wins, losses, "
            f"draws, rating_deviation, peak_rating, last_update, harness_type, {_OURS}) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (participant_id, board_type, num_players) "
            "DO UPDATE SET rating = excluded.rating, games_played = excluded.games_played, wins = excluded.wins, "
            "losses = excluded.losses, draws = excluded.draws, rating_deviation = excluded.rating_deviation, "
            "peak_rating = max(peak_rating, excluded.rating), last_update = excluded.last_update, "
            f"{_OURS} = excluded.{_OURS}",
            (
                identity[player], made.board, made.players, elo, int(found.games[number]), wins, losses, draws,
                float(found.se[number]), elo, time.time(), identity[player].split(":")[0], games.last,
            ),
        )  # fmt: skip


def _results(games: RatedGames, kept: Ints, player: int) -> tuple[int, int, int]:
    """Games won, lost and tied at the top; a game against copies of itself is lost unless a copy won, then won."""
    seats, ranks = games.seats[kept], games.ranks[kept]
    rows = (seats == player).any(1)
    seats, ranks = seats[rows], ranks[rows]
    best = np.where(seats == player, ranks, np.iinfo(np.int64).max).min(1) == ranks.min(1)
    tied = best & ((ranks == ranks.min(1)[:, None]).sum(1) > 1)
    return int((best & ~tied).sum()), int((~best).sum()), int(tied.sum())
