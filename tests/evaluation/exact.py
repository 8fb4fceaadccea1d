"""Exact operating characteristics by enumeration: the oracle of the sequential tests. It knows none of their code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Exact(NamedTuple):
    passed: float
    failed: float
    undecided: float
    games: float


def characteristics(decide: Callable[[int, int], str], p: float, cap: int, look: int = 1) -> Exact:
    """Over (games, wins): ``decide(wins, games)`` is asked at each look in each state that can be reached."""
    alive = {0: 1.0}
    passed = failed = mean = 0.0
    for games in range(1, cap + 1):
        mean += sum(alive.values())
        following: dict[int, float] = {}
        for wins, weight in alive.items():
            following[wins] = following.get(wins, 0.0) + weight * (1 - p)
            following[wins + 1] = following.get(wins + 1, 0.0) + weight * p
        if games % look == 0:
            for wins in list(following):
                decision = decide(wins, games)
                if decision == "PASS":
                    passed += following.pop(wins)
                elif decision == "FAIL":
                    failed += following.pop(wins)
        alive = following
    return Exact(passed, failed, sum(alive.values()), mean)


def elo(difference: float) -> float:
    return 1 / (1 + 10 ** (-difference / 400))


def pair_scores(p: float, together: float = 0.0, edge: float = 0.0) -> tuple[float, float, float]:
    """P(0, 1, 2 wins) of two games with mean rate p: joined with some probability, or with a seat edge."""
    a, b = p + edge, p - edge
    loose = ((1 - a) * (1 - b), a * (1 - b) + b * (1 - a), a * b)
    return (
        (1 - together) * loose[0] + together * (1 - p),
        (1 - together) * loose[1],
        (1 - together) * loose[2] + together * p,
    )


def pairs(rule: Callable[[int, Any, Any], Any], scores: Sequence[float], blocks: int) -> Exact:
    """Over blocks of two games: ``rule(n, halves, wholes)`` gives +1, 0, -1 for arrays of states after n blocks."""
    weight = np.ones((1, 1))
    passed = failed = mean = 0.0
    for n in range(1, blocks + 1):
        mean += 2 * weight.sum()
        following = np.zeros((n + 1, n + 1))
        following[:n, :n] = weight * scores[0]
        following[1:, :n] += weight * scores[1]
        following[:n, 1:] += weight * scores[2]
        halves, wholes = np.indices(following.shape)
        with np.errstate(all="ignore"):
            decision = np.where(halves + wholes <= n, rule(n, halves, wholes), 0)
        passed += following[decision > 0].sum()
        failed += following[decision < 0].sum()
        following[decision != 0] = 0.0
        weight = following
    return Exact(float(passed), float(failed), float(weight.sum()), float(mean))


def normal_form_rule(p0: float, p1: float, start: int = 8) -> Callable[[int, Any, Any], Any]:
    """The GSPRT of pairs as its formula stands, Bernoulli before ``start`` blocks; bounds of 5 %."""
    bound = math.log(19)

    def rule(n: int, halves: Any, wholes: Any) -> Any:
        wins = halves + 2 * wholes
        if n < start:
            llr = wins * math.log(p1 / p0) + (2 * n - wins) * math.log((1 - p1) / (1 - p0))
        else:
            mean = wins / (2 * n)
            variance = np.maximum((halves / 4 + wholes) / n - mean**2, 1e-3)
            llr = n * (p1 - p0) * (2 * mean - p0 - p1) / (2 * variance)
        return (llr >= bound).astype(int) - (llr <= -bound).astype(int)

    return rule


def betting_rule(p0: float, p1: float) -> Callable[[int, Any, Any], Any]:
    """The two bets on pairs, each 20 % on stake g/(f(1-f)) and 80 % on twice that, capped at .95/f; bounds of 5 %."""

    def wealth(zeros: Any, halves: Any, wholes: Any, fair: float) -> Any:
        stake = (p1 - p0) / (fair * (1 - fair))
        total = 0.0
        for share, size in ((0.2, min(stake, 0.95 / fair)), (0.8, min(2 * stake, 0.95 / fair))):
            logs = [math.log(1 + size * (score - fair)) for score in (0.0, 0.5, 1.0)]
            total = total + share * np.exp(zeros * logs[0] + halves * logs[1] + wholes * logs[2])
        return total

    def rule(n: int, halves: Any, wholes: Any) -> Any:
        zeros = n - halves - wholes
        better, worse = wealth(zeros, halves, wholes, p0), wealth(wholes, halves, zeros, 1 - p1)
        return np.where(better >= 20, 1, np.where(worse >= 20, -1, 0))

    return rule
