"""The delivery of one file to one host as a state machine: pure, without clocks, sockets or files.

    planned -> queued -> preflight -> fetching -> fetched -> verifying -> published -> done
                 ^          |  |         |                      |
                 |          v  +---------|----------------------|--> published   (the host had it already)
                 |       blocked         v                      v
                 +----------+-------- (queued again, same or next transport)
    any but published and done -> failed | cancelled;  failed, cancelled -> queued when somebody wants it again

What must hold, whatever the order of events: *published* is entered only with a receipt of the receiver for exactly
these bytes; a transport is never changed while an engine may still write (an ended engine is an event of its own); no
state but the terminal ones has no way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from backend.distribution.reasons import Course, Failure, Reason


class State(StrEnum):
    PLANNED = "planned"  # confirmed, not begun
    QUEUED = "queued"  # waits for its wave, a slot, or the end of a pause
    PREFLIGHT = "preflight"  # the host is asked for space, its stage is made, what it has is looked at
    BLOCKED = "blocked"  # the host must change first; looked at again now and then
    FETCHING = "fetching"  # an engine works
    FETCHED = "fetched"  # an engine says that it is all there
    VERIFYING = "verifying"  # the receiver hashes, loads and publishes it
    PUBLISHED = "published"  # in place, receipt stored; may be giving to others
    DONE = "done"  # in place, and nothing of the transfer runs there any more
    FAILED = "failed"
    CANCELLED = "cancelled"


LIVE = frozenset({State.PUBLISHED, State.DONE})
"""The host has the file in place and has proved it."""
ENDED = frozenset({State.DONE, State.FAILED, State.CANCELLED})
SETTLED = LIVE | ENDED
"""States that whoever waits for the delivery waits for."""
WORKING = frozenset({State.PREFLIGHT, State.FETCHING, State.FETCHED, State.VERIFYING})

TRIES = 2
"""Starts of one transport at one host before the next one has its turn."""
_OF_BYTES = frozenset({Reason.CORRUPT, Reason.TRUNCATED})
"""What proving can find that another transport may mend."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row: a file on its way to a host.

    Attributes:
        routes: transports that may be used, in order.
        route: index of the present one.
        tries: how often the present one was started since it became the present one, or the host was asked to prove
            bytes that were there already.
        failure: the last trouble; kept for show until the next success.
        receipt: SHA-256 that the receiver vouched for; empty before that.
        wanted: SHA-256 of the file.
        attempts: how often an engine was started in all.
    """

    host: str
    wanted: str
    routes: tuple[str, ...]
    state: State = State.PLANNED
    route: int = 0
    tries: int = 0
    attempts: int = 0
    failure: Failure | None = None
    receipt: str = ""

    @property
    def transport(self) -> str:
        """Name of the present transport; empty when none is left."""
        return self.routes[self.route] if self.route < len(self.routes) else ""


# What happens to a delivery


@dataclass(frozen=True, slots=True)
class Queue:
    """It may go on: the wave has come, or somebody wants it again (then all routes count again)."""

    afresh: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """The preflight begins."""


@dataclass(frozen=True, slots=True)
class Start:
    """The present transport's engine begins."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """The engine claims that the file is whole."""


@dataclass(frozen=True, slots=True)
class Check:
    """The receiver begins to verify and publish."""


@dataclass(frozen=True, slots=True)
class Proved:
    """The receiver has published it and vouches for these bytes."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Trouble; the engine, if there was one, has ended."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Interrupted:
    """What was under way is not under way any more, for no fault of anybody: a pause, or a new supervisor."""


@dataclass(frozen=True, slots=True)
class Release:
    """Nobody needs the host as a source any more."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody does not want it any more; the engine has ended."""


Event = Queue | Ask | Start | Arrived | Check | Proved | Failed | Interrupted | Release | Cancel


class ImpossibleError(Exception):
    """An event that cannot happen in this state: a bug of whoever sent it."""


_FROM: dict[type, frozenset[State]] = {
    Queue: frozenset({State.PLANNED, State.BLOCKED, State.QUEUED, State.FAILED, State.CANCELLED}),
    Ask: frozenset({State.QUEUED}),
    Start: frozenset({State.PREFLIGHT}),
    Arrived: frozenset({State.FETCHING}),
    Check: frozenset({State.FETCHED, State.PREFLIGHT}),
    Proved: frozenset({State.VERIFYING, State.PREFLIGHT}),
    Failed: frozenset({State.QUEUED, *WORKING}),
    Interrupted: WORKING,
    Release: frozenset({State.PUBLISHED}),
    Cancel: frozenset(State) - SETTLED,
}


def step(row: Delivery, event: Event) -> Delivery:
    """The row after the event.

    Raises:
        ImpossibleError: the event cannot happen in this state.
    """
    if row.state not in _FROM[type(event)]:
        raise ImpossibleError(f"{type(event).__name__} of a delivery that is {row.state}")
    match event:
        case Queue(afresh):
            if afresh or row.state in ENDED:
                return replace(row, state=State.QUEUED, route=0, tries=0, failure=None)
            return replace(row, state=State.QUEUED)
        case Ask():
            return replace(row, state=State.PREFLIGHT)
        case Start():
            return replace(row, state=State.FETCHING, tries=row.tries + 1, attempts=row.attempts + 1)
        case Arrived():
            return replace(row, state=State.FETCHED)
        case Check():  # counted here where no start was
            return replace(row, state=State.VERIFYING, tries=row.tries + (row.state is State.PREFLIGHT))
        case Proved(sha256):
            if sha256 != row.wanted:
                raise ImpossibleError("a receipt for other bytes")
            return replace(row, state=State.PUBLISHED, receipt=sha256, failure=None)
        case Failed(failure):
            return _after(row, failure)
        case Interrupted():  # its start is not held against the transport
            return replace(row, state=State.QUEUED, tries=max(0, row.tries - (row.state is not State.PREFLIGHT)))
        case Release():
            return replace(row, state=State.DONE)
        case Cancel():
            return replace(row, state=State.CANCELLED, failure=Failure(Reason.CANCELLED, ""))


def _after(row: Delivery, failure: Failure) -> Delivery:
    """What a failure leads to."""
    started = row.state in (State.FETCHING, State.FETCHED, State.VERIFYING)
    unproved = row.state is State.VERIFYING and failure.reason not in _OF_BYTES
    match failure.reason.course:
        case Course.AGAIN if unproved or not started:  # no other transport would help
            tries = row.tries + (not started)
            return replace(row, state=State.QUEUED if tries <= TRIES else State.FAILED, tries=tries, failure=failure)
        case Course.AGAIN if row.tries < TRIES:
            return replace(row, state=State.QUEUED, failure=failure)
        case Course.AGAIN | Course.NEXT:
            if row.route + 1 < len(row.routes):
                return replace(row, state=State.QUEUED, route=row.route + 1, tries=0, failure=failure)
            return replace(row, state=State.FAILED, failure=failure)
        case Course.WAIT:
            return replace(row, state=State.BLOCKED, tries=max(0, row.tries - started), failure=failure)
        case Course.STOP | Course.HALT:
            return replace(row, state=State.FAILED, failure=failure)
        case Course.NONE:
            return replace(row, state=State.CANCELLED, failure=failure)


# A transfer: one file, all its hosts


def summary(rows: Sequence[Delivery]) -> State:
    """The state of a transfer as a whole: the least that is true of all its deliveries that still go on."""
    going = [row.state for row in rows if row.state not in SETTLED]
    if going:
        busy = [state for state in going if state in WORKING]
        return min(busy or going, key=list(State).index)
    states = {row.state for row in rows}
    for state in (State.FAILED, State.CANCELLED, State.PUBLISHED):
        if state in states:
            return state
    return State.DONE
