"""What a reader sees of a root at one moment: plain data, shared by the console's screens and ``ringrift status``.

Unknown is None, never a guess: a database that cannot be read gives None and a note, not a zero.
"""

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

DataStatus = Literal["empty", "scaling", "ready", "unknown"]


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


@dataclass(frozen=True, slots=True)
class WinRate:
    """Results against one opponent; the interval is Wilson's at 95 %."""

    opponent: str  # with version, e.g. heuristic:1
    wins: int
    games: int
    unique: int
    crashes: int
    low: float
    high: float

    @property
    def rate(self) -> float | None:
        return self.wins / self.games if self.games else None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One immutable model; its label is ``<model_id>:v<version>``.

    ``foreign`` models are another installation's: shown, and not changed before they are adopted. Of a file that no
    registry names, ``name`` is its path and stands for the label, and its SHA-256 is unknown (``""``).
    """

    model_id: str
    version: int
    sha256: str
    config: str | None
    stage: str  # development, staging, production, archived, rejected
    path: str
    size: int
    created_at: datetime
    games: int = 0
    win_rates: tuple[WinRate, ...] = ()
    parent: str | None = None
    architecture: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    stage_since: datetime | None = None
    present: bool = True  # the file is where the registry says
    foreign: bool = False
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or f"{self.model_id}:v{self.version}"


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """What is done without being asked: one policy for a whole root, or for one config of it."""

    name: str  # archival, promotion
    mode: str  # off, dry-run, on
    config: str | None = None
    by: str = ""  # who set it; empty while nobody has
    at: datetime | None = None
    reason: str = ""

    @property
    def key(self) -> str:
        return f"{self.name} {self.config}" if self.config else self.name


AlarmState = Literal[
    "open",  # nobody has dealt with it
    "acknowledged",  # somebody looked, and left the model in production
    "closed",  # its model is out of production
]


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """What the monitor found wrong with a production model.

    Attributes:
        cause: ``missing``, ``changed``, ``unloadable``, ``drift``, ``serving``, ``crashes`` or ``win rate``.
        detail: in words, with numbers and intervals.
        target: label of the model that a rollback goes to; None when none was sound.
        evidence: what it follows from, as JSON values.
    """

    id: int
    config: str
    model: str
    sha256: str
    cause: str
    detail: str
    state: AlarmState
    raised_at: datetime
    target: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    acked_by: str = ""
    ack_reason: str = ""
    acked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConfigRow:
    config: str
    games: int | None
    ready_games: int
    data: DataStatus
    samples: int | None = None
    dataset_at: datetime | None = None
    best: ModelRow | None = None
    production: ModelRow | None = None
    models: int = 0
    running: int = 0
    note: str = ""  # why something is unknown


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


@dataclass(frozen=True, slots=True)
class Need:
    """Something that waits for the operator: what, and the action that deals with it."""

    text: str
    subject: str
    screen: Literal["jobs", "models", "pulse", "hosts", "transfers"]
    severity: Literal["info", "warning", "error"] = "warning"


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One file on its way to one host; ``state`` is of :class:`backend.distribution.states.State`."""

    host: str
    position: int
    wave: int  # 0 for hosts with GPUs
    state: str
    transport: str  # the one in use, or to be used next
    routes: tuple[str, ...]
    attempts: int = 0
    failure: str = ""  # the last trouble, in words
    reason: str = ""  # its kind
    have: int = 0  # bytes
    rate: float = 0.0  # bytes a second
    sent: int = 0  # bytes that the host gave to others
    peers: tuple[dict[str, Any], ...] = ()
    pieces: str = ""  # what it has, one digit a cell, 0 none .. 9 all
    fault: str = ""  # trouble that does not end it
    history: tuple[tuple[datetime, str, str], ...] = ()  # when, transport, what
    receipt: dict[str, Any] | None = None
    started_at: datetime | None = None
    live_at: datetime | None = None

    @property
    def live(self) -> bool:
        return self.state in ("published", "done")


@dataclass(frozen=True, slots=True)
class Limits:
    """What transfers may use, in Mbit/s; None is no limit."""

    head: float | None = None  # of this machine's uplink
    up: float | None = None  # what a host may give
    down: float | None = None  # what a host may take
    hosts: tuple[tuple[str, float | None, float | None], ...] = ()  # host, up, down: of these alone
    training: tuple[str, ...] = ()  # hosts that may use less because they train

    def of(self, host: str) -> tuple[float | None, float | None]:
        """(up, down) of a host."""
        return next(((up, down) for name, up, down in self.hosts if name == host), (self.up, self.down))


@dataclass(frozen=True, slots=True)
class TransferRow:
    """One file and everybody that is to have it."""

    id: str
    title: str
    cause: str
    name: str
    path: str
    sha256: str
    size: int
    kind: str
    model: str | None
    state: str
    paused: str | None
    by: str
    created_at: datetime
    started_at: datetime | None = None
    live_at: datetime | None = None  # when the last host had it, or would not get it
    ended_at: datetime | None = None
    head_sent: int = 0  # bytes of the file that left this machine
    head_rate: float = 0.0
    hosts: tuple[DeliveryRow, ...] = ()
    asked: Limits = Limits()  # what was set for this transfer
    limits: Limits = Limits()  # what is in force now

    @property
    def live(self) -> int:
        return sum(host.live for host in self.hosts)

    @property
    def copies(self) -> float:
        """What left this machine, in copies of the file."""
        return self.head_sent / self.size if self.size else 0.0


@dataclass(frozen=True, slots=True)
class HoldingRow:
    """What a host holds under a published name."""

    host: str
    name: str
    sha256: str  # what the last receipt says
    held: str | None  # what lay there at the last look; empty for nothing, None before the first
    why: str
    transfer: str
    published_at: datetime
    audited_at: datetime | None = None

    @property
    def drifted(self) -> bool:
        return self.held is not None and self.held != self.sha256


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
    supervisor: SupervisorRow = SupervisorRow(alive=False)
    needs: tuple[Need, ...] = ()
    policies: tuple[PolicyRow, ...] = ()
    alarms: tuple[AlarmRow, ...] = ()  # those that are open
    hosts: tuple[HostRow, ...] = ()
    transfers: tuple[TransferRow, ...] = ()  # open ones and the newest others, oldest first
    holdings: tuple[HoldingRow, ...] = ()
    limits: Limits = Limits()  # what all transfers share
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
