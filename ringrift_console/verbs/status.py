"""``ringrift status``: one page of a root, and its JSON."""

from __future__ import annotations

import argparse
import asyncio
import sys

from backend.errors import Exit
from backend.fleet.hosts import load_hosts
from backend.overview import read_snapshot
from backend.paths import Paths
from backend.snapshot import ENDED, ConfigRow, JobRow, ModelRow, Snapshot
from backend.text import plain
from ringrift_console.verbs.common import table, to_json


def status(args: argparse.Namespace, paths: Paths) -> int:
    """Prints the status of a root; a root that is not there yet is shown as empty and stays so."""
    load_hosts(paths.hosts_yaml)
    snapshot = asyncio.run(read_snapshot(paths))
    if getattr(args, "json", False):
        sys.stdout.write(to_json(snapshot) + "\n")
    else:
        sys.stdout.write(page(snapshot) + "\n")
    return Exit.DONE


def page(snapshot: Snapshot) -> str:
    """The status as plain text, at most 80 columns unless names are long."""
    supervisor = snapshot.supervisor
    state = f"running (pid {supervisor.pid})" if supervisor.alive else "not running"
    parts = [f"root        {plain(snapshot.root)}\nsupervisor  {state}"]
    rows = [_config(row) for row in snapshot.configs]
    parts.append(table(("CONFIG", "DATA", "GAMES", "SAMPLES", "MODELS", "BEST", "RANDOM", "HEURISTIC", "RUNS"), rows))
    live = [job for job in snapshot.jobs if job.state not in ENDED]
    if live:
        parts.append(table(("JOB", "KIND", "CONFIG", "STATE", "PROGRESS", "ETA"), map(_job, live)))
    else:
        parts.append("no job waits or runs")
    if snapshot.needs:
        parts.append("needs you:\n" + "\n".join(f"  {plain(need.text)}" for need in snapshot.needs))
    return "\n\n".join(parts)


def _config(row: ConfigRow) -> tuple[str, ...]:
    return (
        row.config,
        row.data,
        "?" if row.games is None else str(row.games),
        "-" if row.samples is None else str(row.samples),
        str(row.models),
        row.best.label if row.best else "-",
        rate_text(row.best, "random"),
        rate_text(row.best, "heuristic"),
        str(row.running or "-"),
    )


def rate_text(model: ModelRow | None, opponent: str) -> str:
    """Win rate of a model against an opponent in percent, ``-`` when no game was played."""
    if model is None:
        return "-"
    for rate in model.win_rates:
        if rate.opponent.split(":")[0] == opponent and rate.rate is not None:
            return f"{100 * rate.rate:.0f}%"
    return "-"


def _job(job: JobRow) -> tuple[str, ...]:
    progress = job.progress
    if progress is None:
        done, eta = "-", "-"
    else:
        done = f"{progress.done:g}/{progress.total:g} {progress.unit}" if progress.total else f"{progress.done:g}"
        eta = "-" if progress.eta_s is None else f"{progress.eta_s:.0f} s"
    return job.id, job.kind, job.config, job.state, done, eta
