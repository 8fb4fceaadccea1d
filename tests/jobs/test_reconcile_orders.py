"""Random orders of everything that can happen between a controller and a host that keeps the agent's promises."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.jobs.model import Attempt, Exit, Job, Observation, Phase, absorb, outcome
from backend.jobs.reconcile import Cancel, CheckOutput, HostSlots, Place, Settle, Start, World, reconcile
from backend.snapshot import ENDED

STEPS = (
    "tick", "tick", "tick", "observe", "observe", "work", "finish", "fail", "kill runner", "kill command", "reboot",
    "lose request", "lose answer", "restart controller", "cancel", "retry", "refuse", "accept",
)  # fmt: skip


@dataclass
class HostAttempt:
    phase: Phase = Phase.PREPARED
    executions: int = 0
    wanted_end: bool = False
    exit: Exit | None = None


@dataclass
class Bench:
    """A controller with its durable rows, and a host; requests and answers may be lost between them."""

    repeatable: bool
    jobs: dict[str, Job] = field(default_factory=dict)
    checks: dict[tuple[str, int], str | None] = field(default_factory=dict)
    host: dict[str, HostAttempt] = field(default_factory=dict)
    lose: str = ""
    refusing: bool = False
    unsafe_repeats: int = 0

    def __post_init__(self) -> None:
        for number, needs in ((1, ()), (2, ("j1",)), (3, ())):
            self.jobs[f"j{number}"] = Job(f"j{number}", number, "command", needs, repeatable=self.repeatable)

    # the host

    def start(self, key: str) -> None:
        on_host = self.host.setdefault(key, HostAttempt())
        if on_host.phase is Phase.PREPARED:
            living = [
                other for other, one in self.host.items()
                if other.split(".")[0] == key.split(".")[0] and one.phase in (Phase.RUNNING, Phase.ORPHANED)
            ]  # fmt: skip
            assert not living, "two attempts of a job at once"
            on_host.phase, on_host.executions = Phase.RUNNING, on_host.executions + 1

    def end(self, key: str) -> None:
        on_host = self.host.setdefault(key, HostAttempt())
        if on_host.phase is Phase.EXITED:
            return
        executed = on_host.phase is not Phase.PREPARED
        unwitnessed = on_host.phase in (Phase.ORPHANED, Phase.UNKNOWN, Phase.LOST)
        on_host.phase = Phase.EXITED
        on_host.exit = Exit(cancelled=True, executed=executed, unwitnessed=unwitnessed)

    def seen(self, key: str) -> Observation:
        on_host = self.host.get(key)
        return Observation(key, on_host.phase, on_host.exit) if on_host else Observation(key, Phase.ABSENT)

    # the controller

    def update(self, key: str, change: object) -> None:
        job = self.jobs[key.split(".")[0]]
        attempts = tuple(change(one) if one.key == key else one for one in job.attempts)  # type: ignore[operator]
        self.jobs[job.id] = replace(job, attempts=attempts)

    def observe(self) -> None:
        for job in list(self.jobs.values()):
            for one in job.attempts:
                if outcome(one) in (None, "unknown"):
                    self.update(one.key, lambda one: absorb(one, self.seen(one.key)))

    def tick(self) -> None:
        states = reconcile(World(list(self.jobs.values()))).views
        ended = {name: shown.state for name, shown in states.items() if shown.state in ENDED}
        living = [job for name, job in self.jobs.items() if name not in ended]
        world = World(living, ended, (HostSlots("local", 2),), self.checks)
        for action in reconcile(world).actions:
            if isinstance(action, CheckOutput):
                self.checks[(action.job, action.n)] = None
            elif isinstance(action, Settle):
                raise AssertionError("no output is ever there before")
            elif isinstance(action, Place):
                self.place(action)
            else:
                self.ask(action)

    def place(self, action: Place) -> None:
        job = self.jobs[action.job]
        if job.last and outcome(job.last) == "unknown":
            self.unsafe_repeats += not job.repeatable
        assert not job.last or outcome(job.last) is not None
        assert action.n == len(job.attempts) + 1
        made = Attempt(f"{job.id}.{action.n}", job.id, action.n, action.host)
        self.jobs[job.id] = replace(job, attempts=(*job.attempts, made))
        self.checks.pop((job.id, action.n), None)

    def ask(self, action: Start | Cancel) -> None:
        lost, self.lose = self.lose, ""
        if lost == "request":
            return
        if isinstance(action, Start):
            if self.refusing and self.host.get(action.key, HostAttempt()).phase is Phase.PREPARED:
                self.update(action.key, lambda one: replace(one, refusal="the disk is full"))
                return
            self.start(action.key)
        else:
            self.end(action.key)
        if lost != "answer":
            self.update(action.key, lambda one: absorb(one, self.seen(one.key)))

    def happen(self, what: str, job: str) -> None:
        last = self.jobs[job].last
        on_host = self.host.get(last.key) if last else None
        match what:
            case "tick":
                self.tick()
            case "observe":
                self.observe()
            case "finish" | "fail" if on_host and on_host.phase is Phase.RUNNING:
                on_host.phase, on_host.exit = Phase.EXITED, Exit(code=0 if what == "finish" else 3)
            case "kill runner" if on_host and on_host.phase is Phase.RUNNING:
                on_host.phase = Phase.ORPHANED
            case "kill command" if on_host and on_host.phase is Phase.ORPHANED:
                on_host.phase = Phase.UNKNOWN
            case "reboot":
                for one in self.host.values():
                    if one.phase in (Phase.RUNNING, Phase.ORPHANED, Phase.UNKNOWN):
                        one.phase = Phase.LOST
            case "lose request" | "lose answer":
                self.lose = what.split()[1]
            case "restart controller":
                self.checks.clear()
            case "cancel":
                self.jobs[job] = replace(self.jobs[job], cancel=True)
            case "retry":
                one = self.jobs[job]
                if one.last and outcome(one.last) in ("failed", "cancelled", "done", "unknown"):
                    self.jobs[job] = replace(one, cancel=False, wanted=one.last.n + 1)
            case "refuse" | "accept":
                self.refusing = what == "refuse"

    def settle_down(self) -> None:
        """The world turns friendly; everything must come to an end."""
        self.refusing, self.lose = False, ""
        for _ in range(60):
            self.tick()
            self.observe()
            for one in self.host.values():
                if one.phase is Phase.ORPHANED:
                    one.phase = Phase.UNKNOWN
                elif one.phase is Phase.RUNNING:
                    one.phase, one.exit = Phase.EXITED, Exit(code=0)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.booleans(), st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(["j1", "j2", "j3"])), max_size=60))
def test_no_order_of_events_runs_twice_loses_a_job_or_repeats_an_unknown_outcome(
    repeatable: bool, steps: list[tuple[str, str]]
) -> None:
    bench = Bench(repeatable)
    for what, name in steps:
        bench.happen(what, name)
        assert all(one.executions <= 1 for one in bench.host.values())
        assert bench.unsafe_repeats == 0
    bench.settle_down()
    views = reconcile(World(list(bench.jobs.values()))).views
    for name, shown in views.items():
        allowed = ENDED | ({"unknown", "waiting"} if not repeatable else {"unknown"} | ({"waiting"}))
        assert shown.state in allowed, name
        if shown.state == "waiting":  # only behind an outcome that nobody knows
            assert views[bench.jobs[name].needs[0]].state == "unknown"
    assert all(one.executions <= 1 for one in bench.host.values())
