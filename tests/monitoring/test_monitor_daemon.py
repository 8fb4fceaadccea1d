"""The monitor in a real supervisor: it looks, plays real games as jobs, tells what is wrong, and may be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from backend.crash import CRASH_VARIABLE
from backend.monitoring.check import look, watched
from backend.monitoring.daemon import PRIORITY
from backend.monitoring.plans import plan_set
from backend.monitoring.records import run_prefix
from backend.paths import Paths
from backend.registry.alarms import alarms
from backend.registry.schema import writing
from backend.state.store import StateStore
from backend.supervisor import ensure_running, running_pid
from tests.monitoring.test_alarms import Made

PATIENCE_S = 600.0


def until(paths: Paths, good: Callable[[], bool], what: str) -> None:
    """Waits for a condition, with a supervisor kept alive."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        ensure_running(paths)
        if good():
            return
        time.sleep(0.1)
    log = paths.supervisor_log.read_text()[-2000:]
    raise AssertionError(f"{what} did not come about\n{log}")


def switch_on(paths: Paths, games: int) -> None:
    async def work() -> None:
        async with await StateStore.open(paths) as store:
            await store.submit(await plan_set(paths, mode="on", games_per_day=games), "tester")

    asyncio.run(work())
    ensure_running(paths)


def rows(paths: Paths, query: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(paths.state_db)) as db:
        return db.execute(query, values).fetchall()


def background(paths: Paths) -> list[Any]:
    return rows(paths, "SELECT state, json_extract(params, '$.games') FROM jobs WHERE priority = ?", PRIORITY)


@pytest.mark.parametrize("key", ["square8_2p"])
def test_it_plays_its_budget_as_ordinary_records_and_charts_them(
    supervised: Paths, in_production: Made, key: str
) -> None:
    paths = supervised
    (row,) = in_production(1, key)
    switch_on(paths, 24)
    until(paths, lambda: [state for state, _ in background(paths)] == ["done"], "a round of games")

    def charted() -> bool:
        chart = watched(paths)[key].chart if key in watched(paths) else None
        return chart is not None and chart["baseline"]["games"] == 24

    until(paths, charted, "a look at the games")
    assert background(paths) == [("done", 24)]  # the day's games are used up
    with closing(sqlite3.connect(paths.elo_db)) as db:
        (count,) = db.execute(
            "SELECT count(*) FROM match_slots s JOIN match_games g ON g.game_id = s.game_id"
            " WHERE g.candidate_sha256 = ? AND s.run_id LIKE ? || '%'",
            (row.sha256, run_prefix(key, row.sha256)),
        ).fetchone()
    assert count == 24


def test_a_file_that_went_missing_is_told_once_whatever_is_killed(
    supervised: Paths, in_production: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = supervised
    old, new = in_production()
    look(paths, "hex8_2p")
    (paths.root / new.path).unlink()
    with writing(paths.registry_db) as db:
        db.execute("UPDATE monitor_checks SET at = 0")
    switch_on(paths, 0)
    for point in ("monitor.looked", "monitor.raised"):  # the second one dies between the alarm and its event
        monkeypatch.setenv(CRASH_VARIABLE, point)
        kill(paths)
        until(paths, lambda: "ended with -9" in paths.supervisor_log.read_text(), f"a look that dies at {point}")
        monkeypatch.delenv(CRASH_VARIABLE)
        kill(paths)
        paths.supervisor_log.write_text("")
    until(paths, lambda: bool(rows(paths, "SELECT 1 FROM events WHERE type = 'REGRESSION_DETECTED'")), "the event")
    until(paths, lambda: watched(paths)["hex8_2p"].at > 0, "a look that ended")
    (alarm,) = alarms(paths)
    assert (alarm.cause, alarm.target, alarm.state) == ("missing", old.label, "open")
    assert rows(paths, "SELECT count(*) FROM events WHERE type = 'REGRESSION_DETECTED'") == [(1,)]
    assert background(paths) == []


def kill(paths: Paths) -> None:
    """Kills the supervisor, if there is one, and waits until it is gone."""
    pid = running_pid(paths)
    if pid is None:
        return
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + PATIENCE_S
    while running_pid(paths) == pid and time.monotonic() < end:
        time.sleep(0.02)
    assert running_pid(paths) != pid
