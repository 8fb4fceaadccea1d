"""Clocks that are an hour off, or are set while a job runs: on the host, and on the head. Only shown times change."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from backend.fleet.look import look_at
from backend.fleet.store import host_rows
from backend.jobs import agent
from backend.jobs.launchers.base import AttemptSpec
from backend.jobs.launchers.ssh import SshLauncher
from backend.jobs.model import Phase
from backend.jobs.rows import job_rows
from backend.paths import Paths
from backend.snapshot import ENDED
from backend.state.store import StateStore
from backend.supervisor import ensure_running, stop
from tests.conftest import end_jobs
from tests.lab.kept import Kept, describe, kept, set_up
from tests.lab.machine import Machine, missing, set_clock, shifted

HOUR = 3600.0
CLOSE = 300.0  # far less than an hour, far more than a slow machine takes

NAP = "import time; time.sleep({0})"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    if reason := missing() or ("" if shutil.which("gcc") else "needs gcc"):
        pytest.skip(f"no clock can be set here: {reason}")
    (tmp_path / "own-home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "own-home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = Machine(tmp_path / "host-alpha", clock=True)
    made.start()
    yield made
    made.stop()
    end_jobs(made.folder / "agent")


@pytest.fixture
async def bed(machine: Machine, paths: Paths) -> AsyncIterator[Kept]:
    async with kept(paths, machine) as made:
        yield made


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_a_host_with_a_wrong_clock_runs_jobs_and_says_how_wrong_it_is(
    bed: Kept, machine: Machine, ahead: float
) -> None:
    machine.set_clock(ahead)
    names = [await bed.add("print('ok')"), await bed.add("raise SystemExit(4)")]
    rows = [await bed.settled(name) for name in names]
    assert [(row.state, row.exit_code) for row in rows] == [("done", 0), ("failed", 4)]
    assert await bed.agree() == {"exited": 2}
    for name in names:  # the host's clock is what its own records tell
        record = agent.read_json(str(machine.folder / "agent" / "jobs" / f"{name}.1" / "exit.json"))
        assert record is not None and abs(record["at"] - time.time() - ahead) < CLOSE
    report = await look_at(bed.store, bed.pool, machine.host(), "facts")
    assert abs(report.clock.offset - ahead) <= report.clock.error + 1.0
    (row,) = await host_rows(bed.store)
    assert abs(row.facts["clock_offset_s"] - ahead) <= row.facts["clock_error_s"] + 1.0
    machine.set_clock(0.0)
    await look_at(bed.store, bed.pool, machine.host(), "sample")  # and soon after it is mended, or goes wrong
    (row,) = await host_rows(bed.store)
    assert abs(row.facts["clock_offset_s"]) <= row.facts["clock_error_s"] + 1.0
    assert row.facts["hostname"]


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_a_clock_that_is_set_while_jobs_run_ends_nothing_early_and_nothing_late(
    bed: Kept, machine: Machine, ahead: float
) -> None:
    launcher = SshLauncher(bed.pool, machine.host(), "limits", 1)
    go = machine.folder / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)"

    async def start(key: str, code: str, wall_s: float) -> None:
        argv = (sys.executable, "-I", "-S", "-c", code)
        await launcher.start(AttemptSpec(key, "limits", argv, None, {}, wall_s=wall_s, grace_s=1.0))

    name = await bed.add(wait)
    await bed.until(name, "running")
    await start("short.1", wait, 600.0)
    began = time.monotonic()
    await start("long.1", NAP.format(600.0), 5.0)
    machine.set_clock(ahead)
    go.touch()
    row = await bed.settled(name)
    assert (row.state, row.exit_code) == ("done", 0), row.why
    async with asyncio.timeout(60):
        while True:
            seen = await launcher.observe(["long.1", "short.1"])
            if all(one.phase is Phase.EXITED for one in seen.values()):
                break
            await asyncio.sleep(0.05)
    assert time.monotonic() - began >= 4.5
    ends = {key: one.exit for key, one in seen.items()}
    assert ends["long.1"] is not None and ends["long.1"].timed_out
    assert ends["short.1"] is not None and (ends["short.1"].code, ends["short.1"].timed_out) == (0, False)
    moments = [one.ended_at - one.started_at - ahead for one in seen.values() if one.ended_at and one.started_at]
    assert len(moments) == 2 and all(abs(one) < CLOSE for one in moments), "the clock was not set under them"
    await launcher.close()


async def test_a_head_whose_clock_is_set_to_and_fro_loses_and_repeats_nothing(
    machine: Machine, paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    describe(paths, machine)
    clock = tmp_path / "head-clock"
    set_clock(clock, 0.0)
    async with await StateStore.open(paths) as store:
        await set_up(store, machine)
        bed = Kept(paths, store, [machine])
        await bed.close()
        names = [await bed.add(NAP.format(0.3)) for _ in range(6)]
        with monkeypatch.context() as patch:
            for name, value in shifted(clock).items():
                patch.setenv(name, value)
            await asyncio.to_thread(ensure_running, paths)
        try:
            async with asyncio.timeout(180):
                n = 0
                while any(row.state not in ENDED for row in await job_rows(store)):
                    n += 1
                    set_clock(clock, (0.0, HOUR, -HOUR)[n % 3])
                    await asyncio.sleep(0.7)
        finally:
            await asyncio.to_thread(stop, paths)
        assert [row.state for row in await job_rows(store)] == ["done"] * len(names)
        async with store.database.read() as db:
            times = [row["placed_at"] for row in await db.all("SELECT placed_at FROM attempts")]
        assert max(times) - min(times) > HOUR - CLOSE, "its clock was not set"
        bed.epoch = 1000  # above those of the supervisors
        assert await bed.agree() == {"exited": len(names)}
        assert all(runs == 1 for _, runs in bed.attempts.values())
        await bed.close()
