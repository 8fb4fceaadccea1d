"""From what is wanted and what is known to what is to be done next; pure, so that any order of events can be tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backend.jobs.actions import (
    Abandon,
    Action,
    Cancel,
    CheckOutput,
    Collect,
    Place,
    PlaceGang,
    Push,
    Settle,
    Start,
)
from backend.jobs.gangs import act_gang, gangs_of, view_gang
from backend.jobs.model import FOR_A_PLACE, NOT_EXECUTED, Job, Phase, View, may_run_again, outcome, to_close, view
from backend.jobs.placement import Asks, Choice, HostSlots, Load, choose
from backend.snapshot import ENDED, JobState

__all__ = [
    "Abandon", "Action", "Cancel", "CheckOutput", "Collect", "Decision", "HostSlots", "Place", "PlaceGang", "Push",
    "Settle", "Start", "World", "reconcile",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a decision depends on.

    Attributes:
        jobs: all that have not ended.
        ended: states of jobs that have ended and that others need.
        hosts: where jobs may run, in order of preference.
        checks: what :class:`CheckOutput` found, under (job, n): a reason, or None when something must run.
    """

    jobs: Sequence[Job]
    ended: Mapping[str, JobState] = field(default_factory=dict)
    hosts: Sequence[HostSlots] = ()
    checks: Mapping[tuple[str, int], str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    actions: tuple[Action, ...]
    views: dict[str, View]


def reconcile(world: World) -> Decision:
    """What to do now, and how each job stands.

    Where there is not room for all, jobs of a higher priority come first, and older ones among equals.
    """
    views: dict[str, View] = {}
    states: dict[str, JobState] = dict(world.ended)
    jobs = sorted(world.jobs, key=lambda job: job.number)
    pending = {job.id: job for job in jobs}
    gangs = gangs_of(jobs)
    while pending:  # a job is judged after those it needs; a circle is judged as it stands
        ready = [job for job in pending.values() if not any(name in pending for name in job.needs)]
        for job in ready or list(pending.values()):
            seen = view_gang(gangs[job.gang], states) if job.gang else {job.id: view(job, states)}
            views |= seen
            states |= {name: one.state for name, one in seen.items()}
            del pending[job.id]
    load = Load()
    for job in jobs:
        if job.last and outcome(job.last) is None and not job.last.collecting:
            load.add(job.last.host, job.kind, job.last.gpus, job.last.key)
    actions: list[Action] = []
    refused: dict[tuple[str, Asks], Choice] = {}
    for job in sorted(jobs, key=lambda one: (-one.priority, one.number)):
        if job.gang:
            if job is gangs[job.gang][0]:
                actions += act_gang(gangs[job.gang], views, world.hosts, world.checks, load)
            continue
        found = _next(job, views, world, load, refused)
        if found is not None:
            actions.append(found)
    return Decision(tuple(actions), views)


def _next(
    job: Job, views: dict[str, View], world: World, load: Load, refused: dict[tuple[str, Asks], Choice]
) -> Action | None:
    state, last = views[job.id].state, job.last
    if state in ENDED:
        return None
    if last and (outcome(last) is None or state == "cancelling"):
        if last.collecting:
            return Abandon(last.key) if job.cancel else Collect(last.key)
        if job.cancel:
            return Cancel(last.key)
        if last.phase not in NOT_EXECUTED:
            return None
        # A refused start is closed on the host, but only after the host has said that nothing runs.
        if last.refusal:
            return None if last.phase is Phase.PLACED else Cancel(last.key)
        return Push(last.key) if last.staged and not last.pushed else Start(last.key)
    if last and to_close(job):
        return Cancel(last.key)
    if state != "waiting" or not may_run_again(job) or views[job.id].why != FOR_A_PLACE:
        return None
    # Places only get fewer on the way: what found none a moment ago finds none now.
    choice = refused.get((job.kind, job.asks)) or choose(job.kind, job.asks, world.hosts, load)
    if choice.host is None:
        refused[job.kind, job.asks] = choice
        views[job.id] = View("waiting", choice.why, choice.reasons)
        return None
    wanted = (job.id, job.next_n)
    if wanted in world.checks:
        reason = world.checks[wanted]
        if reason is not None:
            return Settle(job.id, reason)
    load.add(choice.host, job.kind, choice.gpus, f"{job.id}.{job.next_n}")
    return Place(*wanted, choice.host, choice.gpus) if wanted in world.checks else CheckOutput(*wanted)
