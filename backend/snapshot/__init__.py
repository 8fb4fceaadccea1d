"""What a reader sees of a root at one moment: plain data, shared by the console's screens and ``ringrift status``.

Unknown is None, never a guess: a database that cannot be read gives None and a note, not a zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from backend.snapshot.hosts import GpuSample, HostRow, HostSample, HostState, HostTrouble
from backend.snapshot.jobs import BUSY, ENDED, AttemptRow, JobProgress, JobRow, JobState, PipelineRow
from backend.snapshot.models import AlarmRow, AlarmState, ConfigRow, DataStatus, ModelRow, PolicyRow, WinRate
from backend.snapshot.transfers import DeliveryRow, HoldingRow, Limits, TransferRow

__all__ = [
    "BUSY",
    "ENDED",
    "AlarmRow",
    "AlarmState",
    "AttemptRow",
    "ConfigRow",
    "DataStatus",
    "DeliveryRow",
    "EventRow",
    "GpuSample",
    "HoldingRow",
    "HostRow",
    "HostSample",
    "HostState",
    "HostTrouble",
    "JobProgress",
    "JobRow",
    "JobState",
    "Limits",
    "ModelRow",
    "Need",
    "OperationRow",
    "PipelineRow",
    "PolicyRow",
    "Snapshot",
    "SupervisorRow",
    "TransferRow",
    "WinRate",
]


@dataclass(frozen=True, slots=True)
class EventRow:
    id: int
    at: datetime
    type: str
    subject: str
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OperationRow:
    id: str
    action: str
    title: str
    state: Literal["pending", "running", "done", "failed", "refused"]
    created_at: datetime
    by: str
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def progress(self) -> str:
        """Where it is, e.g. ``step 3 of 5: testing it``; empty when it does not say."""
        at = self.result.get("progress") if self.state == "running" else None
        return f"step {at['n']} of {at['of']}: {at['what']}" if at else ""


@dataclass(frozen=True, slots=True)
class SupervisorRow:
    alive: bool
    pid: int | None = None
    since: datetime | None = None
    lag_ms: float | None = None  # worst loop lag of the last minute
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Something that waits for the operator: what, and the action that deals with it."""

    text: str
    subject: str
    screen: Literal["jobs", "models", "pulse", "hosts", "transfers"]
    severity: Literal["info", "warning", "error"] = "warning"


@dataclass(frozen=True, slots=True)
class Snapshot:
    root: str
    revision: int
    taken_at: datetime
    configs: tuple[ConfigRow, ...] = ()
    jobs: tuple[JobRow, ...] = ()
    pipelines: tuple[PipelineRow, ...] = ()
    models: tuple[ModelRow, ...] = ()
    operations: tuple[OperationRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    troubles: tuple[EventRow, ...] = ()  # of types that need the operator, each subject's last one
    supervisor: SupervisorRow = SupervisorRow(alive=False)
    needs: tuple[Need, ...] = ()
    policies: tuple[PolicyRow, ...] = ()
    alarms: tuple[AlarmRow, ...] = ()  # those that are open
    hosts: tuple[HostRow, ...] = ()
    transfers: tuple[TransferRow, ...] = ()  # open ones and the newest others, oldest first
    holdings: tuple[HoldingRow, ...] = ()
    limits: Limits = field(default_factory=Limits)  # what all transfers share
    _live: dict[str, tuple[int, int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def live_hosts(self, sha256: str) -> tuple[int, int]:
        """On how many hosts a file is live, of how many that were to have it; (0, 0) when nobody was."""
        if not self._live:
            self._live.update(self._count_live())
        return self._live.get(sha256, (0, 0))

    def _count_live(self) -> dict[str, tuple[int, int]]:
        """:meth:`live_hosts` of every file, for a screen asks it of every model that it shows."""
        wanted: dict[str, set[str]] = {}
        live: dict[str, set[str]] = {}
        for row in self.transfers:
            wanted.setdefault(row.sha256, set()).update(host.host for host in row.hosts)
        for held in self.holdings:
            wanted.setdefault(held.sha256, set()).add(held.host)
            live.setdefault(held.held if held.held is not None else held.sha256, set()).add(held.host)
        known = (wanted.keys() | live.keys()) - {""}  # a file that is not there, or that nobody has hashed
        return {name: (len(live.get(name, ())), len(wanted.get(name, ()))) for name in known}
