"""What is to be done about jobs, as plain values; decided by :mod:`backend.jobs.reconcile`, done by the keeper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Place:
    """Commit the decision to run attempt ``n`` of a job on a host, with some of its GPUs."""

    job: str
    n: int
    host: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlaceGang:
    """Commit the decision to run all members of a gang, together; the first one's processes get the lowest ranks."""

    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Push:
    """Bring an attempt's inputs to its host, before it is started."""

    key: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Bring an attempt's outputs here, and make them the job's."""

    key: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Leave an attempt's outputs where they are: the job was cancelled meanwhile."""

    key: str


@dataclass(frozen=True, slots=True)
class Start:
    """Ask the host to start an attempt; asking again is harmless."""

    key: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask the host to end an attempt, or to make sure that it never starts."""

    key: str


@dataclass(frozen=True, slots=True)
class CheckOutput:
    """Find out whether the output that attempt ``n`` would make is there already and valid."""

    job: str
    n: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Note that a job's output is there; nothing needs to run."""

    job: str
    reason: str


Action: TypeAlias = Place | PlaceGang | Push | Start | Collect | Abandon | Cancel | CheckOutput | Settle
