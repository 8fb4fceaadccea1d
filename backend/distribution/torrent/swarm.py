"""One file on its way to several hosts through a swarm: keeps the head's seeder and the hosts' peers at it.

The decisions are made elsewhere (:mod:`graph`, :mod:`watchdog`); this carries them out. Everything that it knows is in
memory: started again after a crash it makes a new torrent with a new authority, the peers that were left on the hosts
are ended by the new ones, and these take up what lies there.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from backend.distribution.away import Away
from backend.distribution.reasons import Failure, Reason
from backend.distribution.torrent.addresses import Reached, find_ends
from backend.distribution.torrent.channel import Channel, Child, Opener, end_left, here
from backend.distribution.torrent.graph import Graph, Member, count_seats, draw
from backend.distribution.torrent.make import Torrent, make_torrent
from backend.distribution.torrent.pace import DONE, Pace
from backend.distribution.torrent.reach import HEAD, Reach
from backend.distribution.torrent.tls import Authority, Identity
from backend.distribution.torrent.watchdog import Watchdog
from backend.distribution.transports.base import (
    DATA,
    LEASE_S,
    Budget,
    Group,
    HeadUse,
    Observation,
    Payload,
    Peer,
    Target,
)
from backend.errors import RingRiftError, UnverifiedError
from backend.fleet.hosts import Host
from backend.fleet.transfers import python_of

log = logging.getLogger("ringrift.supervisor")

LOOPBACK = "127.0.0.1"
TICK_S = 0.5
BEAT_S = 20.0
AWAY_S = 3.0
"""Time between two looks after which this process was away."""
SEEDER_LEASE_S = 60.0
SEEDER_TRIES = 5
SEEDER_PAUSE_S = 0.5
READY_S = 15.0
"""A host that has not listened by then has no seat until it does."""
BRINGING_UP = 16
"""Peers that are brought up at once."""
ACCUSERS = 2
"""Hosts that must have had bad bytes from a peer before it is banned from the swarm."""
CHECKING = ("checking_files", "checking_resume_data", "allocating")


@dataclass(slots=True)
class Place:
    """A host's part: where it is, how its peer is doing, what it has been told."""

    target: Target
    address: str = ""
    head: str = ""  # the head's address, seen from there
    channel: Channel | None = None
    port: int = 0
    alone: bool = False
    weak: bool = False
    hungry: bool = False
    late: bool = False
    told: list[list[Any]] | None = None
    banned: bool = False
    again: bool = False  # its engine has crashed, and was started once more
    observation: Observation = field(default_factory=lambda: Observation(""))

    @property
    def gone(self) -> bool:
        return self.observation.failure is not None or self.banned or self.late


class Swarm:
    """A :class:`~backend.distribution.transports.base.Delivery`.

    Attributes:
        giving_since: when the first host was told whom to dial, by the monotonic clock; None before that.

    Args:
        opener: gives the way to start a command on a host.
        reached: tells the address that the SSH connection to a host leads to.
        tls: peers must show a certificate of this swarm's own authority.
        seeder: words before the command of the head's own peer, for tests.
    """

    def __init__(
        self, group: Group, opener: Callable[[Host], Opener], *, reached: Reached = lambda host: None, tls: bool = True,
        seeder: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.group, self.payload = group, group.payload
        self._opener, self._reached, self._tls, self._seeder_words = opener, reached, tls, tuple(seeder)
        self._authority = Authority() if tls else None
        self._torrent: Torrent | None = None
        self._places: dict[str, Place] = {}
        self._ended: dict[str, Observation] = {}
        self._watchdog = Watchdog()
        self._pace = Pace(0)
        self._limits: list[int] = []
        self._budget = group.budget
        self._seeder: Channel | None = None
        self._seats = 0
        self._ports: dict[str, list[int]] = {}  # of the head's seats, by its address
        self._listening: set[str] = set()
        self._given: list[int] = []
        self._given_before = 0
        self._had = 0
        self._head_use = HeadUse()
        self._shared: dict[int, list[str]] = {}
        self._graph = Graph(())
        self._reach = Reach()
        self._banned_addresses: set[str] = set()
        self._accusers: dict[str, set[str]] = {}
        self._dirty = asyncio.Event()
        self._gate = asyncio.Semaphore(BRINGING_UP)
        self._begun = time.monotonic()
        self.giving_since: float | None = None
        self._closed = False
        for target in group.targets:
            self._take(target)
        self._task = asyncio.create_task(self._run())

    # What the runner asks for

    def observe(self) -> dict[str, Observation]:
        return self._ended | {name: place.observation for name, place in self._places.items()}

    def head(self) -> HeadUse:
        """The seeder's own count is up to a second old; what nobody had and somebody has must have left the head."""
        least = max(0, self.payload.size - self._had) if any(one.complete for one in self.observe().values()) else 0
        return replace(self._head_use, sent=max(self._head_use.sent, least))

    @property
    def graph(self) -> Graph:
        """Who was told to dial whom."""
        return self._graph

    @property
    def seeder_pid(self) -> int | None:
        """Of the head's own peer, while it runs."""
        return self._seeder.pid if self._seeder else None

    async def join(self, targets: Sequence[Target]) -> None:
        await self._leave([target.name for target in targets])
        for target in targets:
            self._ended.pop(target.name, None)
            self._take(target)
        if self._torrent is not None:  # else they are brought up with the others
            await self._bring_up([self._places[target.name] for target in targets])
            self._listen()
        self._dirty.set()

    async def limit(self, budget: Budget) -> None:
        self._budget = budget
        if self._seeder:
            self._pace_seats(time.monotonic())
        for place in self._places.values():
            if place.channel:
                place.channel.send("limits", **_limits(budget, place.target.name))

    async def cancel(self, hosts: Collection[str]) -> None:
        await self._leave(hosts)
        self._dirty.set()

    async def close(self) -> None:
        self._closed = True
        tasks = [task for task in (self._task, self._restarting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._leave(list(self._places))
        if self._seeder:
            await self._seeder.stop()
            self._seeder = None

    # Hosts

    def _take(self, target: Target) -> None:
        place = Place(target, alone=bool(target.host.settings.get("nat_blocked")))
        place.observation = Observation(target.name, have=_have(self.payload, target.good))
        self._had += place.observation.have
        self._places[target.name] = place

    async def _leave(self, hosts: Collection[str]) -> None:
        """Ends the part of some hosts, and does not return before nothing writes there any more."""
        places = [place for name in hosts if (place := self._places.pop(name, None)) is not None]
        for place in places:
            self._watchdog.end(place.target.name)
            self._reach.forget(place.target.name)
            self._ended[place.target.name] = place.observation
        await asyncio.gather(*(self._end(place) for place in places))

    async def _end(self, place: Place) -> None:
        if place.channel is None:
            return
        if await place.channel.stop():
            return
        with suppress(RingRiftError, OSError, TimeoutError):  # unreachable: its lease ends it
            async with asyncio.timeout(READY_S):
                opener = self._opener(place.target.host)
                await end_left(opener, _python(place.target), place.target.folder)

    async def _bring_up(self, places: Sequence[Place]) -> None:
        found = await asyncio.gather(*(find_ends(place.target.host, self._reached) for place in places))
        for place, ends in zip(places, found, strict=True):
            if self._places.get(place.target.name) is not place:
                continue  # it left meanwhile
            if isinstance(ends, Failure):
                self._fail(place.target.name, ends)
            else:
                place.address, place.head = ends.host, ends.head
                self._start(place)

    def _start(self, place: Place) -> None:
        target = place.target
        order = self._order(target.name) | {
            "folder": target.folder, "leaf": DATA, "listen": [place.address], "seed": False, "lease": target.lease,
            "lease_s": LEASE_S, **_limits(self._budget, target.name),
        }  # fmt: skip
        opener = self._opener(target.host)

        async def gated(argv: Sequence[str]) -> Any:
            async with self._gate:
                place.observation = replace(place.observation, waits=False)
                return await opener(argv)

        place.observation = replace(place.observation, waits=True)
        place.channel = Channel(target.name, gated, _python(target), order, self._hear)

    def _order(self, name: str) -> dict[str, Any]:
        assert self._torrent is not None
        identity: Identity | None = self._authority.issue(self._torrent.name) if self._authority else None
        return {
            "do": "start", "name": name, "size": self.payload.size, "seats": 0, "up": 0, "down": 0,
            "torrent": base64.b64encode(self._torrent.data).decode(), "tls": identity.order() if identity else None,
        }  # fmt: skip

    # The course of things

    async def _run(self) -> None:
        try:
            await self._begin()
            beat = time.monotonic()
            away = Away(beat, AWAY_S)
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._dirty.wait()
                self._dirty.clear()
                now = time.monotonic()
                if away.look(now):
                    self._watchdog.excuse(now)
                    self._reach.excuse(now)
                self._judge(now)
                self._tell(now)
                if now - beat > BEAT_S:
                    beat = now
                    for channel in self._channels():
                        channel.send("beat")
        except RingRiftError as error:
            self._fail_all(Failure(Reason.SOURCE_CHANGED, error.what))
        except Exception as error:  # libtorrent raises RuntimeError; nobody would hear of a task that ended
            log.exception("the swarm of %s", self.payload.path.name)
            self._fail_all(Failure(Reason.ENGINE, str(error)))

    async def _begin(self) -> None:
        pem = self._authority.pem if self._authority else None
        about = await asyncio.to_thread(self.payload.path.stat)
        if about.st_size != self.payload.size:
            raise UnverifiedError(f"{self.payload.path.name} has another size now")
        self._torrent = await make_torrent(self.payload.path, self.payload.sha256, authority=pem)
        self._seats = count_seats(self._members())
        self._pace = Pace(self.payload.size // max(1, self._seats))
        await self._bring_up(list(self._places.values()))
        self._seed()

    def _seed(self) -> None:
        """Starts the head's own peer."""
        path = self.payload.path.resolve()
        self._listening = {place.head for place in self._places.values() if place.head} or {LOOPBACK}
        order = self._order(HEAD) | {
            "folder": str(path.parent), "leaf": path.name, "listen": sorted(self._listening), "seed": True,
            "seats": self._seats,
            "lease": None, "lease_s": SEEDER_LEASE_S,
            "up": int((self._budget.head_up or 0) / (self._seats + 1)),
        }  # fmt: skip
        self._ports, self._given, self._limits = {}, [], []
        self._seeder = Channel(HEAD, Child.open, [*self._seeder_words, *here()], order, self._hear_seeder)

    def _listen(self) -> None:
        """Has the head listen where hosts that came later look for it, too."""
        wanted = {place.head for place in self._places.values() if place.head}
        if self._seeder and not wanted <= self._listening:
            self._listening |= wanted
            self._seeder.send("listen", addresses=sorted(self._listening))

    def _pace_seats(self, now: float) -> None:
        """Tells the head's ports how fast each may give; together they keep to its budget."""
        budget = self._budget.head_up or 0.0
        used = not self._seats or bool(self._graph.whole)
        everything = budget / (self._seats + 1) * (1 if used else DONE)  # for the port that offers every piece
        limits = self._pace.limits(now, self._given or [0] * self._seats, budget - everything)
        limits.append(int(everything))
        if self._seeder and limits != self._limits:
            self._limits = limits
            self._seeder.send("limits", each=limits)

    def _channels(self) -> list[Channel]:
        return [place.channel for place in self._places.values() if place.channel] + (
            [self._seeder] if self._seeder else []
        )

    def _members(self) -> list[Member]:
        return [
            Member(place.target.name, place.target.position, place.target.mbit, weak=place.weak, gone=place.gone,
                   alone=place.alone, hungry=place.hungry)
            for place in self._places.values()
        ]  # fmt: skip

    def _judge(self, now: float) -> None:
        for place in self._places.values():
            place.late = not place.port and now - self._begun > READY_S and not place.observation.ended
        share = self.payload.size // self._seats if self._seats else 0
        verdict = self._watchdog.judge(now, self._given, share)
        if not self._ports:  # nobody can be blamed while the head does not give
            self._watchdog.excuse(now)
            return
        for name, failure in verdict.failed.items():
            self._fail(name, failure)
        for name in verdict.hungry:
            self._places[name].hungry = True
        for name in verdict.weak:
            self._places[name].weak = True
        for seat in verdict.late:
            taken = self._graph.seats[seat] if seat < len(self._graph.seats) else ()
            others = [
                place.target.name for place in self._places.values()
                if not place.gone and not place.weak and place.port and place.target.name not in taken
            ]  # fmt: skip
            if others:
                self._shared.setdefault(seat, []).append(others[seat % len(others)])

    def _tell(self, now: float) -> None:
        """Draws the graph and tells everybody whose part in it is another than before.

        Who has not tried its ways yet is told when it has, and nobody waits for it.
        """
        if not self._ports:
            return
        blocked = self._reach.blocked()
        graph = self._graph = draw(self._members(), self._seats, self._shared, blocked)
        for name, place in self._places.items():
            ports = self._ports.get(place.head)
            if not ports or not place.port or place.channel is None or place.observation.failure is not None:
                continue
            up = [one for one in graph.dials.get(name, ()) if (at := self._places[one]).port and not at.banned]
            self._probe(now, place, ports[-1], [*up, *(other for one, other in blocked if one == name)])
            if place.told is None and self._reach.waits(name, [HEAD, *up]):
                continue
            heads = [ports[seat] for seat in graph.seats_of(name) if seat < len(ports) - 1]
            if name in graph.whole:
                heads.append(ports[-1])
            wanted = [[place.head, port] for port in heads]
            wanted += [[self._places[one].address, self._places[one].port] for one in up
                       if self._reach.reaches(name, one)]  # fmt: skip
            if wanted != place.told:
                self.giving_since = self.giving_since or now
                if place.told is None:
                    self._watchdog.begin(name, now)
                place.told = wanted
                place.channel.send("peers", peers=wanted)

    def _probe(self, now: float, place: Place, port: int, others: Sequence[str]) -> None:
        """Has a host try the ways that nothing is known of, or that failed a while ago."""
        if place.observation.complete:
            return
        ways = {other: (at.address, at.port) for other in others if (at := self._places.get(other)) and at.port}
        ways[HEAD] = (place.head, port)
        asked = self._reach.ask(now, place.target.name, ways)
        if asked and place.channel:
            place.channel.send("probe", ways=[[one, *ways[one]] for one in asked])

    # What peers say

    def _hear(self, channel: Channel, event: dict[str, Any]) -> None:
        place = self._places.get(channel.name)
        if place is None or place.channel is not channel:
            return
        now, what = time.monotonic(), event["ev"]
        if what == "ready":
            ((*_, port),) = event["ports"].values()
            place.port, place.alone = int(port), place.alone or bool(event["alone"])
            self._reach.forget(channel.name)
            for address in self._banned_addresses:
                channel.send("ban", address=address)
            self._dirty.set()
        elif what == "probed":
            if self._reach.heard(channel.name, str(event["way"]), str(event["why"])):
                place.observation = replace(place.observation, unreached=self._reach.of(channel.name))
            if not self._reach.pending(channel.name):
                self._dirty.set()
        elif what == "stats":
            self._note(place, event, now)
        elif what == "finished":
            place.observation = replace(place.observation, complete=True, have=self.payload.size, rate=0.0, fault="")
            self._watchdog.end(place.target.name)
        elif what == "banned":
            self._accuse(channel.name, str(event["address"]))
        elif what == "disk":
            full = "No space" in event["message"] or "File too large" in event["message"]
            reason = Reason.DISK_FULL if full else Reason.ENGINE
            self._fail(channel.name, Failure(reason, str(event["message"]), "free some space there" if full else ""))
        elif what == "ended":
            place.port = 0
            if channel.crashed and not place.again and not place.observation.ended:
                place.again, place.told = True, None
                self._start(place)
            elif not place.observation.ended:
                self._fail(channel.name, event["failure"] or Failure(Reason.ENGINE, "the peer ended"))
            self._dirty.set()

    def _note(self, place: Place, event: dict[str, Any], now: float) -> None:
        name = place.target.name
        if any(who == HEAD for who, *_ in event["peers"]):
            self._reach.met(name)
        unreached = self._reach.of(name)
        absent = [f"{address}:{port}" for address, port in event["absent"]]
        absent += [f"{who} ({why})" for who, why in unreached]
        self._watchdog.heard(
            name, now, done=int(event["done"]), rate=float(event["down"]), peers=len(event["peers"]),
            busy=event["state"] in CHECKING, absent=absent, complete=place.observation.complete,
        )  # fmt: skip
        peers = tuple(
            Peer(str(who), float(down), float(up), int(received), int(sent))
            for who, _, down, up, received, sent in event["peers"]
            if who == HEAD or who in self._places
        )
        fault = f"{len(absent)} of its peers do not answer" if absent else ""
        if unreached:
            fault = f"it does not reach {', '.join(who for who, _ in unreached[:3])}"
        if place.weak and not fault:
            fault = "far slower than the others"
        if event["stuck"]:
            fault = "its disk takes nothing"
        place.observation = replace(
            place.observation, have=min(int(event["done"]), self.payload.size), rate=float(event["down"]),
            received=int(event["received"]), sent=int(event["sent"]), peers=_joined(peers), pieces=str(event["cells"]),
            waits=event["state"] in CHECKING, unreached=unreached,
            fault="" if place.observation.complete else fault,
        )  # fmt: skip

    def _hear_seeder(self, channel: Channel, event: dict[str, Any]) -> None:
        if channel is not self._seeder or self._closed:
            return
        what = event["ev"]
        if what == "ready":
            self._ports = {str(at): [int(port) for port in ports] for at, ports in event["ports"].items()}
            for address in self._banned_addresses:
                channel.send("ban", address=address)
            self._dirty.set()
        elif what == "stats":
            seats = [int(sent) for sent in event["seats"]]
            self._given = seats[: self._seats]
            self._pace_seats(time.monotonic())
            self._head_use = HeadUse(self._given_before + int(event["sent"]), float(event["up"]))
        elif what == "ended":
            failure = event["failure"] or Failure(Reason.ENGINE, "the seeder ended")
            self._given_before, self._ports = self._head_use.sent, {}
            for place in self._places.values():
                place.told = None if place.told is None else []
            if failure.reason is Reason.SOURCE_CHANGED or self._restarts >= SEEDER_TRIES:
                self._fail_all(failure)
            else:
                self._restarts += 1
                self._restarting = asyncio.create_task(self._seed_again())

    _restarts = 0
    _restarting: asyncio.Task[None] | None = None

    async def _seed_again(self) -> None:
        await asyncio.sleep(SEEDER_PAUSE_S)
        if not self._closed:
            self._seed()

    # Trouble

    def _fail(self, name: str, failure: Failure) -> None:
        place = self._places.get(name)
        if place is None or place.observation.failure is not None or place.observation.complete:
            return
        place.observation = replace(place.observation, failure=failure, rate=0.0)
        self._watchdog.end(name)
        if place.channel is not None:
            place.channel.send("stop")
        self._dirty.set()

    def _fail_all(self, failure: Failure) -> None:
        for name in list(self._places):
            self._fail(name, failure)

    def _accuse(self, accuser: str, address: str) -> None:
        """A host got bytes with a wrong hash from there, and talks to it no more.

        That alone is no proof: a host whose own disk is broken accuses everybody. Two accusers are believed.
        """
        accusers = self._accusers.setdefault(address, set())
        accusers.add(accuser)
        if len(accusers) >= ACCUSERS and address not in self._banned_addresses:
            self._ban(address)

    def _ban(self, address: str) -> None:
        """A peer there has sent bytes whose hash is wrong: nobody talks to it any more."""
        self._banned_addresses.add(address)
        if address in self._listening:
            self._fail_all(Failure(Reason.SOURCE_CHANGED, "the head gave bytes that do not fit the hashes"))
            return
        for channel in self._channels():
            channel.send("ban", address=address)
        for name, place in self._places.items():
            if place.address == address:
                place.banned = True
                place.observation = replace(place.observation, complete=False)  # it may have said so, and worse
                self._fail(name, Failure(Reason.CORRUPT, "it gave others bytes with a wrong hash", blamed=(name,)))
        self._dirty.set()


def _limits(budget: Budget, name: str) -> dict[str, int]:
    return {"up": int(budget.up(name) or 0), "down": int(budget.down(name) or 0)}


def _python(target: Target) -> list[str]:
    settings = target.host.settings
    return [str(settings.get("python_path") or target.facts.get("python") or python_of(target.host))]


def _have(payload: Payload, good: bytes) -> int:
    return min(payload.size, sum(payload.piece_size for one in good if one == 1))


def _joined(peers: Sequence[Peer]) -> tuple[Peer, ...]:
    """One entry a party; the head may be connected by several of its seats."""
    found: dict[str, Peer] = {}
    for one in peers:
        was = found.get(one.name, Peer(one.name))
        found[one.name] = Peer(
            one.name, was.down + one.down, was.up + one.up, was.received + one.received, was.sent + one.sent
        )
    return tuple(found[name] for name in sorted(found))
