"""Jobs, their attempts and pipelines."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

JobState = Literal[
    "waiting",  # for what it needs, or for a place
    "placing",  # the start was decided, the host has not answered yet
    "running",
    "collecting",  # it ended well, and its outputs are on their way here
    "cancelling",
    "done",
    "failed",
    "cancelled",
    "skipped",  # its output was already there and valid
    "blocked",  # something it needs failed or was cancelled
    "unknown",  # the host cannot say how it ended
]
ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled", "skipped", "blocked"})
BUSY: frozenset[str] = frozenset({"placing", "running", "collecting", "cancelling"})
"""States of jobs that take a place on a host."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The last progress line of a job; ``rate`` is units a second, ``eta_s`` seconds."""

    done: float
    total: float | None
    unit: str
    rate: float | None = None
    eta_s: float | None = None
    message: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One try at a job on one host; times are of this machine's clock but for ``started_at`` and ``ended_at``."""

    attempt: str  # its key, <job id>.<n>
    host: str
    phase: str  # see backend.jobs.model.Phase
    reason: str = ""  # why it failed, or was not started
    exit: dict[str, Any] | None = None  # the agent's exit record
    evidence: dict[str, Any] = field(default_factory=dict)  # what the phase follows from; see agent.examine
    placed_at: datetime | None = None
    started_at: datetime | None = None
    seen_at: datetime | None = None  # when its host first told this phase
    ended_at: datetime | None = None
    unreachable_since: datetime | None = None  # its host has not answered since


@dataclass(frozen=True, slots=True)
class JobRow:
    id: str
    kind: str  # selfplay, export, train, gauntlet
    config: str
    title: str
    state: JobState
    host: str | None
    attempt: str | None  # attempt key, <job id>.<n>
    pipeline: str | None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    progress: JobProgress | None = None
    why: str = ""  # why it waits, failed, or is unknown
    waits: tuple[tuple[str, tuple[str, ...]], ...] = ()  # per reason the hosts that have no place for it
    priority: int = 0
    exit_code: int | None = None
    log_path: str | None = None
    argv: tuple[str, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    attempts: tuple[AttemptRow, ...] = ()  # oldest first
    repeatable: bool = False  # its command goes on where it was stopped and makes nothing twice
    gang: str | None = None  # id of the first of the jobs that run together with it
    member: int = 1  # which of them it is
    members: int = 1  # how many there are

    @property
    def silent_since(self) -> datetime | None:
        """Since when the host of an open job has not answered: what is shown of the job is the last that is known."""
        return self.attempts[-1].unreachable_since if self.attempts and self.state not in ENDED else None

    @property
    def part(self) -> str:
        """Its place in its gang, e.g. ``2/3``; empty when it is in none."""
        return f"{self.member}/{self.members}" if self.gang else ""


@dataclass(frozen=True, slots=True)
class PipelineRow:
    id: str
    config: str
    state: JobState
    stages: tuple[str, ...]  # job ids in order
    created_at: datetime
    params: dict[str, Any] = field(default_factory=dict)
