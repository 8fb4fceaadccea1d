"""Hosts to deliver to: real SSH servers on loopback, each with a folder of its own."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backend.distribution.manifest import make_payload
from backend.distribution.receiving import Receivers
from backend.distribution.transports.base import Group, Means, Payload, Source, Target
from backend.fleet.hosts import Host, Hosts
from backend.fleet.ssh import Limits, SshPool
from backend.paths import Paths
from tests.lab.sshd import Sshd

OWNER = "root-test"
QUICK = Limits(connect_s=5, login_s=10, keepalive_s=1, keepalive_count=3, backoff_s=0.02, backoff_max_s=0.1)
PATIENCE_S = 90.0
FACTS = {"tools": {"rsync": "/usr/bin/rsync", "aria2c": "/usr/bin/aria2c"}, "python": sys.executable}


def some_bytes(count: int, seed: str = "") -> bytes:
    """Bytes that no compression makes smaller, the same for the same seed."""
    blocks = (hashlib.sha256(f"{seed} {n}".encode()).digest() for n in range(-(-count // 32)))
    return b"".join(blocks)[:count]


@dataclass
class Cluster:
    """A head with hosts."""

    paths: Paths
    pool: SshPool
    servers: dict[str, Sshd]
    hosts: dict[str, Host]
    means: Means
    receivers: Receivers
    number: int = field(default=1)

    def base(self, name: str) -> Path:
        """The folder under which a host keeps what is ours."""
        return self.servers[name].folder / "agent"

    def stage(self, name: str, payload: Payload) -> Path:
        return self.base(name) / ".distribution" / OWNER / "stage" / payload.sha256

    def file(self, size: int, seed: str = "", name: str = "model.bin") -> Payload:
        path = self.paths.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(some_bytes(size, seed))
        return make_payload(path)

    async def group(self, payload: Payload, names: Sequence[str] = (), id: str = "t1") -> Group:
        """A group as the runner makes it: stages prepared, pieces looked at."""
        targets = []
        for position, name in enumerate(names or self.hosts, 1):
            host = self.hosts[name]
            there = await self.receivers.prepare(host, payload, "models/model.bin", self.number)
            good = await self.receivers.pieces(host, payload) if there.have else b""
            targets.append(Target(host, position, there.folder, there.lease, good, FACTS))
        return Group(id, payload, tuple(targets))

    async def source(self, payload: Payload, name: str) -> Source:
        there = await self.receivers.prepare(self.hosts[name], payload, "models/model.bin", self.number)
        return Source(self.hosts[name], there.store, there.folder, there.lease, FACTS)


@pytest.fixture
async def make_cluster(
    paths: Paths, tmp_path: Path, make_sshd: Callable[..., Sshd]
) -> AsyncIterator[Callable[..., object]]:
    """Makes a cluster of so many hosts, with their keys enrolled."""
    pools: list[SshPool] = []

    async def make(count: int = 1, **options: object) -> Cluster:
        servers = {f"n{k}": make_sshd(f"n{k}", **options) for k in range(1, count + 1)}
        hosts = {name: server.host() for name, server in servers.items()}
        pool = SshPool(paths, QUICK)
        pools.append(pool)
        for host in hosts.values():
            pool.confirm_enrolment(await pool.enrol(host))
        private = tmp_path / "private"
        private.mkdir(mode=0o700, exist_ok=True)
        means = Means(paths, pool, Hosts(tuple(hosts.values()), "test"), OWNER, private)
        return Cluster(paths, pool, servers, hosts, means, Receivers(pool, OWNER))

    yield make
    await asyncio.gather(*(pool.close() for pool in pools))
