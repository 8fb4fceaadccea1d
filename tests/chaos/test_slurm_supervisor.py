"""A real supervisor with jobs on a Slurm, killed at random moments: each job is executed once and ends well."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml

from backend.jobs.pipelines import add_job
from backend.paths import Paths
from backend.state.store import StateStore
from backend.supervisor import ensure_running, stop
from tests.chaos.test_supervisor_kill import KILLS, ended, kill_now_and_then, look, wait_for
from tests.lab.slurm import Slurm

JOBS = 6


def test_jobs_on_a_slurm_survive_kills_of_the_supervisor(
    paths: Paths, make_slurm: Callable[..., Slurm], tmp_path: Path
) -> None:
    slurm = make_slurm()
    count, go = tmp_path / "count", tmp_path / "go"
    paths.root.mkdir(parents=True)
    paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": {"cluster": slurm.settings(max_parallel_jobs=50)}}))
    code = (
        "import os, time\n"
        f"open({str(count)!r}, 'a').write(os.environ['RINGRIFT_ATTEMPT'] + '\\n')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.05)\n"
    )

    async def add() -> None:
        async with await StateStore.open(paths) as store, store.database.write() as db:
            for _ in range(JOBS):
                await add_job(
                    db, "command", "hex8_2p", {"argv": [sys.executable, "-I", "-S", "-c", code]}, host="cluster"
                )

    asyncio.run(add())
    try:
        assert kill_now_and_then(paths, random.Random(13), 4.0) == KILLS
        go.touch()
        wait_for(lambda: ensure_running(paths) and ended(paths), "all jobs have ended")
    finally:
        stop(paths)
    jobs = look(paths)[0]
    assert [(job.state, job.host) for job in jobs] == [("done", "cluster")] * JOBS, [job.why for job in jobs]
    assert Counter(count.read_text().split()) == {f"{job.id}.1": 1 for job in jobs}
