"""Jobs on a host over SSH while the supervisor is killed and the link is cut; ``RINGRIFT_CHAOS=100`` for more."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.fleet.reload import plan_reload
from backend.jobs.pipelines import add_chain
from backend.jobs.rows import job_row, job_rows
from backend.paths import Paths
from backend.plans import Plan
from backend.snapshot import ENDED, JobRow
from backend.state.store import StateStore
from backend.supervisor import ensure_running, running_pid, stop
from tests.lab.kept import describe, set_up
from tests.lab.sshd import Sshd

KILLS = int(os.environ.get("RINGRIFT_CHAOS", "6"))
PATIENCE_S = 120.0 + 3.0 * KILLS


@asynccontextmanager
async def opened(paths: Paths) -> AsyncIterator[StateStore]:
    async with await StateStore.open(paths) as store:
        try:
            yield store
        finally:
            await asyncio.to_thread(stop, paths)


async def chain(store: StateStore, *codes: str) -> list[str]:
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("command", {"argv": [sys.executable, "-I", "-S", "-c", code]}) for code in codes
    ]
    async with store.database.write() as db:
        _, jobs = await add_chain(db, "hex8_2p", wanted, {}, None)
    return list(jobs)


def waits_for(go: Path) -> str:
    """A command that ends once the file is there."""
    return f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)"


async def reload(store: StateStore) -> Plan:
    """Lets the supervisor go by the hosts file as it is now, without a restart."""
    plan = await plan_reload(store.paths)
    name = await store.submit(plan)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            row = await store.operation(name)
            assert row is not None and row.state not in ("failed", "refused"), row
            if row.state == "done":
                break
            await asyncio.sleep(0.05)
    return plan


async def until(store: StateStore, name: str, good: Callable[[JobRow], bool]) -> JobRow:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            row = await job_row(store, name)
            assert row is not None
            if good(row):
                return row
            await asyncio.sleep(0.05)


async def test_jobs_on_a_host_survive_kills_of_the_supervisor_and_cut_links(
    paths: Paths, make_sshd: Callable[..., Sshd]
) -> None:
    server, chance = make_sshd(), random.Random(13)
    describe(paths, server)
    ran = server.folder / "ran"
    code = f"import os, time; open({str(ran)!r}, 'a').write(os.environ['RINGRIFT_ATTEMPT'] + ' '); time.sleep(0.4)"
    async with opened(paths) as store:
        await set_up(store, server)
        jobs = await chain(store, *[code] * (4 + KILLS // 2))
        kills = cuts = 0
        async with asyncio.timeout(PATIENCE_S):
            while any(row.state not in ENDED for row in await job_rows(store)):
                await asyncio.to_thread(ensure_running, paths)
                await asyncio.sleep(chance.uniform(0.0, 1.2))
                if kills < KILLS:
                    pid = running_pid(paths)
                    if kills % 2:
                        cuts += server.cut() > 0
                    if pid is not None:
                        os.kill(pid, signal.SIGKILL)
                        kills += 1
        rows = {row.id: row for row in await job_rows(store)}
        assert [(name, rows[name].state, rows[name].host) for name in jobs] == [
            (name, "done", "alpha") for name in jobs
        ]
        assert ran.read_text().split() == [f"{name}.1" for name in jobs]
        assert not await store.events(type="STRAY_ATTEMPT")
        sys.stdout.write(f"{kills} kills of the supervisor, {cuts} cuts, {len(jobs)} jobs, each ran once\n")


async def test_a_host_that_falls_silent_holds_up_nobody_and_is_heard_again(
    paths: Paths, make_sshd: Callable[..., Sshd]
) -> None:
    far, near = make_sshd("far"), make_sshd("near")
    describe(paths, far)
    async with opened(paths) as store:
        await set_up(store, far)
        await set_up(store, near)
        go = far.folder / "go"
        (first,) = await chain(store, waits_for(go))
        await asyncio.to_thread(ensure_running, paths)
        await until(store, first, lambda row: row.state == "running")
        far.freeze()
        describe(paths, far, near)
        await reload(store)
        codes = ["pass"] * 3
        rest = await chain(store, *codes)
        for name in rest:
            row = await until(store, name, lambda row: row.state in ENDED)
            assert (row.state, row.host) == ("done", "near")
        go.touch()
        far.freeze(signal.SIGCONT)
        row = await until(store, first, lambda row: row.state in ENDED)
        assert (row.state, row.host, row.exit_code) == ("done", "far", 0)


async def test_a_host_taken_out_of_the_file_loses_no_job(paths: Paths, make_sshd: Callable[..., Sshd]) -> None:
    server = make_sshd()
    describe(paths, server)
    async with opened(paths) as store:
        await set_up(store, server)
        go = server.folder / "go"
        (first,) = await chain(store, waits_for(go))
        await asyncio.to_thread(ensure_running, paths)
        await until(store, first, lambda row: row.state == "running")
        paths.hosts_yaml.write_text("hosts: {local: {}}\n")
        assert "1 jobs are on alpha" in (await reload(store)).warnings[0]
        row = await until(store, first, lambda row: "does not answer" in row.why)
        assert row.state == "running"
        go.touch()
        describe(paths, server)
        await reload(store)
        assert (await until(store, first, lambda row: row.state in ENDED)).state == "done"


def test_the_bed_describes_hosts_that_are_understood(tmp_path: Any, paths: Paths) -> None:
    from backend.fleet.hosts import load_hosts

    server = Sshd(tmp_path / "host", "alpha")
    describe(paths, server, local=True)
    assert load_hosts(paths.hosts_yaml).hosts[1] == replace(server.host(max_parallel_jobs=1), line=3)
