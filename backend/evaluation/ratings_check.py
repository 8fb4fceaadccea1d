"""Whether ratings describe the games they were fitted to: what each pair scored, and what the ratings say it should."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from backend.evaluation.ratings_choices import Choices, Floats

_LEAST_VARIANCE = 1.0
"""Pairs whose score varies by less are too small for the normal approximation and are left out of the sum."""
_LEVEL = 0.01


@dataclass(frozen=True, slots=True)
class PairFit:
    """Two players by index, and their comparisons: the first above the second so often, expected so often."""

    first: int
    second: int
    comparisons: float
    observed: float
    expected: float
    z: float


@dataclass(frozen=True, slots=True)
class FitCheck:
    """How well ratings and games agree.

    Attributes:
        chi2: sum of squared pair residuals, over pairs with enough comparisons.
        freedom: degrees of freedom left; 0 when there are not more pairs than ratings.
        p: chance of a sum at least as large if the ratings were right; None without freedom.
        pairs: the worst first.
        suspicious: the worst pair deviates too much for chance, given how many pairs there are (1 % in all): the pair
            is intransitive, or something is broken.
    """

    chi2: float
    freedom: int
    p: float | None
    pairs: tuple[PairFit, ...]
    suspicious: bool

    @property
    def worst(self) -> PairFit | None:
        return self.pairs[0] if self.pairs else None


def check(choices: Choices, strengths: Floats, seats: Floats, fitted: int, keep: int = 20) -> FitCheck:
    """Compares scores by pair.

    In a choice among several, given that one of two players was chosen, which of them it was depends on these two
    only; so each pair has a comparison of its own.

    Args:
        choices: real games only.
        strengths: float64[P]; seats: float64[n], log-strengths.
        fitted: how many strengths were fitted.
        keep: pairs that are returned, at most.
    """
    players, width = len(strengths), choices.players.shape[1]
    scores = strengths[choices.players] + np.append(seats, 0.0)[choices.seats]
    powers = np.where(choices.inside, np.exp(scores - scores.max(1, keepdims=True)), 0.0)
    same = (choices.players[:, :, None] == choices.players[:, None, :]) & choices.inside[:, None, :]
    power = (same * powers[:, None, :]).sum(2)  # of all seats of the same player: they are one side
    count = (same * choices.counts[:, None, :]).sum(2)
    first = choices.inside & ~np.tril(same, -1).any(2)
    keys, games, wins, means, spreads = [], [], [], [], []
    for a in range(width):
        for b in range(a + 1, width):
            both = first[:, a] & first[:, b]
            one, other = choices.players[both, a], choices.players[both, b]
            swap = one > other
            n = count[both, a] + count[both, b]
            above = power[both, a] / (power[both, a] + power[both, b])
            keys.append(np.minimum(one, other) * players + np.maximum(one, other))
            games.append(n)
            wins.append(np.where(swap, count[both, b], count[both, a]))
            means.append(n * np.where(swap, 1.0 - above, above))
            spreads.append(n * above * (1.0 - above))
    unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)

    def total(parts: list[Floats]) -> Floats:
        summed: Floats = np.bincount(inverse, np.concatenate(parts), minlength=len(unique)).astype(np.float64)
        return summed

    n, observed, expected, variance = total(games), total(wins), total(means), total(spreads)
    z = (observed - expected) / np.sqrt(np.maximum(variance, 1e-12))
    enough = variance >= _LEAST_VARIANCE
    chi2 = float((z[enough] ** 2).sum())
    freedom = max(0, int(enough.sum()) - fitted)
    ranked = sorted(np.flatnonzero(enough).tolist(), key=lambda i: (-abs(z[i]), i))
    pairs = tuple(
        PairFit(
            int(unique[i] // players), int(unique[i] % players), float(n[i]), float(observed[i]), float(expected[i]),
            float(z[i]),
        )
        for i in ranked[:keep]
    )  # fmt: skip
    worst = math.erfc(abs(pairs[0].z) / math.sqrt(2)) * len(ranked) if pairs else 1.0
    return FitCheck(chi2, freedom, chi2_tail(chi2, freedom) if freedom else None, pairs, worst < _LEVEL)


def chi2_tail(value: float, freedom: int) -> float:
    """P(X >= value) of a chi-square variable (Wilson and Hilferty 1931; good to about 0.005)."""
    if value <= 0:
        return 1.0
    spread = 2.0 / (9.0 * freedom)
    z = ((value / freedom) ** (1 / 3) - (1.0 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2))
