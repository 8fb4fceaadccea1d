"""The real supervisor as a process of its own, with real commands."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backend.errors import LockedError
from backend.jobs import agent
from backend.jobs.explain import outcome_word
from backend.jobs.pipelines import add_chain
from backend.jobs.plans import plan_cancel, plan_retry
from backend.jobs.rows import attempt_rows, job_row
from backend.paths import Paths
from backend.plans import Plan
from backend.snapshot import JobRow
from backend.state.store import StateStore
from backend.supervisor import ensure_running, running_pid, stop, supervise

PATIENCE_S = 90.0
FOREVER = "import time; print('up', flush=True); time.sleep(600)"


def end_all(paths: Paths) -> None:
    """Leaves no supervisor and no job of a test behind."""
    stop(paths)
    for folder in paths.jobs.glob("*.*"):
        runner = agent.read_json(str(folder / "runner.json"))
        if runner and agent.is_alive(runner):
            os.kill(runner["pid"], signal.SIGKILL)
        for pid in agent.holders(agent.cookie_of(str(paths.console), folder.name)):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def store(paths: Paths) -> AsyncIterator[StateStore]:
    async with await StateStore.open(paths) as opened:
        yield opened
        await asyncio.to_thread(end_all, paths)


def ringrift(paths: Paths, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "ringrift_console.cli", *words, "--root", str(paths.root)]
    return subprocess.run(argv, capture_output=True, text=True)


def python(code: str) -> tuple[str, dict[str, Any]]:
    return "command", {"argv": [sys.executable, "-I", "-S", "-c", code]}


async def chain(store: StateStore, *codes: str) -> list[str]:
    async with store.database.write() as db:
        _, jobs = await add_chain(db, "hex8_2p", [python(code) for code in codes], {}, None)
    return list(jobs)


async def until(store: StateStore, name: str, good: Callable[[JobRow], bool]) -> JobRow:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            row = await job_row(store, name)
            assert row is not None
            if good(row):
                return row
            await asyncio.sleep(0.05)


async def in_state(store: StateStore, name: str, *states: str) -> JobRow:
    return await until(store, name, lambda row: row.state in states)


async def operated(store: StateStore, plan: Plan) -> tuple[str, str]:
    """Submits a plan and waits for its end: state and error."""
    name = await store.submit(plan)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            row = await store.operation(name)
            assert row is not None
            if row.state not in ("pending", "running"):
                return row.state, row.error
            await asyncio.sleep(0.05)


def log_of(paths: Paths, key: str) -> str:
    path = paths.jobs / key / "log"
    return path.read_text() if path.exists() else ""


async def test_a_chain_of_jobs_runs_in_order(paths: Paths, store: StateStore) -> None:
    await chain(store, *(f"print({n}); open('order', 'a').write('{n}')" for n in range(3)))
    ensure_running(paths)
    row = await in_state(store, "c3", "done")
    assert (paths.root / "order").read_text() == "012"
    assert (row.exit_code, row.attempt, row.host) == (0, "c3.1", "local")
    assert log_of(paths, "c3.1") == "2\n"
    assert row.started_at is not None and row.ended_at is not None


async def test_a_failure_is_told_with_the_last_line_of_its_log_and_blocks_what_needs_it(
    paths: Paths, store: StateStore
) -> None:
    await chain(store, "import sys; print('no such thing'); sys.exit(11)", "pass")
    ensure_running(paths)
    row = await in_state(store, "c1", "failed")
    assert (row.why, row.exit_code) == ("exit code 11: no such thing", 11)
    assert (await in_state(store, "c2", "blocked")).why == "needs c1, which is failed"
    assert [event.subject for event in await store.events(type="PIPELINE_ENDED")] == ["p1"]


async def test_an_operation_that_cannot_be_carried_out_fails_alone(paths: Paths, store: StateStore) -> None:
    await chain(store, FOREVER)
    ensure_running(paths)
    await in_state(store, "c1", "running")
    state, error = await operated(store, Plan("no.such", "?", {}))
    assert (state, "no.such" in error) == ("refused", True)
    state, error = await operated(store, Plan("jobs.cancel", "a handler that breaks", {}))
    assert (state, error) == ("failed", "KeyError: 'jobs'")
    moved = Plan("jobs.cancel", "an old plan", {"jobs": ["c1"]}, guard={"job c1": "done"})
    state, error = await operated(store, moved)
    assert (state, "job c1 is open now, it was done in the plan" in error) == ("refused", True)
    name = await store.submit(Plan("jobs.cancel", "a damaged row", {}))
    async with store.database.write() as db:
        await db.run("UPDATE operations SET plan = 'nonsense', state = 'pending' WHERE id = ?", (name,))
    assert (await operated(store, await plan_cancel(paths, job="c1")))[0] == "done"
    assert (await in_state(store, "c1", "cancelled")).why == ""


async def test_there_is_one_supervisor_however_often_it_is_started(paths: Paths, store: StateStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        pids = {future.result() for future in [pool.submit(ensure_running, paths) for _ in range(4)]}
    assert pids == {running_pid(paths)}
    with pytest.raises(LockedError, match="supervisor"):
        supervise(paths)
    done = ringrift(paths, "supervise")
    assert done.returncode == 5
    assert f"pid {running_pid(paths)}" in done.stderr
    assert len(await store.events(type="SUPERVISOR_STARTED")) == 1


async def test_jobs_go_on_without_a_supervisor_and_are_found_again(paths: Paths, store: StateStore) -> None:
    code = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)\nprint('end')"
    await chain(store, code, "pass")
    ensure_running(paths)
    await in_state(store, "c1", "running")
    assert stop(paths)
    assert not stop(paths)
    (paths.root / "go").touch()
    await until(store, "c1", lambda row: (paths.jobs / "c1.1" / "exit.json").exists())
    row = await job_row(store, "c1")
    assert row is not None and row.state == "running"
    ensure_running(paths)
    await in_state(store, "c2", "done")
    assert log_of(paths, "c1.1") == "end\n"


async def test_an_unknown_outcome_waits_for_the_operator(paths: Paths, store: StateStore) -> None:
    await chain(store, f"import os\nif os.path.exists('again'): raise SystemExit(0)\n{FOREVER}", "pass")
    ensure_running(paths)
    await until(store, "c1", lambda row: "up" in log_of(paths, "c1.1"))
    os.kill(json.loads((paths.jobs / "c1.1" / "runner.json").read_text())["pid"], signal.SIGKILL)
    await until(store, "c1", lambda row: "runner was killed" in row.why)
    os.kill(json.loads((paths.jobs / "c1.1" / "executed").read_text())["pid"], signal.SIGKILL)
    row = await in_state(store, "c1", "unknown")
    assert "nobody saw how it ended" in row.why
    assert (await in_state(store, "c2", "waiting")).why == "for c1, whose outcome is unknown"
    shown = ringrift(paths, "jobs", "show", "c1").stdout
    for words in ("runner's lock  free", "gone, and the host was not booted since", "ringrift jobs retry c1"):
        assert words in shown
    told = json.loads(ringrift(paths, "jobs", "show", "c1", "--json").stdout)
    assert told["attempts"][0]["evidence"]["executed"] is True
    assert told["derivation"]["exit record"].startswith("none")
    assert [way["command"] for way in told["ways_out"]] == ["", "ringrift jobs cancel c1", "ringrift jobs retry c1"]
    assert (await operated(store, await plan_cancel(paths, job="c1")))[0] == "done"
    await in_state(store, "c1", "cancelled")
    (paths.root / "again").touch()
    assert (await operated(store, await plan_retry(paths, job="c1")))[0] == "done"
    await in_state(store, "c2", "done")
    assert [one["attempt"] for one in await attempt_rows(store, "c1")] == ["c1.1", "c1.2"]


async def test_an_unknown_outcome_is_closed_before_it_is_run_again(paths: Paths, store: StateStore) -> None:
    await chain(store, f"import os\nif os.path.exists('again'): raise SystemExit(0)\n{FOREVER}")
    ensure_running(paths)
    await until(store, "c1", lambda row: "up" in log_of(paths, "c1.1"))
    for name in ("runner.json", "executed"):
        os.kill(json.loads((paths.jobs / "c1.1" / name).read_text())["pid"], signal.SIGKILL)
    await in_state(store, "c1", "unknown")
    (paths.root / "again").touch()
    plan = await plan_retry(paths, job="c1")
    assert "close c1.1 on local for good" in plan.steps[0]
    assert "not known to be safe" in plan.warnings[0]
    assert (await operated(store, plan))[0] == "done"
    row = await in_state(store, "c1", "done")
    assert [(one.attempt, outcome_word(one)) for one in row.attempts] == [("c1.1", "given up"), ("c1.2", "done")]
    assert (await operated(store, plan))[0] == "refused", "the plan was made of an outcome that is no longer unknown"


async def test_a_job_that_waits_can_be_cancelled_before_it_ever_starts(paths: Paths, store: StateStore) -> None:
    await chain(store, FOREVER)
    await chain(store, "open('never', 'w')")
    ensure_running(paths)
    await in_state(store, "c1", "running")
    assert (await in_state(store, "c2", "waiting")).attempt is None
    assert (await operated(store, await plan_cancel(paths, job="c2")))[0] == "done"
    await in_state(store, "c2", "cancelled")
    assert (await operated(store, await plan_cancel(paths, job="c1")))[0] == "done"
    await in_state(store, "c1", "cancelled")
    assert not (paths.root / "never").exists()


async def test_a_supervisor_whose_root_was_taken_away_leaves(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "gone")
    pid = ensure_running(paths)
    began = agent.start_time(pid)
    shutil.rmtree(paths.root)
    async with asyncio.timeout(PATIENCE_S):
        while agent.start_time(pid) == began:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
