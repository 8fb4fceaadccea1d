"""Who connects to whom: drawn here from what is known of the links, and never by the peers. Pure.

The head opens *seats*. The peer that is told seat k of n sees a head that has the pieces k, k + n, k + 2n ... and no
others; the rest it gets from those who sit on the other seats. So each piece leaves the head once, whatever the peers
would like to ask, every host has something that the others lack, and a piece is two hops from everybody. Measured with
8 hosts this takes 1.1 times the bound where the hosts' links are fast and 1.2 where they are like the head's; two
neighbours each (a ring) took 1.3 and 1.4, and the head to one host alone 1.1 and 2.3.

Up to :data:`MESH` hosts all are connected; above that the graph is a hybrid: a ring of neighbours, and some random
ones further down that keep it shallow. Seats go by position, so GPU hosts have the first pieces. A slow, dead or banned
member has no seat and is nobody's neighbour but by its own wish, so it delays only itself; its seat goes to another.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MESH = 16
"""Hosts up to which everybody is connected with everybody."""
SEATS = 16
NEAR, FAR = 2, 3
"""In a hybrid, each host dials that many hosts just before it, and that many random ones before those."""
UPSTREAMS = 3
"""Hosts that a slow one dials."""
SLOW = 0.25
"""A link below that share of the median is slow."""


@dataclass(frozen=True, slots=True)
class Member:
    """A host of the swarm.

    Attributes:
        position: its place in the order, 1 first.
        mbit: what is known of its link; None when nothing is.
        weak: seen to be far slower than the others.
        gone: cannot be talked to, has ended, or may not take part any more.
        alone: others cannot dial it, as behind NAT.
        hungry: had nothing for a while; the head is opened to it.
    """

    name: str
    position: int
    mbit: float | None = None
    weak: bool = False
    gone: bool = False
    alone: bool = False
    hungry: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """Who dials whom.

    Attributes:
        seats: who sits on each seat, in the order of seats; a seat that is shared out has several.
        dials: per host the hosts that it dials.
        whole: hosts that may ask the head for everything.
    """

    seats: tuple[tuple[str, ...], ...]
    dials: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()

    def seats_of(self, name: str) -> list[int]:
        return [seat for seat, holders in enumerate(self.seats) if name in holders]


def count_seats(members: Sequence[Member]) -> int:
    """How many seats the head opens for these hosts; it cannot open more later."""
    strong = _strong(members)
    return min(len(strong), SEATS) if len(strong) > 1 else 0


def draw(members: Sequence[Member], seats: int, shared: Mapping[int, Sequence[str]] | None = None) -> Graph:
    """The graph for what is known now.

    Args:
        seats: as many as the head has open.
        shared: seats that lag, with further hosts to sit on them.
    """
    here = sorted((one for one in members if not one.gone), key=lambda one: (one.position, one.name))
    strong = _strong(here)
    ranked = [one.name for one in strong]
    sitting = [[ranked[seat % len(ranked)]] if ranked else [] for seat in range(seats)]
    for seat, names in (shared or {}).items():
        if seat < seats:
            sitting[seat] += [name for name in names if name in ranked and name not in sitting[seat]]
    dials: dict[str, tuple[str, ...]] = {}
    open_to = [one for one in strong if not one.alone]
    for one in here:
        if one in strong:
            dials[one.name] = _before(one, strong)
        else:
            dials[one.name] = _some(one.name, [each.name for each in open_to], UPSTREAMS)
    whole = {one.name for one in here if one.hungry}
    if not seats:
        whole |= set(ranked)
    whole |= {one.name for one in here if not dials[one.name] and one.name not in {n for s in sitting for n in s}}
    return Graph(tuple(tuple(names) for names in sitting), dials, frozenset(whole))


def _strong(members: Sequence[Member]) -> list[Member]:
    """Those that others may depend on, in order."""
    here = sorted((one for one in members if not one.gone), key=lambda one: (one.position, one.name))
    known = sorted(one.mbit for one in here if one.mbit is not None)
    least = SLOW * known[len(known) // 2] if known else 0.0
    able = [one for one in here if not one.weak]
    return [one for one in able if one.mbit is None or one.mbit >= least] or able or here  # where all are weak none is


def _before(one: Member, strong: Sequence[Member]) -> tuple[str, ...]:
    """The hosts before it in the order that it dials; who cannot be dialled dials those that would have dialled it."""
    index = next(n for n, each in enumerate(strong) if each.name == one.name)
    if len(strong) <= MESH:
        before = list(strong[:index])
    else:
        near = strong[max(0, index - NEAR) : index]
        before = [*near, *_sample(one.name, strong[: max(0, index - NEAR)], FAR)]
    found = [each.name for each in before if not each.alone]
    if one.alone:
        found += [each.name for each in strong[index + 1 :] if not each.alone][: MESH if len(strong) <= MESH else NEAR]
    return tuple(found)


def _some(name: str, names: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(random.Random(name).sample(list(names), min(count, len(names))))


def _sample(name: str, members: Sequence[Member], count: int) -> list[Member]:
    """The same ones each time it is asked about the same members, so that a redrawing changes little."""
    return random.Random(name).sample(list(members), min(count, len(members)))
