"""What the reconciler decides, from facts alone."""

from __future__ import annotations

from dataclasses import replace

from backend.distribution import reconcile as todo
from backend.distribution.ledger import Placed, Transfer
from backend.distribution.reasons import Failure, Reason
from backend.distribution.reconcile import Facts, HostFacts, reconcile
from backend.distribution.states import Delivery, State
from backend.distribution.transports.base import Budget, Observation

SHA = "ab" * 32


def placed(host: str, state: State, *, wave: int = 1, route: int = 0, fell_at: float = 0.0, why: Reason | None = None
           ) -> Placed:  # fmt: skip
    failure = Failure(why, "") if why else None
    receipt = SHA if state in (State.PUBLISHED, State.DONE) else ""
    row = Delivery(host, SHA, ("torrent", "rsync"), state, route, failure=failure, receipt=receipt)
    return Placed(row, int(host[1:]), wave, fell_at)


def transfer(*rows: Placed, paused: str | None = None, cancel: bool = False, resumed_at: float = 0.0) -> Transfer:
    return Transfer(
        "x1", 1, "t", "distribute", "models/a", "/a", SHA, 100, "other", None, Budget(), paused, resumed_at, cancel,
        0.0,
        rows,
    )  # fmt: skip


def facts(now: float = 100.0, hosts: dict[str, HostFacts] | None = None, **more: object) -> Facts:
    base = Facts(now, 1000.0, 99.0, hosts or {}, frozenset({"torrent"}))
    return replace(base, **more)  # type: ignore[arg-type]


def test_gpu_hosts_go_first_and_the_others_do_not_wait_for_ever() -> None:
    made = transfer(placed("n1", State.PLANNED, wave=0), placed("n2", State.PLANNED))
    assert reconcile(made, facts()) == [todo.Queue("n1")]
    assert reconcile(made, facts(now=99 + todo.WAVE_S)) == [todo.Queue("n1"), todo.Queue("n2")]
    for state in (State.FETCHED, State.PUBLISHED, State.BLOCKED, State.FAILED):
        made = transfer(placed("n1", state, wave=0), placed("n2", State.PLANNED))
        assert todo.Queue("n2") in reconcile(made, facts())


def test_a_swarm_begins_when_all_are_there_or_the_time_is_up_and_late_ones_join() -> None:
    made = transfer(placed("n1", State.PREFLIGHT), placed("n2", State.PREFLIGHT), placed("n3", State.BLOCKED))
    ready = HostFacts(ready_at=95.0)
    away = HostFacts(failed_at=99.0, failures=1)
    assert reconcile(made, facts(hosts={"n1": ready, "n2": HostFacts(busy=True), "n3": away})) == []
    now = facts(hosts={"n1": ready, "n2": ready, "n3": away})
    assert reconcile(made, now) == [todo.Begin("torrent", ("n1", "n2"))]
    late = facts(now=105.0, hosts={"n1": ready, "n2": HostFacts(busy=True), "n3": HostFacts(busy=True)})
    assert reconcile(made, late) == [todo.Begin("torrent", ("n1",))]
    running = facts(
        hosts={"n1": ready, "n2": HostFacts(busy=True), "n3": HostFacts(busy=True)}, open=frozenset({"torrent"})
    )
    assert reconcile(made, running) == [todo.Begin("torrent", ("n1",))]


def test_an_engine_with_one_source_waits_for_nobody() -> None:
    made = transfer(placed("n1", State.PREFLIGHT, route=1), placed("n2", State.QUEUED, route=1))
    found = reconcile(made, facts(hosts={"n1": HostFacts(ready_at=99.9)}))
    assert found == [todo.Prepare("n2"), todo.Begin("rsync", ("n1",))]


def test_no_byte_for_too_long_is_a_stall_and_slow_links_get_more_time() -> None:
    made = transfer(placed("n1", State.FETCHING))
    seen = Observation("n1", have=5, fault="3 of 3 peers do not answer")

    def after(seconds: float, mbit: float | None = None) -> list[todo.Action]:
        return reconcile(made, facts(hosts={"n1": HostFacts(seen=seen, gained_at=100 - seconds, mbit=mbit)}))

    assert after(19) == [] and after(59, mbit=10) == []
    for (stop,) in (after(20), after(60, mbit=10)):
        assert isinstance(stop, todo.Stop) and stop.failure.reason is Reason.STALLED
        assert "peers do not answer" in stop.failure.what


def test_who_waits_for_its_turn_or_reads_what_is_there_has_not_stalled() -> None:
    made = transfer(placed("n1", State.FETCHING))
    waiting = HostFacts(seen=Observation("n1", waits=True), gained_at=0.0)
    assert reconcile(made, facts(hosts={"n1": waiting})) == []
    assert reconcile(made, facts(hosts={"n1": replace(waiting, seen=Observation("n1"))})) != []


def test_far_behind_the_others_for_a_minute_is_a_stall() -> None:
    made = transfer(placed("n1", State.FETCHING))
    seen = Observation("n1", have=5, rate=3.0)

    def since(at: float | None) -> list[todo.Action]:
        return reconcile(made, facts(hosts={"n1": HostFacts(seen=seen, gained_at=99.0, behind_since=at)}))

    assert since(None) == [] and since(100 - todo.BEHIND_S + 1) == []
    (stop,) = since(100 - todo.BEHIND_S)
    assert isinstance(stop, todo.Stop) and stop.failure.reason is Reason.STALLED and "tenth" in stop.failure.what


def test_what_an_engine_says_is_acted_on() -> None:
    made = transfer(placed("n1", State.FETCHING))
    failure = Failure(Reason.ENGINE, "crashed")
    for seen, action in (
        (Observation("n1", complete=True), todo.Finish("n1")),
        (Observation("n1", failure=failure), todo.Stop("n1", failure)),
    ):
        assert reconcile(made, facts(hosts={"n1": HostFacts(seen=seen, gained_at=100)})) == [action]
        assert reconcile(made, facts(hosts={"n1": HostFacts(busy=True, seen=seen)})) == []


def test_what_broke_off_without_a_word_begins_anew() -> None:
    for state in (State.PREFLIGHT, State.FETCHING, State.VERIFYING):
        made = transfer(placed("n1", state))
        assert reconcile(made, facts(hosts={"n1": HostFacts()})) == [todo.Interrupt("n1")]
        assert reconcile(made, facts(hosts={"n1": HostFacts(busy=True)})) == []
    made = transfer(placed("n1", State.VERIFYING), paused="look")
    assert reconcile(made, facts()) == [todo.Interrupt("n1")]


def test_many_that_fall_back_at_once_pause_the_transfer_until_somebody_has_looked() -> None:
    rows = [placed(f"n{n}", State.QUEUED, route=1, fell_at=990.0, why=Reason.NO_ROUTE) for n in range(1, 4)]
    others = [placed(f"n{n}", State.DONE) for n in range(4, 10)]
    (pause,) = reconcile(transfer(*rows, *others), facts())
    assert isinstance(pause, todo.Pause) and "3 of 9 hosts" in pause.why and "no route" in pause.why
    assert pause.why.endswith("ringrift transfers resume x1")
    bare = [placed(f"n{n}", State.QUEUED, route=1, fell_at=990.0, why=Reason.NOT_THERE) for n in range(1, 4)]
    assert not any(isinstance(one, todo.Pause) for one in reconcile(transfer(*bare, *others), facts()))
    assert not any(isinstance(one, todo.Pause) for one in reconcile(transfer(*rows[:2], *others), facts()))
    again = transfer(*rows, *others, resumed_at=995.0)
    assert not any(isinstance(one, todo.Pause) for one in reconcile(again, facts()))
    many = [placed(f"n{n}", State.DONE) for n in range(4, 40)]
    assert not any(isinstance(one, todo.Pause) for one in reconcile(transfer(*rows, *many), facts()))


def test_nothing_is_begun_on_a_host_to_which_another_brings_the_same_bytes() -> None:
    two = transfer(placed("n1", State.QUEUED), placed("n2", State.QUEUED))
    waits = facts(hosts={"n1": HostFacts(second=True)})
    assert reconcile(two, waits) == [todo.Prepare("n2")]


def test_a_bad_file_stops_all_hosts_that_do_not_have_it() -> None:
    rows = (
        placed("n1", State.FAILED, why=Reason.NOT_LOADABLE), placed("n2", State.FETCHING), placed("n3", State.DONE),
        placed("n4", State.PLANNED), placed("n5", State.QUEUED),
    )  # fmt: skip
    found = reconcile(transfer(*rows), facts())
    assert [type(one).__name__ for one in found] == ["Stop", "Queue", "Stop"]


def test_paused_nothing_begins_and_what_is_whole_is_proved() -> None:
    rows = (placed("n1", State.FETCHING), placed("n2", State.FETCHED), placed("n3", State.QUEUED),
            placed("n4", State.PREFLIGHT), placed("n5", State.PLANNED))  # fmt: skip
    found = reconcile(transfer(*rows, paused="look"), facts())
    assert found == [todo.Interrupt("n1"), todo.Finish("n2"), todo.Interrupt("n4")]


def test_cancelled_all_end_but_those_that_have_it() -> None:
    rows = (placed("n1", State.FETCHING), placed("n2", State.PUBLISHED), placed("n3", State.BLOCKED))
    found = reconcile(transfer(*rows, cancel=True), facts())
    assert found == [todo.Cancel("n1"), todo.Cancel("n3")]


def test_hosts_give_to_others_as_long_as_somebody_needs_them() -> None:
    rows = (placed("n1", State.PUBLISHED), placed("n2", State.FETCHING))
    under_way = facts(hosts={"n2": HostFacts(seen=Observation("n2", have=5), gained_at=100.0)})
    assert reconcile(transfer(*rows), under_way) == []
    rows = (placed("n1", State.PUBLISHED), placed("n2", State.BLOCKED))
    waiting = facts(hosts={"n2": HostFacts(failures=3, failed_at=99.0)})
    assert reconcile(transfer(*rows), waiting) == [todo.Release(("n1",))]


def test_a_blocked_host_is_looked_at_less_and_less_often() -> None:
    made = transfer(placed("n1", State.BLOCKED))
    for failures, pause in ((1, 5.0), (2, 10.0), (4, 40.0), (9, 60.0)):
        for now, looks in ((99.0 + pause - 0.1, False), (99.0 + pause, True)):
            found = reconcile(made, facts(now=now, hosts={"n1": HostFacts(failures=failures, failed_at=99.0)}))
            assert (found == [todo.Queue("n1")]) is looks


def test_a_host_takes_two_files_at_a_time() -> None:
    made = transfer(placed("n1", State.QUEUED))
    assert reconcile(made, facts(hosts={"n1": HostFacts(elsewhere=2)})) == []
    assert reconcile(made, facts(hosts={"n1": HostFacts(elsewhere=1)})) == [todo.Prepare("n1")]
