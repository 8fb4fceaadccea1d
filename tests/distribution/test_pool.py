"""A pool is one target: one proved copy under the root that its nodes share, with its login host here or behind SSH."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from backend.configs import parse_config
from backend.distribution import plans
from backend.distribution.daemons import Daemons
from backend.distribution.drift import holdings
from backend.distribution.policy import Policy
from backend.distribution.runner import Runner
from backend.errors import RefusedError
from backend.fleet.hosts import Host, load_hosts
from backend.fleet.remote import ThisMachine
from backend.fleet.shared_root import RootMissing, check_shared_root
from backend.fleet.ssh import SshPool
from backend.overview import read_snapshot
from backend.paths import Paths
from backend.registry.hashing import sha256_file
from backend.registry.promotion import apply_promote, plan_promote
from backend.registry.rollback import apply_rollback, plan_rollback
from backend.registry.store import Candidate, find, register
from backend.snapshot import TransferRow
from backend.state.store import StateStore
from tests.distribution.conftest import QUICK, some_bytes
from tests.distribution.programs import no_aria2
from tests.distribution.test_daemons import dataset
from tests.distribution.test_runner import until
from tests.lab.sshd import Sshd


@dataclass
class Shared:
    """A head, and a pool whose nodes see ``root``."""

    paths: Paths
    root: Path
    connections: SshPool
    settings: dict[str, Any]

    def describe(self, **more: Any) -> None:
        hosts = {"local": None, "cluster": self.settings | more}
        self.paths.root.mkdir(parents=True, exist_ok=True)
        self.paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}, sort_keys=False))

    def runner(self, store: StateStore) -> Runner:
        return Runner(self.paths, store, lambda: self.connections, "owner", 1)

    async def carried_out(self, store: StateStore) -> list[TransferRow]:
        """What the supervisor does with all operations that were submitted; the transfers that were made."""
        made = []
        runner = self.runner(store)
        for operation, _ in await store.open_operations():
            await store.begin_operation(operation)
            plan = await store.plan_of(operation)
            result = await plans.apply_distribute(self.paths, plan, store.bound(operation))
            await store.end_operation(operation, "done", result=result)
            made.append(await until(runner, store, str(result["transfer"])))
        await runner.close()
        return made

    async def sent(self, store: StateStore, what: str, **options: Any) -> TransferRow:
        """A file distributed as an operator does it."""
        await store.submit(await plans.plan_distribute(self.paths, what=what, **options))
        (row,) = await self.carried_out(store)
        return row

    def receipts(self) -> Sequence[dict[str, Any]]:
        (path,) = (self.root / ".distribution").glob("*/receipts.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(params=["here", "ssh"])
async def shared(
    request: pytest.FixtureRequest, paths: Paths, tmp_path: Path, make_sshd: Callable[..., Sshd]
) -> AsyncIterator[Shared]:
    root = tmp_path / "shared"
    root.mkdir()
    settings: dict[str, Any] = {"kind": "slurm", "shared_root": str(root), "gres": "gpu:4"}
    async with SshPool(paths, QUICK) as connections:
        if request.param == "ssh":
            server = make_sshd("cluster")
            settings |= {name: value for name, value in server.settings().items() if name != "storage_paths"}
            connections.confirm_enrolment(await connections.enrol(Host("cluster", settings)))
        made = Shared(paths, root, connections, settings)
        made.describe()
        yield made


def a_file(paths: Paths, size: int, seed: str = "") -> Path:
    path = paths.root / "weights.bin"
    path.write_bytes(some_bytes(size, seed))
    return path


@pytest.mark.parametrize("way", ["rsync", "stream", "aria2", None])
async def test_one_copy_arrives_with_the_receipt_of_any_host(shared: Shared, way: str | None) -> None:
    if way == "aria2" and no_aria2():
        pytest.skip(no_aria2())
    path = a_file(shared.paths, (3 << 20) + 17)
    here = load_hosts(shared.paths.hosts_yaml).hosts[1].is_here
    if way == "aria2" and here:
        with pytest.raises(RefusedError, match="it is this machine"):
            await plans.plan_distribute(shared.paths, what=str(path), transport=way)
        return
    plan = await plans.plan_distribute(shared.paths, what=str(path), transport=way)
    assert [host for host, _, _ in plan.params["hosts"]] == ["cluster"]
    assert plan.table[1][2] == "GPU", "its nodes have them, whatever the login host has"
    async with await StateStore.open(shared.paths) as store:
        row = await shared.sent(store, str(path), transport=way)
        assert (row.state, row.live, [host.host for host in row.hosts]) == ("done", 1, ["cluster"])
        (told,) = shared.receipts()
        assert row.hosts[0].receipt == told
        published = shared.root / "files/weights.bin"
        assert (told["destination"], told["from"]) == (str(published), "transfer")
        assert told["verify"]["sha256"] == sha256_file(published) == sha256_file(path)
        assert not list((shared.root / ".distribution").glob("*/stage/*"))
        (held,) = await holdings(store)
        assert (held.host, held.sha256, held.drifted) == ("cluster", told["verify"]["sha256"], False)


async def test_the_version_before_comes_from_the_kept_copy_and_drift_is_mended_from_it(shared: Shared) -> None:
    async with await StateStore.open(shared.paths) as store:
        for seed in ("one", "two", "one"):
            path = a_file(shared.paths, 1 << 20, seed)
            row = await shared.sent(store, str(path))
            assert row.live == 1
        assert row.head_sent == 0, "nothing was sent"
        assert [told["from"] for told in shared.receipts()] == ["transfer", "transfer", "kept copy"]
        published = shared.root / "files/weights.bin"
        assert published.read_bytes() == some_bytes(1 << 20, "one")
        published.unlink()
        published.write_bytes(b"edited")
        daemons, hosts = Daemons(shared.paths, store), load_hosts(shared.paths.hosts_yaml)
        (found,) = await daemons.audit(hosts, Policy(repair=True))
        assert (found.host, found.drifted) == ("cluster", True)
        (mended,) = await shared.carried_out(store)
        assert (mended.cause, mended.head_sent) == ("repair", 0)
        assert published.read_bytes() == path.read_bytes()


async def test_a_promotion_is_live_on_the_pool_and_a_rollback_sends_nothing(shared: Shared) -> None:
    paths = shared.paths
    async with await StateStore.open(paths) as store:
        labels = []
        for n in (1, 2):
            file = paths.root / f"new{n}.pth"
            torch.save({"w": torch.full((3,), float(n))}, file)
            label = register(paths, Candidate(file=file, config=parse_config("hex8_2p"))).label
            labels.append(label)
            for to in ("staging", "production"):
                plan = await plan_promote(paths, model=label, stage=to, override="for the test")
                operation = store.bound(await store.submit(plan))
                await apply_promote(paths, plan, operation)
                await store.end_operation(operation.own_operation(), "done")
            await Daemons(paths, store).tick()
            (row,) = await shared.carried_out(store)
            assert (row.cause, row.name, row.live) == ("promotion", "models/canonical_hex8_2p.pth", 1)
        assert (await read_snapshot(paths)).live_hosts(find(paths, labels[1]).sha256) == (1, 1)
        plan = await plan_rollback(paths, config="hex8_2p")
        operation = store.bound(await store.submit(plan))
        await apply_rollback(paths, plan, operation)
        await store.end_operation(operation.own_operation(), "done")
        await Daemons(paths, store).tick()
        (row,) = await shared.carried_out(store)
        assert (row.cause, row.live, row.head_sent) == ("rollback", 1, 0)
        assert sha256_file(shared.root / row.name) == find(paths, labels[0]).sha256


async def test_a_dataset_goes_to_a_pool_that_gives_gpus_and_to_no_other(shared: Shared) -> None:
    async with await StateStore.open(shared.paths) as store:
        dataset(shared.paths.training / "hex8_2p.npz")
        shared.settings.pop("gres")
        shared.describe()
        await Daemons(shared.paths, store).tick()
        assert await shared.carried_out(store) == []
        shared.describe(gres="gpu:a100:1")
        await Daemons(shared.paths, store).tick()
        (row,) = await shared.carried_out(store)
        assert (row.cause, row.live, row.name) == ("export", 1, "data/training/hex8_2p.npz")
        assert row.hosts[0].receipt is not None and row.hosts[0].receipt["load"]["method"] == "headers"


async def test_without_its_shared_root_nothing_is_made_and_it_arrives_once_that_is_there(shared: Shared) -> None:
    shared.root.rmdir()
    path = a_file(shared.paths, 1 << 20)
    async with await StateStore.open(shared.paths) as store:
        plan = await plans.plan_distribute(shared.paths, what=str(path))
        operation = await store.submit(plan)
        name = str((await plans.apply_distribute(shared.paths, plan, store.bound(operation)))["transfer"])
        runner = shared.runner(store)
        row = await until(runner, store, name, lambda row: row.hosts[0].state == "blocked")
        assert row.hosts[0].reason == "refused"
        assert f"the shared_root {shared.root} is not there (hosts.yaml line 3)" in row.hosts[0].failure
        assert not shared.root.exists()
        shared.root.mkdir()
        await runner.close()
        again = await plans.plan_retry(shared.paths, transfer=name)
        await plans.apply_retry(shared.paths, again, store.bound(await store.submit(again)))
        runner = shared.runner(store)
        row = await until(runner, store, name)
        await runner.close()
        assert (row.state, row.live) == ("done", 1)


async def test_only_a_pool_is_asked_for_a_shared_root(tmp_path: Path) -> None:
    await check_shared_root(ThisMachine(), Host("alpha", {"ssh_host": "nowhere"}))
    await check_shared_root(ThisMachine(), Host("c", {"kind": "slurm", "shared_root": str(tmp_path)}))
    (tmp_path / "file").touch()
    with pytest.raises(RootMissing, match="line 7"):
        await check_shared_root(
            ThisMachine(), Host("c", {"kind": "slurm", "shared_root": str(tmp_path / "file")}, line=7)
        )
