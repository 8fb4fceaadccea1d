"""Jobs, attempts and pipelines as readers see them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend.errors import RingRiftError
from backend.jobs.model import pipeline_state
from backend.jobs.recipes import recipe_of
from backend.jobs.store import reasons_of
from backend.paths import Paths
from backend.progress import parse_lines
from backend.snapshot import ENDED, AttemptRow, JobProgress, JobRow, PipelineRow
from backend.state.db import Row
from backend.state.store import StateStore, moment

TAIL_BYTES = 8 * 1024


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
        waits=reasons_of(row["waits"]),
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
