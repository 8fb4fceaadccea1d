"""Transfers from plan to receipt, in this process and with a real supervisor, against real hosts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from backend.distribution import ledger, plans
from backend.distribution.drift import audit_hosts, holdings
from backend.distribution.rows import transfer_rows
from backend.distribution.runner import Runner
from backend.distribution.states import State
from backend.errors import RefusedError, UnverifiedError, UsageError
from backend.paths import Paths
from backend.snapshot import TransferRow
from backend.state.store import StateStore
from tests.distribution.conftest import PATIENCE_S, Cluster, some_bytes
from tests.distribution.field import begin_with

MakeCluster = Callable[..., Awaitable[Cluster]]


def describe(cluster: Cluster, **more: dict[str, Any]) -> None:
    hosts = {name: server.settings() | more.get(name, {}) for name, server in cluster.servers.items()}
    cluster.paths.root.mkdir(parents=True, exist_ok=True)
    cluster.paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}, sort_keys=False))


async def submit(cluster: Cluster, store: StateStore, what: Path, **options: Any) -> str:
    """What the supervisor's handler does with a confirmed plan."""
    plan = await plans.plan_distribute(cluster.paths, what=str(what), **options)
    operation = await store.submit(plan)
    return str((await plans.apply_distribute(cluster.paths, plan, store.bound(operation)))["transfer"])


async def until(
    runner: Runner, store: StateStore, name: str, good: Callable[[TransferRow], bool] = lambda row: bool(row.ended_at)
) -> TransferRow:
    """Lets the runner work until a transfer is as it should be."""
    row = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await runner.tick()
                (row,) = await transfer_rows(store, only=name)
                if good(row):
                    return row
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(str(row)) from None


def runner_of(cluster: Cluster, store: StateStore) -> Runner:
    return Runner(cluster.paths, store, lambda: cluster.pool, "owner", 1)


def held(cluster: Cluster, host: str, name: str) -> bytes:
    return (cluster.base(host) / name).read_bytes()


async def test_from_a_plan_to_receipts_gpu_hosts_first(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(3)
    describe(cluster, n2={"gpus": 4}, n1={"bandwidth_mbps": 10}, n3={"bandwidth_mbps": 1000})
    payload = cluster.file(3 << 20)
    plan = await plans.plan_distribute(paths, what=str(payload.path))
    assert [host for host, _, _ in plan.params["hosts"]] == ["n2", "n3", "n1"], "GPUs first, slow links last"
    assert plan.table[1][0] == "n2" and plan.table[1][2] == "GPU"
    assert any("2.5 s for the last host" in warning for warning in plan.warnings)
    async with await StateStore.open(paths) as store:
        name = await submit(cluster, store, payload.path)
        runner = runner_of(cluster, store)
        row = await until(runner, store, name)
        await runner.close()
        assert (row.state, row.live) == ("done", 3)
        first = row.hosts[0]
        fetching = next(at for at, _, what in first.history if what == "fetching")
        assert all(other.started_at and fetching < other.started_at for other in row.hosts[1:])
        for host in row.hosts:
            assert host.receipt is not None and host.receipt["verify"]["sha256"] == payload.sha256
            assert held(cluster, host.host, "files/model.bin") == payload.path.read_bytes()
            assert not cluster.stage(host.host, payload).exists()
        found = await holdings(store)
        assert {(one.host, one.held) for one in found} == {(host, payload.sha256) for host in cluster.hosts}
        kinds = [event.type for event in await store.events()]
        assert kinds.count("TRANSFER_COMPLETED") == 1


async def test_a_second_version_and_the_first_one_again_from_kept_copies(
    make_cluster: MakeCluster, paths: Paths
) -> None:
    cluster = await make_cluster(2)
    describe(cluster)
    async with await StateStore.open(paths) as store:
        runner = runner_of(cluster, store)
        for seed in ("one", "two", "one"):
            payload = cluster.file(1 << 20, seed)
            row = await until(runner, store, await submit(cluster, store, payload.path))
            assert row.live == 2
        assert row.head_sent == 0, "nothing was sent"
        assert all(host.receipt and host.receipt["from"] == "kept copy" for host in row.hosts)
        assert held(cluster, "n1", "files/model.bin") == some_bytes(1 << 20, "one")
        await runner.close()


async def test_a_host_that_dies_in_the_middle_gets_it_when_it_is_back_and_the_others_at_once(
    make_cluster: MakeCluster, paths: Paths
) -> None:
    cluster = await make_cluster(2)
    describe(cluster)
    payload = cluster.file(16 << 20)
    async with await StateStore.open(paths) as store:
        runner = runner_of(cluster, store)
        name = await submit(cluster, store, payload.path, transport="stream", limit=64)  # some seconds
        await until(runner, store, name, lambda row: any(host.have > 0 and host.host == "n1" for host in row.hosts))
        cluster.servers["n1"].stop()
        row = await until(runner, store, name, lambda row: row.hosts[1].live and row.hosts[0].state == "blocked")
        assert row.hosts[0].reason == "link lost"
        cluster.servers["n1"].start()
        row = await until(runner, store, name)
        assert (row.live, row.hosts[0].transport) == (2, "stream"), "waiting for a host is no reason to fall back"
        await runner.close()


async def test_a_source_that_changes_stops_the_transfer_and_raises_the_alarm(
    make_cluster: MakeCluster, paths: Paths
) -> None:
    cluster = await make_cluster(2)
    describe(cluster)
    payload = cluster.file(1 << 20)
    async with await StateStore.open(paths) as store:
        runner = runner_of(cluster, store)
        name = await submit(cluster, store, payload.path)
        payload.path.write_bytes(some_bytes(1 << 20, "other"))
        row = await until(runner, store, name)
        assert (row.state, row.live) == ("failed", 0)
        assert {host.reason for host in row.hosts} == {"source changed"}
        assert "TRANSFER_HALTED" in [event.type for event in await store.events()]
        payload.path.write_bytes(some_bytes(1 << 20))
        plan = await plans.plan_retry(paths, transfer=name)
        operation = store.bound(await store.submit(plan))
        await plans.apply_retry(paths, plan, operation)
        assert (await until(runner, store, name)).live == 2
        await runner.close()


async def test_the_right_hash_that_does_not_load_stops_everything(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(3)
    describe(cluster, n1={"gpus": 1, "python_path": sys.executable})
    path = paths.root / "evil.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"f": os.system}, path)
    async with await StateStore.open(paths) as store:
        runner = runner_of(cluster, store)
        row = await until(runner, store, await submit(cluster, store, path))
        assert (row.live, {host.reason for host in row.hosts}) == (0, {"not loadable"})
        assert not any((cluster.base(host) / "models/evil.pth").exists() for host in cluster.hosts)
        assert "TRANSFER_HALTED" in [event.type for event in await store.events()]
        await runner.close()


async def test_a_host_whose_python_cannot_read_it_stops_alone(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(3)
    odd = paths.root / "odd-python"
    odd.parent.mkdir(parents=True, exist_ok=True)
    told = '{"result": "does not load", "method": "", "version": "", "message": "torch cannot read it"}'
    odd.write_text(f'#!/bin/sh\ncase "$*" in *loadable*) echo \'{told}\';; *) exec {sys.executable} "$@";; esac\n')
    odd.chmod(0o755)
    describe(cluster, n1={"gpus": 1, "python_path": str(odd)})
    path = paths.root / "good.pth"
    torch.save({"w": torch.zeros(3)}, path)
    async with await StateStore.open(paths) as store:
        runner = runner_of(cluster, store)
        row = await until(runner, store, await submit(cluster, store, path))
        assert {host.host: host.state for host in row.hosts} == {"n1": "failed", "n2": "done", "n3": "done"}
        (first,) = [host for host in row.hosts if host.host == "n1"]
        assert first.reason == "not loadable there" and "but it loads here" in first.failure
        assert "TRANSFER_HALTED" not in [event.type for event in await store.events()]
        await runner.close()


async def test_the_same_bytes_under_two_names_are_sent_to_a_host_once(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    one = cluster.file(1 << 20)
    two = one.path.with_name("two.bin")
    two.write_bytes(one.path.read_bytes())
    async with await StateStore.open(paths) as store:
        runner = runner_of(cluster, store)
        names = [await submit(cluster, store, path) for path in (one.path, two)]
        rows = [await until(runner, store, name) for name in names]
        assert [row.live for row in rows] == [1, 1]
        assert rows[0].head_sent >= 1 << 20 and rows[1].head_sent == 0
        assert all(held(cluster, "n1", row.name) == one.path.read_bytes() for row in rows)
        assert [host.failure for row in rows for host in row.hosts] == ["", ""]
        await runner.close()


async def test_pause_resume_and_cancel(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    payload = cluster.file(16 << 20)
    async with await StateStore.open(paths) as store:
        runner = runner_of(cluster, store)
        name = await submit(cluster, store, payload.path, transport="stream", limit=32)  # some seconds
        await until(runner, store, name, lambda row: row.hosts[0].have > 0)
        await ledger.set_paused(store, name, "for a look")
        await until(runner, store, name, lambda row: row.hosts[0].state == State.QUEUED)
        with pytest.raises(RefusedError):
            await plans.plan_pause(paths, transfer=name)
        await ledger.set_paused(store, name, None)
        await until(runner, store, name, lambda row: row.hosts[0].state == State.FETCHING)
        await ledger.want_cancel(store, name, "me")
        row = await until(runner, store, name)
        assert row.state == "cancelled" and not (cluster.base("n1") / "files/model.bin").exists()
        await runner.close()


async def test_another_supervisor_goes_on_where_one_was_killed(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    payload = cluster.file(16 << 20)
    plan = await plans.plan_distribute(paths, what=str(payload.path), limit=32)  # some seconds
    argv = [sys.executable, "-m", "ringrift_console.cli", "supervise", "--root", str(paths.root)]
    async with await StateStore.open(paths) as store:
        await store.submit(plan)
        first = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
        row = await _watch(store, lambda row: 0 < row.hosts[0].have < row.size)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        assert not row.ended_at
        second = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
        try:
            row = await _watch(store, lambda row: row.ended_at is not None)
        finally:
            second.terminate()
            await second.wait()
        assert (row.state, row.live) == ("done", 1)
        assert held(cluster, "n1", "files/model.bin") == payload.path.read_bytes()


async def _watch(store: StateStore, good: Callable[[TransferRow], bool]) -> TransferRow:
    rows: tuple[TransferRow, ...] = ()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                rows = await transfer_rows(store)
                if rows and good(rows[0]):
                    return rows[0]
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(str(rows)) from None


@pytest.mark.parametrize("point", ["fetching", "verifying", "published"])
async def test_killed_at_each_change_of_state_it_publishes_once(
    make_cluster: MakeCluster, paths: Paths, point: str
) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    payload = cluster.file(1 << 20)
    plan = await plans.plan_distribute(paths, what=str(payload.path))
    argv = [sys.executable, "-m", "ringrift_console.cli", "supervise", "--root", str(paths.root)]
    async with await StateStore.open(paths) as store:
        await store.submit(plan)
        env = os.environ | {"RINGRIFT_CRASH_AT": f"transfer.{point}"}
        first = await asyncio.create_subprocess_exec(*argv, env=env, stderr=asyncio.subprocess.DEVNULL)
        assert await asyncio.wait_for(first.wait(), PATIENCE_S) == -signal.SIGKILL
        second = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
        try:
            row = await _watch(store, lambda row: row.ended_at is not None)
        finally:
            second.terminate()
            await second.wait()
        assert row.live == 1
        (own,) = (cluster.base("n1") / ".distribution").iterdir()
        assert len((own / "receipts.jsonl").read_text().splitlines()) == 1


async def test_the_verb_waits_and_drift_is_found(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(2)
    describe(cluster)
    payload = cluster.file(1 << 20)

    def verb(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "ringrift_console.cli", *words, "--root", str(paths.root)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    try:
        done = await asyncio.to_thread(verb, "distribute", str(payload.path), "--wait", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["live"] == 2 and all(host["receipt"] for host in told["hosts"])
        listed = json.loads((await asyncio.to_thread(verb, "transfers", "list", "--json")).stdout)
        assert [one["id"] for one in listed] == [told["transfer"]]
        assert (await asyncio.to_thread(verb, "transfers", "verify", told["transfer"], "--wait")).returncode == 0
        assert (await asyncio.to_thread(verb, "fleet", "drift")).returncode == 0
        place = cluster.base("n1") / "files/model.bin"
        place.unlink()
        place.write_bytes(b"edited")
        drift = await asyncio.to_thread(verb, "fleet", "drift", "--json")
        assert drift.returncode == 7 and json.loads(drift.stdout)["drifted"] == 1
        wrong = await asyncio.to_thread(verb, "transfers", "verify", told["transfer"], "--wait")
        assert wrong.returncode == 7 and "hold something else" in wrong.stderr
    finally:
        stop = await asyncio.to_thread(verb, "supervise", "--stop")
        assert stop.returncode in (0, 2), stop.stderr


async def test_what_cannot_be_planned_is_told_in_one_line(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    payload = cluster.file(1000)
    with pytest.raises(UsageError, match="no such transport"):
        await plans.plan_distribute(paths, what=str(payload.path), transport="pigeon")
    for words in ({"what": "nobody:v1"}, {"what": "./nothing"}, {"what": str(payload.path), "hosts": "n9"}):
        with pytest.raises(Exception, match=r"neither a registered model|no such file|no such host"):
            await plans.plan_distribute(paths, **words)
    bad = paths.root / "bad.npz"
    bad.write_bytes(b"PK nothing")
    with pytest.raises(UnverifiedError, match="does not load"):
        await plans.plan_distribute(paths, what=str(bad))
    (paths.console / "known_hosts").unlink()
    with pytest.raises(RefusedError, match="not enrolled"):
        await plans.plan_distribute(paths, what=str(payload.path), hosts="n1")
    async with await StateStore.open(paths) as store:
        assert await audit_hosts(paths, store, list(cluster.hosts.values()))


async def test_a_full_disk_is_waited_for_and_used_when_it_is_freed(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(2)
    describe(cluster)
    payload = cluster.file(8 << 20)
    small = cluster.base("n1")
    small.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m,mode=755", "tmpfs", str(small)]
    if (await asyncio.to_thread(subprocess.run, mount, capture_output=True, check=False)).returncode:
        pytest.skip("needs root, to mount a small disk")
    try:
        ballast = small / "ballast"
        ballast.write_bytes(bytes(40 << 20))
        async with await StateStore.open(paths) as store:
            runner = runner_of(cluster, store)
            name = await submit(cluster, store, payload.path)
            row = await until(runner, store, name, lambda row: row.hosts[0].state == "blocked" and row.hosts[1].live)
            assert row.hosts[0].reason == "disk full" and "MiB are free" in row.hosts[0].failure
            ballast.unlink()
            row = await until(runner, store, name)
            assert row.live == 2
            await runner.close()
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(small)], check=True)


async def test_an_engine_that_breaks_on_a_host_is_tried_twice_and_then_the_next_one_brings_it(
    make_cluster: MakeCluster, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_with("rsync", monkeypatch)
    cluster = await make_cluster(2)
    describe(cluster)
    payload = cluster.file(1 << 20)
    binaries = cluster.servers["n1"].home / "bin"
    binaries.mkdir()
    (binaries / "rsync").write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    (binaries / "rsync").chmod(0o755)
    async with await StateStore.open(paths) as store:
        runner = runner_of(cluster, store)
        row = await until(runner, store, await submit(cluster, store, payload.path))
        assert (row.live, [host.transport for host in row.hosts]) == (2, ["stream", "rsync"])
        assert [way for _, way, what in row.hosts[0].history if "engine failed" in what] == ["rsync", "rsync"]
        fell = [event for event in await store.events() if event.type == "DELIVERY_FELL_BACK"]
        assert len(fell) == 1 and "engine failed" in fell[0].payload["why"]
        await runner.close()


async def test_a_mistake_of_ours_that_comes_each_time_is_given_up_and_told(
    make_cluster: MakeCluster, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.distribution.runner.TROUBLE_S", 0.01)
    cluster = await make_cluster(2)
    describe(cluster)
    payload = cluster.file(1000)
    async with await StateStore.open(paths) as store:
        runner = runner_of(cluster, store)
        finish, asked = runner._finish, []

        async def mistaken(transfer: Any, work: Any, row: Any) -> None:
            if row.host == "n2":
                asked.append(row.delivery.transport)
                raise KeyError("verify")
            await finish(transfer, work, row)

        monkeypatch.setattr(runner, "_finish", mistaken)
        row = await until(runner, store, await submit(cluster, store, payload.path))
        assert [host.state for host in row.hosts] == ["done", "failed"]
        assert "this machine made a mistake: KeyError('verify') (look into supervisor.log)" in row.hosts[1].failure
        assert 1 < len(asked) <= 2 * len(row.hosts[1].routes) + 1, "tried again, and not for ever"
        await runner.close()


async def test_a_host_without_the_engine_is_planned_without_it(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    payload = cluster.file(1000)
    async with await StateStore.open(paths) as store, store.database.write() as db:
        facts = json.dumps({"tools": {"rsync": None, "aria2c": None}})
        await db.run("INSERT INTO hosts (name, facts, state) VALUES ('n1', ?, 'up')", (facts,))
    plan = await plans.plan_distribute(paths, what=str(payload.path))
    assert plan.params["hosts"] == [["n1", ["stream"], 1]]
    with pytest.raises(RefusedError, match="has no rsync"):
        await plans.plan_distribute(paths, what=str(payload.path), transport="rsync")


async def test_a_limit_of_the_uplink_is_kept(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(1)
    describe(cluster)
    payload = cluster.file(2 << 20)
    plan = await plans.plan_distribute(paths, what=str(payload.path), transport="stream", limit=8.0)
    async with await StateStore.open(paths) as store:
        name = (await plans.apply_distribute(paths, plan, store.bound(await store.submit(plan))))["transfer"]
        runner = runner_of(cluster, store)
        row = await until(runner, store, name)
        await runner.close()
        assert row.live == 1 and row.hosts[0].live_at is not None and row.started_at is not None
        assert (row.hosts[0].live_at - row.started_at).total_seconds() > 1.5, "16 Mbit at 8 Mbit/s"
