"""Rates and pictures of progress, for all transports."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

WINDOW_S = 5.0
CELLS = 64


class Meter:
    """Counts bytes and tells the rate of the last seconds.

    Attributes:
        total: all bytes so far.
    """

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[tuple[float, int]] = deque()

    def add(self, count: int, now: float) -> None:
        """``count`` bytes at the time ``now``, in seconds of a clock that only goes on."""
        self.total += count
        if self._recent and now - self._recent[-1][0] < 0.1:
            at, sum_ = self._recent.pop()
            self._recent.append((at, sum_ + count))
        else:
            self._recent.append((now, count))

    def rate(self, now: float) -> float:
        """Bytes a second over the last :data:`WINDOW_S`."""
        while self._recent and self._recent[0][0] < now - WINDOW_S:
            self._recent.popleft()
        if not self._recent:
            return 0.0
        return sum(count for _, count in self._recent) / max(0.5, now - self._recent[0][0])


def cells(good: Sequence[int] | bytes, width: int = CELLS) -> str:
    """Pieces as at most ``width`` digits, 0 for none of a cell's pieces to 9 for all; empty for no pieces."""
    count = len(good)
    width = min(width, count)
    found = []
    for cell in range(width):
        part = good[cell * count // width : (cell + 1) * count // width]
        share = sum(1 for one in part if one) / len(part)
        found.append(str(9 if share == 1 else min(8, int(share * 9))))
    return "".join(found)
