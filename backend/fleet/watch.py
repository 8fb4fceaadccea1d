"""Looks at the hosts as time goes by, for as long as a supervisor lives: what the Hosts screen shows is this."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

from backend.errors import RingRiftError
from backend.fleet.hosts import Host, Hosts, load_hosts
from backend.fleet.look import look_at_all
from backend.fleet.reading import hosts_in_use
from backend.fleet.remote import Remote
from backend.fleet.store import OFF, host_rows
from backend.paths import Paths
from backend.state.store import StateStore

if TYPE_CHECKING:
    from backend.fleet.ssh import SshPool

SAMPLE_S = 30.0
"""Seconds between two samples of a host that answers."""
FACTS_S = 3600.0
"""Seconds between two readings of what changes rarely."""
DOWN_S = 120.0
"""Seconds between two tries of a host that does not answer."""
AGAIN_S = 5.0
"""Seconds that a host whose connection broke is left alone after it was looked at: one that drops every connection
would be asked for ever."""

log = logging.getLogger("ringrift.supervisor")


class Watch:
    """The looks that are due. Never raises: a watch that fails must not stop the jobs.

    Args:
        remote: the way to the hosts.
        connect: makes it, once there is a host besides this machine; a pool of its own by default.
        monotonic: seconds that nobody sets; what is due is decided by it.
    """

    def __init__(
        self,
        paths: Paths,
        store: StateStore,
        remote: Remote | None = None,
        *,
        connect: Callable[[], Remote] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paths, self.store, self.remote, self.connect = paths, store, remote, connect
        self._monotonic = monotonic
        self._tried_at: dict[str, float] = {}
        self._facts_at: dict[str, float] = {}
        self._lost: set[str] = set()
        self._wake = asyncio.Event()
        self._hosts: Hosts | None = None
        self._complaint = ""
        self._own: SshPool | None = None

    async def run(self) -> None:
        """Looks for ever; ends by being cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._look_at_the_lost())
                while True:
                    await self._or_complain(self.round)
                    await asyncio.sleep(SAMPLE_S)
        finally:
            if self._own is not None:
                await self._own.close()

    def lost(self, name: str) -> None:
        """Notes that the connection to a host broke: it is looked at now, not when its time has come."""
        self._lost.add(name)
        self._wake.set()

    async def _look_at_the_lost(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            names, self._lost = self._lost, set()
            await self._or_complain(partial(self.round, names))

    async def _or_complain(self, look: Callable[[], Awaitable[None]]) -> None:
        """A round whose failure is only logged."""
        try:
            await look()
        except RingRiftError as error:
            self._complain(error.line())
        except Exception:
            log.exception("the watch over the hosts stumbled")

    async def round(self, names: Collection[str] | None = None) -> None:
        """Asks every host whose time has come; with ``names``, those of them that were not asked a moment ago."""
        hosts = await self._read_hosts()
        if hosts is None:
            return
        now = self._monotonic()
        due: list[Host] = []
        for row in await host_rows(self.store, hosts, samples=False):
            host = hosts.get(row.name)
            if host is None or str(host.settings.get("status", "")).lower() in OFF:
                continue
            if not host.is_here and (row.fingerprint is None or row.state == "refused"):
                continue  # an operator's turn
            since = now - self._tried_at.get(host.name, float("-inf"))
            if names is None:
                wanted = row.state != "down" or since >= DOWN_S
            else:
                wanted = host.name in names and since >= AGAIN_S
            if wanted:
                due.append(host)
                self._tried_at[host.name] = now
        rich = [host for host in due if now - self._facts_at.get(host.name, float("-inf")) >= FACTS_S]
        poor = [host for host in due if host not in rich]
        if self.remote is None and any(not host.is_here for host in due):
            self.remote = self.connect() if self.connect is not None else self._pool()
        answers = await look_at_all(self.store, self.remote, poor, "sample", silent=True)
        answers |= await look_at_all(self.store, self.remote, rich, "facts", silent=True)
        for host in rich:
            if not isinstance(answers[host.name], RingRiftError):
                self._facts_at[host.name] = now

    def _pool(self) -> SshPool:
        from backend.fleet.ssh import SshPool

        self._own = SshPool(self.paths)
        return self._own

    async def _read_hosts(self) -> Hosts | None:
        """The hosts in use; with a mistake in their file, as they were last."""
        try:
            hosts = await asyncio.to_thread(load_hosts, hosts_in_use(self.paths))
        except RingRiftError as error:
            self._complain(error.line())
            return self._hosts
        self._complaint = ""
        self._hosts = hosts
        return hosts

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.error("%s", text)
