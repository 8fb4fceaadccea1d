"""The rating of one player with bounds that hold however often somebody looks: what a promotion and a rejection ask."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from backend.configs import Config
from backend.databases import open_reader, sqlite_errors
from backend.errors import NotFoundError
from backend.evaluation.rated_games import RatedGames, model_of, read_games
from backend.evaluation.rating_history import current
from backend.evaluation.ratings import SCALE, Ratings
from backend.evaluation.stats.score import Lineups, always_valid, growth
from backend.paths import Paths
from backend.thresholds import Thresholds, thresholds

TIGHTEST = 200 * 0.21
"""Information of 200 games that are won with 70 %, as those of a model at 1650 against Heuristic are: there the bounds
are closest for their games (ours)."""


@dataclass(frozen=True, slots=True)
class Rating:
    """A rating with the bounds that all looks together have left, each wrong with ``sequential_error``; and its games.

    ``low`` is -inf and ``high`` inf where the games bound nothing on that side.
    """

    elo: float
    low: float
    high: float
    games: int
    lineups: Lineups
    error: float

    def more(self, elo: float) -> int:
        """About how many more games like these would lift ``low`` to a rating; 0 when they would not."""
        times = growth(self.lineups, elo / SCALE, self.error, TIGHTEST)
        return 0 if math.isinf(times) else max(1, math.ceil(self.games * (times - 1)))


def rating_of(paths: Paths, config: Config, sha256: str, search: str) -> Rating | None:
    """The rating of a model with one search, from all records of its config; None while nothing connects it with
    Heuristic.

    Raises:
        UnverifiedError, LockedError, ResourceError, SchemaError: the records cannot be read.
    """
    player = ":".join([sha256, *([search] if search else ())])
    try:
        ratings = current(paths, config.key)
    except NotFoundError:
        return None
    return None if ratings.index(player) is None else bounded(paths, config, ratings, player)


def bounded(paths: Paths, config: Config, ratings: Ratings, player: str) -> Rating:
    """:func:`rating_of` for a player that is rated."""
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        games = read_games(db, config.key, config.players, str(paths.elo_db), of=model_of(player) or player)
    return bounds(ratings, games, player, thresholds(config))


def bounds(ratings: Ratings, games: RatedGames, player: str, limits: Thresholds) -> Rating:
    """The bounds that a player's games leave, beside those that it met as they are rated now."""
    place = ratings.index(player)
    if place is None or player not in games.players:
        raise ValueError(f"{player} is not rated")
    lineups = lineups_of(ratings, games, player)
    low, high = always_valid(lineups, limits.sequential_error, TIGHTEST)
    return Rating(
        float(ratings.elo[place]), low * SCALE, high * SCALE, len(lineups.won), lineups, limits.sequential_error
    )


def lineups_of(ratings: Ratings, games: RatedGames, player: str) -> Lineups:
    """A player's games that count, without those in which it sits twice, which say nothing of its strength."""
    own, place = games.players.index(player), ratings.players.index(player)
    kept = games.kept(games.last, games.voids_at(games.last))
    kept = kept[(games.seats[kept] == own).sum(1) == 1]
    seats, ranks = games.seats[kept], games.ranks[kept]
    at = {name: index for index, name in enumerate(ratings.players)}
    index = np.array([at.get(name, -1) for name in games.players], dtype=np.int64)[seats]
    mine = seats == own
    best = ranks == ranks.min(1, keepdims=True)
    strengths = (ratings.elo[index] + ratings.seat_edge) / SCALE
    variance = float(ratings.covariance[place, place])
    moves = ratings.covariance[index, place] / variance if variance > 0 else np.zeros(index.shape)
    shape = (len(kept), seats.shape[1] - 1)
    edge = (np.broadcast_to(ratings.seat_edge, seats.shape)[mine] / SCALE)[:, None]
    return Lineups(
        won=(best[mine] / best.sum(1)).astype(np.float64),
        others=strengths[~mine].reshape(shape) - edge,
        moves=moves[~mine].reshape(shape),
        at=float(ratings.elo[place]) / SCALE,
    )
