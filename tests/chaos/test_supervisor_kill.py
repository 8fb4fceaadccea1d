"""The supervisor is killed with SIGKILL at ten random moments; the pipeline must not notice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.jobs import agent
from backend.jobs.pipelines import add_chain
from backend.jobs.rows import job_rows, pipeline_rows
from backend.paths import Paths
from backend.snapshot import ENDED, EventRow, JobRow, PipelineRow
from backend.state.store import StateStore
from backend.supervisor import ensure_running, running_pid, stop

KILLS = 10
PATIENCE_S = 300.0


@pytest.fixture
def root(paths: Paths) -> Iterator[Paths]:
    yield paths
    stop(paths)
    for folder in paths.jobs.glob("*.*"):
        for pid in agent.holders(agent.cookie_of(str(paths.console), folder.name)):
            os.kill(pid, signal.SIGKILL)


def look(paths: Paths) -> tuple[tuple[JobRow, ...], tuple[PipelineRow, ...], tuple[EventRow, ...]]:
    async def read() -> tuple[tuple[JobRow, ...], tuple[PipelineRow, ...], tuple[EventRow, ...]]:
        async with await StateStore.open(paths) as store:
            return await job_rows(store), await pipeline_rows(store), await store.events(last=10_000)

    return asyncio.run(read())


def ended(paths: Paths) -> bool:
    jobs = look(paths)[0]
    return bool(jobs) and all(job.state in ENDED for job in jobs)


def kill_now_and_then(paths: Paths, chance: random.Random, longest_s: float) -> int:
    """Kills the supervisor at random moments while there is work, starts it again each time; returns how often."""
    kills = 0
    while kills < KILLS and not ended(paths):
        ensure_running(paths)
        time.sleep(chance.uniform(0.0, longest_s))
        pid = running_pid(paths)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            kills += 1
    return kills


@contextmanager
def ended_with_the_test(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process with its output in pipes, which does not outlive the block."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"still not: {what}"
        time.sleep(0.2)


def assert_each_ran_once(paths: Paths, jobs: tuple[JobRow, ...]) -> None:
    """One execution a job, on the evidence of the host and of the events."""
    executed = Counter(path.parent.name.split(".")[0] for path in paths.jobs.glob("*/executed"))
    assert executed == {job.id: 1 for job in jobs}
    events = look(paths)[2]
    for kind in ("JOB_STARTED", "JOB_ENDED"):
        assert Counter(event.subject for event in events if event.type == kind) == {job.id: 1 for job in jobs}
    assert sum(event.type == "PIPELINE_COMPLETED" for event in events) == 1
    assert not [event for event in events if event.type == "STRAY_ATTEMPT"]


def test_a_chain_of_commands_survives_ten_kills_of_the_supervisor(root: Paths) -> None:
    code = (
        "import os, sys, time\n"
        "for n in range(60): print(n, flush=True); time.sleep(0.03)\n"
        "while os.environ['RINGRIFT_ATTEMPT'] == 'c4.1' and not os.path.exists('go'): time.sleep(0.02)\n"
        "open('order', 'a').write(os.environ['RINGRIFT_ATTEMPT'] + ' ')\n"
    )
    wanted: list[tuple[str, dict[str, Any]]] = [("command", {"argv": [sys.executable, "-I", "-S", "-c", code]})] * 4

    async def add() -> None:
        async with await StateStore.open(root) as store, store.database.write() as db:
            await add_chain(db, "hex8_2p", wanted, {}, None)

    asyncio.run(add())
    argv = [sys.executable, "-m", "ringrift_console.cli", "jobs", "logs", "-f", "c2", "--root", str(root.root)]
    with ended_with_the_test(argv) as follower:
        kills = kill_now_and_then(root, random.Random(7), 0.7)
        (root.root / "go").touch()
        wait_for(lambda: ensure_running(root) and ended(root), "the chain has ended")
        followed, _ = follower.communicate(timeout=60)
    jobs, pipelines, _ = look(root)
    assert kills == KILLS
    assert [job.state for job in jobs] == ["done"] * 4
    assert pipelines[0].state == "done"
    assert (root.root / "order").read_text().split() == ["c1.1", "c2.1", "c3.1", "c4.1"]
    assert_each_ran_once(root, jobs)
    whole = "".join(f"{n}\n" for n in range(60))
    assert [Path(job.log_path or "").read_text() for job in jobs] == [whole] * 4
    assert followed == whole


@pytest.mark.serial
def test_a_real_pipeline_survives_ten_kills_of_the_supervisor(root: Paths) -> None:
    games, gauntlet_games = 12, 2
    argv = [
        sys.executable, "-m", "ringrift_console.cli", "pipeline", "square8_2p", "--games", str(games), "--epochs", "2",
        "--gauntlet-games", str(gauntlet_games), "--json", "--wait", "--root", str(root.root),
    ]  # fmt: skip
    with ended_with_the_test(argv) as waiting:
        wait_for(lambda: root.state_db.exists() and look(root)[0], "the pipeline is taken on")
        kills = kill_now_and_then(root, random.Random(11), 3.0)
        out, err = waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 0, err
    assert kills == KILLS, "the pipeline ended before it was killed ten times"
    jobs, pipelines, _ = look(root)
    assert [job.state for job in jobs] == ["done"] * 4
    assert [pipeline.state for pipeline in pipelines] == ["done"]
    assert_each_ran_once(root, jobs)

    results = {job["kind"]: job["result"] for job in json.loads(out)["jobs"]}
    assert results["selfplay"]["games_added"] == results["selfplay"]["games_total"] == games
    database = sqlite3.connect(root.games / "canonical_square8_2p.db")
    assert database.execute("SELECT count(*), count(DISTINCT game_id) FROM games").fetchone() == (games, games)
    database.close()
    assert results["export"]["games"] == games
    registry = sqlite3.connect(root.registry_db)
    assert registry.execute("SELECT count(*) FROM versions").fetchone() == (1,)
    registry.close()
    assert results["train"]["label"] == "square8_2p:v1"
    assert [one["games"] for one in results["gauntlet"]["opponents"]] == [gauntlet_games] * 2
    records = sqlite3.connect(root.elo_db)
    assert records.execute("SELECT count(*) FROM match_slots").fetchone() == (2 * gauntlet_games,)
    records.close()
