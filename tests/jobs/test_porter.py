"""The porter by itself: several who want one log at once, and a copy that cannot be written."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.jobs.launchers.local import LocalLauncher
from backend.jobs.porter import READ_BYTES, Porter
from backend.paths import Paths
from backend.state.store import StateStore

KEY = "c1.1"


@pytest.fixture
async def porter(paths: Paths) -> AsyncIterator[Porter]:
    async with await StateStore.open(paths) as store:
        yield Porter(paths, store, "owner")


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[LocalLauncher]:
    """A host on which an attempt has logged more than one piece."""
    folder = tmp_path / "far" / "jobs" / KEY
    folder.mkdir(parents=True)
    (folder / "log").write_bytes(os.urandom(3 * READ_BYTES + 1))
    launcher = LocalLauncher(Paths(tmp_path / "far"), "owner", 1, name="far", root=str(tmp_path / "far"))
    yield launcher
    await launcher.close()


async def test_many_who_want_one_log_bring_it_once(porter: Porter, far: LocalLauncher, tmp_path: Path) -> None:
    async def now_and_then(n: int) -> None:
        for _ in range(3):
            await porter.bring(far, KEY)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for n in range(6):
            group.create_task(now_and_then(n))
    written = (tmp_path / "far" / "jobs" / KEY / "log").read_bytes()
    assert (porter.paths.jobs / KEY / "log").read_bytes() == written
    assert not porter._copying


async def test_a_copy_that_cannot_be_written_ends_nothing_else(
    porter: Porter, far: LocalLauncher, caplog: pytest.LogCaptureFixture
) -> None:
    (porter.paths.jobs / KEY / "log").mkdir(parents=True)  # as little to be written to as a file on a full disk
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[object]] = []

        def spawn(work: object, name: str) -> asyncio.Task[object]:
            tasks.append(group.create_task(work, name=name))  # type: ignore[arg-type]
            return tasks[-1]

        porter.spawn = spawn
        with caplog.at_level(logging.WARNING):
            porter.mirror(far, [KEY])
    assert len(tasks) == 1 and tasks[0].exception() is None
    assert "log" in caplog.text
