"""Decisions about jobs, without clocks, hosts or databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.jobs.model import (
    MAX_REPEATS,
    Attempt,
    Exit,
    Job,
    Observation,
    Phase,
    View,
    absorb,
    outcome,
    pipeline_state,
)
from backend.jobs.reconcile import (
    Cancel,
    CheckOutput,
    Decision,
    HostSlots,
    Place,
    Settle,
    Start,
    World,
    reconcile,
)
from backend.snapshot import JobState

LOCAL = HostSlots("local", 1)


def job(number: int = 1, *attempts: Attempt, **more: object) -> Job:
    base = Job(f"j{number}", number, "command", attempts=attempts)
    return replace(base, **more)  # type: ignore[arg-type]


def attempt(phase: Phase, n: int = 1, number: int = 1, **more: object) -> Attempt:
    base = Attempt(f"j{number}.{n}", f"j{number}", n, "local", phase)
    return replace(base, **more)  # type: ignore[arg-type]


def exited(code: int | None = 0, n: int = 1, number: int = 1, **more: object) -> Attempt:
    return attempt(Phase.EXITED, n, number, exit=Exit(code=code, **more))  # type: ignore[arg-type]


def decide(*jobs: Job, hosts: tuple[HostSlots, ...] = (LOCAL,), checked: bool = True, **more: object) -> Decision:
    checks = {(one.id, one.next_n): None for one in jobs} if checked else {}
    return reconcile(World(jobs, hosts=hosts, **({"checks": checks} | more)))  # type: ignore[arg-type]


def test_a_new_job_is_checked_then_placed() -> None:
    assert decide(job(), checked=False).actions == (CheckOutput("j1", 1),)
    assert decide(job()).actions == (Place("j1", 1, "local"),)


def test_a_job_whose_output_is_there_is_settled_and_shown_as_skipped() -> None:
    assert decide(job(), checks={("j1", 1): "300 games"}).actions == (Settle("j1", "300 games"),)
    found = decide(job(settled="300 games")).views["j1"]
    assert (found.state, found.why) == ("skipped", "300 games")


@pytest.mark.parametrize("phase", [Phase.PLACED, Phase.ABSENT, Phase.PREPARED])
def test_an_attempt_that_was_never_executed_is_started_again(phase: Phase) -> None:
    decision = decide(job(1, attempt(phase)))
    assert decision.actions == (Start("j1.1"),)
    assert decision.views["j1"].state == "placing"


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RUNNING, Phase.ORPHANED])
def test_an_attempt_that_lives_is_left_alone(phase: Phase) -> None:
    decision = decide(job(1, attempt(phase)))
    assert decision.actions == ()
    assert decision.views["j1"].state == ("placing" if phase is Phase.STARTING else "running")


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (exited(0), "done"),
        (exited(3), "failed"),
        (exited(None, signal=9), "failed"),
        (exited(0, timed_out=True), "failed"),
        (exited(0, cancelled=True), "cancelled"),
        (exited(None, cancelled=True, executed=False), "cancelled"),
        (attempt(Phase.VOID), "cancelled"),
        (attempt(Phase.VOID, refusal="the disk is full"), "failed"),
        (attempt(Phase.UNKNOWN), "unknown"),
        (attempt(Phase.LOST), "unknown"),
    ],
)
def test_an_end_is_shown_as_what_it_was_and_nothing_follows(end: Attempt, state: str) -> None:
    decision = decide(job(1, end))
    assert decision.views["j1"].state == state
    assert decision.actions == ()


def test_an_unknown_outcome_is_repeated_only_where_that_is_safe_and_not_for_ever() -> None:
    unknown = [attempt(Phase.UNKNOWN, n) for n in range(1, MAX_REPEATS + 2)]
    assert decide(job(1, unknown[0])).actions == ()
    assert decide(job(1, unknown[0], repeatable=True)).actions == (Place("j1", 2, "local"),)
    assert decide(job(1, *unknown, repeatable=True)).views["j1"].state == "unknown"


def test_an_unknown_outcome_is_resolved_by_the_output_it_left() -> None:
    one = job(1, attempt(Phase.UNKNOWN), repeatable=True)
    assert decide(one, checks={("j1", 2): "the dataset is there"}).actions == (Settle("j1", "the dataset is there"),)
    assert decide(replace(one, settled="the dataset is there")).views["j1"].state == "done"


def test_a_retry_runs_an_ended_job_again_and_first_closes_an_unknown_attempt_that_is_not_safe_to_repeat() -> None:
    assert decide(job(1, exited(3), wanted=2)).actions == (Place("j1", 2, "local"),)
    assert decide(job(1, exited(None, cancelled=True), wanted=2)).actions == (Place("j1", 2, "local"),)
    unknown = decide(job(1, attempt(Phase.UNKNOWN, unreachable=True), wanted=2))
    assert unknown.actions == (Cancel("j1.1"),)
    assert unknown.views["j1"] == View("waiting", "for j1.1 to be closed on local, which does not answer")
    closed = exited(None, cancelled=True, unwitnessed=True)
    assert decide(job(1, closed, wanted=2)).actions == (Place("j1", 2, "local"),)
    many = [attempt(Phase.UNKNOWN, n) for n in range(1, MAX_REPEATS + 2)]
    again = job(1, *many, repeatable=True, wanted=len(many) + 1)
    assert decide(again).actions == (Place("j1", len(many) + 1, "local"),)
    late = decide(job(1, exited(0), wanted=2))
    assert (late.actions, late.views["j1"].state) == ((), "done"), "its exit record turned up after the wish"


def test_cancel_reaches_every_attempt_that_may_live_and_no_other() -> None:
    for phase in Phase:
        one = job(1, attempt(phase, exit=Exit(code=0)), cancel=True)
        ended = phase in (Phase.EXITED, Phase.VOID)
        assert decide(one).actions == (() if ended else (Cancel("j1.1"),)), phase
    assert decide(job(cancel=True)).views["j1"].state == "cancelled"
    assert decide(job(cancel=True)).actions == ()


def test_a_refused_start_is_closed_on_the_host_before_the_job_fails() -> None:
    refused = attempt(Phase.PLACED, refusal="the disk is full")
    assert decide(job(1, refused)).actions == ()  # the host is asked first whether it runs after all
    assert decide(job(1, replace(refused, phase=Phase.PREPARED))).actions == (Cancel("j1.1"),)
    assert decide(job(1, replace(refused, phase=Phase.RUNNING))).actions == ()
    ended = replace(refused, phase=Phase.EXITED, exit=Exit(cancelled=True, executed=False))
    found = decide(job(1, ended)).views["j1"]
    assert (found.state, found.why) == ("failed", "the disk is full")


def test_a_job_waits_for_what_it_needs_and_is_blocked_when_that_fails() -> None:
    second = job(2, needs=("j1",))
    assert decide(job(1, attempt(Phase.RUNNING)), second).views["j2"].why == "for j1"
    for state in ("done", "skipped"):
        assert Place("j2", 1, "local") in decide(second, ended={"j1": state}).actions
    for state in ("failed", "cancelled", "blocked"):
        assert decide(second, ended={"j1": state}).views["j2"].state == "blocked"
    assert decide(second).views["j2"].state == "blocked"  # what it needs is not there at all
    assert decide(job(1, attempt(Phase.UNKNOWN)), second).views["j2"].state == "waiting"


def test_jobs_that_need_each_other_are_judged_without_end() -> None:
    decision = decide(job(1, needs=("j2",)), job(2, needs=("j1",)))
    assert decision.actions == ()


def test_a_host_takes_no_more_jobs_than_it_has_places_and_older_jobs_come_first() -> None:
    decision = decide(job(2), job(1), job(3))
    assert decision.actions == (Place("j1", 1, "local"),)
    assert decision.views["j2"].why == "for a place on local (1 at a time)"
    assert decide(job(1, attempt(Phase.RUNNING)), job(2)).actions == ()
    wide = decide(job(1), job(2), job(3), hosts=(HostSlots("local", 2),))
    assert [action.job for action in wide.actions if isinstance(action, Place)] == ["j1", "j2"]


def test_a_host_that_does_not_answer_keeps_its_places_and_its_jobs() -> None:
    decision = decide(job(1, attempt(Phase.RUNNING, unreachable=True)), job(2))
    assert decision.views["j1"].state == "running"
    assert "does not answer" in decision.views["j1"].why
    assert decision.actions == ()


def test_a_host_gets_only_kinds_that_it_takes() -> None:
    decision = decide(job(), hosts=(HostSlots("local", 1, frozenset({"train"})),))
    assert decision.actions == ()
    assert decision.views["j1"].why == "no host takes command jobs"


def test_evidence_that_vanishes_is_an_unknown_outcome_and_an_exit_is_final() -> None:
    running = attempt(Phase.RUNNING, unreachable=True)
    gone = absorb(running, Observation("j1.1", Phase.ABSENT))
    assert (gone.phase, gone.unreachable) == (Phase.UNKNOWN, False)
    assert outcome(gone) == "unknown"
    assert absorb(exited(0), Observation("j1.1", Phase.ABSENT)) == exited(0)
    assert absorb(attempt(Phase.STARTING), Observation("j1.1", Phase.PREPARED)).phase is Phase.PREPARED
    late = absorb(gone, Observation("j1.1", Phase.EXITED, Exit(code=0)))
    assert outcome(late) == "done"


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        (["done", "skipped"], "done"),
        (["done", "running", "waiting"], "running"),
        (["done", "placing", "waiting"], "running"),
        (["skipped", "waiting", "waiting"], "waiting"),
        (["done", "failed", "blocked"], "failed"),
        (["done", "cancelled", "blocked"], "cancelled"),
        (["done", "unknown", "waiting"], "unknown"),
        (["done", "cancelling", "waiting"], "cancelling"),
    ],
)
def test_a_pipeline_is_as_its_jobs_are(states: list[JobState], whole: str) -> None:
    assert pipeline_state(states) == whole
