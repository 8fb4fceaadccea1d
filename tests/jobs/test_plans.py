"""Plans about jobs and what carrying them out does, on a real state database."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from backend.errors import NotFoundError, RefusedError, UsageError
from backend.jobs.model import View
from backend.jobs.pipelines import PipelineParams
from backend.jobs.plans import (
    apply_cancel,
    apply_pipeline,
    apply_retry,
    guard_job,
    plan_cancel,
    plan_pipeline,
    plan_retry,
    resolve,
)
from backend.jobs.rows import job_rows, pipeline_rows
from backend.jobs.store import load_work, show
from backend.paths import Paths
from backend.snapshot import JobState
from backend.state.store import StateStore


async def started(store: StateStore, **numbers: int) -> list[str]:
    """A pipeline as the supervisor would have made it; returns its jobs."""
    plan = await plan_pipeline(store.paths, config="hex8_2p", **numbers)
    bound = store.bound(await store.submit(plan))
    jobs: list[str] = (await apply_pipeline(store.paths, plan, bound))["jobs"]
    return jobs


async def put(store: StateStore, **states: JobState) -> None:
    """Shows jobs in the given states."""
    work = await load_work(store)
    await show(store, work, {job.id: View(states.get(job.id, work.shown[job.id].state)) for job in work.jobs})


async def test_a_pipeline_plan_tells_what_is_there_and_changes_nothing(paths: Paths) -> None:
    plan = await plan_pipeline(paths, config="hex8_2p", games=40, seed=3)
    assert plan.params == {"config": "hex8_2p"} | asdict(PipelineParams(games=40, seed=3))
    assert ("games", "0", "40") in [(change.subject, change.before, change.after) for change in plan.changes]
    assert plan.command.startswith("ringrift pipeline hex8_2p --games 40")
    assert not paths.root.exists()


@pytest.mark.parametrize(("name", "number"), [("games", 0), ("epochs", -1), ("gauntlet_games", 0), ("seed", -1)])
async def test_numbers_that_make_no_sense_are_refused(paths: Paths, name: str, number: int) -> None:
    with pytest.raises(UsageError):
        await plan_pipeline(paths, config="hex8_2p", **{name: number})


async def test_an_unknown_config_names_the_nearest(paths: Paths) -> None:
    with pytest.raises(UsageError, match="hex8_2p"):
        await plan_pipeline(paths, config="hex8_2q")


async def test_a_pipeline_is_a_chain_of_jobs_each_needing_the_one_before(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        assert await started(store) == ["s1", "e2", "t3", "g4"]
        work = await load_work(store)
        assert [job.needs for job in work.jobs] == [(), ("s1",), ("e2",), ("t3",)]
        assert all(job.repeatable for job in work.jobs)
        saved = {params.get("save") for _, params in work.params.values()}
        assert len(saved - {None}) == 1  # what training writes is what the gauntlet plays


async def test_the_same_pipeline_asked_for_again_joins_the_one_under_way(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        first = await started(store, games=10)
        assert await started(store, games=10) == first
        assert await started(store, games=11) != first
        plan = await plan_pipeline(paths, config="hex8_2p", games=10)
        assert any("p1" in warning for warning in plan.warnings)


async def test_an_operation_carried_out_twice_makes_one_pipeline(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        plan = await plan_pipeline(paths, config="hex8_2p")
        bound = store.bound(await store.submit(plan))
        first = await apply_pipeline(paths, plan, bound)
        await put(store, s1="failed", e2="blocked", t3="blocked", g4="blocked")
        assert (await apply_pipeline(paths, plan, bound))["jobs"] == first["jobs"]
        assert len(await pipeline_rows(store)) == 1


async def test_jobs_are_found_by_id_start_number_and_pipeline(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        for _ in range(4):
            await started(store, games=10 + len(await pipeline_rows(store)))
        assert [row.id for row in await resolve(store, "t3")] == ["t3"]
        assert [row.id for row in await resolve(store, "3")] == ["t3"]
        assert [row.id for row in await resolve(store, "p2")] == ["s5", "e6", "t7", "g8"]
        with pytest.raises(UsageError, match="several"):
            await resolve(store, "s")
        for name in ("x9", "", "p99"):
            with pytest.raises(NotFoundError):
                await resolve(store, name)


async def test_cancel_means_all_that_is_open_and_says_what_it_blocks(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        await started(store)
        plan = await plan_cancel(paths, job="e2")
        assert plan.guard == {"job e2": "open"}
        assert [(change.subject.split()[0], change.after) for change in plan.changes] == [
            ("e2", "cancelled"), ("t3", "blocked"), ("g4", "blocked"),
        ]  # fmt: skip
        bound = store.bound(await store.submit(plan))
        await apply_cancel(paths, plan, bound)
        await apply_cancel(paths, plan, bound)
        assert [job.cancel for job in (await load_work(store)).jobs] == [False, True, False, False]
        assert len(await store.events(type="JOB_CANCEL_REQUESTED")) == 1
        assert (await plan_cancel(paths, job="p1")).params["jobs"] == ["s1", "e2", "t3", "g4"]


async def test_what_has_ended_cannot_be_cancelled_and_what_runs_cannot_be_retried(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        await started(store)
        await put(store, s1="done")
        with pytest.raises(RefusedError, match="has ended"):
            await plan_cancel(paths, job="s1")
        with pytest.raises(RefusedError, match="waiting"):
            await plan_retry(paths, job="e2")
        with pytest.raises(RefusedError, match="done"):
            await plan_retry(paths, job="s1")
        await put(store, e2="unknown")
        plan = await plan_retry(paths, job="e2")
        assert plan.guard == {"job e2": "unknown"} == (await plan_cancel(paths, job="e2")).guard
        assert "is safe: it goes on from what is there" in plan.warnings[0]


@pytest.mark.parametrize("named", ["e2", "t3", "p1"])
async def test_a_retry_runs_what_failed_and_lets_what_it_blocked_wait_again(paths: Paths, named: str) -> None:
    async with await StateStore.open(paths) as store:
        await started(store)
        await put(store, s1="done", e2="failed", t3="blocked", g4="blocked")
        plan = await plan_retry(paths, job=named)
        assert plan.params == {"jobs": ["e2"], "unblock": ["t3", "g4"]}
        bound = store.bound(await store.submit(plan))
        await apply_retry(paths, plan, bound)
        async with store.database.write() as db:
            await db.run("UPDATE jobs SET wanted = 7 WHERE id = 'e2'")
        await apply_retry(paths, plan, bound)  # after a crash: nothing is asked for a second time
        work = await load_work(store)
        assert {job.id: (job.wanted, work.shown[job.id].state) for job in work.jobs} == {
            "e2": (7, "waiting"), "t3": (1, "waiting"), "g4": (1, "waiting"),
        }  # fmt: skip


async def test_a_guard_tells_open_or_how_it_ended(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        await started(store)
        await put(store, s1="failed")
        assert await guard_job(paths, store, "s1") == "failed"
        assert await guard_job(paths, store, "e2") == "open"
        assert await guard_job(paths, store, "x") == "not there"


async def test_a_root_without_jobs_says_so(paths: Paths) -> None:
    with pytest.raises(NotFoundError, match="no such job"):
        await plan_cancel(paths, job="t1")
    assert not paths.root.exists()


async def test_events_of_a_pipeline_tell_its_end_once(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        await started(store)
        await put(store, s1="done", e2="skipped", t3="done", g4="done")
        await put(store)
        types = [event.type for event in await store.events(last=100)]
        assert types.count("PIPELINE_COMPLETED") == 1
        assert types.count("JOB_ENDED") == 4
        assert [kind for kind in types if kind.endswith("_COMPLETED")] == [
            "SELFPLAY_COMPLETED", "TRAINING_COMPLETED", "GAUNTLET_COMPLETED", "PIPELINE_COMPLETED",
        ]  # fmt: skip
        assert [row.state for row in await pipeline_rows(store)] == ["done"]


async def test_a_damaged_row_does_not_hide_the_others(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        await started(store)
        async with store.database.write() as db:
            await db.run("UPDATE jobs SET needs = 'nonsense' WHERE id = 'e2'")
            await db.run("UPDATE jobs SET kind = 'teleport' WHERE id = 'g4'")
        work = await load_work(store)
        assert [job.id for job in work.jobs] == ["s1", "t3"]
        assert set(work.damaged) == {"e2", "g4"}
        assert len(await job_rows(store)) == 4
        assert json.dumps(work.damaged)


async def test_a_pipeline_on_several_hosts_trains_as_a_gang_that_is_cancelled_and_retried_as_one(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        names = await started(store, nodes=2)
        jobs = {job.id: job for job in (await load_work(store)).jobs}
        assert {name: job.needs for name, job in jobs.items()} == {
            "s1": (), "e2": ("s1",), "t3": ("e2",), "t4": ("e2",), "g5": ("t3",),
        }  # fmt: skip
        assert (jobs["t4"].gang, jobs["t4"].member, jobs["g5"].gang) == ("t3", 2, None)
        assert names == list(jobs) == await started(store, nodes=2)  # joined
        assert (await plan_cancel(paths, job="t4")).params["jobs"] == ["t4", "t3"]
        await put(store, s1="done", e2="done", t3="failed", t4="failed", g5="blocked")
        plan = await plan_retry(paths, job="t4")
        assert (set(plan.params["jobs"]), plan.params["unblock"]) == ({"t3", "t4"}, ["g5"])
