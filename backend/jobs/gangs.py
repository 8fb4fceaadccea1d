"""Gangs: jobs that run as one, a member on each of several hosts; pure, like all decisions.

All members are placed in one decision or none is. As soon as one ends other than well, the others are ended, and when
nothing of them lives any more the whole gang starts anew, up to :data:`RESTARTS` times. Silence ends nothing. All
members reach their end at the same moment, so a gang is never half done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from backend.jobs.actions import Abandon, Action, Cancel, CheckOutput, Collect, Place, PlaceGang, Push, Settle, Start
from backend.jobs.model import FOR_A_PLACE, NOT_EXECUTED, Attempt, Job, Outcome, Phase, View, outcome, view, why_ended
from backend.jobs.placement import HostSlots, Load, choose_several
from backend.snapshot import ENDED, JobState

RESTARTS = 3
"""Attempts after the one that an operator asked for."""
FOR_THE_OTHERS = "ended well; for the other members"

Stage = Literal["new", "living", "ending", "good", "bad"]


def gangs_of(jobs: Sequence[Job]) -> dict[str, tuple[Job, ...]]:
    """Members by gang, in their order."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        if job.gang:
            found.setdefault(job.gang, []).append(job)
    return {name: tuple(sorted(members, key=lambda job: job.member)) for name, members in found.items()}


def end_of(attempt: Attempt) -> Outcome | None:
    """How a member ended, whether or not its outputs are here; None while it may still run or be started."""
    return "done" if attempt.collecting else outcome(attempt)


def stage_of(members: Sequence[Job]) -> Stage:
    """Where a gang stands: not started, under way, to be ended, all ended well, all ended but not all well."""
    lasts = [job.last for job in members if job.last]
    if not lasts:
        return "new"
    ends = [end_of(last) for last in lasts]
    good = all(end in (None, "done") for end in ends) and _whole(members) and len(lasts) == len(members)
    if None in ends:
        return "living" if good and not _cancelled(members) else "ending"
    return "good" if good else "bad"


def _whole(members: Sequence[Job]) -> bool:
    """Whether all members are there; the row of one may be damaged."""
    return len(members) == members[0].members


def _cancelled(members: Sequence[Job]) -> bool:
    return any(job.cancel for job in members)


def view_gang(members: Sequence[Job], needs: Mapping[str, JobState]) -> dict[str, View]:
    """The states of all members; see :func:`backend.jobs.model.view`."""
    first, stage = members[0], stage_of(members)
    if first.settled is not None:
        return dict.fromkeys(_names(members), View("done" if first.last else "skipped", first.settled))
    if stage == "living":
        return {job.id: _living(job, needs) for job in members}
    if stage == "ending":
        why = "" if _cancelled(members) else f"its gang ends: {_blame(members)}"
        return dict.fromkeys(_names(members), View("cancelling", why))
    if stage == "good":
        return {job.id: _good(job, members) for job in members}
    if _cancelled(members):
        if _unknown(members):
            return dict.fromkeys(_names(members), View("cancelling", "its outcome is unknown and will be given up"))
        return dict.fromkeys(_names(members), View("cancelled", "" if first.last else "before it started"))
    if not _whole(members):
        return dict.fromkeys(_names(members), View("failed", "the row of another member is damaged"))
    if stage == "new" or may_restart(members):
        return dict.fromkeys(_names(members), _waiting(first, needs))
    return {job.id: _over(job, members) for job in members}


def _names(members: Sequence[Job]) -> list[str]:
    return [job.id for job in members]


def _living(job: Job, needs: Mapping[str, JobState]) -> View:
    assert job.last is not None
    return view(job, needs) if end_of(job.last) is None else View("collecting", FOR_THE_OTHERS)


def _good(job: Job, members: Sequence[Job]) -> View:
    assert job.last is not None
    if not any(one.last and one.last.collecting for one in members):
        return View("done")
    if _cancelled(members):
        return View("cancelling")
    return View("collecting", job.last.trouble if job.last.collecting else FOR_THE_OTHERS)


def _waiting(first: Job, needs: Mapping[str, JobState]) -> View:
    return view(Job(first.id, first.number, first.kind, first.needs), needs)  # as if it had never been tried


def _over(job: Job, members: Sequence[Job]) -> View:
    """The end of a gang that is not tried again: that of the member that is to blame."""
    culprit, end = _culprit(members)
    assert job.last is not None and culprit.last is not None
    own = end_of(job.last)
    if own == end or own is None:
        return View(end, why_ended(job.last, end))
    return View(end, f"its gang: {_blame(members)}")


def may_restart(members: Sequence[Job]) -> bool:
    """Whether a gang of which nothing lives may be tried once more."""
    first = members[0]
    tries = max(job.last.n for job in members if job.last)
    if _unknown(members) and not first.repeatable:
        return False
    return tries < first.wanted + RESTARTS and _whole(members)


def _unknown(members: Sequence[Job]) -> list[Attempt]:
    return [job.last for job in members if job.last and outcome(job.last) == "unknown"]


def _culprit(members: Sequence[Job]) -> tuple[Job, Outcome]:
    """The member that ended other than well, and how; one that we ended ourselves comes last."""
    rank: dict[Outcome | None, int] = {"failed": 0, "unknown": 1, "cancelled": 2, "done": 3, None: 4}
    ends = [(job, end_of(job.last)) for job in members if job.last]
    job, end = min(ends, key=lambda one: rank[one[1]])
    return job, end or "failed"


def _blame(members: Sequence[Job]) -> str:
    if not _whole(members):
        return "the row of another member is damaged"
    job, end = _culprit(members)
    assert job.last is not None
    return f"{job.last.key} {why_ended(job.last, end) or end}"


def act_gang(
    members: Sequence[Job], views: dict[str, View], hosts: Sequence[HostSlots],
    checks: Mapping[tuple[str, int], str | None], load: Load,
) -> list[Action]:  # fmt: skip
    """What to do about a gang; enters what it places into ``load``, and into ``views`` why it has no place."""
    first, stage = members[0], stage_of(members)
    if views[first.id].state in ENDED:
        return []
    if stage == "living":
        return _start(members)
    if stage == "ending":
        return [Cancel(job.last.key) for job in members if job.last and end_of(job.last) is None]
    if stage == "good":
        waiting = [job.last.key for job in members if job.last and job.last.collecting]
        return [Abandon(key) if _cancelled(members) else Collect(key) for key in waiting]
    if _cancelled(members):
        return [Cancel(last.key) for last in _unknown(members)]
    if views[first.id] != View("waiting", FOR_A_PLACE):
        return []
    return _place(members, views, hosts, checks, load)


def _start(members: Sequence[Job]) -> list[Action]:
    """Sends what is missing; starts nobody before all have what they need, for the others would wait for the last."""
    lasts = [job.last for job in members if job.last]
    ready = all(not last.staged or last.pushed or last.phase not in NOT_EXECUTED for last in lasts)
    actions: list[Action] = []
    for last in lasts:
        if last.phase not in NOT_EXECUTED:
            continue
        if last.refusal:
            actions += [] if last.phase is Phase.PLACED else [Cancel(last.key)]
        elif last.staged and not last.pushed:
            actions.append(Push(last.key))
        elif ready:
            actions.append(Start(last.key))
    return actions


def _place(
    members: Sequence[Job], views: dict[str, View], hosts: Sequence[HostSlots],
    checks: Mapping[tuple[str, int], str | None], load: Load,
) -> list[Action]:  # fmt: skip
    first = members[0]
    n = max(job.next_n for job in members)
    before = first.last.host if first.last else None  # where the state of its training lies
    choices, missing = choose_several(first.kind, first.asks, hosts, load, len(members), before)
    if missing is not None:
        shown = View("waiting", f"{len(choices)} of {len(members)} places", missing.reasons)
        views |= dict.fromkeys(_names(members), shown)
        return []
    places = []
    for job, choice in zip(members, choices, strict=True):
        assert choice.host is not None
        load.add(choice.host, job.kind, choice.gpus, f"{job.id}.{n}")
        places.append(Place(job.id, n, choice.host, choice.gpus))
    if (first.id, n) not in checks:
        return [CheckOutput(first.id, n)]
    reason = checks[first.id, n]
    return [PlaceGang(tuple(places))] if reason is None else [Settle(job.id, reason) for job in members]
