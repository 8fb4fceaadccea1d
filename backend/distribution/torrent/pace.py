"""How fast each of the head's seats may give, so that all have given the same. Pure: told the time.

Connections that share an uplink do not share it evenly: one that begins while the queue is full can get a seventh of
what the others get, for as long as it lasts (measured with BBR, 8 seats on one link). Then the pieces of its seat come
out last, and everybody waits for them. So a seat that is ahead is slowed, and the ones behind take what that leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

LEAD_S = 0.5
"""A seat is slowed when it is ahead of the last one by more than it would give in that time at an even share."""
CATCH_UP_S = 4.0
"""A seat that is ahead by that time's even share gives as slowly as it ever has to."""
LEAST = 0.25
"""Of an even share: no seat is slowed further."""
STEP = 0.5
"""Of its own rate, at a time: those behind need a while to take what it leaves."""
GIVEN_SHARE = 0.98
"""A seat that has given that share of its pieces is given out; headers and the last piece make it inexact."""
DONE = 0.05
"""Of an even share of the budget, for a seat that is given out: somebody may lack a piece of it again."""
BACK = 4
"""Measurements whose highest rate counts as what the uplink can do."""
USED = 0.8
PAUSE_S = 4.0
"""When less than that share of it is used, those behind cannot take more, and nobody is slowed for so long.

Each time it comes to that, the pause is twice as long."""


class Pace:
    """Follows the seats of one delivery.

    Args:
        share: bytes of the file that one seat has.
    """

    def __init__(self, share: int) -> None:
        self.share = share
        self._last: tuple[float, list[int]] | None = None
        self._rates: deque[float] = deque(maxlen=BACK)
        self._slowed = False
        self._free_until = 0.0
        self._pause = PAUSE_S

    def limits(self, now: float, given: Sequence[int], budget: float = 0.0) -> list[int]:
        """Bytes a second for each seat, 0 for no limit.

        Args:
            now: seconds.
            given: bytes that each seat has sent so far.
            budget: bytes a second for all of them; 0 for none.
        """
        going = [k for k, sent in enumerate(given) if sent < GIVEN_SHARE * self.share]
        rest = budget * DONE / max(1, len(given)) if going else budget / max(1, len(given))
        even = (budget - rest * (len(given) - len(going))) / max(1, len(going))
        found = [int(even if k in going else rest) for k in range(len(given))]
        rates = self._measure(now, list(given))
        if not rates or len(going) < 2:
            return found
        rate, most = sum(rates), max(self._rates)
        if self._slowed and rate < USED * most and now >= self._free_until:
            self._free_until, self._pause = now + self._pause, 2 * self._pause
            self._rates.clear()
        self._slowed = False
        if now < self._free_until:
            return found
        fair = most / len(going)
        least = min(given[k] for k in going)
        for k in going:
            lead_s = (given[k] - least) / fair if fair else 0.0
            if lead_s > LEAD_S:
                self._slowed = True
                slow = max(fair * max(LEAST, 1 - lead_s / CATCH_UP_S), STEP * rates[k])
                found[k] = int(min(slow, even) if budget else slow)
        return found

    def _measure(self, now: float, given: list[int]) -> list[float]:
        """Bytes a second of each seat since the last measurement; empty when there was none or nothing was given."""
        last, self._last = self._last, (now, given)
        if last is None or now <= last[0] or len(last[1]) != len(given) or sum(given) <= sum(last[1]):
            return []
        rates = [(sent - before) / (now - last[0]) for sent, before in zip(given, last[1], strict=True)]
        self._rates.append(sum(rates))
        return rates
