"""The swarm over SSH, on hosts with links of their own: capped, lossy, cut."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.distribution.manifest import make_payload
from backend.distribution.receiving import Receivers
from backend.distribution.torrent.swarm import Swarm
from backend.distribution.transports.base import Group, Means, Payload, Target
from backend.distribution.transports.torrent import TorrentTransport
from backend.fleet.hosts import Hosts
from backend.fleet.ssh import SshPool
from backend.paths import Paths
from tests.distribution.torrent.crew import all_complete, until
from tests.lab.bed import NETWORK, Bed, missing

NAME = "models/model.bin"


class Site:
    """A bed with a pool of connections, and a file for all hosts."""

    def __init__(self, bed: Bed, pool: SshPool, paths: Paths, folder: Path) -> None:
        self.bed, self.pool, self.paths, self.folder = bed, pool, paths, folder
        self.hosts = [server.host(python_path=sys.executable) for server in bed.servers.values()]
        self.receivers = Receivers(pool, "test")

    async def enrol(self) -> None:
        for host in self.hosts:
            self.pool.confirm_enrolment(await self.pool.enrol(host))

    def file(self, size: int) -> Payload:
        path = self.folder / "model.bin"
        path.write_bytes(os.urandom(size))
        return make_payload(path)

    async def start(self, payload: Payload) -> Swarm:
        targets = []
        for n, host in enumerate(self.hosts, 1):
            there = await self.receivers.prepare(host, payload, NAME, 1)
            targets.append(Target(host, n, there.folder, there.lease))
        means = Means(self.paths, self.pool, Hosts(tuple(self.hosts), "test"), "test", self.folder)
        return await TorrentTransport().start(means, Group("t1", payload, tuple(targets)))

    async def publish(self, payload: Payload, *names: str) -> None:
        for host in self.hosts:
            if host.name in names:
                receipt = await self.receivers.finish(host, payload, NAME, 1, "t1", {})
                assert receipt["verify"]["sha256"] == payload.sha256


@pytest.fixture
async def site(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    if reason := missing():
        pytest.skip(f"no bed of hosts: {reason}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    paths.console.mkdir(parents=True)
    bed = Bed(tmp_path / "lab", 100 + os.getpid() % 150)
    bed.up(4, "30mbit")
    try:
        async with SshPool(paths) as pool:
            made = Site(bed, pool, paths, tmp_path)
            await made.enrol()
            yield made
    finally:
        bed.down()


def lose(bed: Bed, n: int, percent: int) -> None:
    """Drops that share of the packets that reach a host."""
    rule = f"add rule inet lab in numgen random mod 100 < {percent} tcp dport != 22 drop"
    chain = "add chain inet lab in { type filter hook input priority 0; }"
    for words in ("add table inet lab", chain, rule):
        subprocess.run(["ip", "netns", "exec", bed.namespace(n), "nft", words], check=True)


@pytest.mark.serial
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft to lose packets")
async def test_a_host_that_loses_packets_delays_only_itself(site: Site) -> None:
    payload = site.file(12_000_000)
    lose(site.bed, 1, 20)  # the one that sits on the first seat
    swarm = await site.start(payload)
    good = ("lab-h2", "lab-h3", "lab-h4")
    await until(all_complete(swarm, *good), swarm)
    await site.publish(payload, *good)
    await until(all_complete(swarm), swarm)
    await site.publish(payload, "lab-h1")
    await swarm.close()


NEW = "tcp flags & (syn | ack) == syn"
"""The first packet of a connection."""


def shut(bed: Bed, n: int, *rules: str) -> None:
    """Lets packets that fit a rule not leave a host."""
    for words in ("add table inet shut", "add chain inet shut out { type filter hook output priority 0; }",
                  *(f"add rule inet shut out {rule}" for rule in rules)):  # fmt: skip
        subprocess.run(["ip", "netns", "exec", bed.namespace(n), "nft", words], check=True)


def open_again(bed: Bed, n: int) -> None:
    subprocess.run(["ip", "netns", "exec", bed.namespace(n), "nft", "delete table inet shut"], check=True)


@pytest.mark.serial
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft to shut ports")
async def test_ways_that_are_shut_are_found_before_the_start_and_gone_around(site: Site) -> None:
    payload = site.file(12_000_000)
    first = site.bed.servers["lab-h1"].address
    head = NETWORK.format(bed=site.bed.number, host=1)
    shut(site.bed, 4, f"ip daddr {head} {NEW} drop", f"ip daddr {first} {NEW} reject with tcp reset")
    swarm = await site.start(payload)
    await until(all_complete(swarm), swarm)
    unreached = dict(swarm.observe()["lab-h4"].unreached)
    assert unreached == {"head": "timed out", "lab-h1": "connection refused"}
    assert all(not one.unreached for name, one in swarm.observe().items() if name != "lab-h4")
    assert swarm.graph.seats_of("lab-h4") == [] and not swarm.graph.whole
    assert "lab-h4" in swarm.graph.dials["lab-h1"] and "lab-h1" not in swarm.graph.dials["lab-h4"]
    assert all(peer.name != "head" for peer in swarm.observe()["lab-h4"].peers)
    await site.publish(payload, *(host.name for host in site.hosts))
    await swarm.close()


@pytest.mark.serial
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft to shut ports")
async def test_a_way_that_is_opened_on_the_way_is_used(site: Site) -> None:
    payload = site.file(12_000_000)
    shut(site.bed, 2, "tcp sport != 22 drop")
    swarm = await site.start(payload)
    await until(lambda: swarm.observe()["lab-h2"].unreached, swarm)
    open_again(site.bed, 2)
    await until(all_complete(swarm), swarm)
    await until(lambda: not swarm.observe()["lab-h2"].unreached, swarm)
    await site.publish(payload, *(host.name for host in site.hosts))
    await swarm.close()


@pytest.mark.serial
async def test_a_host_that_is_cut_off_and_comes_back_is_served_then(site: Site) -> None:
    payload = site.file(12_000_000)
    swarm = await site.start(payload)
    await until(lambda: swarm.observe()["lab-h2"].have > 1_000_000, swarm)
    site.bed.cut(2)
    good = ("lab-h1", "lab-h3", "lab-h4")
    await until(all_complete(swarm, *good), swarm)
    site.bed.heal(2)
    await until(lambda: swarm.observe()["lab-h2"].ended, swarm)
    if (failure := swarm.observe()["lab-h2"].failure) is not None:
        assert str(failure.reason) in ("link lost", "stalled")
        target = next(one for one in swarm.group.targets if one.name == "lab-h2")
        site.pool.forget("lab-h2")
        await swarm.join([target])
    await until(all_complete(swarm), swarm)
    await site.publish(payload, *(host.name for host in site.hosts))
    await swarm.close()


@pytest.mark.serial
async def test_a_host_that_loses_its_power_stops_nobody_and_takes_up_where_it_was(site: Site) -> None:
    payload = site.file(12_000_000)
    swarm = await site.start(payload)
    await until(lambda: swarm.observe()["lab-h3"].have > 3_000_000, swarm)
    assert site.bed.kill(3) > 0
    await until(all_complete(swarm, "lab-h1", "lab-h2", "lab-h4"), swarm)
    await until(lambda: swarm.observe()["lab-h3"].failure, swarm)
    await asyncio.to_thread(site.bed.servers["lab-h3"].start)
    site.pool.forget("lab-h3")
    await swarm.join([one for one in swarm.group.targets if one.name == "lab-h3"])
    await until(all_complete(swarm), swarm)
    await site.publish(payload, *(host.name for host in site.hosts))
    await swarm.close()
