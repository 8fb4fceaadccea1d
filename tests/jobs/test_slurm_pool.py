"""A keeper whose other host is a Slurm: jobs as arrays, a gang on two nodes, and what a pool refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from backend.distribution.plans import apply_distribute, plan_distribute
from backend.distribution.rows import transfer_rows
from backend.distribution.runner import Runner
from backend.fleet.hosts import Host, load_hosts
from backend.fleet.look import look_at
from backend.fleet.pool_look import pool_text
from backend.fleet.store import host_rows
from backend.jobs.keeper import Keeper
from backend.jobs.launchers.roster import Roster
from backend.jobs.pipelines import add_gang
from backend.jobs.rows import attempt_rows
from backend.jobs.staging import LocalTransfer
from backend.paths import Paths
from backend.registry.store import find
from backend.snapshot import JobRow
from backend.state.store import StateStore
from backend.training.checkpoint import load_model
from backend.training.export import export
from tests.lab.slurm import Slurm, until
from tests.lab.two_hosts import CODE, CONFIG, OWNER, Bed
from tests.training.conftest import play_randomly, store_games

PATIENCE_S = 600.0


class PoolBed(Bed):
    """A head on which the commands of a Slurm are."""

    def __init__(self, paths: Paths, slurm: Slurm, store: StateStore) -> None:
        self.slurm = slurm
        super().__init__(paths, slurm.root, store)

    def open(self, epoch: int = 1) -> None:
        self.roster = Roster(self.paths, OWNER, epoch)
        self.roster.poll_s = 0.5
        self.keeper = Keeper(self.paths, self.store, self.roster, OWNER, epoch)

    async def close(self) -> None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("work "):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        await self.roster.close()

    async def until(self, name: str, *states: str) -> JobRow:
        """As of the other bed, with the patience that three processes which import torch need on two loaded cores."""
        async with asyncio.timeout(PATIENCE_S):
            while (row := await self.row(name)).state not in states:
                self.keeper._not_before.clear()
                await self.keeper.tick()
                await asyncio.sleep(0.1)
        return row

    def describe(self, **more: object) -> None:
        """Writes the hosts file, with other settings of the pool if need be."""
        cluster = self.slurm.settings(max_parallel_jobs=50) | more
        self.paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": {"local": None, "cluster": cluster}}))


@pytest.fixture
async def bed(
    paths: Paths, make_slurm: Callable[..., Slurm], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PoolBed]:
    monkeypatch.setenv("PYTHONPATH", CODE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    paths.root.mkdir(parents=True)
    made = PoolBed(paths, make_slurm(), await StateStore.open(paths))
    made.describe()
    await made.roster.refresh()
    try:
        yield made
    finally:
        await made.close()
        await made.store.close()


async def until_said(bed: PoolBed, name: str, text: str) -> str:
    """Waits until the row of a job says why."""
    async with asyncio.timeout(PATIENCE_S):
        while text not in (await bed.row(name)).why:
            bed.keeper._not_before.clear()
            await bed.keeper.tick()
            await asyncio.sleep(0.05)
    return (await bed.row(name)).why


async def test_a_gang_is_one_job_on_two_nodes_and_ends_as_one_model(bed: PoolBed) -> None:
    store_games(bed.paths.games_db(CONFIG), CONFIG, [play_randomly(CONFIG, index) for index in range(8)])
    export(bed.paths, CONFIG)
    bed.describe(gres="gpu:1", preferred_workloads=["training"])
    await bed.roster.refresh()
    save = "models/candidates/gang.pth"
    options = ["--blocks", "1", "--channels", "8", "--batch-size", "64", "--device", "cpu"]
    async with bed.store.database.write() as db:
        names = await add_gang(
            db, "train", CONFIG.key, {"save": save, "epochs": 1, "seed": 1, "options": options, "gpus": 0}, 2
        )
    for name in names:
        row = await bed.until(name, "done", "failed", "unknown")
        assert row.state == "done", row.why
        assert row.host == "cluster"
    said = [json.loads((bed.slurm.root / "agent/jobs" / f"{name}.1/engine.json").read_text()) for name in names]
    assert said[0]["name"] == said[1]["name"] and said[0]["shape"] == "gang"
    assert find(bed.paths, "hex8_2p:v1").sha256 == (await bed.row(names[0])).result["sha256"]
    assert (load_model(bed.paths.root / save).metadata.training_info or {})["processes"] == 2


class Counting(LocalTransfer):
    """Knows what was brought to the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.brought: list[str] = []

    async def put(self, host: Host, local: Path, remote: str, *, sha256: str) -> None:
        self.brought.append(local.name)
        await super().put(host, local, remote, sha256=sha256)


async def test_what_was_distributed_to_the_shared_root_is_there_on_a_node_and_is_not_sent_again(bed: PoolBed) -> None:
    bed.keeper.porter._here = transfer = Counting()
    for name in ("weights.bin", "other.bin"):
        (bed.paths.root / name).write_bytes(name.encode() * 1000)
    plan = await plan_distribute(bed.paths, what=str(bed.paths.root / "weights.bin"))
    operation = bed.store.bound(await bed.store.submit(plan))
    made = str((await apply_distribute(bed.paths, plan, operation))["transfer"])
    runner = Runner(bed.paths, bed.store, lambda: bed.roster.pool, OWNER, 1)
    async with asyncio.timeout(PATIENCE_S):
        while not (await transfer_rows(bed.store, only=made))[0].live:
            await runner.tick()
            await asyncio.sleep(0.05)
    await runner.close()
    published = bed.slurm.root / "files/weights.bin"
    words = ["sha256sum", str(published), "weights.bin", "other.bin"]
    name = await bed.add("command", "cluster", argv=words, inputs=["weights.bin", "other.bin"])
    row = await bed.until(name, "done", "failed", "unknown")
    assert row.state == "done", row.why
    said = [line.split() for line in (bed.paths.jobs / f"{name}.1" / "log").read_text().splitlines()]
    assert [word for _, word in said] == words[1:]
    assert said[0][0] == said[1][0] == plan.params["sha256"]
    assert transfer.brought == ["other.bin"]


async def test_a_job_that_waits_tells_why_and_is_cancelled_before_it_runs(bed: PoolBed) -> None:
    assert bed.slurm.ask("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=test").returncode == 0
    name = await bed.add("selfplay", "cluster", games=1, seed=5)
    why = await until_said(bed, name, "pending (")
    assert "at cluster, job " in why
    async with bed.store.database.write() as db:
        await db.run("UPDATE jobs SET cancel = '{}' WHERE id = ?", (name,))
    row = await bed.until(name, "cancelled")
    await asyncio.to_thread(until, lambda: not bed.slurm.jobs(), "the queue is empty")
    assert row.state == "cancelled"


async def test_what_a_pool_looks_like_is_stored_with_its_queue_and_our_share(bed: PoolBed) -> None:
    assert bed.slurm.ask("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test").returncode == 0
    bed.slurm.ask("sbatch", "-o", "/dev/null", "--array=0-9", "--wrap", "sleep 600")
    hosts = load_hosts(bed.paths.hosts_yaml)
    cluster = hosts.get("cluster")
    assert cluster is not None
    await look_at(bed.store, None, cluster)
    (row,) = [row for row in await host_rows(bed.store, hosts) if row.name == "cluster"]
    found = row.facts["pool"]
    assert (row.state, row.local, found["nodes"].get("drained")) == ("up", True, 1)
    assert sum(found["queue"].values()) == 10 and found["ours"] == found["queue"]
    assert ("places", "gauntlet and training last") in pool_text(found)
    bed.slurm.kill("slurmctld")
    await look_at(bed.store, None, cluster, "sample")
    (row,) = [row for row in await host_rows(bed.store, hosts) if row.name == "cluster"]
    assert "Unable to contact slurm controller" in pool_text(row.facts["pool"])[0][1]


WRONG = [
    ({"partition": "nosuch"}, "no such partition: "),
    ({"time_limit": "2:00:00"}, "over the time limit of the partition: "),
    ({"constraint": "moon"}, "no node has the constraint: "),
    ({"slurm_bin": "/nowhere"}, "Slurm's programs are not there: "),
]


@pytest.mark.parametrize(("settings", "said"), WRONG, ids=[said for _, said in WRONG])
async def test_what_slurm_will_never_take_ends_with_one_line_and_the_line_to_mend(
    bed: PoolBed, settings: dict[str, str], said: str
) -> None:
    bed.describe(**settings)
    await bed.roster.refresh()
    name = await bed.add("selfplay", "cluster", games=1, seed=5)
    row = await bed.until(name, "failed")
    assert row.why.startswith(said) and "(hosts.yaml line 2)" in row.why and "\n" not in row.why
    assert (await attempt_rows(bed.store, name))[0]["phase"] in ("exited", "void")


async def test_what_mends_itself_is_waited_for_with_one_line(bed: PoolBed) -> None:
    bed.slurm.kill("munged")
    name = await bed.add("selfplay", "cluster", games=1, seed=5)
    await until_said(bed, name, "munge does not answer or is not trusted: ")
    bed.slurm.start_munge()
    bed.slurm.kill("slurmctld")
    await until_said(bed, name, "the controller does not answer: ")
    bed.slurm.start_controller()
    row = await bed.until(name, "done", "failed", "unknown")
    assert row.state == "done", row.why


async def test_a_shared_root_that_is_not_there_is_waited_for_with_one_line(bed: PoolBed) -> None:
    await bed.keeper.tick()
    bed.describe(shared_root=str(bed.slurm.folder / "away"))
    await bed.roster.refresh()
    name = await bed.add("selfplay", "cluster", games=1, seed=5)
    row = await bed.until(name, "waiting", "placing")
    async with asyncio.timeout(PATIENCE_S):
        while "shared_root" not in (row := await bed.row(name)).why + str(row.waits):
            await bed.keeper.tick()
            await asyncio.sleep(0.05)
    (bed.slurm.folder / "away").mkdir()
    row = await bed.until(name, "done", "failed", "unknown")
    assert row.state == "done", row.why


async def test_a_job_that_slurm_has_forgotten_is_submitted_again_if_it_never_ran(bed: PoolBed, tmp_path: Path) -> None:
    assert bed.slurm.ask("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=test").returncode == 0
    name = await bed.add("selfplay", "cluster", games=1, seed=5)
    await until_said(bed, name, "pending (")
    bed.slurm.kill("slurmctld")  # with its memory, as a controller that dies before it has saved
    for path in (bed.slurm.folder / "state").iterdir():
        if path.is_file():
            path.unlink()
    bed.slurm.start_controller()
    bed.slurm.ask("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
    row = await bed.until(name, "done", "failed", "unknown")
    assert row.state == "done", row.why
    note = json.loads((bed.slurm.root / "agent/jobs" / f"{name}.1/engine.json").read_text())
    assert note["tries"] == 2 and note["name"].endswith("_t2")
