"""A Slurm that breaks under attempts: however it does, none is executed twice and each ends, or is known as unknown.

What the keeper does with a launcher is done here without one: what was not executed is started again, for as long as
it takes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.pools import pool_of
from backend.fleet.remote import ThisMachine
from backend.jobs.launchers.base import AttemptSpec, RefusedStartError, UnreachableError
from backend.jobs.launchers.local import LocalLauncher
from backend.jobs.launchers.slurm import SlurmLauncher
from backend.jobs.launchers.slurm_client import SlurmClient
from backend.jobs.launchers.slurm_script import Batch
from backend.jobs.model import NOT_EXECUTED, Observation, Phase
from backend.paths import Paths
from tests.lab.slurm import NODES, Slurm

PATIENCE_S = 480.0
ATTEMPTS = 8
SECONDS = "3"


class LossyClient(SlurmClient):
    """Loses answers of ``sbatch``: before (False) or after (True) the job was taken."""

    def __init__(self, host: Host) -> None:
        super().__init__(ThisMachine(), host, pool_of(host.name, host.settings))
        self.losses: list[bool] = []

    async def submit(self, text: str) -> str:
        loss = self.losses.pop(0) if self.losses else None
        if loss is False:
            raise RingRiftError("lost on the way there", where="cluster")
        number = await super().submit(text)
        if loss:
            raise RingRiftError("lost on the way back", where="cluster")
        return number


class Head:
    """What a supervisor does with its launcher, and what it knows of its attempts."""

    def __init__(self, paths: Paths, slurm: Slurm, folder: Path) -> None:
        self.paths, self.slurm, self.count = paths, slurm, folder / "count"
        self.count.touch()
        self.epoch = 0
        self.seen: dict[str, Observation] = {}
        self.refused: dict[str, str] = {}
        self.told: set[str] = set()
        code = (
            "import os, time; f = os.open(os.environ['COUNT'], os.O_WRONLY | os.O_APPEND); "
            "os.write(f, (os.environ['RINGRIFT_ATTEMPT'] + '\\n').encode())\n"
            "while not os.path.exists(os.environ['GO']): time.sleep(0.05)\n"
            "time.sleep(float(os.environ['SECONDS']))"
        )
        self.go = folder / "go"
        self.go.touch()
        env = {"COUNT": str(self.count), "SECONDS": SECONDS, "GO": str(self.go)}
        self.specs = {
            f"c{n}.1": AttemptSpec(f"c{n}.1", "head", (sys.executable, "-I", "-S", "-c", code), None, env)
            for n in range(ATTEMPTS)
        }
        self.launcher = self.open()

    def open(self) -> SlurmLauncher:
        """A launcher of a new supervisor: it remembers nothing."""
        self.epoch += 1
        host = Host("cluster", self.slurm.settings())
        serving = LocalLauncher(self.paths, "head", self.epoch, name="cluster", root=f"{self.slurm.root}/agent")
        self.client = LossyClient(host)
        return SlurmLauncher(serving, self.client, "head", self.epoch, sys.executable, poll_s=0.3, settle_s=2.0)

    async def reopen(self) -> None:
        await self.launcher.close()
        self.launcher = self.open()

    async def step(self) -> None:
        """Starts what was not executed as far as is known, and looks."""
        due = [
            spec for key, spec in self.specs.items()
            if key not in self.refused and (key not in self.seen or self.seen[key].phase in NOT_EXECUTED)
        ]  # fmt: skip
        try:
            if due:
                for key, answer in (await self.launcher.start_many(due)).items():
                    if not isinstance(answer, RefusedStartError):
                        self.seen[key] = answer
                    elif answer.kind != "busy":
                        self.refused[key] = answer.what
            self.seen |= await self.launcher.observe(list(self.specs))
            ended = {key for key, seen in self.seen.items() if seen.phase is Phase.EXITED} - self.told
            if ended:
                await self.launcher.acknowledge(ended)
                self.told |= ended
        except UnreachableError:
            return

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self.step()
                await asyncio.sleep(0.05)

    async def until_some_run(self) -> None:
        """Until some run, which go on until :meth:`see_through`."""
        self.go.unlink()
        await self.until(lambda: self.phases()[Phase.RUNNING] > 0)

    def phases(self) -> Counter[Phase]:
        return Counter(one.phase for one in self.seen.values())

    def over(self) -> bool:
        """Every attempt has ended, is unknown, or was refused for good."""
        return all(
            key in self.refused or (key in self.seen and self.seen[key].phase in (Phase.EXITED, Phase.UNKNOWN))
            for key in self.specs
        )

    def executions(self) -> Counter[str]:
        return Counter(self.count.read_text().split())

    async def see_through(self) -> None:
        """Lets all end and waits for it; then nothing was executed twice, and what ended well was executed.

        An administrator gives back nodes that Slurm has drained: a number that it gives again while its node still has
        the job of before makes it do that ("Duplicate jobid").
        """

        self.go.touch()
        loop, again = asyncio.get_running_loop(), 0.0

        def over() -> bool:
            nonlocal again
            if loop.time() < again:
                return self.over()
            again = loop.time() + 5.0
            if self.slurm.nodes_in("drain") or self.slurm.nodes_in("drng"):
                self.slurm.ask("scontrol", "reconfigure")  # nodes tell anew what they run, which they do seldom
                self.slurm.ask("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
            return self.over()

        await self.until(over)
        ran = self.executions()
        assert not [key for key, times in ran.items() if times > 1]
        for key, seen in self.seen.items():
            if seen.exit is not None and seen.exit.code == 0:
                assert ran[key] == 1


@pytest.fixture
async def head(
    request: pytest.FixtureRequest, paths: Paths, make_slurm: Callable[..., Slurm], tmp_path: Path
) -> AsyncIterator[Head]:
    made = Head(paths, make_slurm(**getattr(request, "param", {})), tmp_path)
    yield made
    await made.launcher.close()


def kill(pids: Iterable[int]) -> int:
    pids = list(pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


async def test_a_controller_that_is_killed_right_after_a_submission(head: Head) -> None:
    await head.launcher.start_many(list(head.specs.values()))
    head.slurm.kill("slurmctld")
    await head.step()
    await asyncio.to_thread(head.slurm.start_controller)
    await head.see_through()
    assert head.phases()[Phase.EXITED] + head.phases()[Phase.UNKNOWN] == ATTEMPTS


@pytest.mark.parametrize("head", [{"slurmd_timeout": 9}], indirect=True, ids=[""])
async def test_a_controller_that_has_forgotten_everything(head: Head) -> None:
    await head.until_some_run()
    head.slurm.kill("slurmctld")
    for path in (head.slurm.folder / "state").iterdir():
        if path.is_file():
            path.unlink()
    await asyncio.to_thread(head.slurm.start_controller)
    await head.see_through()


async def test_nodes_whose_daemons_are_killed(head: Head) -> None:
    await head.until_some_run()
    for name in NODES:
        head.slurm.kill(f"slurmd {name}")
    await head.step()
    for name in NODES:
        head.slurm.start_node(name)
    await head.see_through()
    assert head.phases() == {Phase.EXITED: ATTEMPTS}


async def test_the_keepers_of_steps_are_killed(head: Head) -> None:
    await head.until_some_run()
    assert kill(head.slurm.pids("slurmstepd")) > 0
    await head.see_through()


async def test_a_supervisor_that_is_replaced_at_every_look(head: Head) -> None:
    for _ in range(6):
        await head.step()
        await head.reopen()
    await head.see_through()
    assert head.phases() == {Phase.EXITED: ATTEMPTS}
    assert all(seen.exit is not None and seen.exit.code == 0 for seen in head.seen.values())


async def test_answers_of_sbatch_that_are_lost(head: Head) -> None:
    head.client.losses = [True, False, True]
    await head.step()
    assert head.executions().total() <= ATTEMPTS
    await head.see_through()
    assert head.phases() == {Phase.EXITED: ATTEMPTS}
    assert all(seen.exit is not None and seen.exit.code == 0 for seen in head.seen.values())


async def test_an_administrator_requeues_what_runs(head: Head) -> None:
    await head.until_some_run()
    listed = head.slurm.ask("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i").stdout.split()
    assert listed
    for job in listed:
        head.slurm.ask("scontrol", "update", f"jobid={job}", "requeue=1")
        head.slurm.ask("scontrol", "requeue", job)
    await head.see_through()


async def test_a_number_that_is_another_job_by_now_is_not_cancelled_for_ours(head: Head) -> None:
    assert head.slurm.ask("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=test").returncode == 0
    key = "c0.1"
    head.specs = {key: head.specs[key]}
    await head.until(lambda: key in head.seen and head.seen[key].phase is Phase.STARTING)
    head.slurm.kill("slurmctld")
    for path in (head.slurm.folder / "state").iterdir():
        if path.is_file():
            path.unlink()
    await asyncio.to_thread(head.slurm.start_controller)
    other = head.slurm.ask("sbatch", "--parsable", "-J", "theirs", "-o", "/dev/null", "--wrap", "sleep 600").stdout
    assert other.strip() == head.seen[key].evidence["engine_job"]  # Slurm gives the number again
    await head.client.cancel({Batch("head", "one", (key,)).name: [other.strip()]})
    seen = await head.launcher.cancel(key, by="test", reason="over")
    assert seen.phase is Phase.EXITED
    await head.launcher.close()
    assert head.slurm.jobs() == ["theirs"]
    assert head.executions().total() == 0


async def test_one_element_of_an_array_that_waits_is_cancelled_and_no_other(head: Head) -> None:
    assert head.slurm.ask("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=test").returncode == 0
    await head.until(lambda: head.phases()[Phase.STARTING] == ATTEMPTS)
    seen = await head.launcher.cancel("c3.1", by="test", reason="over")
    assert seen.phase is Phase.EXITED
    head.seen["c3.1"] = seen
    await head.reopen()  # which waits for what was to be cancelled
    assert len(head.slurm.jobs()) == ATTEMPTS - 1
    head.slurm.ask("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
    await head.see_through()
    assert sorted(head.executions()) == sorted(set(head.specs) - {"c3.1"})
