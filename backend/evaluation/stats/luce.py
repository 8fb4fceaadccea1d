"""Win rates, odds and Elo for two to four players: Luce's choice rule, the first stage of Plackett-Luce.

A player of strength g wins against others of strengths h1.. with probability g / (g + h1 + ..); Elo is
400 log10 of the strength. With two players this is the usual Elo formula.
"""

from __future__ import annotations

import math


def same_odds(rate: float, players: int) -> float:
    """The win rate against ``players - 1`` equal opponents of one who wins ``rate`` of games against one of them.

    60 % is 42.9 % of three and 33.3 % of four; 90 % is 81.8 % and 75.0 %; 50 % is chance.

    Raises:
        ValueError: the rate is not within [0, 1], or fewer than two players.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate {rate}")
    others = _others(players)
    return rate / (rate + (1 - rate) * others)


def expected_score(difference: float, players: int = 2) -> float:
    """The win rate of one who is ``difference`` Elo above ``players - 1`` equal opponents."""
    return 1 / (1 + _others(players) * 10 ** (-difference / 400))


def elo_difference(rate: float, players: int = 2) -> float:
    """The inverse of :func:`expected_score`; infinite at 0 and 1.

    Raises:
        ValueError: the rate is not within [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate {rate}")
    others = _others(players)
    if rate in (0.0, 1.0):
        return math.inf if rate else -math.inf
    return 400 * math.log10(others * rate / (1 - rate))


def rate_for_elo(elo: float, anchor: float, players: int = 2) -> float:
    """An Elo threshold as a win rate against the anchor; 1650 is 70 % against an anchor pinned at 1500."""
    return expected_score(elo - anchor, players)


def _others(players: int) -> int:
    if players < 2:
        raise ValueError(f"{players} players")
    return players - 1
