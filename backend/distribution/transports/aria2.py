"""aria2: every host loads from several HTTP sources at once, this machine and the hosts that hold the file already.

The sources run our range server, each with a token of its own for every host. A host that reaches none of the head's
addresses gets it through a port that SSH forwards. Every piece is checked by its hash as it comes; a source that sends
wrong ones is left out and named.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.distribution.aria2_part import Part, Patience
from backend.distribution.aria2_reasons import HEAD
from backend.distribution.range_servers import LOOPBACK, RangeServer, addresses, serve_here, serve_there
from backend.distribution.reasons import Failure, Reason
from backend.distribution.receiving import failure_of
from backend.distribution.transports.base import (
    LEASE_S,
    Budget,
    Group,
    HeadUse,
    Means,
    Observation,
    Peer,
    Source,
    Target,
)
from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.ssh import Forward

MOST_SOURCES = 8
"""Hosts that one host is told to load from, besides the head."""


class Aria2Delivery:
    """See :class:`backend.distribution.transports.base.Delivery`."""

    def __init__(self, means: Means, group: Group, patience: Patience, port: int) -> None:
        self._means, self._group, self._patience, self._port = means, group, patience, port
        self._head: RangeServer | None = None
        self._no_head: Failure | None = None
        self._gave: Counter[str] = Counter()  # bytes by host, from servers here that have ended
        self._servers: dict[str, RangeServer] = {}
        self._hosts: dict[str, Host] = {}
        self._parts: dict[str, Part] = {}
        self._forwards: dict[str, Forward] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()

    # what is known

    def observe(self) -> Mapping[str, Observation]:
        return {name: self._observe(part) for name, part in self._parts.items()}

    def _observe(self, part: Part) -> Observation:
        name = part.target.name
        servers = [server for server in (self._head, *self._servers.values()) if server and name in server.sent]
        own = self._servers.get(name)
        peers = [
            Peer(server.name, down=part.speeds.get(server.name, 0.0), received=server.sent[name]) for server in servers
        ]
        if own is not None:
            peers += [Peer(to, up=own.rate(to), sent=count) for to, count in own.sent.items() if count]
        received = sum(server.sent[name] for server in servers) + self._gave[name]
        sent = sum(own.sent.values()) if own else 0
        return replace(part.seen, peers=tuple(peers), received=received, sent=sent)

    def head(self) -> HeadUse:
        sent = sum(self._gave.values())
        if self._head is None:
            return HeadUse(sent)
        return HeadUse(sent + sum(self._head.sent.values()), sum(map(self._head.rate, self._head.sent)))

    # sources

    async def _open_head(self) -> RangeServer | None:
        """The server on this machine; it is started when the first host wants it, and again when it has died."""
        async with self._opening:
            if self._head is None and self._no_head is None:
                payload = self._group.payload
                try:
                    self._head = await serve_here(
                        str(payload.path), payload.size, payload.sha256, self._group.budget.head_up, self._port
                    )
                    if not await self._head.ready():
                        self._no_head = self._head.failure
                except RingRiftError as error:
                    self._no_head = failure_of(error)
                if self._head is not None and self._no_head is None:
                    self._begin(self._watch(self._head))
            return self._head if self._no_head is None else None

    async def _open_source(self, source: Source) -> None:
        """Has a host serve the file, and tells the others."""
        name, payload = source.host.name, self._group.payload
        try:
            server = await serve_there(
                self._means.pool,
                source.host,
                source.path,
                payload.size,
                payload.sha256,
                claim=f"{source.folder}/aria2.serve.{self._group.id}",
                epoch=self._group.epoch,
                lease=source.lease,
                lease_s=LEASE_S,
                rate=self._group.budget.up(name),
            )
        except RingRiftError:
            return  # one source fewer; the head is there
        if not await server.ready():
            await server.close()
            return
        self._servers[name] = server
        self._begin(self._watch(server))
        for part in list(self._parts.values()):
            if not part.seen.ended and part.target.name != name and len(part.sources) <= MOST_SOURCES:
                await part.give([(name, await self._ways(server, part.target))])

    async def _watch(self, server: RangeServer) -> None:
        """Waits for a server's end; nobody loads from it after that."""
        await server.over()
        if server.failure is not None and server.failure.reason is Reason.CANCELLED:
            return
        said = "changed" if server.failure and server.failure.reason is Reason.SOURCE_CHANGED else "unreachable"
        self._servers.pop(server.name, None)
        at_head = server is self._head
        if at_head:  # whoever loads from now on gets another one, unless the file is not what it was
            self._gave.update(server.sent)
            self._head = None
            if said == "changed":
                self._no_head = server.failure
        for part in list(self._parts.values()):
            if server.name in part.sources and not part.seen.ended:
                await part.lose(server.name, said, server.failure if at_head else None)

    async def _ways(self, server: RangeServer, target: Target) -> list[str]:
        path = await server.admit(target.name)
        return [f"{base}{path}" for base in addresses(server, self._hosts.get(server.name), target.host)]

    # targets

    async def _feed(self, part: Part) -> None:
        """Tells a host its sources: others first, and each host others first, so that the head is spared."""
        target, found = part.target, []
        names = sorted(name for name in self._servers if name != target.name)
        turn = target.position % len(names) if names else 0
        for name in [*names[turn:], *names[:turn]][:MOST_SOURCES]:
            found.append((name, await self._ways(self._servers[name], target)))
        server = await self._open_head()
        if server is not None:
            if address := self._means.pool.own_address(target.host):
                await server.listen(address)
            found.append((HEAD, await self._ways(server, target)))
        await part.give(found)
        if server is None:
            await part.lose(HEAD, "other", self._no_head)

    def _unreached(self, part: Part, name: str) -> bool:
        """The head goes to such a host through SSH, once."""
        if name != HEAD or self._head is None or part.target.name in self._forwards:
            return False
        self._begin(self._forward(part, self._head))
        return True

    async def _forward(self, part: Part, server: RangeServer) -> None:
        try:
            forward = await self._means.pool.forward_back(part.target.host, server.ports[LOOPBACK])
        except RingRiftError:
            await part.lose(HEAD, "unreachable")
            return
        self._forwards[part.target.name] = forward
        path = await server.admit(part.target.name)
        await part.give([(HEAD, [f"http://{LOOPBACK}:{forward.port}{path}"])])

    def _start(self, target: Target) -> None:
        self._hosts[target.name] = target.host
        self._parts[target.name] = Part(
            self._means.pool,
            self._group,
            target,
            self._patience,
            ready=lambda part: self._begin(self._feed(part)),
            unreached=self._unreached,
        )

    # orders

    async def join(self, targets: Sequence[Target]) -> None:
        await self._end([target.name for target in targets if target.name in self._parts])
        for target in targets:
            self._start(target)

    async def offer(self, sources: Sequence[Source]) -> None:
        for source in sources:
            if source.host.name not in self._servers:
                self._hosts[source.host.name] = source.host
                self._begin(self._open_source(source))

    async def limit(self, budget: Budget) -> None:
        self._group = replace(self._group, budget=budget)
        if self._head is not None:
            await self._head.limit(budget.head_up)
        for server in self._servers.values():
            await server.limit(budget.up(server.name))
        for part in self._parts.values():
            await part.limit(budget.down(part.target.name))

    async def cancel(self, hosts: Collection[str]) -> None:
        await self._end(hosts)
        ending = [self._servers.pop(name) for name in hosts if name in self._servers]
        await asyncio.gather(*(server.close() for server in ending))

    async def _end(self, hosts: Collection[str]) -> None:
        await asyncio.gather(*(self._parts[name].stop() for name in hosts if name in self._parts))
        for name in hosts:
            for server in (self._head, *self._servers.values()):
                if server is not None:
                    await server.revoke(name)
            if name in self._forwards:
                await self._forwards.pop(name).close()

    async def close(self) -> None:
        await self.cancel(list(self._parts))
        servers = [server for server in (self._head, *self._servers.values()) if server is not None]
        self._servers.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        servers += self._servers.values()  # one may have come up at the last moment
        await asyncio.gather(*(server.close() for server in servers))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Aria2:
    """See :class:`backend.distribution.transports.base.Transport`.

    Args:
        port: of the head's range server, for a firewall that lets one through; 0 is any.
    """

    name = "aria2"
    many = False

    def __init__(self, patience: Patience | None = None, port: int = 0) -> None:
        self._patience, self._port = patience or Patience(), port

    def here(self, means: Means) -> Failure | None:
        return None  # the head's part needs this Python only

    def there(self, means: Means, host: Host, facts: Mapping[str, Any]) -> Failure | None:
        tools = facts.get("tools")
        if isinstance(tools, Mapping) and "aria2c" in tools and not tools["aria2c"]:
            return Failure(Reason.NOT_THERE, "there is no aria2c on this host", "apt-get install aria2 there")
        return None

    async def start(self, means: Means, group: Group) -> Aria2Delivery:
        delivery = Aria2Delivery(means, group, self._patience, self._port)
        await delivery.offer(group.sources)
        await delivery.join(group.targets)
        return delivery
