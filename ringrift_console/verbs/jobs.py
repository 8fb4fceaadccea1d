"""``ringrift pipeline``, ``jobs submit | list | show | logs | cancel | retry``, ``events`` and ``supervise``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from backend.configs import parse_config
from backend.errors import Exit, UsageError
from backend.jobs.explain import WayOut, derivation, exit_word, outcome_word, silence, ways_out
from backend.jobs.plans import open_existing, plan_cancel, plan_pipeline, plan_retry, resolve
from backend.jobs.rows import job_row, job_rows, pipeline_rows
from backend.jobs.submit import plan_submit
from backend.paths import Paths
from backend.snapshot import ENDED, AttemptRow, EventRow, JobRow, JobState, PipelineRow
from backend.state.store import StateStore
from backend.supervisor import ensure_running, running_pid, stop
from backend.supervisor import supervise as run_supervisor
from backend.text import plain
from ringrift_console.verbs.common import table, to_json
from ringrift_console.verbs.operations import POLL_S, Outcome, carry_out, keep_supervised, say

BLOCK = 256 * 1024
GOOD = ("done", "skipped")


def pipeline(args: argparse.Namespace, paths: Paths) -> int:
    """Starts a pipeline; with ``--wait`` stays until it has ended."""
    plan = plan_pipeline(
        paths,
        config=args.config,
        games=args.games,
        epochs=args.epochs,
        gauntlet_games=args.gauntlet_games,
        seed=args.seed,
        shards=args.shards,
        gauntlet_shards=args.gauntlet_shards,
        nodes=args.nodes,
    )

    async def after(store: StateStore, outcome: Outcome) -> tuple[Exit, dict[str, Any]]:
        rows = await _follow(store, [str(name) for name in outcome.operation.result["jobs"]])
        found = next(row for row in await pipeline_rows(store) if row.id == outcome.operation.result["pipeline"])
        say(f"{found.id} {found.config}: {found.state}")
        why = "; ".join(f"{row.id} {row.why}" for row in rows if row.state in ("failed", "unknown") and row.why)
        more = {"state": found.state, "error": why, "jobs": [_brief(row) for row in rows]}
        return Exit.DONE if found.state == "done" else Exit.FAILED, more

    return carry_out(args, paths, plan, after=after)


def submit(args: argparse.Namespace, paths: Paths) -> int:
    """Submits one job; with ``--wait`` stays until it has ended and exits with its outcome."""
    plan = plan_submit(
        paths,
        kind=args.kind,
        config=args.config,
        host=args.host,
        priority=args.priority,
        after=args.after,
        gpu_gb=args.gpu_gb,
        memory_gb=args.memory_gb,
        role=args.role,
        gpus=args.gpus,
        runtime=args.runtime,
        nodes=args.nodes,
        args=args.args,
    )
    return carry_out(args, paths, plan, after=_until_good)


def cancel(args: argparse.Namespace, paths: Paths) -> int:
    """Cancels a job, or all of a pipeline; with ``--wait`` stays until all have ended."""

    async def after(store: StateStore, outcome: Outcome) -> tuple[Exit, dict[str, Any]]:
        rows = await _follow(store, [str(name) for name in outcome.operation.result["jobs"]])
        return Exit.DONE, {"jobs": [_brief(row) for row in rows]}

    return carry_out(args, paths, plan_cancel(paths, job=args.job), after=after)


def retry(args: argparse.Namespace, paths: Paths) -> int:
    """Runs an ended job again; with ``--wait`` stays until it has ended and exits with its outcome."""

    return carry_out(args, paths, plan_retry(paths, job=args.job), after=_until_good)


async def _until_good(store: StateStore, outcome: Outcome) -> tuple[Exit, dict[str, Any]]:
    rows = await _follow(store, [str(name) for name in outcome.operation.result["jobs"]])
    good = all(row.state in GOOD for row in rows)
    return Exit.DONE if good else Exit.FAILED, {"jobs": [_brief(row) for row in rows]}


def _brief(row: JobRow) -> dict[str, Any]:
    return {
        "id": row.id, "kind": row.kind, "config": row.config, "state": row.state, "why": row.why,
        "attempt": row.attempt, "exit_code": row.exit_code, "result": row.result,
    }  # fmt: skip


async def _follow(store: StateStore, names: list[str]) -> list[JobRow]:
    """Waits until all these jobs have ended or cannot go on, and tells every change of state."""
    shown: dict[str, str] = {}
    while True:
        await keep_supervised(store.paths)
        rows = [row for name in names if (row := await job_row(store, name)) is not None]
        for row in rows:
            text = f"{row.id} {row.title}: {row.state}{f' ({row.why})' if row.why else ''}"
            if shown.get(row.id) != text:
                shown[row.id] = text
                say(text)
        stuck = any(row.state == "unknown" for row in rows)
        if all(row.state in ENDED or (stuck and row.state in ("unknown", "waiting")) for row in rows):
            return rows
        await asyncio.sleep(POLL_S)


def list_jobs(args: argparse.Namespace, paths: Paths) -> int:
    """Jobs, newest first."""
    states = get_args(JobState)
    if args.state and args.state not in states:
        raise UsageError("unknown state", where=args.state, hint="one of " + " ".join(states))
    config = parse_config(args.config).key if args.config else None
    rows, pipelines = asyncio.run(_rows(paths)) if paths.state_db.exists() else ((), ())
    rows = tuple(
        row for row in rows if (not args.state or row.state == args.state) and (not config or row.config == config)
    )
    if args.json:
        print(to_json(rows))
        return Exit.DONE
    if not rows:
        say("no jobs")
        return Exit.DONE
    print(
        table(
            ("JOB", "KIND", "CONFIG", "STATE", "HOST", "PIPELINE", "PROGRESS", "CREATED", "WHY"),
            [
                (
                    row.id, f"{row.kind} {row.part}".rstrip(), row.config, row.state, row.host or "-",
                    row.pipeline or "-", progress_text(row), f"{row.created_at:%Y-%m-%d %H:%M:%S}", row.why,
                )
                for row in rows
            ],
        )
    )  # fmt: skip
    open_ones = Counter(row.state for row in pipelines if row.state not in ENDED)
    if open_ones and running_pid(paths) is None:
        say("the supervisor is down; ringrift supervise --detach starts it")
    return Exit.DONE


async def _rows(paths: Paths) -> tuple[tuple[JobRow, ...], tuple[PipelineRow, ...]]:
    async with await StateStore.open(paths) as store:
        return await job_rows(store), await pipeline_rows(store)


def progress_text(row: JobRow) -> str:
    """The last progress of a job in a few words."""
    if row.progress is None:
        return "-"
    of = f"/{row.progress.total:g}" if row.progress.total is not None else ""
    left = f", {row.progress.eta_s:.0f} s left" if row.progress.eta_s is not None and row.state == "running" else ""
    return f"{row.progress.done:g}{of} {row.progress.unit}{left}"


def show(args: argparse.Namespace, paths: Paths) -> int:
    """Everything known of one job (of a pipeline: of each of its jobs)."""
    found = asyncio.run(_found(paths, args.job))
    if args.json:
        values = [to_object(row) for row in found]
        print(to_json(values[0] if len(values) == 1 else values))
        return Exit.DONE
    print("\n\n".join("\n".join(describe(row)) for row in found))
    return Exit.DONE


async def _found(paths: Paths, name: str) -> tuple[JobRow, ...]:
    async with await open_existing(paths, name) as store:
        return await resolve(store, name)


def to_object(row: JobRow) -> dict[str, Any]:
    """A job as JSON: the row, and for an unknown outcome what it follows from and the ways out."""
    value = dataclasses.asdict(row)
    if row.state == "unknown" and row.attempts:
        value["derivation"] = dict(derivation(row.attempts[-1], _time))
        value["ways_out"] = [dataclasses.asdict(way) | {"command": command_of(way, row)} for way in ways_out(row)]
    return value


def describe(row: JobRow) -> list[str]:
    """A job as an operator reads it: how it stands, its attempts, and what to do where nobody knows how it ended."""
    silent = silence(row, _time)
    pairs = {
        "job": f"{row.id}  {row.title}",
        "state": f"{row.state}{f': {row.why}' if row.why else ''}",
        **({"silent": silent} if silent else {}),
        "host": row.host or "none yet",
        "pipeline": row.pipeline or "none",
        **({"gang": f"{row.gang}, member {row.part}"} if row.gang else {}),
        "priority": str(row.priority),
        "created": _time(row.created_at),
        "started": _time(row.started_at),
        "ended": _time(row.ended_at),
        "progress": progress_text(row),
        "command": " ".join(row.argv) or "none yet",
        "log": row.log_path or "none yet",
    }
    lines = [f"{name:<10}{value}" for name, value in pairs.items()]
    lines += [f"{'waits' if i == 0 else '':<10}{text}" for i, text in enumerate(waits(row))]
    lines += [f"{'result' if i == 0 else '':<10}{name} {value}" for i, (name, value) in enumerate(row.result.items())]
    if row.attempts:
        headings = ("ATTEMPT", "HOST", "OUTCOME", "STARTED", "ENDED", "EXIT", "WHY")
        lines += ["", *table(headings, map(_attempt_line, reversed(row.attempts))).splitlines()]
    if row.state == "unknown" and row.attempts:
        lines += ["", "why the outcome is unknown:"]
        lines += [f"  {name:<15}{text}" for name, text in derivation(row.attempts[-1], _time)]
        lines += ["", "ways out:", f"  {'see its log':<15}ringrift jobs logs {row.id}"]
        for way in ways_out(row):
            lines.append(f"  {way.name:<15}{way.text}")
            lines += [f"  {'':<15}{command_of(way, row)}"] if way.action else []
    return [plain(line) for line in lines]


def _attempt_line(one: AttemptRow) -> tuple[str, ...]:
    times = _time(one.started_at), _time(one.ended_at)
    return one.attempt, one.host, outcome_word(one), *times, exit_word(one), one.reason


def command_of(way: WayOut, row: JobRow) -> str:
    """The verb of a way out; empty where there is nothing to call."""
    return f"ringrift {way.action.replace('.', ' ')} {row.id}" if way.action else ""


def waits(row: JobRow) -> list[str]:
    """Why a waiting job has no place, a line per reason with the hosts it holds for."""
    return [f"{' '.join(hosts)}: {reason}" for reason, hosts in row.waits]


def _time(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at is not None else "-"


def logs(args: argparse.Namespace, paths: Paths) -> int:
    """Prints a job's log; with ``--follow`` until the job has ended, through all its attempts."""
    if args.tail is not None and args.tail < 0:
        raise UsageError("--tail has to be at least 0", where=str(args.tail))
    if args.json and args.follow:
        raise UsageError("--json and --follow exclude each other", hint="JSON is the log as it is now")
    if args.json:
        found = asyncio.run(_found(paths, args.job))
        values = [_log_object(paths, row, args.tail) for row in found]
        print(to_json(values[0] if len(values) == 1 else values))
        return Exit.DONE
    try:
        return asyncio.run(_logs(paths, args.job, args.tail, args.follow))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _log_object(paths: Paths, row: JobRow, tail: int | None) -> dict[str, Any]:
    """The log of a job's last attempt as JSON; ``offset`` is the byte at which its first line here begins."""
    offset, data = 0, b""
    if row.log_path:
        path = Path(row.log_path)
        offset = 0 if tail is None else tail_offset(path, tail)
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read()
    lines = data.decode("utf-8", "replace").split("\n")
    return {
        "job": row.id, "attempt": row.attempt, "state": row.state, "path": row.log_path, "offset": offset,
        "next": offset + len(data), "lines": lines[:-1] if lines[-1] == "" else lines,
    }  # fmt: skip


async def _logs(paths: Paths, name: str, tail: int | None, follow: bool) -> int:
    async with await open_existing(paths, name) as store:
        rows = await resolve(store, name)
        for first in rows:
            if len(rows) > 1:
                say(f"== {first.id} {first.title}")
            row: JobRow | None = first
            key, offset = first.attempt, 0
            if key and tail is not None:
                offset = tail_offset(paths.jobs / key / "log", tail)
            while row is not None:
                over = row.state in ENDED or row.state == "unknown"
                if key:
                    offset = _copy(paths.jobs / key / "log", offset)
                if not follow:
                    break
                if row.attempt != key:  # an attempt is over as soon as there is the next one
                    key, offset = row.attempt, 0
                    continue
                if over:
                    break
                await asyncio.sleep(POLL_S)
                row = await job_row(store, first.id)
            if follow and row is not None and len(rows) == 1:
                say(f"{row.id} {row.state}{f': {row.why}' if row.why else ''}")
    return Exit.DONE


def _copy(path: Path, offset: int) -> int:
    """Prints what a log has from a byte offset on; returns the offset after it."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            while block := stream.read(BLOCK):
                sys.stdout.buffer.write(block)
                offset += len(block)
    except FileNotFoundError:
        return offset
    sys.stdout.buffer.flush()
    return offset


def tail_offset(path: Path, lines: int) -> int:
    """The byte offset from which a file has its last ``lines`` lines."""
    try:
        with path.open("rb") as stream:
            position = end = stream.seek(0, os.SEEK_END)
            data = b""
            # The newline that ends the last line begins no further one.
            while position > 0 and data[:-1].count(b"\n") < lines:
                step = min(BLOCK, position)
                position -= step
                stream.seek(position)
                data = stream.read(step) + data
    except FileNotFoundError:
        return 0
    if lines == 0:
        return end
    cut = len(data) - 1
    for _ in range(lines):
        cut = data.rfind(b"\n", 0, max(0, cut))
        if cut < 0:
            return position
    return position + cut + 1


def events(args: argparse.Namespace, paths: Paths) -> int:
    """What happened, newest last."""
    if args.last < 1:
        raise UsageError("--last has to be at least 1", where=str(args.last))
    found = asyncio.run(_events(paths, args.last, args.type)) if paths.state_db.exists() else ()
    if args.json:
        print(to_json(found))
        return Exit.DONE
    for event in found:
        line = f"{event.at:%Y-%m-%d %H:%M:%S}  {event.type:<22}  {event.subject:<14}  {_payload(event)}"
        print(plain(line.rstrip()))
    return Exit.DONE


async def _events(paths: Paths, last: int, kind: str | None) -> tuple[EventRow, ...]:
    async with await StateStore.open(paths) as store:
        return await store.events(last=last, type=kind.upper() if kind else None)


def _payload(event: EventRow) -> str:
    simple = {name: value for name, value in event.payload.items() if isinstance(value, str | int | float) and value}
    return " ".join(f"{name}={value}" for name, value in simple.items())


def supervise(args: argparse.Namespace, paths: Paths) -> int:
    """Runs the supervisor here, starts it in the background, or stops the one that runs."""
    if args.stop and args.detach:
        raise UsageError("--stop and --detach exclude each other")
    if args.stop:
        say("stopped; jobs go on" if stop(paths) else "there was no supervisor")
    elif args.detach:
        say(f"the supervisor runs (pid {ensure_running(paths)})")
    else:
        run_supervisor(paths)
    return Exit.DONE
