"""What the watchdog makes of what it is told; no clock but the numbers here."""

from __future__ import annotations

from backend.distribution.reasons import Reason
from backend.distribution.torrent.watchdog import HUNGRY_S, ROUTE_S, STALL_S, WAITING_S, WEAK_S, Watchdog

MB = 1_000_000


def begun(*names: str) -> Watchdog:
    dog = Watchdog()
    for name in names:
        dog.begin(name, 0.0)
    return dog


def test_a_host_without_a_byte_is_fed_first_and_given_up_later() -> None:
    dog = begun("a")
    dog.heard("a", 1.0, done=MB, rate=1.0, peers=2)
    assert not dog.judge(1.0 + HUNGRY_S)
    assert dog.judge(1.1 + HUNGRY_S).hungry == {"a"}
    assert not dog.judge(2.0 + HUNGRY_S).hungry  # said once
    assert dog.judge(1.1 + STALL_S).failed["a"].reason is Reason.STALLED


def test_new_bytes_start_the_count_again() -> None:
    dog = begun("a")
    for second in range(1, 60):
        dog.heard("a", float(second), done=second, rate=1.0, peers=1)
        assert not dog.judge(second + 0.5)


def test_checking_what_is_there_is_no_stall() -> None:
    dog = begun("a")
    for second in range(0, 100, 2):
        dog.heard("a", float(second), done=0, rate=0.0, peers=1, busy=True)
        assert not dog.judge(second + 1.0)


def test_a_host_that_met_nobody_has_no_route() -> None:
    dog = begun("a")
    dog.heard("a", 1.0, done=0, rate=0.0, peers=0, absent=["10.0.0.1:999"])
    found = dog.judge(ROUTE_S + 0.1).failed["a"]
    assert found.reason is Reason.NO_ROUTE and "10.0.0.1:999" in found.what and found.hint


def test_a_complete_host_is_never_given_up() -> None:
    dog = begun("a")
    dog.heard("a", 1.0, done=MB, rate=0.0, peers=0, complete=True)
    assert not dog.judge(1000.0)


def test_who_is_far_slower_than_the_others_is_weak_after_a_while() -> None:
    dog = begun("a", "b", "c", "d")
    for second in range(1, 12):
        for name, rate in (("a", 10.0), ("b", 11.0), ("c", 9.0), ("d", 1.0)):
            dog.heard(name, float(second), done=int(second * rate), rate=rate, peers=3)
        found = dog.judge(float(second))
        assert (found.weak == {"d"}) == (second == 1 + WEAK_S), second


def test_where_all_are_slow_nobody_is_weak() -> None:
    dog = begun("a", "b", "c")
    for second in range(1, 20):
        for name in ("a", "b", "c"):
            dog.heard(name, float(second), done=second, rate=1.0, peers=3)
        assert not dog.judge(float(second)).weak


def still_moving(dog: Watchdog, second: int) -> None:
    for name in dog.pulses:
        dog.heard(name, float(second), done=second * MB, rate=MB, peers=2)


def test_a_late_seat_is_told_once_on_the_way_and_once_at_the_end() -> None:
    dog = begun("a", "b", "c")
    share = 100 * MB
    assert dog.judge(1.0, [MB, MB, 0], share).late == ()  # too early to tell
    assert dog.judge(2.0, [20 * MB, 22 * MB, 4 * MB], share).late == (2,)
    assert dog.judge(3.0, [30 * MB, 32 * MB, 6 * MB], share).late == ()
    for second in range(4, 10):
        still_moving(dog, second)
        assert dog.judge(float(second), [90 * MB, 90 * MB, (second + 2) * MB], share).late == ()
    still_moving(dog, 10)
    assert dog.judge(10.0, [share, share, 12 * MB], share).late == (2,)
    assert dog.judge(11.0, [share, share, 13 * MB], share).late == ()


def test_a_seat_that_will_soon_have_given_the_rest_is_not_late_at_the_end() -> None:
    dog = begun("a", "b", "c")
    share = 100 * MB
    for second in range(2, 7):
        still_moving(dog, second)
        given = [min(share, second * 20 * MB), min(share, second * 20 * MB), second * 15 * MB]
        assert dog.judge(float(second), given, share).late == ()


def test_a_seat_that_the_others_wait_for_is_late_before_they_are_hungry() -> None:
    dog = begun("a", "b", "c")
    for name in ("a", "b", "c"):
        dog.heard(name, 1.0, done=MB, rate=1.0, peers=2)
    share = 100 * MB
    assert dog.judge(1.5 + WAITING_S, [share, share, 80 * MB], share).late == (2,)
    found = dog.judge(1.6 + WAITING_S, [share, share, 80 * MB], share)
    assert found.late == () and not found.hungry


def test_nobody_is_blamed_for_the_head_s_absence() -> None:
    dog = begun("a")
    dog.heard("a", 1.0, done=MB, rate=1.0, peers=1)
    dog.excuse(100.0)
    assert not dog.judge(100.0 + HUNGRY_S)
    assert not dog.judge(100.0 + STALL_S).failed


def test_nobody_is_slow_for_what_was_not_heard() -> None:
    dog = begun("a", "b", "c", "d")
    for name in ("a", "b", "c", "d"):
        dog.heard(name, 1.0, done=MB, rate=1.0 if name == "d" else 100.0, peers=1)
    assert not dog.judge(1.0)
    dog.excuse(30.0)
    assert not dog.judge(30.0), "it was slow before, and may not be now"
    assert not dog.judge(30.0 + WEAK_S / 2).weak
    assert dog.judge(30.0 + WEAK_S).weak == {"d"}
