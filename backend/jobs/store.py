"""Jobs, attempts and pipelines as rows of ``state.db``; every change of a job is stored together with its event."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend.errors import RingRiftError
from backend.jobs.launchers.base import AttemptSpec
from backend.jobs.model import EXECUTED, Attempt, Exit, Job, Observation, Phase, View, absorb, pipeline_state
from backend.jobs.placement import Asks, Reasons
from backend.jobs.recipes import recipe_of
from backend.paths import Paths
from backend.progress import parse_lines
from backend.snapshot import ENDED, AttemptRow, JobProgress, JobRow, JobState, PipelineRow
from backend.state.db import Row, Transaction
from backend.state.store import StateStore, add_event, moment

TAIL_BYTES = 8 * 1024
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
                shown[name] = View(row["state"], row["why"], _reasons(row["waits"]))
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


def _reasons(text: str) -> Reasons:
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
    if after == attempt:
        return after
    async with store.database.write() as db:
        now = time.time()
        exited = after.phase is Phase.EXITED
        record = json.dumps(seen.record) if exited else None
        await db.run(
            "UPDATE attempts SET phase = ?, exit = ?, evidence = ?, unreachable_since = NULL, seen_at = ?, "
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


async def record_silence(store: StateStore, attempts: Iterable[Attempt]) -> None:
    """Notes that a host could not be asked about these attempts."""
    keys = [attempt.key for attempt in attempts if not attempt.unreachable]
    if keys:
        async with store.database.write() as db:
            for key in keys:
                await db.run("UPDATE attempts SET unreachable_since = ? WHERE key = ?", (time.time(), key))


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


async def job_rows(store: StateStore, *, last: int = 1000) -> tuple[JobRow, ...]:
    """The newest jobs, newest first, with the last progress of those that run."""
    async with store.database.read() as db:
        rows = await db.all(f"{_JOB_ROWS} ORDER BY j.number DESC LIMIT ?", (last,))
        tried = await db.all(
            f"{_ATTEMPT_ROWS} WHERE job IN (SELECT id FROM jobs ORDER BY number DESC LIMIT ?) ORDER BY job, n", (last,)
        )
    return await asyncio.to_thread(_job_rows, rows, tried, store.paths)


async def job_row(store: StateStore, name: str) -> JobRow | None:
    async with store.database.read() as db:
        rows = await db.all(f"{_JOB_ROWS} WHERE j.id = ?", (name,))
        tried = await db.all(f"{_ATTEMPT_ROWS} WHERE job = ? ORDER BY n", (name,))
    return next(iter(await asyncio.to_thread(_job_rows, rows, tried, store.paths)), None)


async def pipeline_rows(store: StateStore, *, last: int = 200) -> tuple[PipelineRow, ...]:
    """The newest pipelines, newest first."""
    async with store.database.read() as db:
        rows = await db.all("SELECT * FROM pipelines ORDER BY created_at DESC, rowid DESC LIMIT ?", (last,))
        found = []
        for row in rows:
            jobs = await db.all("SELECT id, state FROM jobs WHERE pipeline = ? ORDER BY number", (row["id"],))
            found.append(
                PipelineRow(
                    id=row["id"],
                    config=row["config"],
                    state=pipeline_state(job["state"] for job in jobs),
                    stages=tuple(job["id"] for job in jobs),
                    created_at=datetime.fromtimestamp(row["created_at"], UTC),
                    params=json.loads(row["params"]),
                )
            )
    return tuple(found)


async def attempt_rows(store: StateStore, job: str) -> list[dict[str, Any]]:
    """All attempts of a job, oldest first, as plain values."""
    async with store.database.read() as db:
        rows = await db.all(f"{_ATTEMPT_ROWS} WHERE job = ? ORDER BY n", (job,))
    return [asdict(_attempt_row(row)) for row in rows]


_ATTEMPT_ROWS = (
    "SELECT key, job, host, phase, reason, exit, evidence, placed_at, started_at, seen_at, ended_at, unreachable_since "
    "FROM attempts"
)


def _attempt_row(row: Row) -> AttemptRow:
    return _attempt_of(*row)


@lru_cache(maxsize=8192)  # most of them have ended and change no more
def _attempt_of(
    key: str,
    job: str,
    host: str,
    phase: str,
    reason: str,
    exit: str | None,
    evidence: str | None,
    placed_at: float,
    started_at: float | None,
    seen_at: float | None,
    ended_at: float | None,
    unreachable_since: float | None,
) -> AttemptRow:
    """A row of :data:`_ATTEMPT_ROWS`, in the order of its columns."""
    return AttemptRow(
        attempt=key,
        host=host,
        phase=phase,
        reason=reason,
        exit=json.loads(exit) if exit else None,
        evidence=json.loads(evidence) if evidence else {},
        placed_at=moment(placed_at),
        started_at=moment(started_at),
        seen_at=moment(seen_at),
        ended_at=moment(ended_at),
        unreachable_since=moment(unreachable_since),
    )


_JOB_ROWS = (
    "SELECT j.*, a.key AS attempt, a.host, a.exit, a.spec, a.started_at AS attempt_started "
    "FROM jobs j LEFT JOIN attempts a ON a.job = j.id AND a.n = (SELECT max(n) FROM attempts WHERE job = j.id)"
)


def _job_rows(rows: Iterable[Row], tried: Iterable[Row], paths: Paths) -> tuple[JobRow, ...]:
    attempts: dict[str, list[AttemptRow]] = {}
    for row in tried:
        attempts.setdefault(row["job"], []).append(_attempt_row(row))
    return tuple(_job_row(row, tuple(attempts.get(row["id"], ())), paths) for row in rows)


def _job_row(row: Row, attempts: tuple[AttemptRow, ...], paths: Paths) -> JobRow:
    folder = paths.jobs / row["attempt"] if row["attempt"] else None
    read = _final_progress if row["state"] in ENDED else last_progress
    return JobRow(
        id=row["id"],
        kind=row["kind"],
        config=row["config"],
        title=row["title"],
        state=row["state"],
        host=row["host"],
        attempt=row["attempt"],
        pipeline=row["pipeline"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        started_at=moment(row["attempt_started"]),
        ended_at=moment(row["ended_at"]),
        progress=read(folder / "progress.jsonl") if folder else None,
        why=row["why"],
        waits=_reasons(row["waits"]),
        priority=row["priority"],
        exit_code=json.loads(row["exit"]).get("code") if row["exit"] else None,
        log_path=str(folder / "log") if folder else None,
        argv=tuple(json.loads(row["spec"])["argv"]) if row["spec"] else (),
        result=json.loads(row["result"]),
        attempts=attempts,
        repeatable=_repeatable(row["kind"], row["params"]),
        gang=row["gang"],
        member=row["member"],
        members=row["members"],
    )


@lru_cache(maxsize=4096)
def _repeatable(kind: str, params: str) -> bool:
    """Whether a job may run twice; one that nobody here understands may not."""
    try:
        return recipe_of(kind, json.loads(params)).repeatable
    except (RingRiftError, ValueError):
        return False


def last_progress(path: Path) -> JobProgress | None:
    """The last complete progress line of a job, read from the end of its file; None when there is none."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL_BYTES))
            data = stream.read()
    except FileNotFoundError:
        return None
    for row in reversed(parse_lines(data[: data.rfind(b"\n") + 1])):
        if isinstance(row.get("done"), int | float):
            return _progress(row)
    return None


@lru_cache(maxsize=4096)
def _final_progress(path: Path) -> JobProgress | None:
    """The same for an attempt that has ended: its file changes no more."""
    return last_progress(path)


def _progress(row: Mapping[str, Any]) -> JobProgress:
    def number(name: str) -> float | None:
        value = row.get(name)
        return float(value) if isinstance(value, int | float) else None

    metrics = row.get("metrics")
    try:
        at = datetime.fromisoformat(str(row.get("at"))).astimezone(UTC)
    except ValueError:
        at = None
    return JobProgress(
        done=float(row["done"]),
        total=number("total"),
        unit=str(row.get("unit", "")),
        rate=number("rate"),
        eta_s=number("eta_s"),
        message=str(row.get("message", "")),
        metrics=dict(metrics) if isinstance(metrics, dict) else {},
        at=at,
    )
