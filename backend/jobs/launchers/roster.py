"""The launchers of a root: this machine's, and one for every host of hosts.yaml whose key is enrolled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import RingRiftError
from backend.fleet.hosts import Host, load_hosts
from backend.fleet.known_hosts import HostKey, enrolled_keys
from backend.fleet.pools import pool_of
from backend.fleet.reading import hosts_in_use
from backend.fleet.remote import ThisMachine
from backend.fleet.transfers import python_of
from backend.jobs.launchers.base import Launcher
from backend.jobs.launchers.local import LocalLauncher
from backend.jobs.launchers.serving import ServingLauncher
from backend.jobs.launchers.slurm import POLL_S, SlurmLauncher
from backend.jobs.launchers.slurm_client import SlurmClient
from backend.jobs.launchers.ssh import SshLauncher
from backend.paths import Paths

if TYPE_CHECKING:
    from backend.fleet.ssh import SshPool

log = logging.getLogger("ringrift.supervisor")

Stamp = tuple[int, int] | None


class Roster(Mapping[str, Launcher]):
    """Launchers by host name; :meth:`refresh` follows the hosts in use and the enrolled keys.

    Drained hosts stay: what runs there is seen to its end.

    Attributes:
        poll_s: seconds between two questions to a scheduler.
        on_loss: hears the name of a host whose connection broke.
    """

    def __init__(self, paths: Paths, owner: str, epoch: int) -> None:
        self.paths = paths
        self._owner, self._epoch = owner, epoch
        self.on_loss: Callable[[str], None] = lambda name: None
        self._pool: SshPool | None = None
        self._launchers: dict[str, Launcher] = {"local": LocalLauncher(paths, owner, epoch)}
        self._made: dict[str, tuple[Host, HostKey | None]] = {}
        self.poll_s = POLL_S
        self._seen: tuple[Stamp, Stamp] | None = None

    def __getitem__(self, name: str) -> Launcher:
        return self._launchers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._launchers)

    def __len__(self) -> int:
        return len(self._launchers)

    @property
    def pool(self) -> SshPool:
        """The connections of this supervisor; asyncssh is imported with the first host to connect to."""
        if self._pool is None:
            from backend.fleet.ssh import SshPool

            self._pool = SshPool(self.paths, hosts_file=hosts_in_use(self.paths))
            self._pool.on_loss = lambda name: self.on_loss(name)
        return self._pool

    def outdated(self) -> bool:
        """Whether a file that the roster is made from has changed since it was read."""
        return self._seen is not None and self._stamps() != self._seen

    def _stamps(self) -> tuple[Stamp, Stamp]:
        return _stamp(hosts_in_use(self.paths)), _stamp(self.paths.console / "known_hosts")

    async def refresh(self) -> None:
        """Reads the files again if they have changed; with a mistake in them, everything stays as it is."""
        stamps = await asyncio.to_thread(self._stamps)
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            hosts = await asyncio.to_thread(load_hosts, hosts_in_use(self.paths))
            keys = await asyncio.to_thread(enrolled_keys, self.paths.console / "known_hosts")
        except RingRiftError as error:
            log.error("%s", error.line())
            return
        wanted: dict[str, tuple[Host, HostKey | None]] = {
            host.name: (host, keys.get(host.name))
            for host in hosts.hosts
            if not host.is_local and (host.is_here or host.name in keys)
        }
        for name in [name for name, made in self._made.items() if wanted.get(name) != made]:
            log.info("host %s: settings or key changed, or taken out", name)
            del self._made[name]
            await self._launchers.pop(name).close()
            if name not in wanted and self._pool is not None:
                await self._pool.drop(name)
        for name, (host, key) in wanted.items():
            if name not in self._made:
                self._made[name] = (host, key)
                self._launchers[name] = self._launcher(host)

    def _launcher(self, host: Host) -> Launcher:
        if not host.is_pool:
            return SshLauncher(self.pool, host, self._owner, self._epoch)
        pool = pool_of(host.name, host.settings, host.line)
        if host.is_here:
            serving: ServingLauncher = LocalLauncher(
                self.paths, self._owner, self._epoch, name=host.name, root=pool.agent
            )
            client = SlurmClient(ThisMachine(), host, pool)
        else:
            serving = SshLauncher(self.pool, host, self._owner, self._epoch)
            client = SlurmClient(self.pool, host, pool)
        return SlurmLauncher(serving, client, self._owner, self._epoch, python_of(host), poll_s=self.poll_s)

    async def close(self) -> None:
        """Lets go of all hosts; jobs go on."""
        await asyncio.gather(*(launcher.close() for launcher in self._launchers.values()))
        if self._pool is not None:
            await self._pool.close()


def _stamp(path: Path) -> Stamp:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size
