"""``state.db``: operations, journal, events and revision, across connections, crashes and foreign files."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import ResourceError, SchemaError, UnverifiedError
from backend.locks import FileLock
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.state.migrations import MIGRATIONS
from backend.state.store import StateStore

PLAN = Plan(
    "jobs.cancel", "Cancel t1", {"jobs": ["t1"]}, (Change("t1", "running", "cancelled"),), guard={"job t1": "open"}
)


async def test_a_plan_comes_back_as_it_was_submitted(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        name = await store.submit(PLAN, by="ann")
        row = await store.operation(name)
        assert row is not None
        assert (row.id, row.state, row.by, row.title) == ("o1", "pending", "ann", "Cancel t1")
        assert await store.plan_of(name) == PLAN
        assert await store.operation("o2") is None


async def test_the_same_key_is_the_same_operation(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        first = await store.submit(PLAN, key="k")
        assert await store.submit(PLAN, key="k") == first
        assert await store.submit(PLAN) != first
        assert [name for name, _ in await store.open_operations()] == ["o1", "o2"]


async def test_an_operation_ends_once_and_with_one_event(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        name = await store.submit(PLAN)
        await store.begin_operation(name)
        await store.end_operation(name, "refused", error="moved")
        await store.end_operation(name, "done", result={"x": 1})
        row = await store.operation(name)
        assert row is not None
        assert (row.state, row.error, row.result) == ("refused", "moved", {})
        assert [event.type for event in await store.events()] == ["OPERATION_REFUSED"]
        assert await store.open_operations() == []


async def test_reads_within_a_read_are_of_its_moment_and_others_take_turns(paths: Paths) -> None:
    async with await StateStore.open(paths) as store, await StateStore.open(paths) as other:
        async with store.database.read():
            before = await store.revision()
            await other.submit(PLAN)
            assert (await store.revision(), await store.operations()) == (before, ())
            apart = asyncio.create_task(store.revision())
            await asyncio.sleep(0.05)
            assert not apart.done()
        assert await apart == await store.revision() == before + 1
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            async with store.database.read() as db:
                await db.all("SELECT * FROM nowhere")
        assert await store.revision() == before + 1


async def test_the_journal_of_an_operation_remembers_the_first_result(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        one, two = store.bound(await store.submit(PLAN)), store.bound(await store.submit(PLAN))
        assert await one.step("move") is None
        await one.record_step("move", {"to": "a"})
        await one.record_step("move", {"to": "b"})
        assert await one.step("move") == {"to": "a"}
        assert await two.step("move") is None


async def test_every_change_is_a_new_revision_and_a_heartbeat_is_none(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        await store.begin_supervision()
        before = await store.revision()
        await store.beat(1.5)
        assert await store.revision() == before
        await store.submit(PLAN)
        await store.add_event("THING", "x")
        assert await store.revision() == before + 2


async def test_a_change_that_fails_leaves_nothing(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        before = await store.revision()
        with pytest.raises(ZeroDivisionError):
            async with store.database.write() as db:
                await db.run("INSERT INTO counters VALUES ('x', 1)")
                raise ZeroDivisionError
        async with store.database.read() as db:
            assert await db.all("SELECT * FROM counters") == []
        assert await store.revision() == before


async def test_a_cancelled_change_leaves_the_connection_usable(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:

        async def change() -> None:
            async with store.database.write() as db:
                await db.next_number("x")
                await asyncio.sleep(0)

        for steps in range(12):
            task = asyncio.create_task(change())
            for _ in range(steps):
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await change()
        async with store.database.read() as db:
            row = await db.one("SELECT value FROM counters WHERE name = 'x'")
            assert row is not None
            assert 12 <= row["value"] <= 24


async def test_events_are_added_once_per_fact_and_never_changed(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        await store.add_event("JOB_ENDED", "t1", {"n": 1}, key="ended t1")
        await store.add_event("JOB_ENDED", "t1", {"n": 2}, key="ended t1")
        await store.add_event("JOB_STARTED", "t2")
        assert [event.payload for event in await store.events(type="JOB_ENDED")] == [{"n": 1}]
        assert [event.subject for event in await store.events(last=1)] == ["t2"]
        assert [event.subject for event in await store.events(after=1)] == ["t2"]
        for statement in ("UPDATE events SET subject = 'x'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError):
                async with store.database.write() as db:
                    await db.run(statement)


async def test_two_processes_writing_at_once_lose_nothing(paths: Paths) -> None:
    async with await StateStore.open(paths) as one, await StateStore.open(paths) as two:
        version = await one.database.data_version()
        names = await asyncio.gather(*(store.submit(PLAN) for store in (one, two) for _ in range(10)))
        assert sorted(names, key=lambda name: int(name[1:])) == [f"o{n}" for n in range(1, 21)]
        assert await one.database.data_version() != version


async def test_two_first_openings_at_once_make_one_database(paths: Paths) -> None:
    stores = await asyncio.gather(*(StateStore.open(paths) for _ in range(4)))
    assert len({await store.owner() for store in stores}) == 1
    for store in stores:
        await store.close()


async def test_the_supervisor_is_alive_when_its_lock_is_held(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        assert not (await store.supervisor()).alive
        assert [await store.begin_supervision(), await store.begin_supervision()] == [1, 2]
        row = await store.supervisor()
        assert (row.alive, row.pid, row.epoch) == (False, os.getpid(), 2)
        with FileLock(paths.supervisor_lock, "supervisor"):
            assert (await store.supervisor()).alive


async def test_a_database_of_a_newer_program_is_refused(paths: Paths) -> None:
    await (await StateStore.open(paths)).close()
    connection = sqlite3.connect(paths.state_db)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.commit()
    connection.close()
    with pytest.raises(SchemaError, match="newer program"):
        await StateStore.open(paths)


async def test_another_programs_database_is_refused_and_left_alone(paths: Paths) -> None:
    paths.console.mkdir(parents=True)
    connection = sqlite3.connect(paths.state_db)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    before = paths.state_db.read_bytes()
    with pytest.raises(SchemaError, match="another program"):
        await StateStore.open(paths)
    assert paths.state_db.read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "truncated", "folder"])
async def test_a_file_that_is_no_whole_database_is_an_error(paths: Paths, damage: str) -> None:
    if damage == "folder":
        paths.state_db.mkdir(parents=True)
    else:
        await (await StateStore.open(paths)).close()
        whole = paths.state_db.read_bytes()
        paths.state_db.write_bytes(b"hello" * 100 if damage == "text" else whole[: len(whole) // 2])
    with pytest.raises(UnverifiedError):
        await StateStore.open(paths)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Paths]:
    """A root on a disk of 2 MB."""
    root = tmp_path / "small"
    root.mkdir()
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("needs to mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(root)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount")
    yield Paths(root)
    subprocess.run(["umount", "-l", str(root)], check=True)


async def test_a_full_disk_is_told_and_what_was_stored_stays(small_disk: Paths) -> None:
    async with await StateStore.open(small_disk) as store:
        await store.submit(PLAN)
        with pytest.raises(OSError), (small_disk.root / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"\0" * 4096)
        with pytest.raises(ResourceError):
            for _ in range(200):
                await store.submit(PLAN)
        kept = len(await store.operations(last=1000))
        (small_disk.root / "filler").unlink()
        await store.submit(PLAN)
        assert len(await store.operations(last=1000)) == kept + 1
