"""The contract of transports, held by every one of them against real hosts.

A new engine joins by one line in :data:`TRANSPORTS`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backend.distribution.reasons import Reason
from backend.distribution.transports import each
from backend.distribution.transports.aria2 import Aria2
from backend.distribution.transports.base import Budget, Delivery, Payload, Transport
from backend.distribution.transports.rsync import RsyncTransport, explain, progress
from backend.distribution.transports.stream import StreamTransport, ranges
from backend.distribution.transports.torrent import TorrentTransport
from tests.distribution.conftest import FACTS, PATIENCE_S, Cluster
from tests.distribution.programs import no_aria2

MakeCluster = Callable[..., Awaitable[Cluster]]
TRANSPORTS: dict[str, Callable[[], Transport]] = {
    "aria2": Aria2,
    "rsync": RsyncTransport,
    "stream": StreamTransport,
    "torrent": TorrentTransport,
}


@pytest.fixture(params=sorted(TRANSPORTS))
def transport(request: pytest.FixtureRequest, paths: object) -> Transport:
    return TRANSPORTS[request.param]()


def usable(cluster: Cluster, transport: Transport) -> None:
    if (failure := transport.here(cluster.means)) is not None:
        pytest.skip(failure.line())
    if transport.name == "aria2" and no_aria2():
        pytest.skip(no_aria2())


async def ended(delivery: Delivery, *names: str) -> None:
    """Waits until these hosts are complete or have failed."""
    async with asyncio.timeout(PATIENCE_S):
        while not all(delivery.observe()[name].ended for name in names):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def some(delivery: Delivery, name: str, count: int) -> None:
    """Waits until a host has some bytes."""
    async with asyncio.timeout(PATIENCE_S):
        while delivery.observe()[name].have < count:
            assert not delivery.observe()[name].ended, delivery.observe()[name]
            await asyncio.sleep(0.01)


def right(cluster: Cluster, name: str, payload: Payload) -> bool:
    return (cluster.stage(name, payload) / "data").read_bytes() == payload.path.read_bytes()


async def test_every_host_gets_the_file(make_cluster: MakeCluster, transport: Transport) -> None:
    cluster = await make_cluster(2)
    usable(cluster, transport)
    for host in cluster.hosts.values():
        assert transport.there(cluster.means, host, FACTS) is None
    payload = cluster.file(3 * 1024 * 1024 + 17)
    delivery = await transport.start(cluster.means, await cluster.group(payload))
    await ended(delivery, "n1", "n2")
    for name in ("n1", "n2"):
        seen = delivery.observe()[name]
        assert (seen.complete, seen.failure, seen.have) == (True, None, payload.size)
        assert right(cluster, name, payload)
    assert delivery.head().sent >= payload.size
    await delivery.close()
    for name in ("n1", "n2"):  # nothing is left that writes
        await cluster.receivers.finish(cluster.hosts[name], payload, "models/model.bin", 1, "t1", {})


async def test_an_empty_file_and_one_of_one_byte(make_cluster: MakeCluster, transport: Transport) -> None:
    cluster = await make_cluster()
    usable(cluster, transport)
    for size in (1, 0) if transport.name in ("stream", "rsync") else (1,):
        payload = cluster.file(size)
        delivery = await transport.start(cluster.means, await cluster.group(payload, id=f"t{size}"))
        await ended(delivery, "n1")
        assert delivery.observe()["n1"].complete, delivery.observe()
        assert right(cluster, "n1", payload)
        await delivery.close()


@pytest.mark.parametrize("partial", ["prefix", "holes", "rubbish", "longer"])
async def test_a_partial_file_is_taken_up(make_cluster: MakeCluster, transport: Transport, partial: str) -> None:
    cluster = await make_cluster()
    usable(cluster, transport)
    payload = cluster.file(4 * 1024 * 1024)
    whole = payload.path.read_bytes()
    before = {
        "prefix": whole[: 3 << 20],
        "holes": whole[: 1 << 20] + bytes(1 << 20) + whole[2 << 20 :],
        "rubbish": bytes(2 << 20),
        "longer": whole + b"more",
    }[partial]
    await cluster.group(payload)
    (cluster.stage("n1", payload) / "data").write_bytes(before)
    group = await cluster.group(payload)
    delivery = await transport.start(cluster.means, group)
    await ended(delivery, "n1")
    seen = delivery.observe()["n1"]
    assert seen.complete, seen
    assert right(cluster, "n1", payload)
    if partial in ("prefix", "holes") and transport.name != "rsync":  # rsync also counts what it matched
        assert delivery.head().sent < payload.size / 2, "what was there was not sent again"
    await delivery.close()


async def test_cancelled_it_writes_no_more_and_can_be_started_again(
    make_cluster: MakeCluster, transport: Transport
) -> None:
    cluster = await make_cluster()
    usable(cluster, transport)
    payload = cluster.file(48 * 1024 * 1024)
    delivery = await transport.start(cluster.means, await cluster.group(payload))
    await some(delivery, "n1", 1)
    await delivery.cancel(["n1"])
    staged = cluster.stage("n1", payload) / "data"
    if staged.exists():
        async with asyncio.timeout(PATIENCE_S):  # what was on its way may still be written; then nothing is
            while await asyncio.to_thread(_writers, staged):
                pass
    await delivery.close()
    again = await transport.start(cluster.means, await cluster.group(payload))
    await ended(again, "n1")
    assert again.observe()["n1"].complete, again.observe()
    assert right(cluster, "n1", payload)
    await again.close()


async def test_a_host_that_goes_away_in_the_middle_fails_and_the_others_do_not(
    make_cluster: MakeCluster, transport: Transport
) -> None:
    cluster = await make_cluster(2)
    usable(cluster, transport)
    payload = cluster.file(48 * 1024 * 1024)
    delivery = await transport.start(cluster.means, await cluster.group(payload))
    await some(delivery, "n1", 1)
    cluster.servers["n1"].stop()
    await ended(delivery, "n2")
    assert delivery.observe()["n2"].complete
    if transport.name in ("stream", "rsync"):
        await ended(delivery, "n1")
        seen = delivery.observe()["n1"]
        assert seen.complete or (seen.failure is not None and seen.failure.reason is Reason.LINK_LOST), seen
    await delivery.close()
    cluster.servers["n1"].start()
    cluster.pool.forget("n1")
    again = await transport.start(cluster.means, await cluster.group(payload, ["n1"]))
    await ended(again, "n1")
    assert again.observe()["n1"].complete, again.observe()
    assert right(cluster, "n1", payload)
    await again.close()


@pytest.mark.parametrize("engine", ["rsync", "stream"])
async def test_a_host_whose_turn_has_not_come_is_told_from_one_that_stalls(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(each, "AT_ONCE", 1)
    cluster = await make_cluster(2)
    transport = TRANSPORTS[engine]()
    usable(cluster, transport)
    payload = cluster.file(8 * 1024 * 1024)
    delivery = await transport.start(cluster.means, await cluster.group(payload))
    await some(delivery, "n1", 1)
    seen = delivery.observe()
    assert seen["n1"].complete or (seen["n1"].waits, seen["n2"].waits) == (False, True), seen
    await ended(delivery, "n1", "n2")
    assert all(one.complete and not one.waits for one in delivery.observe().values())
    await delivery.close()


async def test_a_limit_holds_for_its_host_and_can_be_lifted_on_the_way(
    make_cluster: MakeCluster, transport: Transport
) -> None:
    cluster = await make_cluster(2)
    usable(cluster, transport)
    payload = cluster.file(48 * 1024 * 1024)
    slow = Budget(hosts={"n1": (None, 100e3)})  # then it would take eight minutes
    delivery = await transport.start(cluster.means, replace(await cluster.group(payload), budget=slow))
    await some(delivery, "n1", 1)
    await ended(delivery, "n2")
    assert delivery.observe()["n2"].complete and delivery.observe()["n1"].have < payload.size / 2
    await delivery.limit(Budget())
    await ended(delivery, "n1")
    assert delivery.observe()["n1"].complete, delivery.observe()
    assert right(cluster, "n1", payload)
    await delivery.close()


async def test_a_source_that_has_changed_is_not_believed(make_cluster: MakeCluster, transport: Transport) -> None:
    cluster = await make_cluster()
    usable(cluster, transport)
    payload = cluster.file(2 * 1024 * 1024)
    group = await cluster.group(payload)
    data = bytearray(payload.path.read_bytes())
    data[-1] ^= 1
    payload.path.write_bytes(bytes(data))
    delivery = await transport.start(cluster.means, group)
    await ended(delivery, "n1")
    seen = delivery.observe()["n1"]
    if seen.complete:  # then the receiver finds it out
        with pytest.raises(Exception, match=r"corrupt|truncated"):
            await cluster.receivers.finish(cluster.hosts["n1"], payload, "models/model.bin", 1, "t1", {})
    else:
        assert seen.failure is not None
        assert seen.failure.reason in (Reason.SOURCE_CHANGED, Reason.CORRUPT)
    await delivery.close()


async def test_a_planted_link_is_not_followed(make_cluster: MakeCluster, transport: Transport, tmp_path: Path) -> None:
    cluster = await make_cluster()
    usable(cluster, transport)
    payload = cluster.file(2 * 1024 * 1024)
    group = await cluster.group(payload)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    staged = cluster.stage("n1", payload) / "data"
    staged.symlink_to(victim)
    delivery = await transport.start(cluster.means, group)
    await ended(delivery, "n1")
    assert victim.read_text() == "precious" and os.stat(victim).st_nlink == 1
    seen = delivery.observe()["n1"]
    if seen.complete:  # the link was put away and a file of its own made
        assert not staged.is_symlink() and right(cluster, "n1", payload)
    else:
        assert seen.failure is not None and seen.failure.reason in (Reason.UNSAFE, Reason.ENGINE), seen
        assert staged.is_symlink(), "nobody has touched what somebody put there"
    await delivery.close()


def _writers(path: Path) -> list[str]:
    """Processes that have a file open for writing."""
    about, found = path.stat(), []
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            seen = entry.stat()
            if (seen.st_dev, seen.st_ino) != (about.st_dev, about.st_ino):
                continue
            text = (entry.parent.parent / "fdinfo" / entry.name).read_text()
            if int(text.split("flags:")[1].split()[0], 8) & os.O_ACCMODE:
                found.append(str(entry))
        except OSError:
            continue
    return found


def test_only_what_is_missing_is_sent() -> None:
    assert ranges(b"", 10, 35) == [(0, 35)]
    assert ranges(bytes([1, 0, 0, 1]), 10, 35) == [(10, 30)]
    assert ranges(bytes([0, 1, 1, 0]), 10, 35) == [(0, 10), (30, 35)]
    assert ranges(bytes([1, 1, 1, 1]), 10, 35) == []
    assert ranges(bytes([1, 1]), 10, 35) == [(0, 35)], "of another file"
    assert ranges(b"", 10, 0) == []


def test_rsyncs_lines_of_progress() -> None:
    text = b"\r      1,048,576  25%   10.00MB/s    0:00:00  \r  4,194,304 100%  9MB/s 0:00:00 (xfr#1, to-chk=0/1)\r"
    assert progress(text) == 4194304
    assert progress(b"sending incremental file list\n") is None


@pytest.mark.parametrize(
    ("code", "text", "moved", "reason"),
    [
        (11, "rsync: write failed on data: No space left on device (28)", 5, Reason.DISK_FULL),
        (127, "bash: rsync: command not found", 0, Reason.NOT_THERE),
        (12, "sh: 1: rsync: not found", 0, Reason.NOT_THERE),
        (255, "Host key verification failed.", 0, Reason.TRUST),
        (255, "ssh: connect to host n1 port 22: Connection refused", 0, Reason.ENGINE),
        (255, "client_loop: send disconnect: Broken pipe", 9, Reason.LINK_LOST),
        (12, "rsync: connection unexpectedly closed (28 bytes received so far) [sender]", 9, Reason.ENGINE),
        (30, "rsync error: timeout in data send/receive", 9, Reason.LINK_LOST),
        (23, 'rsync: link_stat "/a" failed: No such file or directory (2)', 0, Reason.SOURCE_CHANGED),
        (2, "protocol version mismatch", 0, Reason.ENGINE),
    ],
)
def test_what_rsyncs_end_means(code: int, text: str, moved: int, reason: Reason) -> None:
    failure = explain(code, text, moved)
    assert failure.reason is reason and failure.what
