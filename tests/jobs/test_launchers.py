"""What every launcher promises; each one that exists is tried with the same suite."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backend.fleet.hosts import Host
from backend.fleet.pools import pool_of
from backend.fleet.remote import ThisMachine
from backend.fleet.ssh import SshPool
from backend.fleet.transfers import python_of
from backend.jobs.launchers.base import AttemptSpec, Launcher, RefusedStartError, UnreachableError
from backend.jobs.launchers.local import LocalLauncher
from backend.jobs.launchers.slurm import SlurmLauncher
from backend.jobs.launchers.slurm_client import SlurmClient
from backend.jobs.launchers.ssh import SshLauncher
from backend.jobs.model import Phase
from backend.paths import Paths
from tests.lab.gpus import UUIDS, FakeGpus
from tests.lab.slurm import Slurm
from tests.lab.sshd import Sshd

Make = Callable[[int], Launcher]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """Two GPUs that this machine and the one behind SSH have."""
    found = FakeGpus(tmp_path / "gpus")
    monkeypatch.setenv("PATH", f"{found.folder}:{os.environ['PATH']}")
    return found


@pytest.fixture(params=["local", "ssh", "slurm", "slurm-ssh"])
async def make(request: pytest.FixtureRequest, paths: Paths, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes launchers of one kind for supervisors of the given epochs."""
    async for one in _make(request, paths, tmp_path):
        yield one


@pytest.fixture(params=["local", "ssh"])
async def make_host(request: pytest.FixtureRequest, paths: Paths, tmp_path: Path) -> AsyncIterator[Make]:
    """As ``make``, those that give out the GPUs of one machine; a scheduler gives out its own."""
    async for one in _make(request, paths, tmp_path):
        yield one


async def _make(request: pytest.FixtureRequest, paths: Paths, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Launcher] = []
    pools: list[SshPool] = []

    def local(epoch: int) -> Launcher:
        return LocalLauncher(paths, "owner", epoch)

    async def ssh() -> Callable[[int], Launcher]:
        server: Sshd = request.getfixturevalue("make_sshd")()
        (server.home / "bin").symlink_to(tmp_path / "gpus")
        async with SshPool(paths) as pool:
            pool.confirm_enrolment(await pool.enrol(server.host()))

        def one(epoch: int) -> Launcher:  # every supervisor has connections of its own
            pools.append(SshPool(paths))
            return SshLauncher(pools[-1], server.host(), "owner", epoch)

        return one

    def slurm() -> Callable[[int], Launcher]:
        cluster: Slurm = request.getfixturevalue("make_slurm")()
        host = Host("cluster", cluster.settings())
        pool = pool_of(host.name, host.settings)

        def one(epoch: int) -> Launcher:
            serving = LocalLauncher(paths, "owner", epoch, name=host.name, root=pool.agent)
            client = SlurmClient(ThisMachine(), host, pool)
            return SlurmLauncher(serving, client, "owner", epoch, sys.executable, poll_s=0.2, settle_s=1.0)

        return one

    async def slurm_ssh() -> Callable[[int], Launcher]:
        """A Slurm whose login host is not this machine: its commands, the agent and all files go through SSH."""
        cluster: Slurm = request.getfixturevalue("make_slurm")()
        server: Sshd = request.getfixturevalue("make_sshd")("cluster")
        reached = {key: value for key, value in server.settings().items() if key != "storage_paths"}
        host = Host("cluster", cluster.settings(**reached, python_path=sys.executable))
        assert not host.is_here
        async with SshPool(paths) as pool:
            pool.confirm_enrolment(await pool.enrol(host))

        def one(epoch: int) -> Launcher:
            pools.append(SshPool(paths))
            serving = SshLauncher(pools[-1], host, "owner", epoch)
            client = SlurmClient(pools[-1], host, pool_of(host.name, host.settings))
            return SlurmLauncher(serving, client, "owner", epoch, python_of(host), poll_s=0.2, settle_s=1.0)

        return one

    if request.param.startswith("slurm"):
        kind = slurm() if request.param == "slurm" else await slurm_ssh()
    else:
        kind = local if request.param == "local" else await ssh()

    def one(epoch: int) -> Launcher:
        made.append(kind(epoch))
        return made[-1]

    yield one
    for launcher in made:
        await launcher.close()
    for pool in pools:
        await pool.close()


def spec(key: str, code: str, **env: str) -> AttemptSpec:
    return AttemptSpec(key, "owner", (sys.executable, "-I", "-S", "-c", code), None, env)


async def seen(launcher: Launcher, key: str, *phases: Phase) -> None:
    """Waits until an attempt is in one of the phases; at moments nothing can be said of it."""
    async with asyncio.timeout(180):
        while True:
            found = await launcher.observe([key])
            if key in found and found[key].phase in phases:
                return
            await asyncio.sleep(0.02)


async def ended(launcher: Launcher, key: str) -> int | None:
    await seen(launcher, key, Phase.EXITED)
    record = (await launcher.observe([key]))[key].exit
    assert record is not None
    return record.code


async def test_a_start_runs_the_command_and_its_end_is_observed(make: Make) -> None:
    launcher = make(1)
    assert (await launcher.observe(["a1.1"]))["a1.1"].phase is Phase.ABSENT
    await launcher.start(spec("a1.1", "import sys; print('hello'); sys.exit(4)"))
    assert await ended(launcher, "a1.1") == 4
    chunk = await launcher.read_log("a1.1", 0, 100)
    assert (chunk.data, chunk.next, chunk.size) == (b"hello\n", 6, 6)
    assert (await launcher.read_log("a1.1", 2, 2)).data == b"ll"
    assert (await launcher.read_log("a1.1", 6, 100)).data == b""


async def test_a_start_that_is_repeated_runs_nothing_twice(make: Make, tmp_path: Path) -> None:
    launcher, count = make(1), tmp_path / "count"
    job = spec("a1.1", "import os; open(os.environ['COUNT'], 'a').write('x')", COUNT=str(count))
    await asyncio.gather(*(launcher.start(job) for _ in range(5)))
    await ended(launcher, "a1.1")
    await make(2).start(job)
    assert count.read_text() == "x"


async def test_another_command_under_the_same_key_is_refused(make: Make) -> None:
    launcher = make(1)
    await launcher.start(spec("a1.1", "pass"))
    with pytest.raises(RefusedStartError) as refused:
        await launcher.start(spec("a1.1", "print(1)"))
    assert refused.value.kind == "conflict"


async def test_an_older_supervisor_is_refused_and_a_newer_one_sees_its_jobs(make: Make) -> None:
    old, new = make(1), make(2)
    await old.start(spec("a1.1", "import time; time.sleep(600)"))
    await seen(new, "a1.1", Phase.RUNNING)  # an engine takes its time
    assert await new.owned() == ("a1.1",)
    await new.cancel("a1.1", by="test", reason="over")
    with pytest.raises(RefusedStartError) as refused:
        await old.start(spec("a2.1", "pass"))
    assert refused.value.kind == "stale"
    await seen(new, "a1.1", Phase.EXITED)


async def test_a_cancel_ends_a_running_attempt_and_forbids_one_that_never_started(make: Make) -> None:
    launcher = make(1)
    await launcher.start(spec("a1.1", "import time; time.sleep(600)"))
    await launcher.cancel("a1.1", by="test", reason="over", grace_s=5)
    await seen(launcher, "a1.1", Phase.EXITED)
    assert (await launcher.cancel("a2.1", by="test", reason="never")).phase is Phase.EXITED
    found = await launcher.start(spec("a2.1", "pass"))
    assert found.exit is not None
    assert (found.exit.cancelled, found.exit.executed) == (True, False)


async def test_ends_that_are_acknowledged_are_not_owned_any_more(make: Make) -> None:
    launcher = make(1)
    await launcher.start(spec("a1.1", "pass"))
    await ended(launcher, "a1.1")
    await launcher.acknowledge(["a1.1"])
    assert await launcher.owned() == ()


async def test_jobs_outlive_their_launcher(make: Make, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    code = "import os, time\nwhile not os.path.exists(os.environ['FLAG']): time.sleep(0.02)"
    first = make(1)
    await first.start(spec("a1.1", code, FLAG=str(flag)))
    await first.close()
    second = make(2)
    await seen(second, "a1.1", Phase.RUNNING)
    flag.touch()
    assert await ended(second, "a1.1") == 0


FOREVER = "import time; time.sleep(600)"


async def refusal(launcher: Launcher, job: AttemptSpec) -> tuple[str, str]:
    with pytest.raises(RefusedStartError) as refused:
        await launcher.start(job)
    return refused.value.kind, refused.value.what


async def test_a_gpu_belongs_to_one_attempt_until_that_has_ended(make_host: Make, gpus: FakeGpus) -> None:
    launcher = make_host(1)
    await launcher.start(replace(spec("a1.1", FOREVER), gpus=("0",)))
    second = replace(spec("a2.1", "print(1)"), gpus=(UUIDS[0],))  # the same one by its other name
    assert await refusal(launcher, second) == ("busy", "GPU 0 is leased (a1.1)")
    both = replace(spec("a3.1", "print(1)"), gpus=("0", "1"))
    assert await refusal(launcher, both) == ("busy", "GPU 0 is leased (a1.1)")
    other = replace(spec("a4.1", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"), gpus=("1",))
    await launcher.start(other)  # of what was refused, nothing is kept
    assert await ended(launcher, "a4.1") == 0
    assert (await launcher.read_log("a4.1", 0, 100)).data.decode() == f"{UUIDS[1]}\n"
    assert (await launcher.observe(["a2.1"]))["a2.1"].phase is Phase.PREPARED
    await launcher.cancel("a1.1", by="test", reason="over", grace_s=5)
    await seen(launcher, "a1.1", Phase.EXITED)
    for job in (second, both):
        await launcher.start(job)
        assert await ended(launcher, job.key) == 0


async def test_a_gpu_is_free_when_its_command_is_gone_not_when_its_runner_is(
    make_host: Make, gpus: FakeGpus, tmp_path: Path
) -> None:
    launcher = make_host(1)
    code = "import os; print(os.getpid(), os.getppid(), flush=True); import time; time.sleep(600)"
    await launcher.start(replace(spec("a1.1", code), gpus=("0",)))
    await seen(launcher, "a1.1", Phase.RUNNING)
    line = b""
    async with asyncio.timeout(60):
        while not line.endswith(b"\n"):
            line = (await launcher.read_log("a1.1", 0, 100)).data
    command, runner = map(int, line.split())
    os.kill(runner, 9)
    await seen(launcher, "a1.1", Phase.ORPHANED)
    second = replace(spec("a2.1", "pass"), gpus=("0",))
    for _ in range(2):
        assert await refusal(launcher, second) == ("busy", "GPU 0 is leased (a1.1, whose runner was killed, goes on)")
    os.kill(command, 9)
    await seen(launcher, "a1.1", Phase.UNKNOWN)
    await launcher.start(second)
    assert await ended(launcher, "a2.1") == 0


async def test_a_gpu_that_somebody_else_uses_is_waited_for(make_host: Make, gpus: FakeGpus) -> None:
    launcher, job = make_host(1), replace(spec("a1.1", "pass"), gpus=("0",))
    gpus.used_by(4711)
    assert await refusal(launcher, job) == ("busy", "GPU 0 is in use by pid 4711 (python3.11)")
    gpus.used_by(4711, gpu=1)
    await launcher.start(job)
    assert await ended(launcher, "a1.1") == 0


async def test_a_gpu_that_is_not_there_is_told_apart_from_one_that_is_not_free(make_host: Make, gpus: FakeGpus) -> None:
    launcher = make_host(1)
    kind, why = await refusal(launcher, replace(spec("a1.1", "pass"), gpus=("0", "7")))
    assert (kind, why) == ("gpu", "no such GPU here: 7 (there is 0, 1)")
    gpus.fail("Failed to initialize NVML: Driver/library version mismatch\n")
    kind, why = await refusal(launcher, replace(spec("a2.1", "pass"), gpus=("0",)))
    assert kind == "busy" and "version mismatch" in why
    await launcher.start(spec("a3.1", "pass"))  # whoever asks for none is not concerned
    assert await ended(launcher, "a3.1") == 0


async def test_an_agent_that_dies_is_unreachable_once_and_then_there_again(paths: Paths) -> None:
    launcher = LocalLauncher(paths, "owner", 1)
    try:
        await launcher.start(spec("a1.1", "import time; time.sleep(600)"))
        assert launcher._process is not None
        os.kill(launcher._process.pid, 9)
        await launcher._process.wait()
        with pytest.raises(UnreachableError):
            await launcher.observe(["a1.1"])
        assert (await launcher.observe(["a1.1"]))["a1.1"].phase is Phase.RUNNING
        await launcher.cancel("a1.1", by="test", reason="over", grace_s=5)
        await seen(launcher, "a1.1", Phase.EXITED)
    finally:
        await launcher.close()


async def test_a_request_that_nobody_waited_for_does_not_confuse_the_next(paths: Paths) -> None:
    launcher = LocalLauncher(paths, "owner", 1)
    try:
        await launcher.observe([])
        for delay in (0.0, 0.001, 0.005):
            task = asyncio.create_task(launcher.owned())
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await launcher.observe(["a1.1"]))["a1.1"].phase is Phase.ABSENT
    finally:
        await launcher.close()


async def test_a_cut_link_is_unreachable_once_and_the_job_is_there_again(
    make_sshd: Callable[..., Sshd], paths: Paths
) -> None:
    server = make_sshd()
    async with SshPool(paths) as pool:
        pool.confirm_enrolment(await pool.enrol(server.host()))
        launcher = SshLauncher(pool, server.host(), "owner", 1)
        await launcher.start(spec("a1.1", "import time; time.sleep(600)"))
        server.cut()
        with pytest.raises(UnreachableError):
            await launcher.observe(["a1.1"])
        assert (await launcher.observe(["a1.1"]))["a1.1"].phase is Phase.RUNNING
        await launcher.cancel("a1.1", by="test", reason="over", grace_s=5)
        await seen(launcher, "a1.1", Phase.EXITED)
        await launcher.close()


async def test_the_agent_lies_under_its_hash_and_is_uploaded_once(make_sshd: Callable[..., Sshd], paths: Paths) -> None:
    server = make_sshd(shell="/bin/bash")
    (server.home / ".bashrc").write_text("echo welcome; printf '\\377\\0'\n")
    host = Host(server.name, {name: value for name, value in server.settings().items() if name != "storage_paths"})
    async with SshPool(paths) as pool:
        pool.confirm_enrolment(await pool.enrol(host))
        for _ in range(2):
            launcher = SshLauncher(pool, host, "owner", 1)
            assert await launcher.owned() == ()
            await launcher.close()
            text = next((server.home / ".local/state/ringrift/agent").iterdir()) / "agent.py"
            before = text.stat().st_ino
        assert text.stat().st_ino == before
        assert text.parent.name == hashlib.sha256(text.read_bytes()).hexdigest()


async def test_a_host_without_python_is_told_so(make_sshd: Callable[..., Sshd], paths: Paths) -> None:
    server = make_sshd()
    async with SshPool(paths) as pool:
        pool.confirm_enrolment(await pool.enrol(server.host()))
        launcher = SshLauncher(pool, server.host(python_path="/nowhere/python3"), "owner", 1)
        with pytest.raises(UnreachableError, match="no python3"):
            await launcher.owned()


def test_a_spec_survives_being_stored_with_the_same_digest() -> None:
    one = replace(spec("a1.1", "pass", X="y"), wall_s=3.0)
    assert AttemptSpec.from_json(one.to_json()) == one
    assert AttemptSpec.from_json(one.to_json()).digest == one.digest
    assert "gpus" not in one.to_json()
    two = replace(one, gpus=("0", "1"))
    assert AttemptSpec.from_json(two.to_json()) == two
    assert two.digest != one.digest
