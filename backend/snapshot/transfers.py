"""Files on their way to hosts, and what hosts hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


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
    unreached: tuple[tuple[str, str], ...] = ()  # members of its swarm that it does not get through to, and why
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
    sha256: str  # of the last receipt, or of a newer file that did not come there
    held: str | None  # what lay there at the last look; empty for nothing, None before the first
    why: str
    transfer: str
    published_at: datetime
    audited_at: datetime | None = None

    @property
    def drifted(self) -> bool:
        return self.held is not None and self.held != self.sha256
