"""Is a player at least as strong as that? A score test that holds at every look, and the interval that it leaves.

If the player's log-strength is t, each game adds won - p(t) to the score U, with p(t) after Luce, and its variance to
the information I. Rao's score needs no estimate of the player, which a few games would make
worthless, and Robbins' mixture makes the limit for U one that is crossed with a small probability only, whenever
somebody looks and however long the games go on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.stats.sequences import edge

Floats = NDArray[np.float64]
_FAR = 12.0
"""Log-strengths from the estimate at which the search for an end gives up: odds of 160,000 to 1, 2,000 Elo."""


@dataclass(frozen=True, slots=True)
class Lineups:
    """The games of one player, with those that it met.

    Attributes:
        won: float64[G], 1 for a game won, a share for a tie.
        others: float64[G, n - 1], log-strengths of the others as estimated, less what the player's seat adds to it.
        moves: float64[G, n - 1], by how much the estimate of each other moves with the player's: its covariance with
            the player over the player's variance; 0 for whoever is fixed. A game against somebody of whom nothing is
            known but games with the player moves along and says nothing about either.
        at: log-strength of the player as estimated.
    """

    won: Floats
    others: Floats
    moves: Floats
    at: float

    def score(self, strength: float) -> tuple[float, float]:
        """Score U and information I at a log-strength of the player.

        I is the efficient information, 1 over the variance of the estimate, so that U has about independent
        increments of variance I though others are estimated beside it (Scharfstein, Tsiatis and Robins 1997).
        """
        step = strength - self.at
        odds = np.exp(self.others + self.moves * step - strength)
        total = odds.sum(1)
        p = 1.0 / (1.0 + total)
        still = 1.0 - (odds * self.moves).sum(1) / total
        return float((self.won - p).sum()), float(max((p * (1.0 - p) * still).sum(), 0.0))


def limit(information: float, error: float, tightest: float) -> float:
    """The score that is exceeded at any time with probability ``error`` at most: one-sided normal mixture.

    sqrt(2 (I + r) ln(sqrt((I + r) / r) / (2 error) + 1)), Howard, Ramdas, McAuliffe and Sekhon 2021 (Annals of
    Statistics 49), after Robbins 1970. A won game with p >= 1/2 is sub-Gaussian with its own variance, so that
    against one fixed opponent the upper side is exact for any number of games.

    Args:
        tightest: information at which the limit is to be least for its size; r follows from it as there.
    """
    log = -2.0 * math.log(2.0 * error)
    r = tightest / (log + math.log1p(log))
    total = information + r
    return math.sqrt(2.0 * total * math.log(math.sqrt(total / r) / (2.0 * error) + 1.0))


def always_valid(games: Lineups, error: float, tightest: float) -> tuple[float, float]:
    """Log-strengths that no look has ruled out; each end is wrong with probability ``error`` over all looks together.

    -inf or inf where the games bound nothing on that side.
    """

    def side(sign: int) -> float:
        def kept(strength: float) -> bool:
            score, information = games.score(strength)
            return sign * score < limit(information, error, tightest)

        far = games.at - sign * _FAR
        return -sign * math.inf if kept(far) else edge(kept, far, games.at)

    return side(1), side(-1)


def growth(games: Lineups, strength: float, error: float, tightest: float) -> float:
    """How many times as many games of the same results would show that the player is above a log-strength.

    1 where these do; inf where they do not speak for it.
    """
    score, information = games.score(strength)
    if score <= 0 or information <= 0:
        return math.inf
    times = 1.0
    while times * score < limit(times * information, error, tightest):
        times *= 1.02
    return times
