"""What is to be done next about a transfer: facts in, actions out, without clocks, sockets or files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from backend.distribution.ledger import Placed, Transfer
from backend.distribution.reasons import Course, Failure, Reason
from backend.distribution.states import ENDED, LIVE, SETTLED, State
from backend.distribution.transports.base import Observation

WAVE_S = 120.0
"""Seconds that hosts without GPUs wait for those with, at most."""
BARRIER_S = 10.0
"""Seconds that hosts wait for one another before a swarm begins; late ones join it."""
STALL_S = 20.0
SLOW_STALL_S = 60.0
SLOW_MBIT = 20.0
BEHIND_S = 60.0
"""Seconds far behind the others (:mod:`backend.distribution.behind`) after which an engine has stalled at a host."""
MASS_SHARE, MASS_LEAST, MASS_S = 0.2, 3, 120.0
"""When more than this share of hosts, and at least so many, fall back within so many seconds, the cause is common."""
PREFLIGHTS = 32
FILES_A_HOST = 2
LOOK_S, LOOK_MOST_S = 5.0, 60.0
"""Pauses between looks at a blocked host, doubled each time."""
AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is known of one delivery beside its row; times are of one clock that only goes on.

    Attributes:
        busy: something is being done with it now.
        ready_at: its preflight is over since then; None before that.
        seen: the engine's last word; None when no engine has it.
        gained_at: when its bytes last became more.
        behind_since: since when it is far slower than the others; None while it is not.
        failures: how often it has failed or been blocked in a row.
        failed_at: when it last did.
        elsewhere: deliveries of other transfers under way on the host.
        mbit: what is known of its link.
        second: another transfer brings the same bytes to the host, see :mod:`backend.distribution.same_bytes`.
    """

    busy: bool = False
    ready_at: float | None = None
    seen: Observation | None = None
    gained_at: float = 0.0
    failures: int = 0
    failed_at: float = -math.inf
    elsewhere: int = 0
    mbit: float | None = None
    behind_since: float | None = None
    second: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the decision depends on.

    Attributes:
        now: seconds of the same clock as in :class:`HostFacts`.
        wall: unix seconds, for what was stored.
        began: when this supervisor took the transfer up.
        many: names of transports whose hosts give to each other.
        open: names of transports with a delivery under way.
    """

    now: float
    wall: float
    began: float
    hosts: Mapping[str, HostFacts]
    many: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Queue:
    """Let it be worked on."""

    host: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """Ask the host."""

    host: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the transport for these hosts, or let them join."""

    transport: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """Have the receiver prove and publish it."""

    host: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the engine's part; then it has failed so."""

    host: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Interrupt:
    """End the engine's part for a pause."""

    host: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End it for good."""

    host: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Work on nothing of this transfer until a person has looked."""

    why: str


@dataclass(frozen=True, slots=True)
class Release:
    """Nobody needs these hosts as sources: end the engines there and remove the stages."""

    hosts: tuple[str, ...]


Action = Queue | Prepare | Begin | Finish | Stop | Interrupt | Cancel | Pause | Release
_NOBODY = HostFacts()


@dataclass(slots=True)
class _Work:
    transfer: Transfer
    facts: Facts
    actions: list[Action] = field(default_factory=list)

    def of(self, row: Placed) -> HostFacts:
        return self.facts.hosts.get(row.host, _NOBODY)


def reconcile(transfer: Transfer, facts: Facts) -> list[Action]:
    """The next actions; none while everything takes its course."""
    work = _Work(transfer, facts)
    if transfer.cancel:
        _cancel(work)
    elif transfer.paused is not None:
        _hold(work)
    elif (halt := _halt(transfer)) is not None:
        _stop_all(work, halt)
    elif (why := _common_cause(transfer, facts)) is not None:
        return [Pause(why)]
    else:
        _go_on(work)
    _release(work)
    return work.actions


def _cancel(work: _Work) -> None:
    for row in work.transfer.rows:
        if row.delivery.state not in SETTLED and not work.of(row).busy:
            work.actions.append(Cancel(row.host))


def _hold(work: _Work) -> None:
    """A paused transfer: engines end, what has arrived is still proved."""
    for row in work.transfer.rows:
        seen, state = work.of(row).seen, row.delivery.state
        if work.of(row).busy:
            continue
        if state is State.FETCHED or (state is State.FETCHING and seen is not None and seen.complete):
            work.actions.append(Finish(row.host))
        elif state in (State.FETCHING, State.PREFLIGHT, State.VERIFYING):
            work.actions.append(Interrupt(row.host))


def _halt(transfer: Transfer) -> Failure | None:
    """A failure of one host that says that the file itself is bad."""
    for row in transfer.rows:
        failure = row.delivery.failure
        if row.delivery.state is State.FAILED and failure is not None and failure.reason.course is Course.HALT:
            return failure
    return None


def _stop_all(work: _Work, failure: Failure) -> None:
    for row in work.transfer.rows:
        if row.delivery.state in SETTLED or work.of(row).busy:
            continue
        if row.delivery.state in (State.PLANNED, State.BLOCKED):
            work.actions.append(Queue(row.host))
        else:
            work.actions.append(Stop(row.host, failure))


def _common_cause(transfer: Transfer, facts: Facts) -> str | None:
    since = max(facts.wall - MASS_S, transfer.resumed_at)
    fell = [
        row for row in transfer.rows
        if row.fell_at > since and row.delivery.state not in SETTLED and not _lacks_engine(row.delivery.failure)
    ]  # fmt: skip
    if len(fell) < MASS_LEAST or len(fell) <= MASS_SHARE * len(transfer.rows):
        return None
    reasons = [row.delivery.failure.line() for row in fell if row.delivery.failure is not None]
    often = max(set(reasons), key=reasons.count) if reasons else "no reason was told"
    what = f"{len(fell)} of {len(transfer.rows)} hosts fell back within {MASS_S:.0f} s: {often}"
    return f"{what}; to go on: ringrift transfers resume {transfer.id}"


def _lacks_engine(failure: Failure | None) -> bool:
    """An engine that is not installed is missing for good, and known to be: the next one is the way, not a person."""
    return failure is not None and failure.reason in (Reason.NOT_HERE, Reason.NOT_THERE)


def _go_on(work: _Work) -> None:
    transfer, facts = work.transfer, work.facts
    preflights = sum(row.delivery.state is State.PREFLIGHT for row in transfer.rows)
    waiting: dict[str, list[Placed]] = {}
    for row in transfer.rows:
        about, state = work.of(row), row.delivery.state
        if about.busy or state in SETTLED:
            continue
        match state:
            case State.PLANNED if _its_turn(work, row.wave):
                work.actions.append(Queue(row.host))
            case State.BLOCKED if facts.now >= about.failed_at + _pause(about.failures):
                work.actions.append(Queue(row.host))
            case State.QUEUED:
                soon = facts.now < about.failed_at + AGAIN_S * min(about.failures, 5)
                if not soon and not about.second and preflights < PREFLIGHTS and about.elsewhere < FILES_A_HOST:
                    preflights += 1
                    work.actions.append(Prepare(row.host))
            case State.PREFLIGHT if about.ready_at is not None:
                waiting.setdefault(row.delivery.transport, []).append(row)
            case State.FETCHING if about.seen is not None:
                _watch(work, row, about.seen, about)
            case State.FETCHED:
                work.actions.append(Finish(row.host))
            case State.PREFLIGHT | State.FETCHING | State.VERIFYING:  # whatever was at it broke off without a word
                work.actions.append(Interrupt(row.host))
    for name, rows in waiting.items():
        if name not in facts.many or _assembled(work, name, rows):
            work.actions.append(Begin(name, tuple(row.host for row in rows)))


def _its_turn(work: _Work, wave: int) -> bool:
    """Hosts without GPUs wait until those with have what they need, are stuck, or the time is up."""
    if wave == 0 or work.facts.now >= work.facts.began + WAVE_S:
        return True
    done = SETTLED | {State.BLOCKED, State.FETCHED, State.VERIFYING}
    return all(row.delivery.state in done for row in work.transfer.rows if row.wave < wave)


def _pause(failures: int) -> float:
    return min(LOOK_MOST_S, LOOK_S * 2.0 ** min(failures - 1, 10)) if failures else 0.0


def _assembled(work: _Work, name: str, rows: list[Placed]) -> bool:
    """Whether a swarm begins: it runs already, everybody is there, or those who are have waited long enough."""
    if name in work.facts.open:
        return True
    first = min(work.of(row).ready_at or 0.0 for row in rows)
    if work.facts.now >= first + BARRIER_S:
        return True
    coming = {State.QUEUED, State.PREFLIGHT}
    return not any(
        row.delivery.state in coming and row.delivery.transport == name and work.of(row).ready_at is None
        for row in work.transfer.rows
    )


def _watch(work: _Work, row: Placed, seen: Observation, about: HostFacts) -> None:
    if seen.complete:
        work.actions.append(Finish(row.host))
    elif seen.failure is not None:
        work.actions.append(Stop(row.host, seen.failure))
    elif not seen.waits:
        patience = SLOW_STALL_S if about.mbit is not None and about.mbit < SLOW_MBIT else STALL_S
        quiet = work.facts.now - about.gained_at
        if quiet >= patience:
            what = f"no byte for {quiet:.0f} s" + (f"; {seen.fault}" if seen.fault else "")
            work.actions.append(Stop(row.host, Failure(Reason.STALLED, what)))
        elif about.behind_since is not None and work.facts.now - about.behind_since >= BEHIND_S:
            what = f"less than a tenth of the others' rate for {BEHIND_S:.0f} s"
            work.actions.append(Stop(row.host, Failure(Reason.STALLED, what)))


def _release(work: _Work) -> None:
    """Hosts that are live may go when nobody is under way any more; blocked hosts will be served by the head."""
    needed = any(row.delivery.state not in ENDED | LIVE | {State.BLOCKED} for row in work.transfer.rows)
    if needed:
        return
    hosts = tuple(
        row.host for row in work.transfer.rows if row.delivery.state is State.PUBLISHED and not work.of(row).busy
    )
    if hosts:
        work.actions.append(Release(hosts))
