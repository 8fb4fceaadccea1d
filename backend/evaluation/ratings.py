"""Ratings of the players of one config as a pure function of its games.

The maximum-likelihood ratings of Bradley-Terry (two players) and Plackett-Luce (three and four): all games count, in
any order, and nothing is carried from one computation to the next. Elo is 400/ln 10 times the log-strength, so that
400 Elo are odds of 10 to 1 against any one opponent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.rating_spec import RatingSpec
from backend.evaluation.ratings_check import FitCheck, check
from backend.evaluation.ratings_choices import (
    Choices,
    Floats,
    Ints,
    count_lineups,
    game_choices,
    join,
    meetings,
    prior_choices,
)
from backend.evaluation.ratings_newton import maximise

SCALE = 400.0 / math.log(10.0)
"""Elo of a unit of log-strength."""


@dataclass(frozen=True, slots=True)
class Ratings:
    """The rated players of one config, and how sure their ratings are.

    Attributes:
        players: R names, sorted.
        elo: float64[R].
        covariance: float64[R, R], Elo squared; rows of pinned players are 0.
        games: int64[R], games in which each took part.
        pinned: bool[R], whose rating is fixed.
        open_above, open_below: bool[R]; no chain of results bounds the rating on that side (it lost nothing, or won
            nothing, against those that lead to the anchor): there only the prior keeps it finite.
        unrated: players that no chain of games connects with a pinned one, with their games; they have no number.
        seat_edge, seat_se: float64[n], Elo that a seat is worth against the mean of all seats.
        check: how well it all fits; its pairs are indices of ``players``.
    """

    players: tuple[str, ...]
    elo: Floats
    covariance: Floats
    games: Ints
    pinned: NDArray[np.bool_]
    open_above: NDArray[np.bool_]
    open_below: NDArray[np.bool_]
    unrated: dict[str, int]
    seat_edge: Floats
    seat_se: Floats
    check: FitCheck

    def index(self, player: str) -> int | None:
        """Place of a player in the arrays; None when it is unrated or unknown."""
        return self.players.index(player) if player in self.players else None

    @property
    def se(self) -> Floats:
        """float64[R], standard errors in Elo."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def band(self, index: int, confidence: float = 0.95) -> tuple[float, float]:
        """The interval of a rating (Wald), both ends finite; see ``open_above`` and ``open_below``."""
        half = NormalDist().inv_cdf(0.5 + confidence / 2) * float(self.se[index])
        return float(self.elo[index]) - half, float(self.elo[index]) + half

    def difference(self, one: int, other: int) -> tuple[float, float]:
        """Elo of one player above another, and its standard error; the covariance counts."""
        c = self.covariance
        variance = c[one, one] - 2 * c[one, other] + c[other, other]
        return float(self.elo[one] - self.elo[other]), math.sqrt(max(float(variance), 0.0))

    def superiority(self, one: int, other: int) -> float:
        """P(one is better than the other): Phi(difference / its standard error); 0.5 when both are pinned alike."""
        elo, se = self.difference(one, other)
        if se == 0.0:
            return 0.5 if elo == 0.0 else float(elo > 0)
        return NormalDist().cdf(elo / se)


def win_chance(elo: float, players: int = 2) -> float:
    """Chance of a player to win against ``players - 1`` that are ``elo`` below it."""
    return 1.0 / (1.0 + (players - 1) * math.exp(-elo / SCALE))


def rate(players: Sequence[str], seats: Ints, ranks: Ints, spec: RatingSpec, weights: Ints | None = None) -> Ratings:
    """The ratings of all players of some games of one config.

    Args:
        players: names; any order, each once.
        seats: int64[G, n], index of the player in each seat.
        ranks: int64[G, n], rank of each seat, equal for a tie. Games without a result do not belong here.
        weights: int64[G], how often each row was played; once by default.

    Raises:
        ArithmeticError: the fit failed; games that can be played do not do that.
    """
    order = sorted(range(len(players)), key=players.__getitem__)  # the caller's order must not reach the arithmetic
    names = [players[i] for i in order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    width = seats.shape[1]
    lineups, orders, counts = count_lineups(place[seats], ranks, weights)
    met = meetings(lineups, counts, len(names))
    fixed = np.array([name in spec.pins for name in names], dtype=bool)
    rated = _reached(met > 0, fixed)
    played = np.zeros(len(names), dtype=np.int64)
    for seat in range(width):
        new = np.ones(len(lineups), dtype=bool)
        for before in range(seat):
            new &= lineups[:, seat] != lineups[:, before]
        np.add.at(played, lineups[new, seat], counts[new])
    inside = rated[lineups].all(1)
    kept = np.flatnonzero(rated)
    slot = np.full(len(names), -1, dtype=np.int64)
    slot[kept] = np.arange(len(kept))
    choices = game_choices(slot[lineups[inside]], orders[inside], counts[inside], only_winner=spec.stages == "winner")
    pinned = fixed[kept]
    prior = prior_choices(met[np.ix_(kept, kept)], ~pinned, spec.virtual_draws, width)
    elo = np.array([spec.pins.get(names[i], 0.0) for i in kept])
    start = np.where(pinned, elo, elo[pinned].mean() if pinned.any() else 0.0) / SCALE
    found = maximise(join(choices, prior), start, np.flatnonzero(~pinned), spec.seat_sd / SCALE)
    above, below = _bounded(choices, pinned)
    return Ratings(
        players=tuple(names[i] for i in kept),
        elo=np.where(pinned, elo, found.strengths * SCALE),
        covariance=found.covariance * SCALE**2,
        games=played[kept],
        pinned=pinned,
        open_above=~above,
        open_below=~below,
        unrated={names[i]: int(played[i]) for i in np.flatnonzero(~rated & (played > 0))},
        seat_edge=found.seats * SCALE,
        seat_se=np.sqrt(np.maximum(np.diag(found.seat_covariance), 0.0)) * SCALE,
        check=check(choices, found.strengths, found.seats, int((~pinned).sum())),
    )


def _reached(edges: NDArray[np.bool_], start: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Nodes that a path of edges [from, to] joins with a start."""
    found = start.copy()
    front = found
    while front.any():
        front = edges[front].any(0) & ~found
        found = found | front
    return found


def _bounded(choices: Choices, pinned: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether results bound each rating from above and from below (Ford 1957: the maximum is finite if so)."""
    count = len(pinned)
    beat = np.zeros((count, count), dtype=bool)
    for a in range(choices.players.shape[1]):
        for b in range(choices.players.shape[1]):
            rows = choices.inside[:, a] & choices.inside[:, b] & (choices.counts[:, a] > 0)
            beat[choices.players[rows, a], choices.players[rows, b]] = True
    return _reached(beat, pinned), _reached(beat.T, pinned)
