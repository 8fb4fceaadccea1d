"""Which peers are slow, stalled, cut off or caught with bad bytes, and what is done about it. Pure: told the time.

A host that gets nothing has the head opened to it first, and is given up later; one that is far slower than the others
loses its seat, so that nobody waits for it; a seat whose pieces come out late is given to a second host.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import median

from backend.distribution.reasons import Failure, Reason
from backend.distribution.torrent.pace import GIVEN_SHARE

WAITING_S = 3.0
"""When half of the hosts have had no byte for that long, they wait for a seat that is not given out yet."""
HUNGRY_S = 6.0
"""Without a byte for that long a host may ask the head for everything."""
ROUTE_S = 12.0
"""A host that was connected to nobody in that time has no way to its peers."""
STALL_S = 20.0
"""Without a byte for that long, the engine has stalled at a host."""
WEAK_S = 5.0
WEAK_SHARE = 0.25
"""A host that for so long has had less than that share of the median rate is weak."""
LAG_SHARE = 0.25
"""A seat that has given less than that share of what the median seat has is late; the head paces those ahead before."""
LAG_BYTES = 4 << 20
"""No seat is late before the median seat has given that much, or half of what it has."""
END_SHARE, END_S = 0.97, 4.0
"""When the median seat has given that share of its pieces, one that takes so long for the rest is late."""
RATE_S = 2.0
"""Time over which the rate of a seat is taken."""


@dataclass(slots=True)
class Pulse:
    """What is known of one host.

    Attributes:
        told: when it first was told whom to dial; None before that.
        moved: when it last had a new byte, or was busy with what it has.
        met: whether it was ever connected to anybody.
        slow_since: when its rate fell below the limit; None while it is above.
    """

    told: float | None = None
    moved: float = 0.0
    done: int = -1
    rate: float = 0.0
    met: bool = False
    slow_since: float | None = None
    hungry: bool = False
    weak: bool = False
    complete: bool = False
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What has changed: hosts that are hungry or weak from now on, late seats, and hosts that are given up."""

    hungry: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()
    late: tuple[int, ...] = ()
    failed: dict[str, Failure] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.hungry or self.weak or self.late or self.failed)


class Watchdog:
    """Follows the hosts of one delivery; every method is told the time in seconds."""

    def __init__(self) -> None:
        self.pulses: dict[str, Pulse] = {}
        self.late: set[tuple[int, str]] = set()
        self._before: deque[tuple[float, tuple[int, ...]]] = deque()

    def begin(self, name: str, now: float) -> None:
        """A host was told whom to dial, for the first time or after it had come back."""
        self.pulses[name] = Pulse(told=now, moved=now)

    def end(self, name: str) -> None:
        self.pulses.pop(name, None)

    def excuse(self, now: float) -> None:
        """Nobody could make headway, or be heard: the head was away."""
        for pulse in self.pulses.values():
            pulse.moved = max(pulse.moved, now)
            pulse.told = now if pulse.told is not None else None
            pulse.slow_since = None
        self._before.clear()

    def heard(
        self, name: str, now: float, *, done: int, rate: float, peers: int, busy: bool = False,
        absent: Iterable[str] = (), complete: bool = False,
    ) -> None:  # fmt: skip
        """A line of a host.

        Args:
            done: bytes that it has.
            peers: how many it is connected to.
            busy: it looks at what it has, and cannot take more now.
            absent: addresses that it dials in vain.
        """
        pulse = self.pulses.get(name)
        if pulse is None:
            return
        if done > pulse.done or busy:
            pulse.moved, pulse.hungry = now, pulse.hungry and done <= pulse.done
        pulse.done, pulse.rate, pulse.complete, pulse.absent = done, rate, complete, tuple(absent)
        pulse.met = pulse.met or peers > 0 or rate > 0

    def judge(self, now: float, given: Sequence[int] = (), share: int = 0) -> Verdict:
        """What follows.

        Args:
            given: bytes that each seat of the head has sent.
            share: bytes of the file that one seat has.
        """
        going = {name: pulse for name, pulse in self.pulses.items() if not pulse.complete and pulse.told is not None}
        hungry, weak, failed = set(), set(), {}
        limit = self._slow_rate()
        for name, pulse in going.items():
            idle = now - pulse.moved
            if not pulse.met and pulse.told is not None and now - pulse.told > ROUTE_S:
                failed[name] = Failure(
                    Reason.NO_ROUTE, f"none of its peers answers: {', '.join(pulse.absent[:3])}",
                    "open the port of the transfer between the hosts",
                )  # fmt: skip
            elif idle > STALL_S:
                failed[name] = Failure(Reason.STALLED, f"no byte for {idle:.0f} s")
            elif idle > HUNGRY_S and not pulse.hungry:
                hungry.add(name)
            pulse.slow_since = (
                (now if pulse.slow_since is None else pulse.slow_since)
                if pulse.rate < limit or idle > HUNGRY_S
                else None
            )
            if pulse.slow_since is not None and now - pulse.slow_since >= WEAK_S and not pulse.weak:
                weak.add(name)
        if len(weak) > len(going) // 2:
            weak = set()  # where most are slow, the head is
        for name in hungry:
            self.pulses[name].hungry = True
        for name in weak:
            self.pulses[name].weak = True
        waiting = sum(now - pulse.moved > WAITING_S for pulse in going.values())
        late = self._late(given, self._rates(now, given), share, bool(going) and waiting >= len(going) / 2)
        return Verdict(frozenset(hungry), frozenset(weak), late, failed)

    def _slow_rate(self) -> float:
        rates = [pulse.rate for pulse in self.pulses.values() if not pulse.complete]
        return WEAK_SHARE * median(rates) if len(rates) > 2 else 0.0

    def _rates(self, now: float, given: Sequence[int]) -> list[float]:
        """Bytes a second that each seat has given of late; the seats of a head that was started again begin anew."""
        last = self._before[-1][1] if self._before else ()
        if len(last) != len(given) or any(sent < before for sent, before in zip(given, last, strict=True)):
            self._before.clear()
        self._before.append((now, tuple(given)))
        while len(self._before) > 2 and now - self._before[1][0] >= RATE_S:
            self._before.popleft()
        then, earlier = self._before[0]
        if now - then < RATE_S:
            return [inf] * len(given)  # nothing is known yet, and nobody is blamed
        return [(sent - had) / (now - then) for sent, had in zip(given, earlier, strict=True)]

    def _late(self, given: Sequence[int], rates: Sequence[float], share: int, waiting: bool) -> tuple[int, ...]:
        """Seats that have given far less than the others; each is told once on the way, at the end, and waited for."""
        if len(given) < 2:
            return ()
        middle = median(given)
        if middle < min(LAG_BYTES, share / 2) and not waiting:
            return ()
        found = [(k, "early") for k, sent in enumerate(given) if sent < LAG_SHARE * middle]
        if middle >= END_SHARE * share:
            found += [
                (k, "end") for k, sent in enumerate(given)
                if sent < GIVEN_SHARE * share and share - sent > END_S * rates[k]
            ]  # fmt: skip
        if waiting:
            found += [(k, "waited for") for k, sent in enumerate(given) if sent < GIVEN_SHARE * share]
        new = [one for one in found if one not in self.late]
        self.late.update(new)
        return tuple(sorted({k for k, _ in new}))
