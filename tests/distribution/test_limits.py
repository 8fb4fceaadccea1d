"""Limits: how they are shared out, how they are set and kept, and that what is under way obeys them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from backend.distribution.budgets import MBIT, Going, from_json, in_force, to_json
from backend.distribution.limiter import budget_of_all, training_hosts
from backend.distribution.limits import apply_limit, guard_limits, plan_limit
from backend.distribution.rows import limits_of_all, transfer_rows
from backend.distribution.transports.base import Budget
from backend.errors import Exit, NotFoundError, RefusedError, UsageError
from backend.paths import Paths
from backend.state.store import StateStore
from ringrift_console.cli import main
from tests.distribution.conftest import Cluster
from tests.distribution.test_runner import describe, runner_of, submit, until

MakeCluster = Callable[..., Awaitable[Cluster]]


def test_without_limits_nothing_is_limited() -> None:
    going = Going({"x1": 3}, {"n1": 1}, links={"n1": 100.0})
    assert in_force("x1", Budget(), Budget(), going, ["n1", "n2"]) == Budget()


def test_transfers_share_the_uplink_and_a_training_set_takes_less() -> None:
    going = Going({"model": 3, "set": 1}, {"n1": 2})
    all_ = Budget(head_up=100.0, host_down=80.0)
    assert in_force("model", Budget(), all_, going, ["n1", "n2"]) == Budget(
        75.0, hosts={"n1": (None, 40.0), "n2": (None, 80.0)}
    )
    assert in_force("set", Budget(), all_, going, ["n2"]).head_up == 25.0
    assert in_force("model", Budget(head_up=10.0), all_, going, []).head_up == 10.0, "its own limit is stricter"
    assert in_force("model", Budget(head_up=90.0), all_, going, []).head_up == 75.0
    alone = Going({"set": 1})
    assert in_force("set", Budget(), all_, alone, []).head_up == 100.0
    assert in_force("old", Budget(), all_, alone, []).head_up == 100.0, "one that only waits for its end"


def test_a_host_that_trains_uses_a_part_of_its_link_where_that_is_known() -> None:
    going = Going({"x1": 3}, training={"n1", "n2"}, links={"n1": 100.0, "n3": 100.0})
    found = in_force("x1", Budget(), Budget(), going, ["n1", "n2", "n3"])
    assert found == Budget(hosts={"n1": (30.0, 30.0)})
    strict = in_force("x1", Budget(host_up=5.0), Budget(hosts={"n1": (None, 20.0)}), going, ["n1", "n3"])
    assert strict.hosts == {"n1": (5.0, 20.0), "n3": (5.0, None)}
    assert (strict.up("n1"), strict.down("n1"), strict.down("n3"), strict.up("n9")) == (5.0, 20.0, None, None)


def test_a_budget_is_stored_as_it_is() -> None:
    budget = Budget(1.0, None, 3.0, {"n1": (None, 2.0), "n2": (None, None)})
    kept = from_json(json.loads(json.dumps(to_json(budget))))
    assert kept == budget and kept.down("n2") is None, "no limit of its own is not the same as the limit of all"
    assert to_json(Budget()) == {} and from_json({}) == Budget()


async def carried_out(store: StateStore, paths: Paths, **params: Any) -> dict[str, Any]:
    plan = await plan_limit(paths, **params)
    (guard,) = plan.guard.items()
    assert await guard_limits(paths, store, guard[0].split()[1]) == guard[1]
    operation = await store.submit(plan)
    done = await apply_limit(paths, plan, store.bound(operation))
    assert await apply_limit(paths, plan, store.bound(operation)) == done
    assert await guard_limits(paths, store, guard[0].split()[1]) != guard[1], "another plan made before is refused"
    return done


async def test_a_limit_set_on_the_way_is_obeyed_kept_shown_and_lifted(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(2)
    describe(cluster)
    payload = cluster.file(48 << 20)
    async with await StateStore.open(paths) as store:
        name = await submit(cluster, store, payload.path, transport="stream", limit=8)
        runner = runner_of(cluster, store)
        await until(runner, store, name, lambda row: all(host.have for host in row.hosts))
        await carried_out(store, paths, transfer=name, head=0, down=0.5, host="n1")
        row = await until(runner, store, name, lambda row: row.hosts[1].live)
        assert row.hosts[0].have < payload.size / 2, "the other host's limit was lifted, this one's was not"
        assert (row.asked.head, row.asked.hosts) == (None, (("n1", None, 0.5),))
        assert row.limits.of("n1") == (None, 0.5) and row.limits.of("n2") == (None, None)
        await runner.close()

        later = runner_of(cluster, store)  # as after the death of the first
        row = await until(later, store, name, lambda row: row.hosts[0].state == "fetching")
        assert row.limits.of("n1") == (None, 0.5)
        assert later._works[name].deliveries["stream"].budget.down("n1") == 0.5 * MBIT  # type: ignore[attr-defined]
        await carried_out(store, paths, transfer=name, down=0, host="n1")
        row = await until(later, store, name)
        assert row.live == 2
        await later.close()
        with pytest.raises(RefusedError, match="it has ended"):
            await plan_limit(paths, transfer=name, head=5)


async def test_what_all_share_holds_for_every_transfer(make_cluster: MakeCluster, paths: Paths) -> None:
    cluster = await make_cluster(1)
    describe(cluster, n1={"bandwidth_mbps": 100})
    async with await StateStore.open(paths) as store:
        await carried_out(store, paths, transfer="all", head=8, up=4)
        await carried_out(store, paths, transfer="all", down=2, host="n1")
        assert await budget_of_all(store) == Budget(8 * MBIT, 4 * MBIT, None, {"n1": (4 * MBIT, 2 * MBIT)})
        shown = await limits_of_all(store)
        assert (shown.head, shown.up, shown.down, shown.hosts) == (8.0, 4.0, None, (("n1", 4.0, 2.0),))
        with pytest.raises(RefusedError, match="so already"):
            await plan_limit(paths, transfer="all", head=8)
        payload = cluster.file(4 << 20)
        name = await submit(cluster, store, payload.path)
        runner = runner_of(cluster, store)
        row = await until(runner, store, name, lambda row: row.hosts[0].state == "fetching" and row.limits.head)
        assert (row.asked.head, row.limits.head, row.limits.of("n1")) == (None, 8.0, (4.0, 2.0))
        await job(store, "train", "running")
        assert await training_hosts(store) == {"n1"}
        await carried_out(store, paths, transfer="all", up=0, down=0, host="n1")
        row = await until(runner, store, name, lambda row: bool(row.limits.training))
        assert row.limits.of("n1") == (30.0, 30.0), "30 % of its 100 Mbit/s, as it trains"
        await runner.close()


async def job(store: StateStore, kind: str, phase: str) -> None:
    async with store.database.write() as db:
        await db.run(
            "INSERT INTO jobs (number, id, kind, config, title, params, state, created_at) "
            "VALUES (1, 't1', ?, 'hex8_2p', 't', '{}', 'running', 0)", (kind,),
        )  # fmt: skip
        await db.run(
            "INSERT INTO attempts (key, job, n, host, epoch, spec, digest, phase, placed_at) "
            "VALUES ('t1.1', 't1', 1, 'n1', 1, '{}', '', ?, 0)", (phase,),
        )  # fmt: skip


@pytest.mark.parametrize(("kind", "phase"), [("selfplay", "running"), ("train", "placed"), ("train", "exited")])
async def test_other_jobs_and_jobs_that_do_not_run_limit_nothing(paths: Paths, kind: str, phase: str) -> None:
    paths.root.mkdir()
    async with await StateStore.open(paths) as store:
        await job(store, kind, phase)
        assert await training_hosts(store) == frozenset()


async def test_what_cannot_be_set_is_refused_in_one_line(make_cluster: MakeCluster, paths: Paths) -> None:
    with pytest.raises(NotFoundError, match="no such transfer"):
        await plan_limit(paths, transfer="x1", head=1)
    cluster = await make_cluster(1)
    describe(cluster)
    for wrong in ({"head": -1.0}, {"down": float("nan")}, {"up": 1e9}, {}, {"head": 1.0, "host": "n1"}):
        with pytest.raises(UsageError):
            await plan_limit(paths, transfer="all", **wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        await plan_limit(paths, transfer="all", down=1, host="n9")
    payload = cluster.file(1 << 20)
    async with await StateStore.open(paths) as store:
        name = await submit(cluster, store, payload.path)
    with pytest.raises(NotFoundError, match="not brought"):
        await plan_limit(paths, transfer=name, down=1, host="n9")


def test_the_verb_says_what_it_will_do_and_how_it_is_taken_back(paths: Paths, capsys: Any) -> None:
    paths.root.mkdir()
    base = ["--root", str(paths.root), "transfers", "limit"]
    assert main([*base, "all", "--head", "50", "--dry-run", "--json"]) == Exit.DONE
    plan = json.loads(capsys.readouterr().out)
    plan = plan.get("plan", plan)
    assert plan["changes"] == [{"subject": "this machine gives", "before": "no limit", "after": "50 Mbit/s"}]
    assert plan["undo"] == "ringrift transfers limit all --head 0"
    assert main([*base, "all"]) == Exit.USAGE
    assert main([*base, "x9", "--head", "5"]) == Exit.NOT_FOUND
    assert asyncio.run(_nothing(paths)) == ()


async def _nothing(paths: Paths) -> object:
    async with await StateStore.open(paths) as store:
        return await transfer_rows(store)
