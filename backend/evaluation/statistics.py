"""Intervals for a win rate, and what chance alone would give."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist


def wilson(wins: int, games: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a rate (Wilson 1927), both ends in [0, 1]; (0, 1) without games.

    Raises:
        ValueError: ``wins`` is not within 0..``games``.
    """
    _check(wins, games)
    if games == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = wins / games
    scale = 1 + z * z / games
    centre = (rate + z * z / (2 * games)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / games + z * z / (4 * games * games))
    return (0.0 if wins == 0 else centre - half), (1.0 if wins == games else centre + half)


def clopper_pearson(wins: int, games: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval (Clopper and Pearson 1934): never covers less than ``confidence``; (0, 1) without games.

    Raises:
        ValueError: ``wins`` is not within 0..``games``.
    """
    _check(wins, games)
    tail = (1 - confidence) / 2
    low = 0.0 if wins == 0 else _solve(lambda p: _at_least(wins, games, p), tail)
    high = 1.0 if wins == games else _solve(lambda p: 1 - _at_least(wins + 1, games, p), tail, falling=True)
    return low, high


def chance(players: int) -> float:
    """The win rate of a player that is exactly as good as the others."""
    return 1 / players


def _check(wins: int, games: int) -> None:
    if not 0 <= wins <= games:
        raise ValueError(f"{wins} wins of {games} games")


def _at_least(wins: int, games: int, p: float) -> float:
    """P(X >= wins) of a binomial variable."""
    if p <= 0:
        return 1.0 if wins <= 0 else 0.0
    if p >= 1:
        return 1.0
    log_p, log_q = math.log(p), math.log1p(-p)
    whole = math.lgamma(games + 1)
    terms = [
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(games - k + 1) + k * log_p + (games - k) * log_q)
        for k in range(wins, games + 1)
    ]
    return min(1.0, math.fsum(terms))


def _solve(function: Callable[[float], float], target: float, *, falling: bool = False) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if (function(middle) < target) != falling:
            low = middle
        else:
            high = middle
    return (low + high) / 2
