"""CUSUM: an alarm when a win rate has fallen, with its exact average run length."""

from __future__ import annotations

import math
from dataclasses import dataclass

_REST = 1e-15  # probability of an excursion that is not followed further


@dataclass(frozen=True, slots=True)
class Cusum:
    """Page's cumulative sum (1954) for a fall from rate ``p0`` to ``p1``: S = max(0, S + ln LR), alarm at S >= h.

    LR is a game's likelihood at ``p1`` over that at ``p0``.

    ``h`` = 5 gives (.65 -> .55) one false alarm in 8,388 games and detection after 198, (.90 -> .80) 5,295 and 97;
    ``h`` = 4 gives (.65 -> .55) 2,928 and 151.

    Raises:
        ValueError: not 0 < p1 < p0 < 1, or h <= 0.
    """

    p0: float
    p1: float
    h: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.p1 < self.p0 < 1:
            raise ValueError(f"rates must be 0 < p1 < p0 < 1, got {self.p1} and {self.p0}")
        if self.h <= 0:
            raise ValueError(f"threshold {self.h}")

    @property
    def win_step(self) -> float:
        return math.log(self.p1 / self.p0)

    @property
    def loss_step(self) -> float:
        return math.log((1 - self.p1) / (1 - self.p0))

    def after(self, total: float, won: bool) -> float:
        """The sum after one more game."""
        return max(0.0, total + (self.win_step if won else self.loss_step))

    def alarm(self, total: float) -> bool:
        return total >= self.h

    def run_length(self, rate: float) -> float:
        """Mean games from S = 0 to the alarm when the true win rate is ``rate``.

        Exact: the games from one visit of 0 to the next are independent cycles, so the mean is that of a cycle's
        length over the probability that a cycle ends in the alarm. Within a cycle the state is (games, losses) and
        few sums lie between 0 and h, so all paths are followed until 1e-15 of them are left.

        Raises:
            ValueError: ``rate`` is not within [0, 1).
        """
        if not 0 <= rate < 1:
            raise ValueError(f"rate {rate}")
        length = alarm = 0.0
        games, states = 0, {0: 1.0}
        while (rest := math.fsum(states.values())) > _REST:
            length += rest
            games += 1
            following: dict[int, float] = {}
            for losses, weight in states.items():
                for lost, share in ((losses, weight * rate), (losses + 1, weight * (1 - rate))):
                    total = lost * self.loss_step + (games - lost) * self.win_step
                    if self.alarm(total):
                        alarm += share
                    elif total > 0:
                        following[lost] = following.get(lost, 0.0) + share
            states = following
        return length / alarm
