"""The aria2 transport between this machine and hosts over SSH, all of it real: sshd, aria2c, range servers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.distribution.aria2_part import Patience
from backend.distribution.reasons import Reason
from backend.distribution.transports.aria2 import Aria2, Aria2Delivery
from backend.distribution.transports.base import Budget, Group, Means, Observation, Payload, Source, Target
from backend.fleet.hosts import Hosts
from backend.fleet.ssh import Limits, SshPool
from backend.paths import Paths
from tests.distribution.programs import Sample, no_aria2, sample
from tests.lab.sshd import Sshd, no_sshd

pytestmark = pytest.mark.skipif(bool(no_aria2()), reason=no_aria2() or "aria2c is there")

Make = Callable[..., Sshd]
WAIT_S = 120.0
PYTHON = Path(sys.executable).resolve()


@pytest.fixture
async def pool(paths: Paths) -> AsyncIterator[SshPool]:
    async with SshPool(paths, Limits(backoff_s=0.0)) as made:
        yield made


class Bed:
    """Hosts that can be targets and sources, and the file."""

    def __init__(self, pool: SshPool, make: Make, folder: Path, given: Sample) -> None:
        self.pool, self.make, self.folder, self.sample = pool, make, folder, given
        self.means = Means(pool.paths, pool, Hosts((), "test"), "test", folder)
        self.servers: dict[str, Sshd] = {}

    @property
    def payload(self) -> Payload:
        one = self.sample
        return Payload(one.path, len(one.data), one.sha256, "other", one.piece_size, one.pieces)

    async def server(self, name: str, **options: Any) -> Sshd:
        if name not in self.servers:
            server = self.servers[name] = self.make(name, **options)
            self.pool.confirm_enrolment(await self.pool.enrol(server.host()))
        return self.servers[name]

    def stage(self, name: str) -> Path:
        folder = self.folder / f"stage-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "lease").touch()
        return folder

    async def target(self, name: str, position: int = 1, **options: Any) -> Target:
        server, stage = await self.server(name, **options), self.stage(name)
        return Target(server.host(), position, str(stage), str(stage / "lease"))

    async def source(self, name: str, path: Path) -> Source:
        server, stage = await self.server(name), self.stage(name)
        return Source(server.host(), str(path), str(stage), str(stage / "lease"))

    def data(self, name: str) -> bytes:
        return (self.stage(name) / "data").read_bytes()

    def group(self, *targets: Target, sources: tuple[Source, ...] = (), **more: Any) -> Group:
        return Group("g1", self.payload, targets, sources, **more)


@pytest.fixture
def bed(pool: SshPool, make_sshd: Make, tmp_path: Path) -> Bed:
    return Bed(pool, make_sshd, tmp_path, sample(tmp_path / "model.bin", 6_000_001))


async def until(condition: Callable[[], object], delivery: Aria2Delivery) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(delivery.observe()) from None


async def ended(delivery: Aria2Delivery, *names: str) -> dict[str, Observation]:
    chosen = names or tuple(delivery.observe())
    await until(lambda: all(delivery.observe()[name].ended for name in chosen), delivery)
    return dict(delivery.observe())


async def test_several_hosts_load_from_the_head(bed: Bed) -> None:
    targets = [await bed.target(name, place) for place, name in enumerate(("alpha", "beta"), 1)]
    delivery = await Aria2().start(bed.means, bed.group(*targets))
    seen = await ended(delivery)
    assert all(one.complete and one.have == bed.payload.size for one in seen.values()), seen
    assert bed.data("alpha") == bed.data("beta") == bed.sample.data
    await until(lambda: delivery.head().sent >= 2 * bed.payload.size, delivery)
    await delivery.close()
    left = sorted(path.name for path in bed.stage("alpha").iterdir())
    assert left == ["aria2.claim", "aria2.lock", "data", "lease"]


async def test_a_host_that_was_offered_takes_over_when_the_file_here_changes(bed: Bed) -> None:
    """The head is slow, so that most comes from the others; then its file is touched, and the load goes on."""
    held = bed.sample.copy(bed.folder / "held")
    group = bed.group(await bed.target("beta"), budget=Budget(head_up=50_000, host_up=50_000))
    delivery = await Aria2().start(bed.means, group)
    await until(lambda: delivery.head().sent > 0, delivery)
    await delivery.offer([await bed.source("alpha", held)])
    await until(lambda: delivery.observe()["beta"].have and "alpha" in delivery._parts["beta"].sources, delivery)
    await until(lambda: delivery._parts["beta"].sources["alpha"] == "ok", delivery)
    os.utime(bed.payload.path, ns=(1, 1))
    await delivery.limit(Budget())
    seen = (await ended(delivery))["beta"]
    assert seen.complete, seen
    assert bed.data("beta") == bed.sample.data
    assert max(seen.peers, key=lambda peer: peer.received).name == "alpha"
    await delivery.close()


async def test_a_file_that_changes_here_ends_the_load_with_that_reason(bed: Bed) -> None:
    delivery = await Aria2().start(bed.means, bed.group(await bed.target("alpha"), budget=Budget(head_up=50_000)))
    await until(lambda: delivery.head().sent > 0, delivery)
    with bed.payload.path.open("ab") as stream:
        stream.write(b"more")
    failure = (await ended(delivery))["alpha"].failure
    assert failure is not None and failure.reason is Reason.SOURCE_CHANGED, failure
    await delivery.close()


async def test_a_host_with_bad_bytes_is_left_out_and_named(bed: Bed) -> None:
    bad = bed.sample.copy(bed.folder / "bad", wrong=tuple(range(0, bed.payload.size, 100_000)))
    group = bed.group(
        await bed.target("beta"), sources=(await bed.source("alpha", bad),), budget=Budget(head_up=1_000_000)
    )
    delivery = await Aria2().start(bed.means, group)
    seen = (await ended(delivery))["beta"]
    assert seen.complete and bed.data("beta") == bed.sample.data
    assert "alpha sent bad bytes" in seen.fault
    await delivery.close()


@pytest.mark.skipif(bool(no_sshd()), reason=f"forwards ports: {no_sshd()}")
async def test_a_host_that_reaches_no_address_of_the_head_loads_through_ssh(bed: Bed) -> None:
    """As behind NAT: the hosts file says that it is not on this machine's loopback, where alone the head listens."""
    target = await bed.target("alpha")
    await bed.pool.exec(target.host, ["true"], timeout_s=60)
    far = replace(target, host=replace(target.host, settings=target.host.settings | {"peer_address": "192.0.2.9"}))
    delivery = await Aria2().start(bed.means, bed.group(far))
    seen = (await ended(delivery))["alpha"]
    assert seen.complete and bed.data("alpha") == bed.sample.data
    await delivery.close()


async def test_a_host_that_forwards_no_port_either_has_no_route(bed: Bed) -> None:
    target = await bed.target("alpha", AllowTcpForwarding="no")
    far = replace(target, host=replace(target.host, settings=target.host.settings | {"peer_address": "192.0.2.9"}))
    delivery = await Aria2().start(bed.means, bed.group(far))
    failure = (await ended(delivery))["alpha"].failure
    assert failure is not None and failure.reason is Reason.NO_ROUTE, failure
    await delivery.close()


async def test_a_cut_link_a_new_start_and_a_cancel_leave_one_writer_or_none(bed: Bed) -> None:
    target, slow = await bed.target("alpha"), Budget(head_up=200_000)
    first = await Aria2().start(bed.means, bed.group(target, budget=slow, epoch=1))
    await until(lambda: first.observe()["alpha"].have > 0, first)
    bed.servers["alpha"].cut()
    failure = (await ended(first))["alpha"].failure
    assert failure is not None and failure.reason is Reason.LINK_LOST
    second = await Aria2().start(bed.means, bed.group(target, budget=slow, epoch=2))  # a supervisor that came after
    await until(lambda: second.observe()["alpha"].have > 0, second)
    assert len(engines(bed.stage("alpha"))) == 1
    await second.cancel(["alpha"])
    assert engines(bed.stage("alpha")) == []
    stopped = second.observe()["alpha"].failure
    assert stopped is not None and stopped.reason is Reason.CANCELLED
    await second.limit(Budget())
    await second.join([target])
    assert (await ended(second))["alpha"].complete
    assert bed.data("alpha") == bed.sample.data
    await second.close()
    await first.close()


async def test_cancel_reaches_a_host_whose_link_was_cut(bed: Bed) -> None:
    delivery = await Aria2().start(bed.means, bed.group(await bed.target("alpha"), budget=Budget(head_up=50_000)))
    await until(lambda: delivery.observe()["alpha"].have > 0, delivery)
    bed.servers["alpha"].cut()
    await ended(delivery)
    await delivery.cancel(["alpha"])
    assert engines(bed.stage("alpha")) == []
    await delivery.close()


async def test_a_source_that_dies_is_left_behind(bed: Bed) -> None:
    held = bed.sample.copy(bed.folder / "held")
    group = bed.group(
        await bed.target("beta"),
        sources=(await bed.source("alpha", held),),
        budget=Budget(head_up=300_000, host_up=300_000),
    )
    delivery = await Aria2(Patience(source_s=2.0)).start(bed.means, group)
    await until(
        lambda: any(peer.name == "alpha" and peer.received for peer in delivery.observe()["beta"].peers), delivery
    )
    for pid in servers_of(held):
        os.kill(pid, signal.SIGKILL)
    await delivery.limit(Budget())
    seen = (await ended(delivery))["beta"]
    assert seen.complete and bed.data("beta") == bed.sample.data
    await delivery.close()


async def test_a_server_here_that_dies_is_started_again_for_who_comes_next(bed: Bed) -> None:
    delivery = await Aria2().start(bed.means, bed.group(await bed.target("alpha")))
    assert (await ended(delivery))["alpha"].complete
    await until(lambda: delivery.head().sent >= bed.payload.size, delivery)
    (server,) = servers_of(bed.payload.path)
    os.kill(server, signal.SIGKILL)
    await until(lambda: delivery._head is None, delivery)
    await delivery.join([await bed.target("beta", 2)])
    seen = await ended(delivery)
    assert seen["beta"].complete and bed.data("beta") == bed.sample.data, seen
    await until(lambda: delivery.head().sent >= 2 * bed.payload.size, delivery)
    await delivery.close()


async def test_without_aria2c_the_next_transport_has_its_turn(bed: Bed) -> None:
    target = await bed.target("alpha")
    there = Aria2().there(bed.means, target.host, {"tools": {"aria2c": None}})
    assert there is not None and there.reason is Reason.NOT_THERE
    assert Aria2().there(bed.means, target.host, {"tools": {"aria2c": "/usr/bin/aria2c"}}) is None
    only = bed.servers["alpha"].home / "python-only"
    only.mkdir()
    (only / "python3").write_text(f'#!/bin/sh\nPATH=/nowhere exec {PYTHON} "$@"\n')
    (only / "python3").chmod(0o755)
    bare = replace(target.host, settings=target.host.settings | {"python_path": str(only / "python3")})
    delivery = await Aria2().start(bed.means, bed.group(replace(target, host=bare)))
    failure = (await ended(delivery))["alpha"].failure
    assert failure is not None and failure.reason is Reason.NOT_THERE, failure
    await delivery.close()


async def test_a_port_of_the_head_that_is_taken_is_said(bed: Bed) -> None:
    taken = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    delivery = await Aria2(port=port).start(bed.means, bed.group(await bed.target("alpha")))
    failure = (await ended(delivery))["alpha"].failure
    assert failure is not None and failure.reason is Reason.PORT_IN_USE, failure
    await delivery.close()
    taken.close()
    await taken.wait_closed()


async def test_a_host_that_cannot_be_reached_is_said(bed: Bed) -> None:
    target = await bed.target("alpha")
    bed.servers["alpha"].stop()
    delivery = await Aria2().start(bed.means, bed.group(target))
    failure = (await ended(delivery))["alpha"].failure
    assert failure is not None and failure.reason is Reason.LINK_LOST
    await delivery.close()


async def test_no_secret_stands_in_an_argument_or_a_file_while_it_loads(bed: Bed) -> None:
    delivery = await Aria2().start(bed.means, bed.group(await bed.target("alpha"), budget=Budget(head_up=100_000)))
    await until(lambda: delivery.observe()["alpha"].have > 0, delivery)
    assert delivery._head is not None
    (token,) = delivery._head.tokens.values()
    listing = ["ps", "-eww", "-o", "args"]
    seen = (await asyncio.to_thread(subprocess.run, listing, capture_output=True, text=True, check=True)).stdout
    assert "aria2c" in seen and token not in seen
    for path in bed.stage("alpha").iterdir():
        assert token.encode() not in path.read_bytes(), path
        assert path.name != "aria2.conf"
    await delivery.close()


def engines(stage: Path) -> list[int]:
    """Processes of aria2c that work in a stage."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "aria2c":
                found += [int(entry.name)] * (os.readlink(entry / "cwd") == str(stage))
        except OSError:
            continue
    return found


def servers_of(path: Path) -> list[int]:
    """Processes that have a file open to serve it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and any(os.readlink(one) == str(path) for one in (entry / "fd").iterdir()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
