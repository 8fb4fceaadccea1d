"""The verbs about jobs as an operator types them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.jobs import agent
from backend.jobs.pipelines import add_chain
from backend.paths import Paths
from backend.state.store import StateStore
from backend.supervisor import ensure_running, running_pid, stop
from ringrift_console.verbs.jobs import tail_offset


def ringrift(paths: Paths, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "ringrift_console.cli", *words, "--root", str(paths.root)]
    return subprocess.run(argv, capture_output=True, text=True, check=check, timeout=120)


def submit(paths: Paths, *codes: str) -> None:
    """A chain of commands, as a recipe would add them."""

    async def add() -> None:
        async with await StateStore.open(paths) as store, store.database.write() as db:
            wanted: list[tuple[str, dict[str, Any]]] = [
                ("command", {"argv": [sys.executable, "-I", "-S", "-c", code]}) for code in codes
            ]
            await add_chain(db, "hex8_2p", wanted, {}, None)

    asyncio.run(add())


@pytest.fixture
def root(paths: Paths) -> Iterator[Paths]:
    yield paths
    stop(paths)
    for folder in paths.jobs.glob("*.*"):
        for pid in agent.holders(agent.cookie_of(str(paths.console), folder.name)):
            os.kill(pid, signal.SIGKILL)


def test_reading_verbs_make_nothing_on_an_empty_root(root: Paths) -> None:
    assert json.loads(ringrift(root, "jobs", "list", "--json").stdout) == []
    assert json.loads(ringrift(root, "events", "--json").stdout) == []
    for words in (("jobs", "show", "t1"), ("jobs", "logs", "t1"), ("jobs", "cancel", "t1"), ("jobs", "retry", "t1")):
        done = ringrift(root, *words, check=False)
        assert (done.returncode, done.stdout) == (11, "")
        assert len(done.stderr.splitlines()) == 1
    assert not root.root.exists()


def test_a_dry_run_prints_the_plan_and_changes_nothing(root: Paths) -> None:
    plan = json.loads(ringrift(root, "pipeline", "hex8_2p", "--games", "12", "--dry-run", "--json").stdout)
    assert plan["params"]["games"] == 12
    assert "hex8_2p" in ringrift(root, "pipeline", "hex8_2p", "--dry-run").stdout
    assert not root.root.exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("pipeline", "hex9_2p"), 2),
        (("pipeline", "hex8_2p", "--games", "0"), 2),
        (("jobs", "list", "--state", "sleeping"), 2),
        (("jobs", "list", "--config", "hex9"), 2),
        (("events", "--last", "0"), 2),
        (("supervise", "--stop", "--detach"), 2),
    ],
)
def test_bad_input_is_one_clear_line_and_a_usage_error(root: Paths, words: tuple[str, ...], code: int) -> None:
    done = ringrift(root, *words, check=False)
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (code, 1, "")
    assert not root.root.exists()


def test_a_log_is_followed_to_the_end_of_the_job_and_cut_from_its_tail(root: Paths) -> None:
    submit(root, "import time\nfor n in range(40): print('line', n, flush=True); time.sleep(0.02)")
    ensure_running(root)
    followed = ringrift(root, "jobs", "logs", "c1", "-f")
    assert followed.stdout == "".join(f"line {n}\n" for n in range(40))
    assert "done" in followed.stderr
    assert ringrift(root, "jobs", "logs", "c1", "--tail", "2").stdout == "line 38\nline 39\n"
    row = json.loads(ringrift(root, "jobs", "show", "1", "--json").stdout)
    assert (row["state"], row["exit_code"], row["attempts"][0]["attempt"]) == ("done", 0, "c1.1")
    assert [one["id"] for one in json.loads(ringrift(root, "jobs", "list", "--json").stdout)] == ["c1"]
    assert "JOB_ENDED" in ringrift(root, "events").stdout


def test_cancel_and_retry_wait_for_the_outcome_and_exit_with_it(root: Paths) -> None:
    submit(root, "import os, time, sys\nif os.path.exists('fail'): sys.exit(3)\ntime.sleep(600)")
    ensure_running(root)
    end = time.monotonic() + 60
    while "running" not in ringrift(root, "jobs", "list").stdout:
        assert time.monotonic() < end
    cancelled = json.loads(ringrift(root, "jobs", "cancel", "c1", "--wait", "--json").stdout)
    assert (cancelled["state"], cancelled["jobs"][0]["state"]) == ("done", "cancelled")
    again = ringrift(root, "jobs", "cancel", "c1", check=False)
    assert (again.returncode, "has ended" in again.stderr) == (3, True)
    (root.root / "fail").touch()
    retried = ringrift(root, "jobs", "retry", "c1", "--wait", "--json", check=False)
    assert retried.returncode == 1
    assert json.loads(retried.stdout)["jobs"][0]["attempt"] == "c1.2"


def test_waiting_survives_a_supervisor_that_is_killed(root: Paths) -> None:
    submit(root, "import time; time.sleep(600)")
    ensure_running(root)
    submit(root, "pass")
    argv = [sys.executable, "-m", "ringrift_console.cli", "jobs", "cancel", "c1", "--wait", "--root", str(root.root)]
    waiting = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(3):
        time.sleep(0.3)
        pid = running_pid(root)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, (out, err)
    assert "cancelled" in err


def test_a_state_database_of_another_program_is_a_schema_error_everywhere(root: Paths) -> None:
    root.console.mkdir(parents=True)
    root.state_db.write_bytes(b"not a database at all " * 40)
    for words in (("jobs", "list"), ("events",), ("pipeline", "hex8_2p"), ("supervise",)):
        done = ringrift(root, *words, check=False)
        assert (done.returncode, len(done.stderr.splitlines())) == (7, 1), words


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("lines", [0, 1, 2, 3, 4, 9])
def test_the_tail_of_a_file_begins_at_a_line(tmp_path: Path, lines: int, end: str) -> None:
    path = tmp_path / "log"
    text = "a\n\nccc\nd" + end
    path.write_text(text)
    kept = text.splitlines(keepends=True)[-lines:] if lines else []
    assert text[tail_offset(path, lines) :] == "".join(kept)
    assert tail_offset(tmp_path / "none", lines) == 0
