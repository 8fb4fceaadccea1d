"""Transfers that nobody asked for: after promotions, exports, and where hosts differ from their receipts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.configs import parse_config
from backend.distribution import daemons as watching
from backend.distribution import plans
from backend.distribution.daemons import Daemons
from backend.distribution.policy import Policy, read_policy
from backend.distribution.rows import transfer_rows
from backend.distribution.runner import Runner
from backend.errors import SettingsError
from backend.fleet.hosts import load_hosts
from backend.overview import read_snapshot
from backend.paths import Paths
from backend.registry.hashing import sha256_file
from backend.registry.promotion import apply_promote, plan_promote
from backend.registry.rollback import apply_rollback, plan_rollback
from backend.registry.store import Candidate, find, register
from backend.snapshot import TransferRow
from backend.state.store import StateStore
from tests.distribution.conftest import Cluster
from tests.distribution.test_runner import describe, held, until

MakeCluster = Callable[..., Awaitable[Cluster]]


async def carried_out(cluster: Cluster, store: StateStore) -> list[TransferRow]:
    """What the supervisor does with the operations that the daemons submitted; the transfers that were made."""
    made = []
    runner = Runner(cluster.paths, store, lambda: cluster.pool, await store.owner(), 1)
    for operation, _ in await store.open_operations():
        await store.begin_operation(operation)
        result = await plans.apply_distribute(cluster.paths, await store.plan_of(operation), store.bound(operation))
        await store.end_operation(operation, "done", result=result)
        made.append(await until(runner, store, str(result["transfer"])))
    await runner.close()
    return made


def dataset(path: Path, rows: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, features=np.zeros((rows, 3), np.uint8), values=np.zeros(rows, np.float32))


async def test_a_dataset_goes_to_hosts_with_gpus_once_and_a_lying_one_nowhere(
    make_cluster: MakeCluster, paths: Paths
) -> None:
    cluster = await make_cluster(2)
    describe(cluster, n2={"gpus": 1})
    async with await StateStore.open(paths) as store:
        dataset(paths.training / "hex8_2p.npz")
        target = io.BytesIO()
        np.savez(target, values=np.zeros(4))
        lying = target.getvalue().replace(b"'shape': (4,), ", b"'shape': (9,), ")
        (paths.training / "square8_2p.npz").write_bytes(lying)
        woken: list[bool] = []
        await Daemons(paths, store, lambda: woken.append(True)).tick()
        assert woken == [True], "a supervisor does not notice what its own process writes"
        (row,) = await carried_out(cluster, store)
        assert (row.cause, row.name, [host.host for host in row.hosts]) == (
            "export",
            "data/training/hex8_2p.npz",
            ["n2"],
        )
        assert row.hosts[0].receipt is not None and row.hosts[0].receipt["load"]["method"] == "headers"
        refused = [event for event in await store.events() if event.type == "DISTRIBUTION_REFUSED"]
        assert len(refused) == 1 and "does not load" in refused[0].payload["title"]
        await Daemons(paths, store).tick()
        assert await carried_out(cluster, store) == [], "another supervisor sends nothing twice"
        dataset(paths.training / "hex8_2p.npz", 5)
        await Daemons(paths, store).tick()
        assert len(await carried_out(cluster, store)) == 1
        assert len([event for event in await store.events() if event.type == "DISTRIBUTION_REFUSED"]) == 1


async def test_only_the_last_promotion_of_a_config_is_sent(
    make_cluster: MakeCluster, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    async with await StateStore.open(paths) as store:
        for n in (1, 2):
            payload = {"config": "hex8_2p", "sha256": f"{n}" * 64}
            await store.add_event("MODEL_PROMOTED", f"m:v{n}", payload)
        await Daemons(paths, store).tick()
        refused = [event.subject for event in await store.events() if event.type == "DISTRIBUTION_REFUSED"]
        assert refused == ["2" * 64], "there is no such model here, which is told"
        await Daemons(paths, store).tick()
        assert len([one for one in await store.events() if one.type == "DISTRIBUTION_REFUSED"]) == 1


async def test_drift_is_told_and_mended_from_the_kept_copy_where_the_policy_says_so(
    make_cluster: MakeCluster, paths: Paths
) -> None:
    cluster = await make_cluster(2)
    describe(cluster)
    path = paths.root / "a.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"w": torch.zeros(3)}, path)
    async with await StateStore.open(paths) as store:
        await store.submit(await plans.plan_distribute(paths, what=str(path)))
        await carried_out(cluster, store)
        place = cluster.base("n2") / "models/a.pth"
        place.unlink()
        place.write_bytes(b"edited")
        daemons = Daemons(paths, store)
        hosts = load_hosts(paths.hosts_yaml)
        (row,) = await daemons.audit(hosts, Policy())
        assert (row.host, row.drifted) == ("n2", True)
        assert await carried_out(cluster, store) == []
        await daemons.audit(hosts, Policy(repair=True))
        (made,) = await carried_out(cluster, store)
        assert (made.cause, made.head_sent, [host.host for host in made.hosts]) == ("repair", 0, ["n2"])
        assert held(cluster, "n2", "models/a.pth") == path.read_bytes()
        assert sha256_file(place) == made.sha256
        assert await daemons.audit(hosts, Policy(repair=True)) == []
        assert [one.type for one in await store.events()].count("DRIFT_FOUND") == 1
        assert len(await transfer_rows(store)) == 2


async def test_what_the_hosts_could_not_take_is_sent_when_they_can(
    make_cluster: MakeCluster, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    async with await StateStore.open(paths) as store:
        file = paths.root / "new.pth"
        torch.save({"w": torch.zeros(3)}, file)
        row = find(paths, register(paths, Candidate(file=file, config=parse_config("hex8_2p"))).label)
        for sha256 in ("1" * 64, row.sha256):
            payload = {"config": "hex8_2p", "sha256": sha256}
            await store.add_event("MODEL_PROMOTED", f"{row.label} {sha256[:4]}", payload)
        daemons = Daemons(paths, store)
        with monkeypatch.context() as patch:
            patch.setattr(plans, "_free", lambda row: 0)
            await daemons.tick()
            daemons._retried = float("-inf")
            await daemons.tick()
        assert await carried_out(cluster, store) == []
        assert [need.text for need in (await read_snapshot(paths)).needs if "not sent: no room" in need.text]
        daemons._retried = float("-inf")
        await Daemons(paths, store).tick()  # of a new supervisor
        (made,) = await carried_out(cluster, store)
        assert (made.cause, made.sha256, made.live) == ("promotion", row.sha256, 1)
        assert not [need for need in (await read_snapshot(paths)).needs if "not sent" in need.text]


async def test_a_file_that_goes_while_datasets_are_looked_at_stops_no_other(
    make_cluster: MakeCluster, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await make_cluster(1)
    describe(cluster, n1={"gpus": 1})
    async with await StateStore.open(paths) as store:
        dataset(paths.training / "hex8_2p.npz")
        there = paths.training / "hex8_2p.npz"
        monkeypatch.setattr(watching, "_datasets", lambda folder: [folder / "gone.npz", there])
        await Daemons(paths, store).tick()
        assert [row.name for row in await carried_out(cluster, store)] == ["data/training/hex8_2p.npz"]


async def test_a_promotion_does_not_wait_for_an_audit(
    make_cluster: MakeCluster, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    asked, submitted = asyncio.Event(), asyncio.Event()

    async def hang(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(watching, "audit_hosts", hang)
    async with await StateStore.open(paths) as store:
        file = paths.root / "new.pth"
        torch.save({"w": torch.zeros(3)}, file)
        row = find(paths, register(paths, Candidate(file=file, config=parse_config("hex8_2p"))).label)
        daemons = Daemons(paths, store, submitted.set)
        daemons._audited = float("-inf")
        running = asyncio.create_task(daemons.run())
        async with asyncio.timeout(60):
            await asked.wait()
            await store.add_event("MODEL_PROMOTED", row.label, {"config": "hex8_2p", "sha256": row.sha256})
            await submitted.wait()
        running.cancel()
        await asyncio.wait([running])


async def test_a_file_that_was_edited_since_is_not_sent_as_a_repair(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    path = paths.root / "a.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"w": torch.zeros(3)}, path)
    async with await StateStore.open(paths) as store:
        await store.submit(await plans.plan_distribute(paths, what=str(path)))
        await carried_out(cluster, store)
        torch.save({"w": torch.ones(4)}, path)
        place = cluster.base("n1") / "models/a.pth"
        place.unlink()
        await Daemons(paths, store).audit(load_hosts(paths.hosts_yaml), Policy(repair=True))
        assert await carried_out(cluster, store) == [] and not place.exists()
        (refused,) = await store.events(type="DISTRIBUTION_REFUSED")
        assert "no longer the one that was sent" in refused.payload["title"]
        assert any("ringrift fleet drift" in need.text for need in (await read_snapshot(paths)).needs)


def test_the_policy_of_a_root(tmp_path: Path) -> None:
    assert read_policy(tmp_path) == Policy()
    (tmp_path / "distribution.toml").write_text("repair = true\naudit_minutes = 5\n")
    assert read_policy(tmp_path) == Policy(repair=True, audit_minutes=5)
    for text in ("repair = 1", "audit_minutes = true", "audit_minutes = -1", "other = 1", "= "):
        (tmp_path / "distribution.toml").write_text(text)
        with pytest.raises(SettingsError):
            read_policy(tmp_path)


async def test_a_promotion_ends_live_on_every_host_and_a_rollback_from_their_kept_copies(
    make_cluster: MakeCluster, paths: Paths
) -> None:
    cluster = await make_cluster(2)
    describe(cluster)
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
            (row,) = await carried_out(cluster, store)
            assert (row.cause, row.name, row.live) == ("promotion", "models/canonical_hex8_2p.pth", 2)
            assert all(host.receipt for host in row.hosts)
        second = find(paths, labels[1])
        snapshot = await read_snapshot(paths)
        assert snapshot.live_hosts(second.sha256) == (2, 2)
        assert snapshot.live_hosts(find(paths, labels[0]).sha256)[0] == 0
        plan = await plan_rollback(paths, config="hex8_2p")
        operation = store.bound(await store.submit(plan))
        await apply_rollback(paths, plan, operation)
        await store.end_operation(operation.own_operation(), "done")
        await Daemons(paths, store).tick()
        (row,) = await carried_out(cluster, store)
        assert (row.cause, row.live, row.head_sent) == ("rollback", 2, 0)
        assert all(host.receipt and host.receipt["from"] == "kept copy" for host in row.hosts)
        assert sha256_file(cluster.base("n1") / row.name) == find(paths, labels[0]).sha256
