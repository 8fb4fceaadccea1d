"""The state machine of a delivery, with every order of events that a seed can think of."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from backend.distribution import states
from backend.distribution.reasons import Course, Failure, Reason
from backend.distribution.states import Delivery, State, step

SHA = "ab" * 32
NEW = Delivery("node-1", SHA, ("torrent", "aria2", "rsync"))


def walk(row: Delivery, *events: states.Event) -> Delivery:
    for event in events:
        row = step(row, event)
    return row


def fetching(row: Delivery = NEW) -> Delivery:
    return walk(row, states.Queue(), states.Ask(), states.Start())


def test_the_straight_way() -> None:
    row = walk(fetching(), states.Arrived(), states.Check(), states.Proved(SHA))
    assert (row.state, row.receipt, row.transport, row.attempts) == (State.PUBLISHED, SHA, "torrent", 1)
    assert step(row, states.Release()).state is State.DONE


def test_a_host_that_has_it_needs_no_engine() -> None:
    row = walk(NEW, states.Queue(), states.Ask(), states.Proved(SHA))
    assert (row.state, row.attempts) == (State.PUBLISHED, 0)


def test_a_receipt_for_other_bytes_publishes_nothing() -> None:
    with pytest.raises(states.ImpossibleError):
        walk(fetching(), states.Arrived(), states.Check(), states.Proved("cd" * 32))


def test_a_stall_is_tried_twice_and_then_the_next_transport_has_its_turn() -> None:
    stalled = states.Failed(Failure(Reason.STALLED, "no byte for 20 s"))
    once = step(fetching(), stalled)
    assert (once.state, once.transport, once.failure and once.failure.reason) == (State.QUEUED, "torrent", "stalled")
    twice = step(fetching(once), stalled)
    assert (twice.state, twice.transport, twice.tries) == (State.QUEUED, "aria2", 0)
    row = twice
    for _ in range(4):
        row = step(fetching(row), stalled)
    assert (row.state, row.attempts) == (State.FAILED, 6)


@pytest.mark.parametrize("reason", list(Reason))
def test_what_each_reason_leads_to(reason: Reason) -> None:
    row = step(fetching(), states.Failed(Failure(reason, "")))
    expected = {
        Course.AGAIN: (State.QUEUED, "torrent"),
        Course.NEXT: (State.QUEUED, "aria2"),
        Course.WAIT: (State.BLOCKED, "torrent"),
        Course.STOP: (State.FAILED, "torrent"),
        Course.HALT: (State.FAILED, "torrent"),
        Course.NONE: (State.CANCELLED, "torrent"),
    }
    assert (row.state, row.transport) == expected[reason.course]


@pytest.mark.parametrize("state", [State.VERIFYING, State.PREFLIGHT])
def test_a_host_that_cannot_do_its_part_is_given_up_without_another_transport(state: State) -> None:
    """Nothing is started meanwhile: the bytes are there, or the host does not even take them."""
    row = step(fetching(), states.Arrived()) if state is State.VERIFYING else walk(NEW, states.Queue(), states.Ask())
    trouble = states.Failed(Failure(Reason.ENGINE, "whoever read the file was killed"))
    rounds = 0
    while row.state is not State.FAILED:
        if state is State.VERIFYING:
            row = step(row, states.Check())
        row = step(row, trouble)
        rounds += 1
        assert rounds < 50
        if row.state is State.QUEUED:
            row = step(row, states.Ask())
    assert (rounds, row.transport) == (states.TRIES + 1, "torrent")


def test_wrong_bytes_that_lie_there_whole_lead_through_all_transports_to_an_end() -> None:
    row = walk(NEW, states.Queue())
    ways = []
    while row.state is State.QUEUED and len(ways) < 50:
        ways.append(row.transport)
        row = walk(row, states.Ask(), states.Check(), states.Failed(Failure(Reason.CORRUPT, "")))
    assert row.state is State.FAILED and ways == [way for way in NEW.routes for _ in range(states.TRIES)]


def test_waiting_for_a_host_does_not_use_up_a_try() -> None:
    blocked = step(fetching(), states.Failed(Failure(Reason.DISK_FULL, "")))
    assert blocked.tries == 0
    assert step(blocked, states.Queue()).transport == "torrent"


def test_an_interruption_is_no_failure() -> None:
    row = step(fetching(), states.Interrupted())
    assert (row.state, row.tries, row.failure, row.transport) == (State.QUEUED, 0, None, "torrent")


def test_a_failed_one_wanted_again_has_all_its_transports_again() -> None:
    row = step(replace(fetching(), route=2, tries=2), states.Failed(Failure(Reason.ENGINE, "")))
    assert row.state is State.FAILED
    again = step(row, states.Queue(afresh=True))
    assert (again.state, again.transport, again.tries, again.failure) == (State.QUEUED, "torrent", 0, None)


EVENTS: list[states.Event] = [
    states.Queue(), states.Queue(afresh=True), states.Ask(), states.Start(), states.Arrived(), states.Check(),
    states.Proved(SHA), states.Interrupted(), states.Release(), states.Cancel(),
    *(states.Failed(Failure(reason, "")) for reason in Reason),
]  # fmt: skip


WEIGHTS = [1 if isinstance(event, states.Failed) else 6 for event in EVENTS]
"""So that many a walk comes far, though there are more ways to fail than to go on."""


def test_any_order_of_events_keeps_the_promises() -> None:
    random.seed(5)
    reached = set()
    for _ in range(2000):
        row = NEW
        last = (0, 0)
        for _ in range(40):
            event = random.choices(EVENTS, WEIGHTS)[0]
            try:
                after = step(row, event)
            except states.ImpossibleError:
                continue
            if after.state in states.LIVE:
                assert after.receipt == after.wanted
            if after.route != row.route:
                assert after.state is State.QUEUED, "a transport changes only while no engine runs"
            assert after.state is not State.FETCHING or after.transport
            assert after.attempts - row.attempts == isinstance(event, states.Start)
            if after.state in {State.BLOCKED, *states.ENDED} or isinstance(event, states.Interrupted):
                last = (0, 0)  # not held against anybody, or an end
            elif event == states.Queue(afresh=True):
                last = (0, 0)
            elif isinstance(event, states.Failed) and event.failure.reason.course is Course.AGAIN:
                assert (after.route, after.tries) > last, "no trouble is tried for ever"
                last = (after.route, after.tries)
            row = after
            reached.add(row.state)
    assert reached == set(State) - {State.PLANNED}


def test_every_state_but_the_last_ones_has_a_way_to_published() -> None:
    for state in set(State) - {State.DONE}:
        seen, front = {state}, [replace(NEW, state=state)]
        while front:
            row = front.pop()
            for event in EVENTS:
                try:
                    after = step(row, event)
                except states.ImpossibleError:
                    continue
                if after.state not in seen:
                    seen.add(after.state)
                    front.append(after)
        assert State.PUBLISHED in seen, state


def test_the_state_of_a_whole_transfer() -> None:
    def of(*found: State) -> State:
        return states.summary([replace(NEW, state=state) for state in found])

    assert of(State.PUBLISHED, State.FETCHING, State.QUEUED) is State.FETCHING
    assert of(State.DONE, State.BLOCKED) is State.BLOCKED
    assert of(State.DONE, State.FAILED, State.CANCELLED) is State.FAILED
    assert of(State.DONE, State.PUBLISHED) is State.PUBLISHED
    assert of(State.DONE, State.DONE) is State.DONE
