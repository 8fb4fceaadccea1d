"""Gangs, decided without hosts or clocks: all or nothing, one end for all, and a new start only when nothing lives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.jobs.gangs import RESTARTS
from backend.jobs.model import EXECUTED, Attempt, Exit, Job, Observation, Phase, absorb, outcome
from backend.jobs.placement import Asks, HostSlots
from backend.jobs.reconcile import (
    Abandon,
    Cancel,
    CheckOutput,
    Collect,
    Decision,
    Place,
    PlaceGang,
    Push,
    Settle,
    Start,
    World,
    reconcile,
)
from backend.jobs.torchrun import Rendezvous, last_words, torchrun_argv
from backend.snapshot import ENDED

SIZE = 3
HOSTS = tuple(HostSlots(name, 1, address=name) for name in "abc")


def attempt(member: int, phase: Phase, n: int = 1, **more: object) -> Attempt:
    key = f"t{member}.{n}"
    base = Attempt(key, f"t{member}", n, "abc"[member - 1], phase, staged=True, pushed=True)
    return replace(base, **more)  # type: ignore[arg-type]


def exited(member: int, code: int | None = 0, n: int = 1, **more: object) -> Attempt:
    end = Exit(code=code, **more)  # type: ignore[arg-type]
    return attempt(member, Phase.EXITED, n, exit=end, collected=end.good)


def gang(*lasts: Attempt | None, **more: object) -> list[Job]:
    jobs = []
    for member in range(1, SIZE + 1):
        last = lasts[member - 1] if lasts else None
        base = Job(
            f"t{member}", member, "train", repeatable=True, gang="t1", member=member, members=SIZE,
            attempts=(last,) if last else (),
        )  # fmt: skip
        jobs.append(replace(base, **more))  # type: ignore[arg-type]
    return jobs


def running(n: int = 1) -> list[Attempt]:
    return [attempt(member, Phase.RUNNING, n) for member in range(1, SIZE + 1)]


def decide(jobs: list[Job], hosts: tuple[HostSlots, ...] = HOSTS, *others: Job) -> Decision:
    checks = {(job.id, job.next_n): None for job in (*jobs, *others)}
    return reconcile(World([*jobs, *others], hosts=hosts, checks=checks))


def states(decision: Decision) -> set[str]:
    return {decision.views[f"t{member}"].state for member in range(1, SIZE + 1)}


def test_all_members_are_placed_at_once_each_on_a_host_of_its_own() -> None:
    first = reconcile(World(gang(), hosts=HOSTS))
    assert first.actions == (CheckOutput("t1", 1),)
    places = tuple(Place(f"t{member}", 1, "abc"[member - 1]) for member in range(1, SIZE + 1))
    assert decide(gang()).actions == (PlaceGang(places),)


def test_with_a_place_too_few_nobody_is_placed_and_others_may_have_the_rest() -> None:
    busy = Job("c9", 9, "command", attempts=(Attempt("c9.1", "c9", 1, "b", Phase.RUNNING),))
    single = Job("c10", 10, "command")
    found = decide(gang(), HOSTS, busy, single)
    assert found.actions == (Place("c10", 1, "a"),)
    assert {found.views[f"t{member}"].why for member in (1, 2, 3)} == {"2 of 3 places"}
    assert dict(found.views["t2"].reasons) == {"full (1 at a time)": ("b",)}
    closed = (*HOSTS[:2], replace(HOSTS[2], closed="drained"))
    assert decide(gang(), closed).views["t1"].why == "2 of 3 places"
    assert decide(gang(), HOSTS[:1]).actions == ()


def test_a_gang_has_gpus_of_its_own_on_every_host() -> None:
    hosts = tuple(replace(host, gpus=("0", "1"), slots=2) for host in HOSTS)
    other = Job(
        "t9", 9, "train", attempts=(Attempt("t9.1", "t9", 1, "a", Phase.RUNNING, gpus=("0",)),), asks=Asks(gpus=1)
    )
    (placed,) = decide(gang(asks=Asks(gpus=1)), hosts, other).actions
    assert isinstance(placed, PlaceGang)
    assert {place.host: place.gpus for place in placed.places} == {"a": ("1",), "b": ("0",), "c": ("0",)}
    found = decide(gang(asks=Asks(gpus=2)), hosts, other)
    assert found.views["t1"].why == "2 of 3 places"
    assert dict(found.views["t1"].reasons) == {"its GPUs are leased (t9.1)": ("a",)}


def test_all_members_train_on_one_kind_of_device() -> None:
    two = tuple(replace(host, gpus=("0",)) for host in HOSTS[:2])
    for other, each in (((), 0), (("0", "1"), 1), (None, 0)):
        (placed,) = decide(gang(), (*two, replace(HOSTS[2], gpus=other))).actions
        assert isinstance(placed, PlaceGang)
        assert {len(place.gpus) for place in placed.places} == {each}
    leased = Job("t9", 9, "train", attempts=(Attempt("t9.1", "t9", 1, "c", Phase.RUNNING, gpus=("0",)),))
    hosts = (*two, replace(HOSTS[2], gpus=("0",), slots=2))
    assert decide(gang(), hosts, leased).views["t1"].why == "2 of 3 places"  # a GPU each is what they wait for


def test_rank_0_is_where_the_others_can_reach_it_and_after_a_failure_where_it_was() -> None:
    hosts = (replace(HOSTS[0], address="", local=True), *HOSTS[1:])
    (placed,) = decide(gang(), hosts).actions
    assert isinstance(placed, PlaceGang)
    assert placed.places[0].host != "a"
    before = [replace(exited(1, 1), host="c"), replace(exited(2, 1), host="a"), replace(exited(3, 1), host="b")]
    (again,) = decide(gang(*before)).actions
    assert isinstance(again, PlaceGang)
    assert (again.places[0].n, again.places[0].host) == (2, "c")


def test_nobody_is_started_before_all_have_what_they_need() -> None:
    lasts = [attempt(member, Phase.PLACED) for member in (1, 2, 3)]
    lasts[1] = replace(lasts[1], pushed=False)
    assert decide(gang(*lasts)).actions == (Push("t2.1"),)
    lasts[1] = replace(lasts[1], pushed=True)
    assert decide(gang(*lasts)).actions == (Start("t1.1"), Start("t2.1"), Start("t3.1"))


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
@pytest.mark.parametrize(
    ("end", "what"),
    [
        (lambda member: exited(member, 1), "exit code 1"),
        (lambda member: exited(member, None, signal=9), "ended by signal 9"),
        (lambda member: attempt(member, Phase.UNKNOWN), "nobody saw how it ended"),
        (lambda member: attempt(member, Phase.LOST), "the host was booted since"),
        (lambda member: attempt(member, Phase.VOID, refusal="the disk is full"), "the disk is full"),
    ],
)
def test_a_member_that_ends_badly_ends_the_others_and_then_all_start_anew(
    order: tuple[int, ...], end: Callable[[int], Attempt], what: str
) -> None:
    lasts = running()
    culprit, *others = order
    lasts[culprit - 1] = end(culprit)
    for number, other in enumerate(others):
        found = decide(gang(*lasts))
        assert set(found.actions) == {Cancel(f"t{left}.1") for left in others[number:]}
        assert states(found) == {"cancelling"}
        assert what in found.views[f"t{other}"].why
        lasts[other - 1] = exited(other, None, cancelled=True)
    (again,) = decide(gang(*lasts)).actions
    assert isinstance(again, PlaceGang) and {place.n for place in again.places} == {2}


def test_a_gang_is_tried_so_often_and_then_fails_as_one_with_the_reason_of_the_member_to_blame() -> None:
    lasts = [exited(1, None, n=1 + RESTARTS, cancelled=True), exited(2, 3, n=1 + RESTARTS), exited(3, n=1 + RESTARTS)]
    lasts[1] = replace(lasts[1], refusal="exit code 3: out of memory")
    found = decide(gang(*lasts))
    assert found.actions == ()
    assert states(found) == {"failed"}
    assert found.views["t2"].why == "exit code 3: out of memory"
    assert found.views["t1"].why == "its gang: t2.4 exit code 3: out of memory"
    again = decide(gang(*lasts, wanted=2 + RESTARTS))  # an operator's retry
    assert isinstance(again.actions[0], PlaceGang)


def test_silence_ends_nothing() -> None:
    lasts = running()
    lasts[1] = replace(lasts[1], unreachable=True)
    found = decide(gang(*lasts))
    assert (found.actions, states(found)) == ((), {"running"})
    lasts[2] = exited(3, 1)  # now it has to end, and nothing starts anew before the silent one is known to be gone
    lasts[0] = exited(1, None, cancelled=True)
    found = decide(gang(*lasts))
    assert (found.actions, states(found)) == ((Cancel("t2.1"),), {"cancelling"})


def test_all_are_done_at_once_when_all_have_ended_well_and_the_outputs_are_here() -> None:
    lasts = running()
    lasts[0] = replace(exited(1), collected=False)
    found = decide(gang(*lasts))
    assert (found.actions, states(found)) == ((), {"running", "collecting"})
    lasts[1:] = [exited(2), replace(exited(3), collected=False)]
    found = decide(gang(*lasts))
    assert (found.actions, states(found)) == ((Collect("t1.1"), Collect("t3.1")), {"collecting"})
    cancelled = decide(gang(*lasts, cancel=True))
    assert (cancelled.actions, states(cancelled)) == ((Abandon("t1.1"), Abandon("t3.1")), {"cancelling"})
    found = decide(gang(exited(1), exited(2), exited(3)))
    assert (found.actions, states(found)) == ((), {"done"})


def test_cancelling_one_member_cancels_all_and_starts_nothing_anew() -> None:
    jobs = gang(*running())
    jobs[1] = replace(jobs[1], cancel=True)
    found = decide(jobs)
    assert (set(found.actions), states(found)) == ({Cancel(f"t{n}.1") for n in (1, 2, 3)}, {"cancelling"})
    ended = gang(*(exited(member, None, cancelled=True) for member in (1, 2, 3)), cancel=True)
    assert (decide(ended).actions, states(decide(ended))) == ((), {"cancelled"})
    assert states(decide(gang(cancel=True))) == {"cancelled"}
    unknown = gang(attempt(1, Phase.UNKNOWN), *ended[1].attempts, *ended[2].attempts, cancel=True)
    assert decide(unknown).actions == (Cancel("t1.1"),)


def test_what_a_gang_makes_may_be_there_already() -> None:
    found = reconcile(World(gang(), hosts=HOSTS, checks={("t1", 1): "it was trained"}))
    assert found.actions == tuple(Settle(f"t{member}", "it was trained") for member in (1, 2, 3))
    assert states(reconcile(World(gang(settled="it was trained"), hosts=HOSTS))) == {"skipped"}


def test_a_gang_waits_as_one_for_what_it_needs() -> None:
    found = reconcile(World(gang(needs=("e9",)), {"e9": "failed"}, HOSTS))
    assert (states(found), found.actions) == ({"blocked"}, ())


def test_a_member_whose_row_is_damaged_ends_the_others() -> None:
    jobs = gang(*running())
    del jobs[1]
    found = reconcile(World(jobs, hosts=HOSTS))
    assert set(found.actions) == {Cancel("t1.1"), Cancel("t3.1")}
    ended = [replace(job, attempts=(exited(job.member, None, cancelled=True),)) for job in jobs]
    assert {shown.state for shown in reconcile(World(ended, hosts=HOSTS)).views.values()} == {"failed"}


def test_the_command_of_a_member_is_that_of_the_job_under_torchrun() -> None:
    meet = Rendezvous("t1.2", "gpu1", 29_411, 3, 2)
    argv = torchrun_argv(["py", "-m", "ringrift_console.cli", "train", "--epochs", "2"], meet, node=1)
    assert argv[:3] == ["py", "-m", "torch.distributed.run"]
    assert argv[-5:] == ["-m", "ringrift_console.cli", "train", "--epochs", "2"]
    assert {"--nnodes=3", "--nproc-per-node=2", "--node-rank=1", "--max-restarts=0", "--rdzv-id=t1.2"} <= set(argv)
    assert "--rdzv-endpoint=gpu1:29411" in argv
    assert "--rdzv-endpoint=[fd00::1]:29411" in torchrun_argv(argv, replace(meet, address="fd00::1"), node=None)


# any order of events

STEPS = (
    "tick", "tick", "tick", "observe", "observe", "observe", "finish", "finish", "fail", "kill runner",
    "kill command", "reboot", "silent", "heard", "cancel", "retry", "restart controller",
)  # fmt: skip


@dataclass
class OnHost:
    phase: Phase = Phase.PREPARED
    executions: int = 0
    exit: Exit | None = None


@dataclass
class Bench:
    """A controller and three hosts; a host that is silent answers nothing and does nothing that it is asked."""

    jobs: dict[str, Job] = field(default_factory=lambda: {job.id: job for job in gang()})
    checks: dict[tuple[str, int], str | None] = field(default_factory=dict)
    hosts: dict[str, OnHost] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    trouble: bool = False  # somebody or something has ended a member
    tries: int = 0

    def update(self, key: str, change: Callable[[Attempt], Attempt]) -> None:
        job = self.jobs[key.split(".")[0]]
        attempts = tuple(change(one) if one.key == key else one for one in job.attempts)
        self.jobs[job.id] = replace(job, attempts=attempts)

    def observe(self) -> None:
        for job in list(self.jobs.values()):
            last = job.last
            if last is None or last.collecting or outcome(last) not in (None, "unknown"):
                continue
            if last.host in self.silent:
                self.update(last.key, lambda one: replace(one, unreachable=True))
            else:
                there = self.hosts.get(last.key)
                seen = Observation(last.key, there.phase, there.exit) if there else Observation(last.key, Phase.ABSENT)
                self.update(last.key, lambda one, seen=seen: absorb(one, seen))  # type: ignore[misc]

    def tick(self) -> None:
        views = reconcile(World(list(self.jobs.values()), hosts=HOSTS)).views
        ends = {views[name].state in ENDED for name in self.jobs}
        assert len(ends) == 1, "a gang is half done"
        if ends == {True}:
            return
        for action in reconcile(World(list(self.jobs.values()), hosts=HOSTS, checks=self.checks)).actions:
            if isinstance(action, CheckOutput):
                self.checks[action.job, action.n] = None
            elif isinstance(action, PlaceGang):
                self.place(action)
            elif isinstance(action, Push):
                self.update(action.key, lambda one: replace(one, pushed=True))
            elif isinstance(action, Collect):
                self.update(action.key, lambda one: replace(one, collected=True))
            elif isinstance(action, Abandon):
                self.update(action.key, lambda one: replace(one, exit=Exit(cancelled=True)))
            elif isinstance(action, Start | Cancel):
                self.ask(action)
            else:
                raise AssertionError(action)

    def place(self, action: PlaceGang) -> None:
        assert len(action.places) == len({place.host for place in action.places}) == SIZE
        assert len({place.n for place in action.places}) == 1
        alive = [key for key, one in self.hosts.items() if one.phase in (Phase.RUNNING, Phase.ORPHANED)]
        assert not alive, "a gang started anew while a member of the last attempt lived"
        self.tries += 1
        self.trouble = False
        for place in action.places:
            job = self.jobs[place.job]
            made = Attempt(f"{job.id}.{place.n}", job.id, place.n, place.host, staged=True)
            self.jobs[job.id] = replace(job, attempts=(*job.attempts, made))

    def ask(self, action: Start | Cancel) -> None:
        job = self.jobs[action.key.split(".")[0]]
        assert job.last is not None
        if isinstance(action, Cancel):
            assert self.trouble, "somebody was ended although nothing had gone wrong"
        if job.last.host in self.silent:
            return
        there = self.hosts.setdefault(action.key, OnHost())
        if isinstance(action, Start):
            if there.phase is Phase.PREPARED:
                there.phase, there.executions = Phase.RUNNING, there.executions + 1
        elif there.phase is not Phase.EXITED:
            there.phase, there.exit = Phase.EXITED, Exit(cancelled=True, executed=there.phase in EXECUTED)

    def happen(self, what: str, name: str) -> None:
        last = self.jobs[name].last
        there = self.hosts.get(last.key) if last else None
        match what:
            case "tick":
                self.tick()
            case "observe":
                self.observe()
            case "finish" | "fail" if there and there.phase is Phase.RUNNING:
                there.phase, there.exit = Phase.EXITED, Exit(code=0 if what == "finish" else 1)
                self.trouble |= what == "fail"
            case "kill runner" if there and there.phase is Phase.RUNNING:
                there.phase = Phase.ORPHANED
            case "kill command" if there and there.phase is Phase.ORPHANED:
                there.phase, self.trouble = Phase.UNKNOWN, True
            case "reboot" if there and there.phase in (Phase.RUNNING, Phase.ORPHANED):
                there.phase, self.trouble = Phase.LOST, True
            case "silent" if last:
                self.silent.add(last.host)
            case "heard":
                self.silent.clear()
            case "restart controller":
                self.checks.clear()
            case "cancel":
                self.jobs[name] = replace(self.jobs[name], cancel=True)
                self.trouble = True
            case "retry":
                shown = reconcile(World(list(self.jobs.values()))).views
                if all(one.state in ("failed", "cancelled") for one in shown.values()):
                    n = max(job.next_n for job in self.jobs.values())
                    self.jobs = {key: replace(job, cancel=False, wanted=n) for key, job in self.jobs.items()}
                    self.tries = 0


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(["t1", "t2", "t3"])), max_size=70))
def test_no_order_of_events_runs_a_member_twice_mixes_attempts_or_leaves_a_gang_half_done(
    steps: list[tuple[str, str]],
) -> None:
    bench = Bench()
    for what, name in steps:
        bench.happen(what, name)
        assert all(one.executions <= 1 for one in bench.hosts.values())
        assert bench.tries <= 1 + RESTARTS
    bench.silent.clear()
    for _ in range(60):
        bench.tick()
        bench.observe()
        for one in bench.hosts.values():
            if one.phase is Phase.ORPHANED:
                one.phase, bench.trouble = Phase.UNKNOWN, True
            elif one.phase is Phase.RUNNING:
                one.phase, one.exit = Phase.EXITED, Exit(code=0)
    shown = reconcile(World(list(bench.jobs.values()))).views
    assert {one.state for one in shown.values()} <= {"done", "failed", "cancelled", "unknown"}
    assert len({one.state for one in shown.values()}) == 1
    assert all(one.executions <= 1 for one in bench.hosts.values())


def test_why_a_member_failed_is_what_our_program_said_and_not_the_report_around_it() -> None:
    report = "raise ChildFailedError(\n====\nringrift_console.cli FAILED\n  exitcode  : 4 (pid: 1)\n======\n"
    assert (
        last_words(f"ringrift: nothing to learn (record more)\nTraceback\n{report}") == "nothing to learn (record more)"
    )
    assert last_words("ringrift: a warning\nepoch 1\nlost\n\n") == "lost"
    assert last_words(report).strip("=") == "" and last_words("") == ""
