"""The keeper before a Slurm whose programs answer as a test tells them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.jobs import store as rows
from backend.jobs.keeper import Keeper
from backend.jobs.pipelines import add_chain, add_gang
from backend.jobs.rows import job_row
from backend.paths import Paths
from backend.state.store import StateStore
from tests.jobs.test_slurm_launcher import DOWN, PATIENCE_S, Bed


class KeeperBed(Bed):
    """Jobs that were placed on the pool, with a keeper."""

    def __init__(self, paths: Paths, folder: Path, store: StateStore) -> None:
        super().__init__(paths, folder)
        self.store = store
        self.keeper = Keeper(paths, store, {"cluster": self.launcher}, "head", 1)

    async def gang(self) -> list[str]:
        """A gang of two; returns the keys of its attempts."""
        async with self.store.database.write() as db:
            names = await add_gang(db, "command", "hex8_2p", {"argv": ["true"]}, 2)
        keys = [f"{name}.1" for name in names]
        await rows.place(
            self.store, 1,
            *(rows.Placed(name, 1, "cluster", self.spec(f"{name}.1", gang=keys, port=20_000)) for name in names),
        )  # fmt: skip
        return keys

    async def job(self) -> str:
        async with self.store.database.write() as db:
            _, (name,) = await add_chain(db, "hex8_2p", [("command", {"argv": ["true"]})], {}, None)
        await rows.place(self.store, 1, rows.Placed(name, 1, "cluster", self.spec(f"{name}.1")))
        return name

    async def until_said(self, name: str, text: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (row := await job_row(self.store, name)) is None or text not in row.why:
                self.keeper._not_before.clear()
                await self.keeper.tick()
                await asyncio.sleep(0.02)


@pytest.fixture
async def bed(paths: Paths, tmp_path: Path) -> AsyncIterator[KeeperBed]:
    folder = tmp_path / "pool"
    folder.mkdir()
    async with await StateStore.open(paths) as store:
        made = KeeperBed(paths, folder, store)
        yield made
        await made.launcher.close()


async def test_members_of_a_gang_that_come_due_apart_are_started_together(bed: KeeperBed) -> None:
    _, second = await bed.gang()
    bed.keeper._not_before[second] = asyncio.get_running_loop().time() + 3600.0
    await bed.keeper.tick()
    assert len(bed.queue()) == 1


async def test_a_job_says_which_folder_cannot_be_read_and_why_the_controller_cannot_be_asked(bed: KeeperBed) -> None:
    name = await bed.job()
    await bed.keeper.tick()
    await bed.until_said(name, "pending (")
    bed.fail("squeue", DOWN)
    await bed.until_said(name, "the controller does not answer: ")
    bed.mend("squeue")
    await bed.until_said(name, "pending (")
    spec = bed.root / f"agent/jobs/{name}.1/spec.json"
    text = spec.read_text()
    spec.unlink()
    spec.mkdir()
    await bed.until_said(name, "spec.json")
    spec.rmdir()
    spec.write_text(text)
    await bed.until_said(name, "pending (")


async def test_a_submission_that_was_not_taken_is_not_tried_at_every_moment(bed: KeeperBed) -> None:
    await bed.launcher.close()
    bed.keeper.launchers = {"cluster": bed.open(poll_s=3600.0)}
    name = await bed.job()
    bed.fail("sbatch", DOWN)
    await bed.until_said(name, "the controller does not answer: ")
    tried = bed.calls("sbatch")
    due = bed.keeper._not_before[f"{name}.1"]
    assert due > asyncio.get_running_loop().time() + 60.0
    await bed.keeper.tick()
    assert bed.calls("sbatch") == tried
    await bed.keeper.launchers["cluster"].close()


async def test_a_job_says_that_slurm_ended_it_for_its_memory(bed: KeeperBed) -> None:
    name = await bed.job()
    await bed.keeper.tick()
    folder = bed.root / f"agent/jobs/{name}.1"
    said = bed.root / "agent/engine" / json.loads((folder / "engine.json").read_text())["out"]
    said.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=1.0.\nsrun: error: n1: task 0: Killed\n")
    (folder / "executed").touch()
    (folder / "exit.json").write_text('{"code": 137, "signal": null, "executed": true}')
    await bed.until_said(name, "exit code 137: slurmstepd: error: Detected 1 oom_kill event in StepId=1.0.")
