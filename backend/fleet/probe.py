"""Asks a host what it is and how it is doing, with one script on its standard input."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from backend.errors import RingRiftError, UnverifiedError
from backend.fleet import probe_host
from backend.fleet.errors import NoPython
from backend.fleet.hosts import Host
from backend.fleet.remote import NOT_FOUND, Remote
from backend.snapshot import GpuSample, HostSample

PROBE_S = 30.0
DEFAULT_FOLDER = "~/.local/state/ringrift"
OUTPUT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Clock:
    """How far a host's clock is ahead of ours, in seconds; the truth is within ``error``."""

    offset: float
    error: float


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of a host.

    Attributes:
        facts: None when only a sample was asked for.
        took_ms: from the question to the answer.
        pool: what :func:`backend.fleet.pool_look.look_at_pool` found; None of a host that is none.
    """

    at: datetime
    facts: dict[str, Any] | None
    sample: HostSample
    clock: Clock
    took_ms: float
    pool: dict[str, Any] | None = None


def folder_of(host: Host) -> str:
    """Where the host keeps what is ours: ``storage_paths.agent``, else a folder in the login's home."""
    if host.is_pool:  # its nodes have to see it
        return str(host.settings["shared_root"])
    paths = host.settings.get("storage_paths") or {}
    return str(paths.get("agent") or DEFAULT_FOLDER)


def python_of(host: Host) -> str:
    """The interpreter to ask: ``python_path``, that of ``venv_activate``, else ``python3``."""
    given = host.settings.get("python_path")
    if given:
        return str(given)
    activate = host.settings.get("venv_activate")
    if activate:  # "source ~/venv/bin/activate", or the path alone
        return str(Path(str(activate).split()[-1]).with_name("python"))
    return "python3"


async def probe(remote: Remote, host: Host, what: Literal["facts", "sample"] = "facts") -> Report:
    """Asks a host.

    Raises:
        NoPython: it has no usable Python 3.
        UnverifiedError: it answered something else.
        RingRiftError: it cannot be reached, see the way's own errors.
    """
    script = _script()
    python = expand_home(python_of(host))
    sent, started = time.time(), time.monotonic()
    done = await remote.exec(host, [*python, "-I", "-", what, folder_of(host)], stdin=script, timeout_s=PROBE_S)
    took = time.monotonic() - started
    if done.code == NOT_FOUND:
        raise NoPython(
            f"there is no {python_of(host)}",
            where=host.name,
            hint="install Python 3.11, or give python_path in hosts.yaml",
        )
    if done.code != 0:
        how = f"signal {done.signal}" if done.signal else f"exit code {done.code}"
        raise RingRiftError(f"the probe ended with {how}", where=host.name, hint=_tail(done.stderr or done.stdout))
    return read_report(host.name, done.stdout, sent, sent + took)


@cache
def _script() -> bytes:
    return Path(probe_host.__file__).read_bytes()


def here(host: Host, folder: str, what: Literal["facts", "sample"] = "facts") -> Report:
    """The same of this machine and the disk of ``folder``, without asking anybody; blocks for some milliseconds."""
    started = time.time()
    facts = probe_host.facts(folder) if what == "facts" else None
    value = probe_host.sample(folder)
    ended = time.time()
    answer = {"begun": started, "ended": ended, "folder": os.path.expanduser(folder), "facts": facts, "sample": value}
    line = f"{probe_host.MAGIC} {json.dumps(answer)}\n".encode()
    return read_report(host.name, line, started, ended)


def expand_home(python: str) -> list[str]:
    """A command whose path may begin with ``~``; no shell expands it, so ``env`` finds the home folder's program."""
    if python.startswith("~/"):
        return ["sh", "-c", 'exec "$HOME/$0" "$@"', python[2:]]
    return [python]


def read_report(name: str, output: bytes, sent: float, received: float) -> Report:
    """A probe's output as a report.

    Args:
        sent, received: unix seconds of our clock around the question.

    Raises:
        UnverifiedError: that is no report.
    """
    mark = probe_host.MAGIC.encode() + b" "
    line = next((line for line in reversed(output.splitlines()) if line.startswith(mark)), None)
    try:
        value = json.loads(line.removeprefix(mark)) if line is not None else None
        if not isinstance(value, dict):
            raise ValueError("no report in its output")
        begun, ended = float(value["begun"]), float(value["ended"])
        facts = value.get("facts")
        at = datetime.fromtimestamp(received, UTC)
        sample = sample_of(value["sample"], at)
    except (ValueError, KeyError, TypeError) as error:
        raise UnverifiedError("it answered something else", where=name, hint=f"{error}: {_tail(output)}") from None
    clock = clock_of(sent, begun, ended, received)
    if facts is not None:
        facts = dict(facts) | {"clock_offset_s": round(clock.offset, 3), "clock_error_s": round(clock.error, 3)}
        if value["sample"].get("gpu_problem"):
            facts["gpu_problem"] = str(value["sample"]["gpu_problem"])
        else:
            facts["gpus"] = [gpu.index for gpu in sample.gpus]
        facts["folder"] = value["folder"]
    return Report(at, facts, sample, clock, 1000 * (received - sent))


def clock_of(sent: float, begun: float, ended: float, received: float) -> Clock:
    """Offset of the host's clock from four times, and half of what the way took: RFC 5905, section 8."""
    offset = ((begun - sent) + (ended - received)) / 2
    return Clock(offset, max(0.0, ((received - sent) - (ended - begun)) / 2))


def sample_of(value: dict[str, Any], at: datetime) -> HostSample:
    """A sample as the script (or the database) has it. Raises KeyError, TypeError or ValueError when it is none."""
    gpus = tuple(
        GpuSample(
            index=int(gpu["index"]),
            name=str(gpu["name"]),
            memory_total=_integer(gpu.get("memory_total")),
            memory_used=_integer(gpu.get("memory_used")),
            busy=_number(gpu.get("busy")),
            celsius=_number(gpu.get("celsius")),
        )
        for gpu in value.get("gpus") or ()
    )
    return HostSample(
        at=at,
        load=_number(value.get("load")),
        memory_used=_integer(value.get("memory_used")),
        memory_total=_integer(value.get("memory_total")),
        disk_free=_integer(value.get("disk_free")),
        disk_total=_integer(value.get("disk_total")),
        gpus=gpus,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)


def _tail(output: bytes) -> str:
    words = " ".join(output.decode("utf-8", "replace").split())
    return words[-OUTPUT_CHARACTERS:] or "it said nothing"
