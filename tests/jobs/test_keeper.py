"""The keeper against hosts that refuse, fall silent or have been taken over; with a host of the test's own making."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field

import pytest

from backend.errors import RingRiftError
from backend.jobs.keeper import Keeper, SupersededError
from backend.jobs.launchers.base import AttemptSpec, LogChunk, RefusedStartError, UnreachableError
from backend.jobs.model import Exit, Observation, Phase
from backend.jobs.pipelines import add_chain
from backend.jobs.rows import attempt_rows, job_row
from backend.jobs.store import spec_of
from backend.paths import Paths
from backend.snapshot import JobRow
from backend.state.store import StateStore


@dataclass
class ScriptedHost:
    """A launcher that answers as it is told, and notes what it was asked."""

    name: str = "local"
    trouble: RingRiftError | None = None
    known: dict[str, Observation] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    log: bytes = b""

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if isinstance(self.trouble, UnreachableError):
            raise self.trouble

    async def start(self, spec: AttemptSpec) -> Observation:
        self._note(f"start {spec.key}")
        if self.trouble is not None:
            raise self.trouble
        return self.known.setdefault(spec.key, Observation(spec.key, Phase.RUNNING))

    async def observe(self, keys: Collection[str]) -> dict[str, Observation]:
        self._note("observe")
        return {key: self.known.get(key, Observation(key, Phase.ABSENT)) for key in keys}

    def why_mute(self, key: str) -> str:
        return "its folder cannot be read"

    async def cancel(self, key: str, *, by: str, reason: str, grace_s: float = 10.0) -> Observation:
        self._note(f"cancel {key}")
        if isinstance(self.trouble, RefusedStartError) and self.trouble.kind == "conflict":
            raise self.trouble
        executed = key in self.known
        self.known[key] = Observation(key, Phase.EXITED, Exit(cancelled=True, executed=executed))
        return self.known[key]

    async def read_log(self, key: str, offset: int, limit: int, *, name: str = "log") -> LogChunk:
        return LogChunk(self.log[offset : offset + limit], offset, len(self.log), "1:1")

    async def owned(self) -> tuple[str, ...]:
        return tuple(self.known)

    async def acknowledge(self, keys: Collection[str]) -> None:
        self._note(f"ack {' '.join(keys)}")

    async def close(self) -> None:
        return None


@dataclass
class Bed:
    store: StateStore
    host: ScriptedHost
    keeper: Keeper

    async def tick(self, times: int = 6) -> None:
        self.keeper._not_before.clear()
        for _ in range(times):
            await self.keeper.tick()

    async def job(self, name: str = "c1") -> JobRow:
        row = await job_row(self.store, name)
        assert row is not None
        return row


@pytest.fixture
async def bed(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    async def nothing_there(_: Paths, asked: Sequence[object]) -> AsyncIterator[tuple[int, None]]:
        for place in range(len(asked)):
            yield place, None

    monkeypatch.setattr("backend.jobs.check.check_outputs", nothing_there)
    async with await StateStore.open(paths) as store:
        async with store.database.write() as db:
            await add_chain(db, "hex8_2p", [("command", {"argv": [sys.executable]})] * 2, {}, None)
        host = ScriptedHost()
        keeper = Keeper(paths, store, {"local": host}, "owner", 1)
        yield Bed(store, host, keeper)


async def settled(bed: Bed) -> None:
    """Lets the check of the first job's output finish and its attempt be placed and started."""
    import asyncio

    for _ in range(10):
        await bed.keeper.tick()
        await asyncio.sleep(0)


async def test_a_host_without_room_on_its_disk_fails_the_job_with_that_reason(bed: Bed) -> None:
    bed.host.trouble = RefusedStartError("resource", "No space left on device")
    await settled(bed)
    await bed.tick()
    row = await bed.job()
    assert (row.state, row.why) == ("failed", "No space left on device")
    assert bed.host.asked.count("start c1.1") == 1
    assert "cancel c1.1" in bed.host.asked  # so that a start that was on its way can never run it
    assert (await bed.job("c2")).state == "blocked"


async def test_a_conflict_fails_the_job_and_leaves_the_other_command_alone(bed: Bed) -> None:
    bed.host.trouble = RefusedStartError("conflict", "another spec lies under c1.1")
    await settled(bed)
    assert (await bed.job()).state == "failed"
    assert "cancel c1.1" not in bed.host.asked


async def test_a_cancelled_job_whose_key_is_another_roots_there_ends(bed: Bed) -> None:
    bed.host.trouble = RefusedStartError("busy", "not yet")
    await settled(bed)
    async with bed.store.database.write() as db:
        await db.run("UPDATE jobs SET cancel = '{}' WHERE id = 'c1'")
    bed.host.trouble = RefusedStartError("conflict", "c1.1 is another root's here")
    await bed.tick()
    row = await bed.job()
    assert (row.state, row.why) == ("failed", "c1.1 is another root's here")


async def test_a_host_that_falls_silent_changes_nothing_but_what_is_said_of_it(bed: Bed) -> None:
    await settled(bed)
    assert (await bed.job()).state == "running"
    bed.host.trouble = UnreachableError("no route")
    await bed.tick()
    row = await bed.job()
    assert row.state == "running"
    assert "does not answer" in row.why
    bed.host.trouble = None
    bed.host.known["c1.1"] = Observation("c1.1", Phase.EXITED, Exit(code=0), {"code": 0}, {"label": "x"})
    await bed.tick()
    row = await bed.job()
    assert (row.state, row.result) == ("done", {"label": "x"})
    assert len(await bed.store.events(type="JOB_ENDED")) == 1


async def test_a_lost_answer_is_asked_for_again_and_makes_no_second_attempt(bed: Bed) -> None:
    bed.host.trouble = UnreachableError("the link dropped")
    await settled(bed)
    assert (await bed.job()).state == "placing"
    bed.host.trouble = None
    await bed.tick()
    assert (await bed.job()).state == "running"
    assert [one["attempt"] for one in await attempt_rows(bed.store, "c1")] == ["c1.1"]


async def test_a_failure_tells_the_last_line_of_the_log_without_control_characters(bed: Bed) -> None:
    await settled(bed)
    bed.host.log = b"one\n\x1b[31mringrift: the disk is full\x07\n\n"
    bed.host.known["c1.1"] = Observation("c1.1", Phase.EXITED, Exit(code=6), {"code": 6}, None, len(bed.host.log))
    await bed.tick()
    assert (await bed.job()).why == "exit code 6: [31mringrift: the disk is full"
    assert (await bed.job()).exit_code == 6


async def test_a_supervisor_that_was_replaced_leaves(bed: Bed) -> None:
    bed.host.trouble = RefusedStartError("stale", "epoch 1 was replaced by 2")
    with pytest.raises(SupersededError):
        await settled(bed)


async def test_attempts_that_nobody_here_knows_are_told_and_left_alone(bed: Bed) -> None:
    bed.host.known["c9.1"] = Observation("c9.1", Phase.RUNNING)
    await bed.tick()
    assert [event.subject for event in await bed.store.events(type="STRAY_ATTEMPT")] == ["c9.1"]
    assert "cancel c9.1" not in bed.host.asked


async def test_a_job_of_which_no_command_can_be_made_fails_alone(bed: Bed) -> None:
    async with bed.store.database.write() as db:
        await db.run("UPDATE jobs SET params = '{}' WHERE id = 'c1'")
        await add_chain(db, "hex8_2p", [("command", {"argv": ["true"]})], {}, None)
    await settled(bed)
    await settled(bed)
    assert (await bed.job("c1")).state == "failed"
    assert (await bed.job("c2")).state == "blocked"
    assert (await bed.job("c3")).state == "running"


async def test_an_ended_job_costs_its_host_no_more_questions(bed: Bed) -> None:
    await settled(bed)
    bed.host.known["c1.1"] = Observation("c1.1", Phase.EXITED, Exit(code=3), {"code": 3})
    await bed.tick()
    bed.host.asked.clear()
    await bed.tick()
    assert bed.host.asked == []
    assert not bed.keeper.live


async def test_a_hosts_file_with_mistakes_is_told_once_and_stops_nothing(bed: Bed) -> None:
    bed.store.paths.root.mkdir(parents=True, exist_ok=True)
    bed.store.paths.hosts_yaml.write_text("hosts: [")
    await settled(bed)
    assert (await bed.job()).state == "running"
    assert len(await bed.store.events(type="HOSTS_UNREADABLE")) == 1


async def test_the_hosts_file_tells_how_many_jobs_run_at_a_time(bed: Bed) -> None:
    async with bed.store.database.write() as db:
        await add_chain(db, "hex8_2p", [("command", {"argv": ["true"]})], {}, None)
    bed.store.paths.root.mkdir(parents=True, exist_ok=True)
    bed.store.paths.hosts_yaml.write_text("hosts:\n  local:\n    max_parallel_jobs: 1\n")
    await settled(bed)
    assert [(await bed.job(name)).state for name in ("c1", "c3")] == ["running", "waiting"]
    bed.store.paths.hosts_yaml.write_text("hosts:\n  local:\n    max_parallel_jobs: 2\n")
    await settled(bed)
    assert [(await bed.job(name)).state for name in ("c1", "c3")] == ["running", "running"]


async def test_a_start_that_a_gpu_holds_up_waits_with_its_reason_and_fails_nothing(bed: Bed) -> None:
    bed.store.paths.root.mkdir(parents=True, exist_ok=True)
    bed.store.paths.hosts_yaml.write_text("hosts:\n  local: {gpus: 2, max_parallel_jobs: 2}\n")
    async with bed.store.database.write() as db:
        await db.run("UPDATE jobs SET params = json_set(params, '$.gpus', 1) WHERE id = 'c1'")
        await add_chain(db, "hex8_2p", [("command", {"argv": ["true"]})], {}, None)
    bed.host.trouble = RefusedStartError("busy", "GPU 0 is leased (t9.1)")
    await settled(bed)
    for _ in range(3):
        await bed.tick()
    row = await bed.job()
    assert (row.state, row.why) == ("placing", "GPU 0 is leased (t9.1)")
    assert "cancel c1.1" not in bed.host.asked
    bed.host.trouble = None
    await bed.tick()
    row = await bed.job()
    assert (row.state, row.why, row.attempt) == ("running", "", "c1.1")
    assert (await spec_of(bed.store, "c1.1")).gpus == ("0",)
    assert (await spec_of(bed.store, "c3.1")).env["CUDA_VISIBLE_DEVICES"] == ""  # it asked for none
