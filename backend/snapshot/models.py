"""Models, the configs that they play, and what watches over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal


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


DataStatus = Literal["empty", "scaling", "ready", "unknown"]


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
