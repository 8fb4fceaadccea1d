"""Hosts, and what they said of themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

HostState = Literal[
    "up",  # it answered at the last look
    "down",  # it did not answer
    "new",  # its key is not enrolled
    "refused",  # it answers, but key or login are refused: nothing is tried until an operator has looked
    "off",  # its status in the hosts file says that it is not in use
    "unknown",  # it was not asked, or too long ago
]


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One GPU at one moment; bytes, percent, degrees Celsius."""

    index: int
    name: str
    memory_total: int | None = None
    memory_used: int | None = None
    busy: float | None = None
    celsius: float | None = None


@dataclass(frozen=True, slots=True)
class HostSample:
    """Resources of a host at one moment (of the head's clock); sizes in bytes, load as the 1 minute average."""

    at: datetime
    load: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    disk_free: int | None = None
    disk_total: int | None = None
    gpus: tuple[GpuSample, ...] = ()


@dataclass(frozen=True, slots=True)
class HostTrouble:
    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class HostRow:
    """One host: what its file says of it, and what it said of itself.

    ``facts`` holds what the last probe found, and after a bootstrap ``python`` (the interpreter that runs this
    project's code there), ``bundle`` (the hash of that code) and ``root`` (where its data lies).
    """

    name: str
    state: HostState
    why: str = ""
    role: str = ""
    address: str = ""  # user@host:port, empty for this machine
    groups: tuple[str, ...] = ()
    local: bool = False
    runtime: str = "builtin"
    slots: int = 1  # jobs at once
    jobs: int = 0  # placed, running or being cancelled
    drained: str | None = None  # why no new jobs are placed, or None
    fingerprint: str | None = None  # of the enrolled key
    facts: dict[str, Any] = field(default_factory=dict)
    facts_at: datetime | None = None
    seen_at: datetime | None = None  # the last answer
    latency_ms: float | None = None
    samples: tuple[HostSample, ...] = ()  # oldest first
    troubles: tuple[HostTrouble, ...] = ()  # newest first
    changed: tuple[str, ...] = ()  # how the hosts file differs from what the supervisor goes by
    mbit: float | None = None  # of its link, as the hosts file says

    @property
    def ready(self) -> bool:
        """Whether this project's code, or a checkout that it can use, was set up there."""
        return self.local or bool(self.facts.get("bundle") or self.facts.get("commands"))
