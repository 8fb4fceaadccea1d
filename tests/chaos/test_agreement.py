"""Jobs over SSH with everything broken on purpose: afterwards, and after one look, database and hosts agree.

The trouble is that of ``test_ssh_chaos.py``, with a database and a supervisor's decisions above it. A few rounds each;
``RINGRIFT_CHAOS=100`` for the counts in ``docs/chaos.md``, printed with ``-s``.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from backend.jobs import agent
from backend.jobs.keeper import Keeper, SupersededError
from backend.jobs.launchers.ssh import SshLauncher
from backend.jobs.rows import job_rows
from backend.paths import Paths
from backend.snapshot import ENDED
from tests.lab.kept import OWNER, Kept, kept
from tests.lab.sshd import Alias, Sshd

ROUNDS = int(os.environ.get("RINGRIFT_CHAOS", "6"))


def tell(counts: str) -> None:
    sys.stdout.write(counts + "\n")


@pytest.fixture
async def bed(make_sshd: Callable[..., Sshd], paths: Paths) -> AsyncIterator[Kept]:
    async with kept(paths, make_sshd()) as made:
        yield made


async def test_links_cut_during_start_cancel_and_acknowledgement(bed: Kept) -> None:
    chance, ends, cuts = random.Random(23), Counter[str](), 0
    server = bed.server

    async def cutting(longest_s: float) -> None:
        nonlocal cuts
        await asyncio.sleep(chance.uniform(0, longest_s))
        cuts += server.cut() > 0

    for n in range(ROUNDS):
        name = await bed.add("import time; time.sleep(0.1)")
        trouble = asyncio.create_task(cutting(0.8))
        if n % 2:
            await bed.until(name, lambda row: row.state not in ("waiting",))
            await asyncio.sleep(chance.uniform(0, 0.5))
            await bed.cancel(name)
            more = asyncio.create_task(cutting(0.3))
            await bed.settled(name)
            await more
        row = await bed.settled(name)
        await trouble
        assert row.state in ("done", "cancelled"), row
        assert row.state == "done" or n % 2
        ends[row.state] += 1
        await bed.agree()
    assert {phase for phase, _ in bed.attempts.values()} == {"exited"}
    tell(f"{ROUNDS} jobs with a database, {cuts} cuts: {dict(ends)}")


async def test_runners_killed_at_random_moments(bed: Kept) -> None:
    chance, ends = random.Random(29), Counter[str]()
    for _ in range(ROUNDS):
        name = await bed.add("import time; time.sleep(0.2)")
        await bed.until(name, lambda row: row.attempt is not None)
        folder = bed.server.folder / "agent" / "jobs" / f"{name}.1"

        async def killing(folder: Path = folder) -> None:
            while (runner := agent.read_json(str(folder / "runner.json"))) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(chance.uniform(0, 0.8))
            if agent.is_alive(runner):
                os.kill(runner["pid"], signal.SIGKILL)

        trouble = asyncio.create_task(killing())
        row = await bed.settled(name)
        await trouble
        assert row.state in ("done", "unknown"), row
        ends[row.state] += 1
        await bed.agree()
    tell(f"{ROUNDS} runners killed, with a database: {dict(ends)}")


def waits_for(go: Path, code: int) -> str:
    """A command that ends once the file is there."""
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)"
    return f"{wait}\nraise SystemExit({code})"


async def test_a_partition_and_its_end(bed: Kept) -> None:
    rounds = max(1, ROUNDS // 8)
    for n in range(rounds):
        go = bed.server.folder / f"go{n}"
        name = await bed.add(waits_for(go, 3))
        await bed.until(name, "running")
        bed.server.freeze()
        await bed.until(name, lambda row: "does not answer" in row.why)
        assert (await bed.row(name)).state == "running"
        go.touch()
        bed.server.freeze(signal.SIGCONT)
        row = await bed.settled(name)
        assert (row.state, row.exit_code) == ("failed", 3)
        await bed.agree()
    tell(f"{rounds} partitions with a database")


async def test_two_supervisors_at_once(bed: Kept) -> None:
    names = [await bed.add("pass") for _ in range(ROUNDS)]
    older = bed.keeper
    launcher = SshLauncher(bed.pool, bed.server.host(), OWNER, bed.epoch + 1)
    newer = Keeper(bed.paths, bed.store, {"alpha": launcher}, OWNER, bed.epoch + 1)
    newer.porter.ways = older.porter.ways
    refused = 0
    async with asyncio.timeout(120 + 3 * ROUNDS):
        while not refused or any(row.state not in ENDED for row in await job_rows(bed.store)):
            if all(row.state in ENDED for row in await job_rows(bed.store)):
                names.append(await bed.add("pass"))  # the older one had nothing to ask of the host yet
            try:
                await bed.tick()
            except SupersededError:
                refused += 1
            await newer.tick()
            await asyncio.sleep(0.01)
    assert {row.state for row in await job_rows(bed.store)} == {"done"}
    with pytest.raises(SupersededError):
        await older.tick()
    bed.epoch += 1
    assert await bed.agree() == {"exited": len(names)}
    assert all(runs == 1 for _, runs in bed.attempts.values())
    for task in [one for one in asyncio.all_tasks() if one.get_name().startswith("work ")]:
        await task
    await launcher.close()
    tell(f"two supervisors with one database, {len(names)} jobs, the older refused {refused} times")


async def test_a_full_disk_on_the_host(make_sshd: Callable[..., Sshd], paths: Paths) -> None:
    server = make_sshd()
    disk = server.folder / "agent"
    disk.mkdir()
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk))
    if await mount.wait() != 0:
        pytest.skip("no filesystem can be mounted here")
    try:
        async with kept(paths, server) as bed:
            big = str(disk / "jobs" / "big")
            code = (
                "try:\n"
                f"    with open({big!r}, 'wb', buffering=0) as stream:\n"
                "        while stream.write(b'x' * 4096): pass\n"
                "except OSError: pass\n"
                "raise SystemExit(9)"
            )
            first = await bed.add(code)
            row = await bed.settled(first)
            assert (row.state, row.exit_code) == ("failed", 9)
            await bed.agree()
            second = await bed.add("pass")
            row = await bed.settled(second)
            assert row.state == "failed" and "No space" in row.why, row
            await asyncio.to_thread(os.unlink, big)
            await bed.agree()
            assert bed.executions("alpha", f"{second}.1") == 0
            third = await bed.add("pass")
            assert (await bed.settled(third)).state == "done"
            await bed.agree()
    finally:
        unmount = await asyncio.create_subprocess_exec("umount", "-l", str(disk))
        await unmount.wait()


async def test_a_changed_host_key(bed: Kept) -> None:
    server = bed.server
    go = server.folder / "go"
    name = await bed.add(waits_for(go, 5))
    await bed.until(name, "running")
    server.stop()
    server.change_key()
    server.start()
    await bed.until(name, lambda row: "does not answer" in row.why)
    for _ in range(3):
        await bed.tick()
    assert (await bed.row(name)).state == "running"
    go.touch()
    bed.pool.confirm_enrolment(await bed.pool.enrol(server.host()))
    row = await bed.settled(name)
    assert (row.state, row.exit_code) == ("failed", 5)
    assert await bed.agree() == {"exited": 1}


async def test_few_sessions_and_few_logins_only_make_jobs_wait(make_sshd: Callable[..., Sshd], paths: Paths) -> None:
    server = make_sshd("narrow", MaxSessions=2, MaxStartups="2:50:3")
    hosts = [Alias(server, f"n{n}") for n in range(8)]  # as many logins at once, and two sessions in each
    async with kept(paths, *hosts) as bed:
        names = [await bed.add("pass", host=hosts[n % len(hosts)].name) for n in range(max(16, ROUNDS))]
        for name in names:
            assert (await bed.settled(name)).state == "done"
        assert await bed.agree() == {"exited": len(names)}
        tell(f"{len(names)} jobs on {len(hosts)} hosts with MaxSessions=2, MaxStartups=2:50:3")
