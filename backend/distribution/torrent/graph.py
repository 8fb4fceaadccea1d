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

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from backend.distribution.torrent.reach import HEAD, Way

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


def draw(
    members: Sequence[Member], seats: int, shared: Mapping[int, Sequence[str]] | None = None,
    blocked: Collection[Way] = frozenset(),
) -> Graph:  # fmt: skip
    """The graph for what is known now.

    Args:
        seats: as many as the head has open.
        shared: seats that lag, with further hosts to sit on them.
        blocked: ways that were tried in vain. Where one end does not reach the other, the other dials it; who does not
            reach the head has no seat, and gets all from others.
    """
    here = sorted((one for one in members if not one.gone), key=lambda one: (one.position, one.name))
    strong = _strong(here)
    able = {one.name for one in strong}
    near_head = {one.name for one in here if (one.name, HEAD) not in blocked}
    ranked = [one.name for one in strong if one.name in near_head]
    sitting = _sit(members, ranked, seats)
    for seat, names in (shared or {}).items():
        if seat < seats:
            sitting[seat] += [name for name in names if name in ranked and name not in sitting[seat]]

    dials: dict[str, list[str]] = {one.name: [] for one in here}
    for index, one in enumerate(strong):
        for other in _before(one, strong[:index], len(strong), blocked):
            dialling, dialled = (one, other) if _can(one, other, blocked) else (other, one)
            dials[dialling.name].append(dialled.name)
    for one in here:
        if one.name in able:
            continue
        dials[one.name] = _some(one.name, [each.name for each in strong if _can(one, each, blocked)], UPSTREAMS)
        if not dials[one.name] and one.name not in near_head:  # else it would have no way at all
            for each in [each for each in strong if _can(each, one, blocked)][:UPSTREAMS]:
                dials[each.name].append(one.name)

    whole = {one.name for one in here if one.hungry}  # a last try, where the way to the head was shut too
    for island in _islands(dials):
        held = {seat for seat in range(seats) if island & set(sitting[seat])}
        if len(held) < max(seats, 1) and not island & whole & near_head:  # there are pieces that would never get there
            whole |= set([one.name for one in here if one.name in island & near_head][:1])
    if not seats:
        whole |= set(ranked)
    drawn = {name: tuple(found) for name, found in dials.items()}
    return Graph(tuple(tuple(names) for names in sitting), drawn, frozenset(whole))


def _sit(members: Sequence[Member], ranked: Sequence[str], seats: int) -> list[list[str]]:
    """Who sits where: each host on the seat of its place, so that all others stay when one has to leave.

    Args:
        ranked: who may sit, in order.
    """
    places = [one.name for one in sorted(members, key=lambda one: (one.position, one.name))][:seats]
    able, spare = set(ranked), [name for name in ranked if name not in places]
    sitting: list[list[str]] = []
    for seat in range(seats):
        if seat < len(places) and places[seat] in able:
            sitting.append([places[seat]])
        elif ranked:
            sitting.append([spare.pop(0) if spare else ranked[seat % len(ranked)]])
        else:
            sitting.append([])
    return sitting


def _islands(dials: Mapping[str, Sequence[str]]) -> list[set[str]]:
    """Hosts that are connected with each other, over whatever others."""
    near: dict[str, set[str]] = {name: set(found) for name, found in dials.items()}
    for name, found in dials.items():
        for other in found:
            near[other].add(name)
    islands, left = [], set(near)
    while left:
        island, todo = set(), [left.pop()]
        while todo:
            name = todo.pop()
            island.add(name)
            todo += near[name] & left
            left -= near[name]
        islands.append(island)
    return islands


def _strong(members: Sequence[Member]) -> list[Member]:
    """Those that others may depend on, in order."""
    here = sorted((one for one in members if not one.gone), key=lambda one: (one.position, one.name))
    known = sorted(one.mbit for one in here if one.mbit is not None)
    least = SLOW * known[len(known) // 2] if known else 0.0
    able = [one for one in here if not one.weak]
    return [one for one in able if one.mbit is None or one.mbit >= least] or able or here  # where all are weak none is


def _can(one: Member, other: Member, blocked: Collection[Way]) -> bool:
    """Whether a host may dial another one, as far as is known."""
    return not other.alone and (one.name, other.name) not in blocked


def _before(one: Member, earlier: Sequence[Member], count: int, blocked: Collection[Way]) -> list[Member]:
    """The hosts before it in the order of ``count`` that it is connected with, whoever of the two dials."""
    able = [each for each in earlier if _can(one, each, blocked) or _can(each, one, blocked)]
    if count <= MESH:
        return able
    far = set(_some(one.name, [each.name for each in able[:-NEAR]], FAR))
    return [*able[-NEAR:], *(each for each in able[:-NEAR] if each.name in far)]


def _some(name: str, names: Sequence[str], count: int) -> list[str]:
    """The same ones each time, also when others have come or gone: those that a hash puts nearest (rendezvous)."""
    return sorted(names, key=lambda other: zlib.crc32(f"{name} {other}".encode()))[:count]
