"""Nobody is blamed for time in which the head itself was not there."""

from __future__ import annotations

import time

from backend.distribution.away import Away
from backend.distribution.runner import AWAY_S, Runner, _Work
from backend.paths import Paths
from backend.state.store import StateStore


def test_a_pause_between_looks_counts_once_and_only_when_it_is_long() -> None:
    away = Away(10.0, 3.0)
    assert [away.look(now) for now in (10.5, 13.5, 33.5, 34.0)] == [0.0, 0.0, 20.0, 0.0]


async def test_the_runner_gives_hosts_the_time_that_it_missed(paths: Paths) -> None:
    def never() -> None:
        raise AssertionError

    async with await StateStore.open(paths) as store:
        runner = Runner(paths, store, never, "owner", 1)  # type: ignore[arg-type]
        work = runner._works["x1"] = _Work(0.0)
        now = time.monotonic()
        work.of("n1").gained_at = now - 1.0
        runner._excuse(now + AWAY_S + 60.0)
        assert work.of("n1").gained_at >= now + AWAY_S + 58.0
        before = work.of("n1").gained_at
        runner._excuse(now + AWAY_S + 61.0)
        assert work.of("n1").gained_at == before
