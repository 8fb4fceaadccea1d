"""Plans about jobs, and how the supervisor carries them out. Each ``apply_`` may be called again after a crash."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from backend.configs import parse_config
from backend.errors import NotFoundError, RefusedError, UsageError
from backend.jobs.explain import repeating
from backend.jobs.pipelines import PipelineParams, add_chain, add_pipeline, find_active, sharded_stages, stages
from backend.jobs.rows import job_rows, pipeline_rows
from backend.jobs.shards import FIRST_INDEX, first_free
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.snapshot import ENDED, JobRow
from backend.state.db import Transaction
from backend.state.store import StateStore, add_event
from backend.training.volume import highest_index, volume

RETRIED = ("failed", "cancelled", "unknown")


async def plan_pipeline(
    paths: Paths,
    *,
    config: str,
    games: int | None = None,
    epochs: int | None = None,
    gauntlet_games: int | None = None,
    seed: int | None = None,
    shards: int | None = None,
    gauntlet_shards: int | None = None,
    nodes: int | None = None,
) -> Plan:
    """What a pipeline of ``config`` will do. None means the default of :mod:`backend.jobs.pipelines`.

    Raises:
        UsageError: there is no such config, or a number makes no sense.
    """
    made = parse_config(config)
    params = PipelineParams.of(games, epochs, gauntlet_games, seed, shards, gauntlet_shards, nodes)
    counted = volume(paths, made)
    revision, active = 0, None
    if paths.state_db.exists():
        async with await StateStore.open(paths) as store:
            revision = await store.revision()
            async with store.database.read() as db:
                active = await find_active(db, made, params)
    have = "unknown" if counted.games is None else str(counted.games)
    dataset, save = paths.dataset(made), params.save_path(made)
    warnings = []
    if active:
        warnings.append(f"{active} is this very pipeline and under way: it goes on, and nothing is started twice")
    if counted.note:
        warnings.append(f"the games cannot be counted: {counted.note}")
    words = [f"--games {params.games}", f"--epochs {params.epochs}", f"--gauntlet-games {params.gauntlet_games}"]
    words += [f"--shards {params.shards}"] if params.shards > 1 else []
    words += [f"--gauntlet-shards {gauntlet_shards}"] if gauntlet_shards is not None else []
    words += [f"--nodes {params.nodes}"] if params.nodes > 1 else []
    spread = f"self-play in {params.shards}, gauntlet in {params.gauntlet_parts}, spread over the hosts with room"
    parts: tuple[Change, ...] = (Change("parts", "", spread),) if params.sharded else ()
    parts += (Change("training", "", f"on {params.nodes} hosts at once"),) if params.nodes > 1 else ()
    return Plan(
        action="pipeline.start",
        title=f"Pipeline of {made.key}",
        params={"config": made.key} | asdict(params),
        changes=(
            Change("games", have, str(max(params.games, counted.games or 0))),
            Change("dataset", "there" if dataset.exists() else "none", _relative(paths, str(dataset))),
            Change("checkpoint", "there" if (paths.root / save).exists() else "none", save),
            Change("gauntlet games", "", f"{params.gauntlet_games} against Random, as many against Heuristic"),
            *parts,
        ),
        steps=(
            f"self-play until {made.key} has {params.games} games",
            "export them into a dataset",
            f"train {params.epochs} epochs and register the model as development",
            f"gauntlet of {params.gauntlet_games} games against each baseline",
            "a stage whose output is there and valid is skipped",
        ),
        command=f"ringrift pipeline {made.key} {' '.join(words)} --seed {params.seed}",
        undo="Cancel its jobs at any time; what they finished is kept.",
        warnings=tuple(warnings),
        revision=revision,
    )


def _relative(paths: Paths, path: str) -> str:
    return path.removeprefix(f"{paths.root}/")


async def apply_pipeline(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Adds the pipeline, or finds the one that is under way; returns ``{"pipeline", "jobs", "joined"}``."""
    config = parse_config(str(plan.params["config"]))
    params = PipelineParams(**{name: value for name, value in plan.params.items() if name != "config"})
    have, first = 0, FIRST_INDEX
    if params.sharded:
        have = (await asyncio.to_thread(volume, paths, config)).games or 0
        first = first_free(await asyncio.to_thread(highest_index, paths.games_db(config), params.seed))
    async with store.database.write() as db:
        active = await find_active(db, config, params)
        if active is not None:
            rows = await db.all("SELECT id FROM jobs WHERE pipeline = ? ORDER BY number", (active,))
            return {"pipeline": active, "jobs": [row["id"] for row in rows], "joined": True}
        if params.sharded:
            name, jobs = await add_pipeline(
                db, config.key, lambda name: sharded_stages(config, params, have, first, f"{name}-gauntlet"),
                asdict(params), store.operation_id,
            )  # fmt: skip
        else:
            name, jobs = await add_chain(db, config.key, stages(config, params), asdict(params), store.operation_id)
    return {"pipeline": name, "jobs": list(jobs), "joined": False}


async def resolve(store: StateStore, text: str) -> tuple[JobRow, ...]:
    """The job with an id (or the only one that starts so, or with that number), or all jobs of a pipeline, in order.

    Raises:
        NotFoundError: there is none.
        UsageError: several match.
    """
    rows = await job_rows(store, last=-1)
    exact = [row for row in rows if row.id == text or row.attempt == text]
    if exact:
        return tuple(exact)
    for pipeline in await pipeline_rows(store, last=-1):
        if pipeline.id == text:
            return tuple(row for name in pipeline.stages for row in rows if row.id == name)
    found = [row for row in rows if text.isdigit() and row.id[1:] == text]
    found = found or [row for row in rows if text and row.id.startswith(text)]
    if not found:
        raise NotFoundError("no such job", where=text, hint="ringrift jobs list shows all")
    if len(found) > 1:
        some = " ".join(row.id for row in found[:8]) + (" …" if len(found) > 8 else "")
        raise UsageError(f"several jobs match: {some}", where=text)
    return tuple(found)


async def plan_cancel(paths: Paths, *, job: str) -> Plan:
    """What cancelling a job (or all of a pipeline) will do.

    Raises:
        NotFoundError, UsageError: see :func:`resolve`.
        RefusedError: everything meant has ended.
    """
    async with await open_existing(paths, job) as store:
        rows = await _with_gangs(store, await resolve(store, job))
        revision = await store.revision()
        waiting = await _dependents(store, [row.id for row in rows])
    open_ones = [row for row in rows if row.state not in ENDED]
    if not open_ones:
        raise RefusedError(f"it has ended ({', '.join(sorted({row.state for row in rows}))})", where=job)
    lost = [row for row in open_ones if row.state == "unknown"]
    return Plan(
        action="jobs.cancel",
        title=f"Cancel {_named(open_ones)}",
        params={"jobs": [row.id for row in open_ones]},
        changes=tuple(Change(f"{row.id} {row.title}", row.state, "cancelled") for row in open_ones)
        + tuple(Change(f"{row.id} {row.title}", row.state, "blocked") for row in waiting if row not in open_ones),
        steps=("ask each to stop (TERM)", "after ten seconds end what is left (KILL), children included"),
        command=f"ringrift jobs cancel {job}",
        undo=f"ringrift jobs retry {open_ones[0].id} runs it again; it goes on with what it finished",
        warnings=tuple(f"how {row.id} ended is unknown; this gives its outcome up" for row in lost),
        revision=revision,
        guard={f"job {row.id}": "unknown" if row.state == "unknown" else "open" for row in open_ones},
    )


async def apply_cancel(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Notes the wish to cancel; the reconcile loop ends the attempts. Returns ``{"jobs"}``."""
    wished = [str(name) for name in plan.params["jobs"]]
    async with store.database.write() as db:
        for name in wished:
            wish = json.dumps({"by": store.operation_id, "at": time.time()})
            changed = await db.run(
                "UPDATE jobs SET cancel = ? WHERE id = ? AND cancel IS NULL "
                "AND state NOT IN ('done', 'failed', 'cancelled', 'skipped', 'blocked')",
                (wish, name),
            )
            if changed:
                key = f"cancel {store.operation_id} {name}"
                await add_event(db, "JOB_CANCEL_REQUESTED", name, {"operation": store.operation_id}, key=key)
    return {"jobs": wished}


async def plan_retry(paths: Paths, *, job: str) -> Plan:
    """What running an ended job (or what failed of a pipeline) again will do.

    Raises:
        NotFoundError, UsageError: see :func:`resolve`.
        RefusedError: there is nothing to run again.
    """
    async with await open_existing(paths, job) as store:
        named = await _with_gangs(store, await resolve(store, job))
        rows = list(named)
        while missing := await _blockers(store, rows):  # a blocked job needs what blocks it
            rows = await _with_gangs(store, rows + missing)
        revision = await store.revision()
        waiting = await _dependents(store, [row.id for row in rows])
    again = [row for row in rows if row.state in RETRIED]
    if not again:
        states = ", ".join(sorted({row.state for row in named}))
        raise RefusedError(f"only a failed, cancelled or unknown job runs again, this is {states}", where=job)
    lost = [row for row in again if row.state == "unknown"]
    closed = [row.attempts[-1] for row in lost if row.attempts and not row.repeatable]
    blocked = [row for row in (*rows, *waiting) if row.state == "blocked"]
    return Plan(
        action="jobs.retry",
        title=f"Run {_named(again)} again",
        params={"jobs": [row.id for row in again], "unblock": [row.id for row in blocked]},
        changes=tuple(Change(f"{row.id} {row.title}", row.state, "waiting, then a new attempt") for row in again)
        + tuple(Change(f"{row.id} {row.title}", "blocked", "waiting") for row in blocked),
        steps=(
            *(
                f"close {one.attempt} on {one.host} for good: what is left of it is ended, and it can never start again"
                for one in closed
            ),
            "check whether the output is there by now",
            "start a new attempt, which goes on with what is there",
        ),
        command=f"ringrift jobs retry {job}",
        undo=f"ringrift jobs cancel {job}",
        warnings=tuple(f"how {row.attempt} ended is unknown; to run it again is {repeating(row)}" for row in lost)
        + tuple(
            f"{one.host} does not answer: the new attempt waits until it does"
            for one in closed
            if one.unreachable_since is not None
        ),
        revision=revision,
        guard={f"job {row.id}": row.state for row in again},
    )


async def apply_retry(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Asks for one more attempt of each job and lets blocked ones wait again; returns ``{"jobs"}``."""
    async with store.database.write() as db:
        done = await db.one("SELECT 1 FROM steps WHERE operation = ? AND name = 'asked'", (store.operation_id,))
        if done is None:
            for name in plan.params["jobs"]:
                await db.run(
                    "UPDATE jobs SET wanted = 1 + (SELECT coalesce(max(n), 0) FROM attempts WHERE job = jobs.id), "
                    "cancel = NULL, settled = NULL, state = 'waiting', why = '', ended_at = NULL WHERE id = ?",
                    (name,),
                )
                key = f"retry {store.operation_id} {name}"
                await add_event(db, "JOB_RETRIED", name, {"operation": store.operation_id}, key=key)
            await _unblock(db, [str(name) for name in plan.params["unblock"]])
            await db.run("INSERT INTO steps VALUES (?, 'asked', ?, '{}')", (store.operation_id, time.time()))
    return {"jobs": list(plan.params["jobs"])}


async def _unblock(db: Transaction, names: Sequence[str]) -> None:
    for name in names:
        await db.run(
            "UPDATE jobs SET state = 'waiting', why = '', cancel = NULL, ended_at = NULL "
            "WHERE id = ? AND state = 'blocked'",
            (name,),
        )


async def guard_job(paths: Paths, store: StateStore, name: str) -> str:
    """What the guard ``job <id>`` of a plan is compared with: how it ended, ``unknown``, else ``open``."""
    async with store.database.read() as db:
        row = await db.one("SELECT state FROM jobs WHERE id = ?", (name,))
    if row is None:
        return "not there"
    return str(row["state"]) if row["state"] in (*ENDED, "unknown") else "open"


async def open_existing(paths: Paths, name: str) -> StateStore:
    """The root's store, where a job is looked for.

    Raises:
        NotFoundError: the root has none yet, so it has no jobs.
    """
    if not paths.state_db.exists():
        raise NotFoundError("no such job", where=name, hint="there are no jobs yet")
    return await StateStore.open(paths)


async def _with_gangs(store: StateStore, rows: Sequence[JobRow]) -> list[JobRow]:
    """The rows, and the other members of the gangs that they are in: those start and end together."""
    known, gangs = {row.id for row in rows}, {row.gang for row in rows if row.gang}
    if not gangs:
        return list(rows)
    others = [row for row in await job_rows(store, last=-1) if row.gang in gangs and row.id not in known]
    return [*rows, *reversed(others)]


async def _dependents(store: StateStore, names: Sequence[str]) -> list[JobRow]:
    """Jobs that have not run and that need any of these, however indirectly, in order."""
    async with store.database.read() as db:
        rows = await db.all("SELECT id, needs FROM jobs WHERE state IN ('waiting', 'blocked') ORDER BY number")
    reached = set(names)
    for row in rows:
        if reached & set(json.loads(row["needs"])):
            reached.add(str(row["id"]))
    wanted = reached - set(names)
    return [row for row in reversed(await job_rows(store, last=-1)) if row.id in wanted]


async def _blockers(store: StateStore, rows: Sequence[JobRow]) -> list[JobRow]:
    """Ended jobs that keep blocked ones among ``rows`` from running and that are not among them."""
    known = {row.id for row in rows}
    async with store.database.read() as db:
        found = [
            await db.one("SELECT needs FROM jobs WHERE id = ?", (row.id,)) for row in rows if row.state == "blocked"
        ]
    needed = {str(name) for row in found if row is not None for name in json.loads(row["needs"])} - known
    return [
        row
        for row in await job_rows(store, last=-1)
        if row.id in needed and row.state in ("failed", "cancelled", "blocked")
    ]


def _named(rows: Sequence[JobRow]) -> str:
    if len(rows) == 1:
        return f"{rows[0].id} {rows[0].title}"
    return f"{len(rows)} jobs ({' '.join(row.id for row in rows)})"
