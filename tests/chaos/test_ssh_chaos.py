"""A host over SSH under cut links, killed runners, partitions and hostile output.

After every round: the command ran at most once, and the attempt has an end or is said to be unknown. A few rounds
each; ``RINGRIFT_CHAOS=100`` for the counts in ``docs/chaos.md``, printed with ``-s``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from backend.errors import RingRiftError
from backend.fleet.ssh import Limits, SshPool
from backend.jobs import agent
from backend.jobs.launchers.base import AttemptSpec, RefusedStartError, UnreachableError
from backend.jobs.launchers.ssh import SshLauncher
from backend.jobs.model import Observation, Phase
from backend.paths import Paths
from tests.lab.sshd import Sshd

ROUNDS = int(os.environ.get("RINGRIFT_CHAOS", "8"))
QUICK = Limits(keepalive_s=0.3, keepalive_count=2, backoff_s=0.02, backoff_max_s=0.1)
SETTLED = (Phase.EXITED, Phase.UNKNOWN, Phase.LOST)
T = TypeVar("T")


def tell(counts: str) -> None:
    sys.stdout.write(counts + "\n")


@dataclass
class Bed:
    server: Sshd
    pool: SshPool
    launcher: SshLauncher
    lost: int = 0

    @property
    def root(self) -> Path:
        return self.server.folder / "agent"

    def spec(self, key: str, code: str) -> AttemptSpec:
        counted = f"import os; os.write(os.open('ran', os.O_CREAT | os.O_APPEND | os.O_WRONLY), b'x')\n{code}"
        return AttemptSpec(key, "owner", (sys.executable, "-I", "-S", "-c", counted), None, {})

    def executions(self, key: str) -> int:
        path = self.root / "jobs" / key / "ran"
        return path.stat().st_size if path.exists() else 0

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks until there is an answer, as the supervisor does."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return await ask()
                except UnreachableError:
                    self.lost += 1
                    await asyncio.sleep(0.02)

    async def observe(self, key: str) -> Observation:
        return (await self.launcher.observe([key]))[key]

    async def settled(self, key: str) -> Observation:
        async with asyncio.timeout(60):
            while True:
                seen = await self.insist(lambda: self.observe(key))
                if seen.phase in SETTLED:
                    return seen
                await asyncio.sleep(0.02)

    async def under_a_cut(self, ask: Callable[[], Awaitable[T]], longest_s: float, chance: random.Random) -> T:
        """Asks, with the link cut at a random moment of it, until there is an answer."""
        asking = asyncio.create_task(self.insist(ask))
        await asyncio.sleep(chance.uniform(0, longest_s))
        self.server.cut()
        return await asking


@pytest.fixture
async def bed(make_sshd: Callable[..., Sshd], paths: Paths) -> AsyncIterator[Bed]:
    server = make_sshd()
    async with SshPool(paths, QUICK) as pool:
        pool.confirm_enrolment(await pool.enrol(server.host()))
        made = Bed(server, pool, SshLauncher(pool, server.host(), "owner", 1))
        yield made
        await made.launcher.close()


async def test_links_cut_during_start_cancel_and_acknowledgement_lose_and_double_nothing(bed: Bed) -> None:
    chance, ends = random.Random(3), Counter[str]()
    for n in range(ROUNDS):
        key = f"a{n}.1"
        job = bed.spec(key, "import time; time.sleep(0.1)")
        await bed.under_a_cut(partial(bed.launcher.start, job), 0.3, chance)
        if n % 2:
            await bed.under_a_cut(partial(bed.launcher.cancel, key, by="t", reason="r", grace_s=1), 0.1, chance)
        seen = await bed.settled(key)
        assert seen.phase is Phase.EXITED and seen.exit is not None
        if seen.exit.cancelled:  # perhaps before the command had counted itself
            assert bed.executions(key) <= int(seen.exit.executed)
        else:
            assert (seen.exit.code, bed.executions(key)) == (0, 1)
        ends["cancelled" if seen.exit.cancelled else "exit code 0"] += 1
        await bed.under_a_cut(partial(bed.launcher.acknowledge, [key]), 0.05, chance)
    assert await bed.insist(bed.launcher.owned) == ()
    tell(f"{ROUNDS} jobs, 1 to 3 cuts each, {bed.lost} requests unanswered: {dict(ends)}")


async def test_runners_killed_at_random_moments_never_make_a_command_run_again(bed: Bed) -> None:
    chance, ends = random.Random(5), Counter[str]()
    for n in range(ROUNDS):
        key = f"a{n}.1"
        job = bed.spec(key, "import time; time.sleep(0.2)")
        starting = asyncio.create_task(bed.launcher.start(job))
        await asyncio.sleep(chance.uniform(0, 0.4))
        runner = agent.read_json(str(bed.root / "jobs" / key / "runner.json"))
        if runner and agent.is_alive(runner):
            os.kill(runner["pid"], signal.SIGKILL)
        try:
            await starting
        except RefusedStartError:
            ends["start refused, asked again"] += 1
        await bed.launcher.start(job)
        seen = await bed.settled(key)
        assert bed.executions(key) <= 1
        if seen.phase is Phase.EXITED:
            assert seen.exit is not None and seen.exit.code == 0 and bed.executions(key) == 1
        ends[seen.phase.value] += 1
        final = await bed.launcher.cancel(key, by="t", reason="r", grace_s=1)
        assert (final if final.phase is Phase.EXITED else await bed.settled(key)).phase in SETTLED
    tell(f"{ROUNDS} runners: {dict(ends)}")


async def test_a_partition_is_silence_and_nothing_else(bed: Bed) -> None:
    rounds = max(1, ROUNDS // 8)
    for n in range(rounds):
        key = f"a{n}.1"
        await bed.launcher.start(bed.spec(key, "import time; time.sleep(0.5); raise SystemExit(3)"))
        bed.server.freeze()
        with pytest.raises(UnreachableError):
            await bed.launcher.observe([key])
        assert (bed.root / "jobs" / key / "executed").exists()
        bed.server.freeze(signal.SIGCONT)
        seen = await bed.settled(key)
        assert seen.exit is not None and seen.exit.code == 3
        assert bed.executions(key) == 1
    tell(f"{rounds} partitions healed")


async def test_of_two_supervisors_the_older_can_change_nothing_any_more(bed: Bed) -> None:
    newer = SshLauncher(bed.pool, bed.server.host(), "owner", 2)
    await bed.launcher.start(bed.spec("a0.1", "import time; time.sleep(0.5)"))
    tasks = []
    for n in range(1, ROUNDS + 1):
        job = bed.spec(f"a{n}.1", "pass")
        tasks += [asyncio.create_task(one.start(job)) for one in (bed.launcher, newer)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [one for one in found if isinstance(one, RefusedStartError)]
    assert {one.kind for one in refused} <= {"stale"}
    assert not [one for one in found[1::2] if isinstance(one, BaseException)]
    for ask in (
        lambda: bed.launcher.start(bed.spec("b1.1", "pass")),
        lambda: bed.launcher.cancel("a0.1", by="t", reason="r"),
        lambda: bed.launcher.acknowledge(["a0.1"]),
    ):
        with pytest.raises(RefusedStartError, match="replaced"):
            await ask()
    for n in range(ROUNDS + 1):
        await bed.settled(f"a{n}.1")
        assert bed.executions(f"a{n}.1") == 1
    await newer.close()
    tell(f"{ROUNDS} starts by both at once, the older refused {len(refused)} times")


async def test_a_changed_host_key_stops_the_talk_and_not_the_job(bed: Bed) -> None:
    await bed.launcher.start(bed.spec("a1.1", "import time; time.sleep(0.3); raise SystemExit(5)"))
    bed.server.stop()
    bed.server.change_key()
    bed.server.start()
    with pytest.raises(UnreachableError):  # the old connection is gone
        await bed.observe("a1.1")
    for _ in range(2):
        with pytest.raises(UnreachableError, match="HAS CHANGED"):
            await bed.observe("a1.1")
    bed.pool.confirm_enrolment(await bed.pool.enrol(bed.server.host()))
    seen = await bed.settled("a1.1")
    assert seen.exit is not None and seen.exit.code == 5
    assert bed.executions("a1.1") == 1


async def test_a_log_arrives_byte_by_byte_whatever_is_in_it(bed: Bed) -> None:
    megabytes = 100 if ROUNDS >= 100 else 8
    code = (
        "import os, hashlib, sys\n"
        "noise = bytes(range(256)) * 4096 + b'\\x1b[2J\\x1b]0;owned\\x07\\xff\\xfe'\n"
        "noise = noise.replace(b'\\n', b'') \n"
        "digest = hashlib.sha256()\n"
        f"for _ in range({megabytes}):\n"
        "    sys.stdout.buffer.write(noise); digest.update(noise)\n"
        "sys.stdout.flush()\n"
        "open('digest', 'w').write(digest.hexdigest())\n"
    )
    await bed.launcher.start(bed.spec("a1.1", code))
    digest, offset, whole = hashlib.sha256(), 0, False
    while not whole:
        whole = (await bed.observe("a1.1")).phase is Phase.EXITED
        while (chunk := await bed.insist(partial(bed.launcher.read_log, "a1.1", offset, 1 << 20))).data:
            digest.update(chunk.data)
            if random.Random(offset).random() < 0.02:
                bed.server.cut()  # and it goes on where it was
            offset = chunk.next
    assert digest.hexdigest() == (bed.root / "jobs" / "a1.1" / "digest").read_text()
    tell(f"a line of {offset} bytes, {bed.lost} requests unanswered by cuts")


async def test_few_sessions_leave_the_agent_its_channel(make_sshd: Callable[..., Sshd], paths: Paths) -> None:
    server = make_sshd("narrow", MaxSessions=2)
    async with SshPool(paths, QUICK) as pool:
        pool.confirm_enrolment(await pool.enrol(server.host()))
        launcher = SshLauncher(pool, server.host(), "owner", 1)

        async def talk() -> None:
            for _ in range(ROUNDS):
                assert (await launcher.observe(["a1.1"]))["a1.1"].phase is Phase.ABSENT

        async def command(n: int) -> bytes:
            return (await pool.exec(server.host(), ["echo", str(n)], timeout_s=60)).stdout

        found = await asyncio.gather(talk(), *(command(n) for n in range(ROUNDS)))
        assert [int(one) for one in found[1:]] == list(range(ROUNDS))
        await launcher.close()


async def test_a_full_disk_on_the_host_keeps_the_exit_code(bed: Bed, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk))
    if await mount.wait() != 0:
        pytest.skip("no filesystem can be mounted here")
    try:
        host = bed.server.host(storage_paths={"agent": str(disk)})
        launcher = SshLauncher(bed.pool, host, "owner", 1)
        code = (
            "import time\n"
            "try:\n"
            "    with open('big', 'wb', buffering=0) as stream:\n"
            "        while stream.write(b'x' * 4096): pass\n"
            "except OSError: pass\n"
            "raise SystemExit(9)"
        )
        await launcher.start(bed.spec("a1.1", code))
        async with asyncio.timeout(60):
            while (seen := (await launcher.observe(["a1.1"]))["a1.1"]).phase is not Phase.EXITED:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert seen.exit is not None and seen.exit.code == 9
        assert (disk / "jobs" / "a1.1" / "big").stat().st_size > 500_000
        with pytest.raises(RingRiftError, match="No space"):
            await launcher.start(bed.spec("a2.1", "pass"))
        await launcher.close()
    finally:
        unmount = await asyncio.create_subprocess_exec("umount", "-l", str(disk))
        await unmount.wait()
