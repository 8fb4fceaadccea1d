"""The porter by itself: copies of logs that several ask for at once, and a disk that is full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from backend.fleet.hosts import Host
from backend.jobs import store as rows
from backend.jobs.launchers.base import AttemptSpec
from backend.jobs.launchers.local import LocalLauncher
from backend.jobs.model import Attempt
from backend.jobs.pipelines import add_chain
from backend.jobs.porter import MIRROR_S, READ_BYTES, READS, Porter
from backend.jobs.said import Said
from backend.jobs.staging import LocalTransfer, Site
from backend.paths import Paths
from backend.state.store import StateStore
from tests.lab.disks import small_disk

KEY = "c1.1"


@pytest.fixture
async def store(paths: Paths) -> AsyncIterator[StateStore]:
    async with await StateStore.open(paths) as store:
        yield store


def far_log(root: Path, data: bytes) -> LocalLauncher:
    """A host on which the attempt has logged this."""
    folder = root / "jobs" / KEY
    folder.mkdir(parents=True)
    (folder / "log").write_bytes(data)
    return LocalLauncher(Paths(root), "owner", 1, name="far", root=str(root))


async def test_a_log_that_three_ask_for_at_once_is_copied_once(paths: Paths, store: StateStore, tmp_path: Path) -> None:
    size = READS * READ_BYTES // 8 + READ_BYTES // 4  # lines; more than one look brings
    data = b"".join(b"%07d\n" % n for n in range(size))
    launcher = far_log(tmp_path / "far", data)
    porter = Porter(paths, store, "owner")
    first = asyncio.create_task(porter.bring(launcher, KEY))
    second = asyncio.create_task(porter.bring(launcher, KEY))
    assert await first is False
    await asyncio.gather(porter.bring(launcher, KEY), second)
    await launcher.close()
    assert (paths.jobs / KEY / "log").read_bytes() == data
    assert not porter._copying


async def test_a_full_disk_ends_nothing_that_runs_beside(paths: Paths, tmp_path: Path) -> None:
    launcher = far_log(tmp_path / "far", b"x" * (1 << 20))
    paths.console.mkdir(parents=True)
    with small_disk(paths.console, "1m"):
        async with await StateStore.open(paths) as store:
            async with store.database.write() as db:
                _, (job,) = await add_chain(db, "hex8_2p", [("command", {"argv": ["true"]})], {}, None)
            spec = AttemptSpec(f"{job}.1", "owner", ("true",), None, {})
            await rows.place(store, 1, rows.Placed(job, 1, "far", spec))
            fill(paths.console)
            porter = Porter(paths, store, "owner")
            site = Site(Host("far", {}), LocalTransfer(), str(tmp_path / "no-python"), str(tmp_path / "far"))
            async with asyncio.TaskGroup() as group:  # as of the supervisor: one that fails ends all
                porter.spawn = group.create_task
                porter.push(Attempt(f"{job}.1", job, 1, "far"), site, "command", "hex8_2p", {"argv": ["true"]})
                porter.mirror(launcher, [KEY])
            assert not porter._busy and porter._not_before.keys() == {f"push {job}.1", "mirror far"}
    await launcher.close()


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(b"\0" * 4096)


async def test_a_copy_that_cannot_be_written_is_left_alone_for_a_while(
    paths: Paths, store: StateStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    launcher = far_log(tmp_path / "far", b"a line\n")
    paths.jobs.mkdir(parents=True, exist_ok=True)
    (paths.jobs / KEY).write_text("no folder")
    porter = Porter(paths, store, "owner")
    for _ in range(3):
        porter._not_before.clear()
        async with asyncio.TaskGroup() as group:
            porter.spawn = group.create_task
            porter.mirror(launcher, [KEY])
    again = porter._not_before["mirror far"] - asyncio.get_running_loop().time()
    await launcher.close()
    assert not porter._busy and again > MIRROR_S
    assert len([one for one in caplog.messages if one.startswith("mirror far: ")]) == 1


def test_a_trouble_that_lasts_is_said_once_a_minute_and_another_at_once() -> None:
    said = Said()
    told = [said.is_new("far", text, now) for text, now in (("a", 0), ("a", 59), ("a", 60), ("a", 61), ("b", 62))]
    assert told == [True, False, True, False, True]
