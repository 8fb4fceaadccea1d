"""A confidence interval that holds at every look, for pages that are read while games run."""

from __future__ import annotations

import math
from collections.abc import Callable


def confidence_sequence(wins: float, games: float, confidence: float = 0.95) -> tuple[float, float]:
    """Rates that the Beta(1/2, 1/2) mixture does not rule out; (0, 1) without games.

    Keeps p while ln B(k+.5, n-k+.5) - ln B(.5, .5) - k ln p - (n-k) ln(1-p) < ln(1/(1-confidence)). By Ville's
    inequality all the intervals of a growing record together hold the true rate with probability ``confidence``,
    whenever somebody looks or stops (Robbins 1970). Counts need not be whole: a share of the games is fewer games.

    Raises:
        ValueError: ``wins`` is not within 0..``games``, or ``confidence`` not within (0, 1).
    """
    if not 0 <= wins <= games:
        raise ValueError(f"{wins} wins of {games} games")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}")
    if games == 0:
        return 0.0, 1.0
    losses = games - wins
    mixture = _log_beta(wins + 0.5, losses + 0.5) - _log_beta(0.5, 0.5)
    limit = -math.log1p(-confidence)

    def kept(p: float) -> bool:
        likelihood = (wins * math.log(p) if wins else 0.0) + (losses * math.log1p(-p) if losses else 0.0)
        return mixture - likelihood < limit

    rate = wins / games
    low = 0.0 if wins == 0 else edge(kept, 0.0, rate)
    high = 1.0 if losses == 0 else edge(kept, 1.0, rate)
    return low, high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def edge(kept: Callable[[float], bool], outside: float, inside: float) -> float:
    """Bisects between a value that is ruled out and one that is kept; returns the last that was ruled out."""
    for _ in range(50):
        middle = (outside + inside) / 2
        if kept(middle):
            inside = middle
        else:
            outside = middle
    return outside
