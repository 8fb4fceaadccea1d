"""A host that is switched off while it works and booted again, with another boot id and pids that begin anew."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from backend.configs import parse_config
from backend.jobs import agent
from backend.jobs.rows import attempt_rows
from backend.paths import Paths
from backend.snapshot import JobRow
from backend.training.volume import volume
from tests.conftest import end_jobs
from tests.lab.kept import Kept, kept
from tests.lab.machine import Machine, missing

BOOTS = max(1, int(os.environ.get("RINGRIFT_CHAOS", "4")))
CODE = str(Path(__file__).parents[2])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(f"no machine can be played here: {reason}")
    (tmp_path / "own-home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "own-home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = Machine(tmp_path / "host-alpha", env={"PYTHONPATH": CODE})
    made.start()
    yield made
    made.stop()
    end_jobs(made.folder / "agent")


@pytest.fixture
async def bed(machine: Machine, paths: Paths) -> AsyncIterator[Kept]:
    async with kept(paths, machine) as made:
        yield made


def boot(machine: Machine) -> int:
    ended = machine.switch_off()
    machine.start()
    return ended


async def test_a_job_is_lost_by_a_boot_and_waits_for_an_operator(bed: Kept, machine: Machine) -> None:
    name = await bed.add("import time; time.sleep(600)")
    await bed.until(name, "running")
    before = agent.read_json(str(machine.folder / "agent" / "jobs" / f"{name}.1" / "child.json"))
    assert boot(machine) > 3
    row = await bed.until(name, "unknown")
    assert "booted since" in row.why
    assert await bed.agree() == {"lost": 1}
    for _ in range(5):
        await bed.tick()
    assert (await bed.row(name)).state == "unknown"
    assert [one["attempt"] for one in await attempt_rows(bed.store, name)] == [f"{name}.1"]
    after = await bed.pool.exec(machine.host(), ["cat", "/proc/sys/kernel/random/boot_id"], timeout_s=30)
    assert before is not None and before["boot_id"] != after.stdout.decode().strip()
    await bed.cancel(name)
    assert (await bed.until(name, "cancelled")).why == "its outcome was unknown and given up"
    assert await bed.agree() == {"exited": 1}
    assert bed.executions("alpha", f"{name}.1") == 1


async def test_a_kind_that_is_safe_to_repeat_runs_again_after_a_boot(bed: Kept, machine: Machine, paths: Paths) -> None:
    games = 6
    options = ["--players", "random", "--workers", "1"]
    name = await bed.add("", kind="selfplay", games=games, seed=3, options=options)
    await bed.until(name, "running")
    boot(machine)
    row = await bed.settled(name)
    assert (row.state, row.attempt) == ("done", f"{name}.2")
    phases = [one["phase"] for one in await attempt_rows(bed.store, name)]
    assert phases == ["lost", "exited"]
    assert volume(paths, parse_config("hex8_2p")).games == games
    assert await bed.agree() == {"lost": 1, "exited": 1}


async def test_boots_at_random_moments(bed: Kept, machine: Machine) -> None:
    chance, ends = random.Random(31), Counter[str]()
    for _ in range(BOOTS):
        name = await bed.add("import time; time.sleep(0.2)")
        await bed.until(name, lambda row: row.attempt is not None)

        async def booting(moment: float = chance.uniform(0.0, 1.0)) -> None:
            await asyncio.sleep(moment)
            await asyncio.to_thread(boot, machine)

        trouble = asyncio.create_task(booting())
        row: JobRow = await bed.settled(name)
        await trouble
        assert row.state in ("done", "unknown"), row
        if row.state == "unknown":
            assert "booted since" in row.why
        ends[row.state] += 1
        await bed.agree()
    sys.stdout.write(f"{BOOTS} boots of a host: {dict(ends)}\n")


async def test_pids_that_others_have_after_a_boot_are_not_signalled(bed: Kept, machine: Machine) -> None:
    name = await bed.add("import time; time.sleep(600)")
    await bed.until(name, "running")
    folder = machine.folder / "agent" / "jobs" / f"{name}.1"
    found = [agent.read_json(str(folder / f"{who}.json")) for who in ("runner", "child")]
    pids = [who["pid"] for who in found if who]
    assert len(pids) == 2
    boot(machine)
    # The kernel gives out pids in turn, so the next process gets the one after ns_last_pid (pid_namespaces(7)).
    script = "for pid; do echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid; sleep 600 >/dev/null 2>&1 & echo $!; done"
    done = await bed.pool.exec(machine.host(), ["sh", "-c", script, "sh", *map(str, pids)], timeout_s=30)
    assert [int(word) for word in done.stdout.split()] == pids
    await bed.until(name, "unknown")
    await bed.cancel(name)
    await bed.until(name, "cancelled")
    assert await bed.agree() == {"exited": 1}
    done = await bed.pool.exec(machine.host(), ["kill", "-0", *map(str, pids)], timeout_s=30)
    assert done.code == 0, "a foreign process was ended"
