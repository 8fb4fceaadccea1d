"""A launcher before programs that answer as a test tells them, for what a real Slurm does at no moment of choice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from backend.fleet.hosts import Host
from backend.fleet.pools import pool_of
from backend.fleet.remote import ThisMachine
from backend.jobs import agent
from backend.jobs.launchers.base import AttemptSpec, RefusedStartError, UnreachableError
from backend.jobs.launchers.local import LocalLauncher
from backend.jobs.launchers.slurm import SlurmLauncher
from backend.jobs.launchers.slurm_client import SlurmClient
from backend.jobs.launchers.slurm_script import Request
from backend.jobs.model import Observation, Phase
from backend.paths import Paths
from tests.jobs.conftest import until as wait_until

PATIENCE_S = 60.0
DOWN = "squeue: error: Unable to contact slurm controller (connect failure)"

PROGRAM = """\
#!/bin/sh
cd {folder}
echo "{name} $*" >> calls
while test -e {name}.hold; do sleep 0.02; done
test ! -e {name}.error || {{ cat {name}.error >&2; exit 1; }}
"""
ENDS = {
    "sbatch": "cat > script; n=$(($(cat number) + 1)); echo $n > number\n"
    "echo \"$n|$(sed -n 's/#SBATCH --job-name=//p' script)|PENDING|1|Priority\" >> queue; echo $n\n",
    "squeue": "cat queue\n",
    "scancel": 'for one in "$@"; do sed -i "/^$one|/d" queue; done\n',
    "sacct": "exit 1\n",
}


class Bed:
    """A pool whose login host is this machine, with the programs' queue and calls as files."""

    def __init__(self, paths: Paths, folder: Path) -> None:
        self.folder, self.paths = folder, paths
        self.root = folder / "shared"
        self.root.mkdir()
        for name, text in (("queue", ""), ("number", "0\n"), ("calls", "")):
            (folder / name).write_text(text)
        for name, end in ENDS.items():
            (folder / name).write_text(
                PROGRAM.format(folder=folder, name=name) + end + f"test ! -e {name}.killed || kill -9 $$\n"
            )
            (folder / name).chmod(0o755)
        self.launcher = self.open()

    def open(self, owner: str = "head", root: Path | None = None, poll_s: float = 0.1) -> SlurmLauncher:
        root = root or self.root
        settings = {"kind": "slurm", "shared_root": str(root), "slurm_bin": str(self.folder)}
        serving = LocalLauncher(self.paths, owner, 1, name="cluster", root=f"{root}/agent")
        client = SlurmClient(ThisMachine(), Host("cluster", settings), pool_of("cluster", settings))
        return SlurmLauncher(serving, client, owner, 1, sys.executable, poll_s=poll_s, settle_s=0.3)

    def spec(self, key: str, owner: str = "head", **engine: object) -> AttemptSpec:
        return AttemptSpec(key, owner, (sys.executable, "-c", "pass"), None, {}, engine=engine)

    def calls(self, name: str) -> int:
        return sum(line.split()[0] == name for line in (self.folder / "calls").read_text().splitlines())

    def queue(self) -> list[str]:
        return (self.folder / "queue").read_text().splitlines()

    def fail(self, name: str, text: str) -> None:
        (self.folder / f"{name}.error").write_text(text + "\n")

    def mend(self, name: str) -> None:
        (self.folder / f"{name}.error").unlink()

    def hold(self, name: str) -> Path:
        """Lets a program wait until the file is removed."""
        path = self.folder / f"{name}.hold"
        path.touch()
        return path

    async def pending(self, *keys: str, **engine: object) -> None:
        for key in keys:
            seen = (await self.launcher.start_many([self.spec(key, **engine)]))[key]
            assert isinstance(seen, Observation) and seen.phase is Phase.STARTING, seen


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition, "what the programs were to be asked")


@pytest.fixture
async def bed(paths: Paths, tmp_path: Path) -> AsyncIterator[Bed]:
    folder = tmp_path / "pool"
    folder.mkdir()
    made = Bed(paths, folder)
    yield made
    for path in folder.glob("*.hold"):
        path.unlink()
    await made.launcher.close()


async def cancelled(bed: Bed, key: str) -> None:
    assert (await bed.launcher.cancel(key, by="test", reason="over")).phase is Phase.EXITED


async def test_what_is_cancelled_while_slurm_ends_others_is_ended_too(bed: Bed) -> None:
    await bed.pending("a.1", "b.1")
    held = bed.hold("scancel")
    await cancelled(bed, "a.1")
    await until(lambda: bed.calls("scancel") == 1)
    await cancelled(bed, "b.1")
    held.unlink()
    await bed.launcher.close()  # which waits for all that was to be ended
    assert bed.queue() == []


async def test_what_could_not_be_ended_is_ended_later(bed: Bed) -> None:
    await bed.pending("a.1")
    bed.fail("scancel", DOWN)
    await cancelled(bed, "a.1")
    await until(lambda: bed.calls("scancel") >= 2)
    bed.mend("scancel")
    await until(lambda: bed.queue() == [])


async def test_a_launcher_closes_though_slurm_ends_nothing(bed: Bed) -> None:
    await bed.pending("a.1")
    bed.fail("scancel", DOWN)
    await cancelled(bed, "a.1")
    async with asyncio.timeout(PATIENCE_S):
        await bed.launcher.close()
    assert len(bed.queue()) == 1


async def test_a_job_that_runs_on_after_its_end_is_ended_though_slurm_was_silent_first(bed: Bed) -> None:
    await bed.pending("a.1")
    (bed.folder / "queue").write_text(bed.queue()[0].replace("PENDING", "RUNNING") + "\n")
    (bed.root / "agent/jobs/a.1/executed").touch()
    (bed.root / "agent/jobs/a.1/exit.json").write_text('{"code": 0, "executed": true}')
    bed.fail("squeue", DOWN)
    asked = bed.calls("squeue")
    await bed.launcher.acknowledge(["a.1"])
    await until(lambda: bed.calls("squeue") > asked)
    bed.mend("squeue")
    await until(lambda: bed.queue() == [])


async def test_a_job_of_another_root_with_the_same_key_is_left_alone(bed: Bed) -> None:
    (bed.folder / "theirs").mkdir()
    other = bed.open("other", bed.folder / "theirs")
    await other.start_many([bed.spec("a.1", "other")])
    (theirs,) = bed.queue()
    await bed.pending("a.1")
    (bed.folder / "queue").write_text(theirs.replace("PENDING", "RUNNING") + "\n")  # ours has ended
    (bed.root / "agent/jobs/a.1/executed").touch()
    (bed.root / "agent/jobs/a.1/exit.json").write_text('{"code": 0, "executed": true}')
    await bed.launcher.acknowledge(["a.1"])
    assert bed.launcher._tidying is not None
    await bed.launcher._tidying
    await bed.launcher.close()
    await other.close()
    assert len(bed.queue()) == 1


def run_to_its_end(bed: Bed, key: str) -> None:
    """What a node does."""
    argv = [sys.executable, "-I", "-S", agent.__file__, "--root", f"{bed.root}/agent", "run", key]
    assert subprocess.run(argv).returncode == 0
    (bed.folder / "queue").write_text("\n".join(bed.queue()).replace("PENDING", "COMPLETED") + "\n")


async def test_what_ran_after_the_look_at_its_folder_has_run_well(bed: Bed) -> None:
    await bed.pending("a.1")
    await bed.launcher.close()
    bed.launcher = bed.open()  # which knows nothing of it
    asked, held = bed.calls("squeue"), bed.hold("squeue")
    start = asyncio.create_task(bed.launcher.start_many([bed.spec("a.1")]))
    await until(lambda: bed.calls("squeue") > asked)
    await asyncio.to_thread(run_to_its_end, bed, "a.1")
    held.unlink()
    seen = (await start)["a.1"]
    assert isinstance(seen, Observation) and seen.phase is Phase.EXITED
    assert seen.exit is not None and seen.exit.code == 0


async def test_what_slurm_ended_is_refused_once_its_record_has_had_time_to_appear(bed: Bed) -> None:
    await bed.pending("a.1")
    (bed.folder / "queue").write_text(bed.queue()[0].replace("PENDING", "COMPLETED") + "\n")
    await bed.launcher.close()
    bed.launcher = bed.open()
    kinds = []
    while not kinds or kinds[-1] == "busy":
        seen = (await bed.launcher.start_many([bed.spec("a.1")]))["a.1"]
        assert isinstance(seen, RefusedStartError)
        kinds.append(seen.kind)
    assert kinds[0] == "busy" and kinds[-1] == "failed"


async def test_a_submission_that_was_killed_is_looked_for_before_there_is_another(bed: Bed) -> None:
    killed = bed.folder / "sbatch.killed"
    killed.touch()
    lost = (await bed.launcher.start_many([bed.spec("a.1")]))["a.1"]
    assert isinstance(lost, RefusedStartError) and lost.kind == "busy" and "ended by a signal" in lost.what
    killed.unlink()
    await bed.pending("a.1")
    assert len(bed.queue()) == 1


async def test_an_empty_folder_in_the_place_of_the_shared_root_tells_nothing(bed: Bed) -> None:
    await bed.pending("a.1")
    bed.root.rename(bed.folder / "away")
    bed.root.mkdir()  # as the point where it was mounted
    for asked in (bed.launcher.observe(["a.1"]), bed.launcher.start_many([bed.spec("b.1")])):
        with pytest.raises(UnreachableError, match="is another folder than before"):
            await asked
    with pytest.raises(UnreachableError, match="is another folder than before"):
        await bed.launcher.cancel("a.1", by="test", reason="over")
    assert list(bed.root.iterdir()) == []
    bed.root.rmdir()
    (bed.folder / "away").rename(bed.root)
    await bed.pending("a.1")
    assert len(bed.queue()) == 1


async def test_a_controller_that_is_down_is_not_asked_for_every_start_and_every_cancel(bed: Bed) -> None:
    keys = ["a.1", "b.1", "c.1"]
    await bed.pending(*keys)
    await bed.launcher.close()
    bed.launcher = bed.open(poll_s=3600.0)
    bed.fail("squeue", DOWN)
    asked = bed.calls("squeue")
    for _ in range(3):
        for seen in (await bed.launcher.start_many([bed.spec(key) for key in keys])).values():
            assert isinstance(seen, RefusedStartError) and seen.kind == "busy" and "controller" in seen.what
    assert await bed.launcher.observe(keys) == {}
    for key in keys:
        await cancelled(bed, key)
    assert bed.calls("squeue") == asked + 1


async def test_an_answer_serves_until_it_is_old_or_something_was_submitted_since(bed: Bed) -> None:
    await bed.launcher.close()
    bed.launcher = bed.open(poll_s=3600.0)
    await bed.pending("a.1", "b.1")
    for _ in range(3):
        await bed.pending("a.1", "b.1")
    assert bed.calls("squeue") == 1
    assert bed.calls("sbatch") == 2


async def test_a_member_waits_for_one_of_which_nothing_can_be_said_now(bed: Bed) -> None:
    request = Request("train", 0, ("a.1", "b.1"), 20_000)
    busy = RefusedStartError("busy", "another start of b.1 is under way")
    ran = Observation("b.1", Phase.EXITED)
    for said, kind in ((busy, "busy"), (ran, "failed")):
        told = bed.launcher._split_gangs({"a.1": (request, 1)}, {"b.1": said})["a.1"]
        assert isinstance(told, RefusedStartError) and told.kind == kind


async def test_a_time_limit_of_slurm_is_named(bed: Bed) -> None:
    await bed.pending("a.1")
    (bed.root / "agent/jobs/a.1/executed").touch()
    (bed.root / "agent/jobs/a.1/exit.json").write_text('{"code": null, "signal": 15, "executed": true}')
    note = json.loads((bed.root / "agent/jobs/a.1/engine.json").read_text())
    said = bed.root / "agent/engine" / note["out"]
    limit = "slurmstepd-n1: error: *** JOB 1 ON n1 CANCELLED AT 2026-11-27T14:52:45 DUE TO TIME LIMIT ***"
    said.write_text(f"{limit}\nsrun: got SIGCONT\nsrun: forcing job termination\n")  # as 22.05 was seen to say it
    seen = (await bed.launcher.observe(["a.1"]))["a.1"]
    assert seen.evidence["engine_said"] == limit
