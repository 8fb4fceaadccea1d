"""CUSUM: an alarm when a win rate has fallen, with its exact average run length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

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

    def after_block(self, total: float, wins: int, games: int) -> float:
        """The sum after a block of games, of which it is not asked which came first.

        A block is one opening from every seat: only whole blocks make a fair sample, so the chart is read after each.

        Raises:
            ValueError: ``wins`` is not within 0..``games``.
        """
        if not 0 <= wins <= games:
            raise ValueError(f"{wins} wins of {games} games")
        return max(0.0, total + wins * self.win_step + (games - wins) * self.loss_step)

    def run_length(self, rate: float, size: int = 1) -> float:
        """Mean games from S = 0 to the alarm when the true win rate is ``rate`` and the chart is read every ``size``.

        Exact for independent games: the blocks from one visit of 0 to the next are independent cycles, so the mean is
        that of a cycle's length over the probability that a cycle ends in the alarm. Within a cycle the state is
        (blocks, losses) and few sums lie between 0 and h, so all paths are followed until 1e-15 of them are left.

        Raises:
            ValueError: ``rate`` is not within [0, 1), or ``size`` is less than 1.
        """
        if not 0 <= rate < 1:
            raise ValueError(f"rate {rate}")
        if size < 1:
            raise ValueError(f"blocks of {size} games")
        shares = [math.comb(size, lost) * (1 - rate) ** lost * rate ** (size - lost) for lost in range(size + 1)]
        return self._run_length(shares)

    def run_length_whole(self, rate: float, size: int) -> float:
        """The same when each block is won or lost whole: the most that games of one opening can hang together.

        Raises:
            ValueError: as :meth:`run_length`.
        """
        if not 0 <= rate < 1 or size < 1:
            raise ValueError(f"rate {rate}, blocks of {size} games")
        return self._run_length([rate, *[0.0] * (size - 1), 1 - rate])

    def _run_length(self, shares: list[float]) -> float:
        """Mean games to the alarm; ``shares[k]`` is the probability that a block loses k of its games."""
        size = len(shares) - 1
        length = alarm = 0.0
        games, states = 0, {0: 1.0}
        while (rest := math.fsum(states.values())) > _REST:
            length += rest * size
            games += size
            following: dict[int, float] = {}
            for losses, weight in states.items():
                for more, share in enumerate(shares):
                    if not share:
                        continue
                    lost = losses + more
                    total = lost * self.loss_step + (games - lost) * self.win_step
                    if self.alarm(total):
                        alarm += weight * share
                    elif total > 0:
                        following[lost] = following.get(lost, 0.0) + weight * share
            states = following
        return length / alarm


@cache
def tuned(p0: float, p1: float, size: int, games: float) -> Cusum:
    """The chart with the lowest threshold, to a hundredth, that rings by mistake once in ``games`` games at most.

    Bisection over :meth:`Cusum.run_length` at ``p0``; both are monotone in h.
    """
    low, high = 0.01, 1.0
    while Cusum(p0, p1, high).run_length(p0, size) < games:
        low, high = high, high * 2
    while high - low > 0.01:
        middle = (low + high) / 2
        if Cusum(p0, p1, middle).run_length(p0, size) < games:
            low = middle
        else:
            high = middle
    return Cusum(p0, p1, math.ceil(high * 100) / 100)
