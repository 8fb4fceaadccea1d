"""Jobs, attempts and pipelines in ``state.db``; every change of a job is stored together with its event."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from backend.jobs.launchers.base import AttemptSpec
from backend.jobs.model import EXECUTED, Attempt, Exit, Job, Observation, Phase, View, absorb, pipeline_state
from backend.jobs.placement import Asks, Reasons
from backend.jobs.recipes import recipe_of
from backend.snapshot import ENDED, JobState
from backend.state.db import Row, Transaction
from backend.state.store import StateStore, add_event

_ENDED = "('done', 'failed', 'cancelled', 'skipped', 'blocked')"


@dataclass(frozen=True, slots=True)
class Work:
    """What the supervisor has to decide about.

    Attributes:
        jobs: all that have not ended.
        ended: states of ended jobs that those need.
        shown: state and reason of each job as stored.
        params: config and parameters of each job, as its recipe takes them.
        damaged: rows that cannot be understood: job id -> why.
    """

    jobs: tuple[Job, ...] = ()
    ended: Mapping[str, JobState] = field(default_factory=dict)
    shown: Mapping[str, View] = field(default_factory=dict)
    params: Mapping[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)


async def load_work(store: StateStore) -> Work:
    """Everything open; one damaged row does not hide the others."""
    async with store.database.read() as db:
        rows = await db.all(f"SELECT * FROM jobs WHERE state NOT IN {_ENDED} ORDER BY number")
        tried = await db.all(
            f"SELECT a.* FROM attempts a JOIN jobs j ON j.id = a.job WHERE j.state NOT IN {_ENDED} ORDER BY a.job, a.n"
        )
        attempts: dict[str, list[Row]] = {}
        for row in tried:
            attempts.setdefault(row["job"], []).append(row)
        jobs, shown, params, damaged, needed = [], {}, {}, {}, set()
        for row in rows:
            name = str(row["id"])
            try:
                jobs.append(_job(row, [_attempt(one) for one in attempts.get(name, ())]))
                params[name] = (str(row["config"]), dict(json.loads(row["params"])))
                shown[name] = View(row["state"], row["why"], reasons_of(row["waits"]))
                needed |= set(jobs[-1].needs)
            except Exception as error:  # whatever is wrong with this row, the others go on
                damaged[name] = f"its row is damaged ({type(error).__name__}: {error})"
        ended: dict[str, JobState] = {}
        for name in sorted(needed):
            found = await db.one(f"SELECT state FROM jobs WHERE id = ? AND state IN {_ENDED}", (name,))
            if found is not None:
                ended[name] = found["state"]
    return Work(tuple(jobs), ended, shown, params, damaged)


def _job(row: Row, attempts: list[Attempt]) -> Job:
    return Job(
        id=row["id"],
        number=row["number"],
        kind=row["kind"],
        needs=tuple(str(name) for name in json.loads(row["needs"])),
        wanted=row["wanted"],
        cancel=row["cancel"] is not None,
        repeatable=recipe_of(row["kind"], json.loads(row["params"])).repeatable,
        settled=row["settled"],
        priority=row["priority"],
        asks=Asks.of(json.loads(row["params"]), row["bound"]),
        attempts=tuple(attempts),
        gang=row["gang"],
        member=row["member"],
        members=row["members"],
    )


def reasons_of(text: str) -> Reasons:
    """Why a job waits, from its column: a reason and the hosts that it holds for."""
    return tuple((str(reason), tuple(str(name) for name in names)) for reason, names in json.loads(text))


def _attempt(row: Row) -> Attempt:
    return Attempt(
        key=row["key"],
        job=row["job"],
        n=row["n"],
        host=row["host"],
        phase=Phase(row["phase"]),
        exit=Exit.from_json(json.loads(row["exit"])) if row["exit"] else None,
        refusal=row["reason"],
        unreachable=row["unreachable_since"] is not None,
        staged=bool(row["staged"]),
        pushed=row["pushed_at"] is not None,
        collected=row["collected_at"] is not None,
        trouble=row["trouble"],
        gpus=tuple(json.loads(row["spec"]).get("gpus", ())),
    )


async def spec_of(store: StateStore, key: str) -> AttemptSpec:
    """The spec as it was committed; the same bytes go out however often an attempt is started."""
    async with store.database.read() as db:
        row = await db.one("SELECT spec FROM attempts WHERE key = ?", (key,))
    assert row is not None, key
    return AttemptSpec.from_json(json.loads(row["spec"]))


@dataclass(frozen=True, slots=True)
class Placed:
    """The decision to run attempt ``n`` of a job on a host; ``staged`` in a root of its own there."""

    job: str
    n: int
    host: str
    spec: AttemptSpec
    staged: bool = False


async def place(store: StateStore, epoch: int, *decided: Placed) -> None:
    """Commits decisions to run attempts, all or none, before a host hears of one."""
    async with store.database.write() as db:
        for one in decided:
            await db.run(
                "INSERT INTO attempts (key, job, n, host, epoch, spec, digest, placed_at, staged) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO NOTHING",
                (
                    one.spec.key, one.job, one.n, one.host, epoch, json.dumps(one.spec.to_json()), one.spec.digest,
                    time.time(), one.staged,
                ),
            )  # fmt: skip


async def record_pushed(store: StateStore, attempt: Attempt, files: Mapping[str, str]) -> None:
    """Notes that an attempt's inputs are on its host, with the SHA-256 by which each was verified there."""
    async with store.database.write() as db:
        await db.run("UPDATE attempts SET pushed_at = ?, trouble = '' WHERE key = ?", (time.time(), attempt.key))
        if files:
            facts = {"host": attempt.host, "files": dict(files)}
            await add_event(db, "INPUTS_SENT", attempt.key, facts, key=f"sent {attempt.key}")


async def record_collected(store: StateStore, attempt: Attempt, result: dict[str, Any] | None, failure: str) -> None:
    """Notes what became of an attempt's outputs: the job's result, or why they cannot be used."""
    async with store.database.write() as db:
        changed = await db.run(
            "UPDATE attempts SET collected_at = ?, trouble = '', reason = ? WHERE key = ? AND collected_at IS NULL",
            (time.time(), failure, attempt.key),
        )
        if changed and result is not None:
            await db.run("UPDATE jobs SET result = ? WHERE id = ?", (json.dumps(result), attempt.job))
            facts = {"host": attempt.host, "files": result.get("collected", {})}
            await add_event(db, "OUTPUTS_COLLECTED", attempt.key, facts, key=f"collected {attempt.key}")


async def abandon(store: StateStore, key: str) -> None:
    """Notes that an attempt's outputs stay on its host, because its job was cancelled before they were here."""
    async with store.database.write() as db:
        row = await db.one("SELECT exit FROM attempts WHERE key = ? AND collected_at IS NULL", (key,))
        if row is not None:
            record = json.dumps(json.loads(row["exit"]) | {"cancelled": True, "abandoned": True})
            await db.run("UPDATE attempts SET exit = ?, trouble = '' WHERE key = ?", (record, key))


async def record_trouble(store: StateStore, attempt: Attempt, why: str) -> None:
    """Notes why a transfer has not come through; it is tried again."""
    if attempt.trouble != why:
        async with store.database.write() as db:
            await db.run("UPDATE attempts SET trouble = ? WHERE key = ?", (why, attempt.key))


async def reported_result(store: StateStore, job: str) -> dict[str, Any]:
    """What a job's last attempt said that it made."""
    async with store.database.read() as db:
        row = await db.one("SELECT result FROM jobs WHERE id = ?", (job,))
    return dict(json.loads(row["result"])) if row is not None else {}


@dataclass(frozen=True, slots=True)
class HostRecord:
    """What ``state.db`` holds of a host.

    Attributes:
        drained: the reason given, or None when it takes new jobs.
        facts: what was found and set up there.
        state, why: of the last look.
    """

    drained: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: str = "unknown"
    why: str = ""


async def host_records(store: StateStore) -> dict[str, HostRecord]:
    """All hosts that something is known of."""
    async with store.database.read() as db:
        rows = await db.all("SELECT name, drained, facts, code, state, why FROM hosts")
    found: dict[str, HostRecord] = {}
    for row in rows:
        drained = json.loads(row["drained"]) if row["drained"] else None
        reason = None if drained is None else str(drained.get("reason") or "")
        facts = json.loads(row["facts"]) | json.loads(row["code"])
        found[str(row["name"])] = HostRecord(reason, facts, str(row["state"]), str(row["why"]))
    return found


async def record(store: StateStore, attempt: Attempt, seen: Observation, *, why: str = "") -> Attempt:
    """Stores what an observation changes of an attempt; nothing is written when it changes nothing."""
    after = absorb(attempt, seen)
    after = replace(after, trouble="") if attempt.unreachable else after  # which said why nothing was heard
    if after == attempt:
        return after
    async with store.database.write() as db:
        now = time.time()
        exited = after.phase is Phase.EXITED
        record = json.dumps(seen.record) if exited else None
        await db.run(
            "UPDATE attempts SET phase = ?, exit = ?, evidence = ?, seen_at = ?, "
            "trouble = CASE WHEN unreachable_since IS NULL THEN trouble ELSE '' END, unreachable_since = NULL, "
            "ended_at = CASE WHEN ? THEN coalesce(ended_at, ?) ELSE ended_at END WHERE key = ?",
            (after.phase.value, record, json.dumps(seen.evidence), now, exited, seen.ended_at or now, after.key),
        )
        executed = after.phase in EXECUTED or (exited and after.exit is not None and after.exit.executed)
        if executed and attempt.phase not in EXECUTED:
            await _note_start(db, after, seen.started_at or now)
        if exited:
            if seen.result is not None:
                await db.run("UPDATE jobs SET result = ? WHERE id = ?", (json.dumps(seen.result), after.job))
            if why and not after.refusal:
                await db.run("UPDATE attempts SET reason = ? WHERE key = ?", (why, after.key))
                after = replace(after, refusal=why)
    return after


async def _note_start(db: Transaction, attempt: Attempt, at: float) -> None:
    await db.run(
        "UPDATE attempts SET started_at = coalesce(started_at, ?), trouble = '' WHERE key = ?", (at, attempt.key)
    )
    row = await db.one("SELECT kind, config, pipeline FROM jobs WHERE id = ?", (attempt.job,))
    assert row is not None
    await db.run("UPDATE jobs SET started_at = coalesce(started_at, ?) WHERE id = ?", (at, attempt.job))
    payload = {"kind": row["kind"], "config": row["config"], "attempt": attempt.key, "host": attempt.host}
    await add_event(
        db, "JOB_STARTED", attempt.job, payload | {"pipeline": row["pipeline"]}, key=f"started {attempt.key}"
    )


async def record_refusal(store: StateStore, key: str, reason: str, *, never: bool) -> None:
    """Notes that the host would not start an attempt; ``never`` when it is certain that it never will."""
    async with store.database.write() as db:
        await db.run(
            "UPDATE attempts SET reason = ?, phase = CASE WHEN ? THEN 'void' ELSE phase END WHERE key = ?",
            (reason, never, key),
        )


async def record_silence(store: StateStore, attempts: Collection[Attempt], why: Callable[[str], str]) -> list[Attempt]:
    """Notes that nothing was heard of these attempts, with the reason by key; returns them as they are then."""
    after = [replace(attempt, unreachable=True, trouble=why(attempt.key)) for attempt in attempts]
    changed = [new for old, new in zip(attempts, after, strict=True) if new != old]
    if changed:
        async with store.database.write() as db:
            for attempt in changed:
                await db.run(
                    "UPDATE attempts SET unreachable_since = coalesce(unreachable_since, ?), trouble = ? WHERE key = ?",
                    (time.time(), attempt.trouble, attempt.key),
                )
    return after


async def known_attempts(store: StateStore) -> tuple[set[str], list[str]]:
    """Keys of all attempts, and of those whose end is stored but not acknowledged."""
    async with store.database.read() as db:
        found = await db.all("SELECT key, phase, acked FROM attempts")
    return {str(row["key"]) for row in found}, [
        str(row["key"]) for row in found if row["phase"] == Phase.EXITED.value and not row["acked"]
    ]


async def mark_acknowledged(store: StateStore, keys: Iterable[str]) -> None:
    """Notes that the hosts know that these ends are stored."""
    async with store.database.write(silent=True) as db:
        for key in keys:
            await db.run("UPDATE attempts SET acked = 1 WHERE key = ?", (key,))


async def settle(store: StateStore, job: str, reason: str) -> None:
    """Notes that a job's output is there."""
    async with store.database.write() as db:
        await db.run("UPDATE jobs SET settled = ? WHERE id = ?", (reason, job))


async def mark_damaged(store: StateStore, job: str, why: str) -> None:
    """Ends a job whose row nobody can understand."""
    async with store.database.write() as db:
        await db.run("UPDATE jobs SET state = 'failed', why = ?, ended_at = ? WHERE id = ?", (why, time.time(), job))
        await add_event(db, "JOB_ENDED", job, {"state": "failed", "why": why}, key=f"damaged {job}")


async def show(store: StateStore, work: Work, views: Mapping[str, View]) -> bool:
    """Stores how jobs stand where that has changed, with the events of the changes; True when something has."""
    changed = {job.id: views[job.id] for job in work.jobs if work.shown[job.id] != views[job.id]}
    if not changed:
        return False
    async with store.database.write() as db:
        for job in work.jobs:
            if job.id in changed:
                await _show(db, job, work.shown[job.id], changed[job.id])
        for name in await _pipelines_of(db, changed):
            await _end_pipeline(db, name)
    return True


async def _show(db: Transaction, job: Job, before: View, now: View) -> None:
    ended = now.state in ENDED
    await db.run(
        "UPDATE jobs SET state = ?, why = ?, waits = ?, ended_at = CASE WHEN ? THEN "
        "coalesce((SELECT ended_at FROM attempts WHERE key = ?), ?) END WHERE id = ?",
        (now.state, now.why, json.dumps(now.reasons), ended, job.last.key if job.last else "", time.time(), job.id),
    )
    if before.state == now.state or not (ended or now.state == "unknown"):
        return
    row = await db.one("SELECT * FROM jobs WHERE id = ?", (job.id,))
    assert row is not None
    facts = {
        "kind": job.kind,
        "config": row["config"],
        "pipeline": row["pipeline"],
        "state": now.state,
        "why": now.why,
        "attempt": job.last.key if job.last else None,
    }
    once = f"{job.id} {now.state} {job.last.n if job.last else 0} {job.wanted}"
    await add_event(db, "JOB_UNKNOWN" if now.state == "unknown" else "JOB_ENDED", job.id, facts, key=f"ended {once}")
    if now.state == "done" and job.member == 1:
        result = json.loads(row["result"])
        facts = {"job": job.id, "config": row["config"], "result": result}
        subject = str(result.get("label") or row["config"])
        completed = recipe_of(job.kind, json.loads(row["params"])).completed
        await add_event(db, completed, subject, facts, key=f"completed {once}")


async def _pipelines_of(db: Transaction, jobs: Collection[str]) -> list[str]:
    rows = [await db.one("SELECT pipeline FROM jobs WHERE id = ?", (name,)) for name in jobs]
    return sorted({str(row["pipeline"]) for row in rows if row is not None and row["pipeline"] is not None})


async def _end_pipeline(db: Transaction, name: str) -> None:
    rows = await db.all("SELECT state, wanted, result FROM jobs WHERE pipeline = ? ORDER BY number", (name,))
    state = pipeline_state(row["state"] for row in rows)
    over = all(row["state"] in ENDED for row in rows)
    await db.run("UPDATE pipelines SET ended_at = ? WHERE id = ?", (time.time() if over else None, name))
    if over:
        found = await db.one("SELECT config FROM pipelines WHERE id = ?", (name,))
        assert found is not None
        label = next((json.loads(row["result"]).get("label") for row in rows if '"label"' in row["result"]), None)
        kind = "PIPELINE_COMPLETED" if state == "done" else "PIPELINE_ENDED"
        once = f"pipeline {name} {state} {sum(row['wanted'] for row in rows)}"
        await add_event(db, kind, name, {"config": found["config"], "state": state, "model": label}, key=once)


# what readers see
