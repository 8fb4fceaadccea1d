"""The keeper with several hosts, of which one keeps silent or never answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Collection

import pytest

from backend.jobs import keeper as keeper_module
from backend.jobs import store as rows
from backend.jobs.keeper import Keeper, SupersededError
from backend.jobs.launchers.base import AttemptSpec, LogChunk, RefusedStartError, UnreachableError
from backend.jobs.model import Observation, Phase
from backend.jobs.pipelines import add_chain
from backend.jobs.rows import job_row
from backend.paths import Paths
from backend.state.store import StateStore


class SlowHost:
    """A launcher that answers when it is let, and then that everything runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.free = asyncio.Event()
        self.free.set()
        self.trouble: Exception | None = None
        self.asked: list[str] = []

    async def _answer(self, what: str) -> None:
        self.asked.append(what)
        await self.free.wait()
        if self.trouble is not None:
            raise self.trouble

    async def start(self, spec: AttemptSpec) -> Observation:
        await self._answer(f"start {spec.key}")
        return Observation(spec.key, Phase.RUNNING)

    async def observe(self, keys: Collection[str]) -> dict[str, Observation]:
        await self._answer("observe")
        return {key: Observation(key, Phase.RUNNING) for key in keys}

    def why_mute(self, key: str) -> str:
        return "its folder cannot be read"

    async def cancel(self, key: str, *, by: str, reason: str, grace_s: float = 10.0) -> Observation:
        await self._answer(f"cancel {key}")
        return Observation(key, Phase.RUNNING)

    async def read_log(self, key: str, offset: int, limit: int, *, name: str = "log") -> LogChunk:
        return LogChunk(b"", offset, 0, None)

    async def owned(self) -> tuple[str, ...]:
        await self._answer("owned")
        return ()

    async def acknowledge(self, keys: Collection[str]) -> None:
        await self._answer("ack")

    async def close(self) -> None:
        return None


class Bed:
    def __init__(self, store: StateStore, paths: Paths) -> None:
        self.store = store
        self.near, self.far = SlowHost("near"), SlowHost("far")
        self.keeper = Keeper(paths, store, {"near": self.near, "far": self.far}, "owner", 1)

    async def placed(self, host: str) -> str:
        """A job whose first attempt was placed on a host."""
        async with self.store.database.write() as db:
            _, jobs = await add_chain(db, "hex8_2p", [("command", {"argv": [sys.executable]})], {}, None)
        spec = AttemptSpec(f"{jobs[0]}.1", "owner", (sys.executable,), None, {})
        await rows.place(self.store, 1, rows.Placed(jobs[0], 1, host, spec))
        return str(jobs[0])

    async def state(self, name: str) -> tuple[str, str]:
        row = await job_row(self.store, name)
        assert row is not None
        return row.state, row.why


@pytest.fixture
async def bed(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    monkeypatch.setattr(keeper_module, "PATIENCE_S", 0.05)
    async with await StateStore.open(paths) as store:
        yield Bed(store, paths)


async def test_a_host_that_never_answers_holds_up_no_other(bed: Bed) -> None:
    far, near = await bed.placed("far"), await bed.placed("near")
    woken = asyncio.Event()
    bed.keeper.wake = woken.set
    bed.far.free.clear()
    for _ in range(4):
        await bed.keeper.tick()
    assert (await bed.state(near))[0] == "running"
    assert (await bed.state(far))[0] == "placing"
    assert bed.far.asked == ["owned"]  # it is left at what it was asked first
    bed.far.free.set()
    await asyncio.wait_for(woken.wait(), 30)
    for _ in range(3):
        await bed.keeper.tick()
    assert (await bed.state(far))[0] == "running"
    assert bed.far.asked.count(f"start {far}.1") == 1


async def test_a_silent_host_is_not_asked_at_every_tick_and_heard_again(bed: Bed) -> None:
    far = await bed.placed("far")
    for _ in range(2):
        await bed.keeper.tick()
    bed.far.trouble = UnreachableError("no answer", where="far")
    asked = len(bed.far.asked)
    for _ in range(5):
        await bed.keeper.tick()
    assert len(bed.far.asked) == asked + 1
    state, why = await bed.state(far)
    assert state == "running" and "far does not answer" in why
    bed.far.trouble = None
    bed.keeper._not_before.clear()
    for _ in range(2):
        await bed.keeper.tick()
    assert await bed.state(far) == ("running", "")


async def test_an_answer_that_is_an_error_is_told_as_silence_with_its_text(bed: Bed) -> None:
    far = await bed.placed("far")
    for _ in range(2):
        await bed.keeper.tick()
    bed.far.trouble = RefusedStartError("failed", "[Errno 5] Input/output error", where="far")
    asked = len(bed.far.asked)
    for _ in range(5):
        await bed.keeper.tick()
    assert len(bed.far.asked) == asked + 1
    state, why = await bed.state(far)
    assert state == "running" and "Input/output error" in why
    bed.far.trouble = None
    bed.keeper._not_before.clear()
    for _ in range(2):
        await bed.keeper.tick()
    assert await bed.state(far) == ("running", "")


async def test_a_newer_supervisor_is_noticed_even_by_a_late_answer(bed: Bed) -> None:
    bed.far.free.clear()
    tasks = asyncio.all_tasks()
    assert await bed.keeper._with_hosts({"far": _superseded(bed.far)}) == {}
    bed.far.free.set()
    await asyncio.gather(*(asyncio.all_tasks() - tasks))
    with pytest.raises(SupersededError):
        await bed.keeper.tick()


async def _superseded(host: SlowHost) -> None:
    await host.free.wait()
    raise SupersededError("a newer supervisor has taken over", where=host.name)


async def test_a_job_that_waits_for_a_host_keeps_the_supervisor_looking(bed: Bed) -> None:
    async with bed.store.database.write() as db:
        _, jobs = await add_chain(db, "hex8_2p", [("command", {"argv": [sys.executable]})], {}, None)
        await db.run("INSERT INTO hosts (name, drained) VALUES ('local', '{\"reason\": \"test\"}')")
    for _ in range(10):
        await bed.keeper.tick()
        await asyncio.sleep(0.01)
    assert (await bed.state(jobs[0]))[0] == "waiting"
    assert bed.keeper.waiting
