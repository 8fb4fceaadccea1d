"""Jobs and attempts as plain values, and what follows from them; no clock, no I/O.

A job is work to be done; an attempt is one try at it on one host, under a key that the host executes at most once.
What is known of an attempt (its phase) and whether the host answers now (``unreachable``) are two things: silence
never changes a phase.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from backend.jobs.placement import Asks, Reasons
from backend.snapshot import ENDED, JobState

MAX_REPEATS = 5
"""Unknown outcomes in a row after which even a job that is safe to repeat waits for an operator."""

FOR_A_PLACE = "for a place"


class Phase(StrEnum):
    """The last evidence about an attempt; see :func:`backend.jobs.agent.derive`."""

    PLACED = "placed"  # decided here; the host was not heard yet
    ABSENT = "absent"
    PREPARED = "prepared"
    STARTING = "starting"
    RUNNING = "running"
    ORPHANED = "orphaned"
    UNKNOWN = "unknown"
    LOST = "lost"
    VOID = "void"
    EXITED = "exited"


EXECUTED = frozenset({Phase.RUNNING, Phase.ORPHANED, Phase.UNKNOWN, Phase.LOST})
NOT_EXECUTED = frozenset({Phase.PLACED, Phase.ABSENT, Phase.PREPARED})


@dataclass(frozen=True, slots=True)
class Exit:
    """The agent's exit record, as far as decisions need it."""

    code: int | None = None
    signal: int | None = None
    cancelled: bool = False
    timed_out: bool = False
    executed: bool = True
    unwitnessed: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Exit:
        return cls(
            code=value.get("code"),
            signal=value.get("signal"),
            cancelled=bool(value.get("cancelled")),
            timed_out=bool(value.get("timed_out")),
            executed=bool(value.get("executed", True)),
            unwitnessed=bool(value.get("unwitnessed")),
        )

    @property
    def good(self) -> bool:
        return self.code == 0 and self.executed and not self.cancelled and not self.timed_out

    def text(self) -> str:
        if self.timed_out:
            return "its time limit ended it"
        if self.signal is not None:
            return f"ended by signal {self.signal}"
        return f"exit code {self.code}"


@dataclass(frozen=True, slots=True)
class Observation:
    """What a host said of an attempt."""

    key: str
    phase: Phase
    exit: Exit | None = None
    record: dict[str, Any] = field(default_factory=dict)  # the exit record in full
    result: dict[str, Any] | None = None
    log_size: int = 0
    started_at: float | None = None  # on the host's clock, for display
    ended_at: float | None = None
    evidence: dict[str, Any] = field(default_factory=dict)  # what the phase follows from; see agent.examine


@dataclass(frozen=True, slots=True)
class Attempt:
    key: str
    job: str
    n: int
    host: str
    phase: Phase = Phase.PLACED
    exit: Exit | None = None
    refusal: str = ""  # why the host would not start it, or why what it left cannot be used
    unreachable: bool = False
    staged: bool = False  # it runs in a root of its own: inputs go there first, outputs come from there
    pushed: bool = False
    collected: bool = False
    trouble: str = ""  # why a transfer or a start has not come through yet
    gpus: tuple[str, ...] = ()  # indices of those that it has for itself

    @property
    def collecting(self) -> bool:
        """It ended well, and its outputs are not here yet."""
        return (
            self.staged
            and self.phase is Phase.EXITED
            and not self.collected
            and not self.refusal
            and (self.exit is not None and self.exit.good)
        )


Outcome = Literal["done", "failed", "cancelled", "unknown"]


@dataclass(frozen=True, slots=True)
class Job:
    """A job with its attempts, oldest first.

    Attributes:
        wanted: how many attempts the operator asked for; a retry asks for one more.
        repeatable: an attempt with an unknown outcome may be followed by another one without asking.
        settled: why the output counts as there without a clean exit that we saw.
        priority: jobs with a higher one get a place first.
        gang: id of the first of the jobs that run together with it, see :mod:`backend.jobs.gangs`.
        member, members: which of how many it is there, from 1.
    """

    id: str
    number: int
    kind: str
    needs: tuple[str, ...] = ()
    wanted: int = 1
    cancel: bool = False
    repeatable: bool = False
    settled: str | None = None
    priority: int = 0
    asks: Asks = field(default_factory=Asks)
    attempts: tuple[Attempt, ...] = ()
    gang: str | None = None
    member: int = 1
    members: int = 1

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def next_n(self) -> int:
        return self.attempts[-1].n + 1 if self.attempts else 1


def outcome(attempt: Attempt) -> Outcome | None:
    """How an attempt ended, or None while it may still be running or be started, or its outputs are not here yet."""
    if attempt.phase is Phase.EXITED:
        end = attempt.exit or Exit()
        if attempt.collecting:
            return None
        if (not end.executed or end.good) and attempt.refusal:
            return "failed"
        if end.cancelled:
            return "cancelled"
        return "done" if end.good else "failed"
    if attempt.phase is Phase.VOID:
        return "failed" if attempt.refusal else "cancelled"
    return "unknown" if attempt.phase in (Phase.UNKNOWN, Phase.LOST) else None


def absorb(attempt: Attempt, seen: Observation) -> Attempt:
    """The attempt after an observation. An exit is final, and evidence that vanishes is an unknown outcome."""
    if attempt.phase is Phase.EXITED:
        return replace(attempt, unreachable=False)
    phase = seen.phase
    if phase in NOT_EXECUTED and attempt.phase in EXECUTED:
        phase = Phase.UNKNOWN
    return replace(attempt, phase=phase, exit=seen.exit if phase is Phase.EXITED else None, unreachable=False)


def may_run_again(job: Job) -> bool:
    """Whether a next attempt is due, other conditions apart: nothing of the last one lives, and it is wanted."""
    last = job.last
    if last is None:
        return True
    ended = outcome(last)
    if ended is None:
        return False
    if last.n < job.wanted:
        return ended in ("failed", "cancelled") or (ended == "unknown" and job.repeatable)
    return ended == "unknown" and job.repeatable and unknowns_in_a_row(job.attempts) <= MAX_REPEATS


def to_close(job: Job) -> bool:
    """Whether the last attempt has to be closed on its host before the next one, which an operator wants.

    Its outcome is unknown, and the kind is not safe to repeat: nothing of it may be left that could still act.
    """
    last = job.last
    return last is not None and last.n < job.wanted and outcome(last) == "unknown" and not job.repeatable


def unknowns_in_a_row(attempts: Sequence[Attempt]) -> int:
    count = 0
    for attempt in reversed(attempts):
        if outcome(attempt) != "unknown":
            break
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class View:
    """A job as it is shown; ``reasons`` say per host why it waits for a place."""

    state: JobState
    why: str = ""
    reasons: Reasons = ()


def view(job: Job, needs: Mapping[str, JobState]) -> View:
    """The state of a job that follows from its attempts and from the states of the jobs it needs."""
    last = job.last
    if job.settled is not None:
        return View("done" if last else "skipped", job.settled)
    ended = outcome(last) if last else None
    if last and ended is None:
        return _live(job, last)
    if last and ended == "unknown" and job.cancel:
        return View("cancelling", "its outcome is unknown and will be given up")
    if last and to_close(job):
        silent = ", which does not answer" if last.unreachable else ""
        return View("waiting", f"for {last.key} to be closed on {last.host}{silent}")
    if may_run_again(job):
        return View("cancelled", "before it started") if job.cancel else _waiting(job, needs)
    assert last is not None and ended is not None
    return View(ended, why_ended(last, ended))


def _live(job: Job, last: Attempt) -> View:
    if last.collecting:
        return View("cancelling" if job.cancel else "collecting", last.trouble)
    why = f"{last.host} does not answer; the last that is known is shown" if last.unreachable else ""
    why += f" ({last.trouble})" if why and last.trouble else ""
    if last.phase is Phase.ORPHANED:
        why = why or "its runner was killed; the command goes on, its exit code will be unknown"
    if job.cancel:
        return View("cancelling", why)
    if last.phase in NOT_EXECUTED or last.phase is Phase.STARTING:
        sending = f"sending its inputs to {last.host}" if last.staged and not last.pushed else ""
        return View("placing", why or last.refusal or last.trouble or sending)
    return View("running", why)


def _waiting(job: Job, needs: Mapping[str, JobState]) -> View:
    for name in job.needs:
        state = needs.get(name)
        if state is None or (state in ENDED and state not in ("done", "skipped")):
            return View("blocked", f"needs {name}, which is {state or 'not there'}")
    for name in job.needs:
        if needs[name] == "unknown":
            return View("waiting", f"for {name}, whose outcome is unknown")
        if needs[name] not in ("done", "skipped"):
            return View("waiting", f"for {name}")
    return View("waiting", FOR_A_PLACE)


def why_ended(last: Attempt, ended: Outcome) -> str:
    """What is said of an attempt's end."""
    if ended == "unknown":
        how = "the host was booted since" if last.phase is Phase.LOST else "nobody saw how it ended"
        return f"{last.key} was executed, and {how}"
    if ended == "failed":
        return last.refusal or (last.exit or Exit()).text()
    if ended == "cancelled" and last.exit is not None and last.exit.unwitnessed:
        return "its outcome was unknown and given up"
    return ""


def pipeline_state(states: Iterable[JobState]) -> JobState:
    """The state of a chain of jobs."""
    found = set(states)
    for state in ("cancelling", "running", "collecting", "placing"):
        if state in found:
            return "cancelling" if state == "cancelling" else "running"
    for state in ("unknown", "failed", "cancelled"):
        if state in found:
            return state
    if found <= {"done", "skipped"}:
        return "done"
    return "blocked" if found <= {"done", "skipped", "blocked"} else "waiting"
