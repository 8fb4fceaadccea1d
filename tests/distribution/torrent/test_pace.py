"""The head's seats give the same, on an uplink that is simulated; no clock but the numbers here."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from backend.distribution.torrent.pace import LEAST, Pace

MB = 1_000_000.0


def drive(weights: Sequence[float], able: Sequence[float], *, share: float, uplink: float, paced: bool = True) -> float:
    """Seconds until every seat has given its share.

    Args:
        weights: how an uplink that is full is shared out where nobody is limited.
        able: bytes a second that each seat's host can take.
    """
    pace, given, limits = Pace(int(share)), [0.0] * len(weights), [0] * len(weights)
    now, step = 0.0, 0.5
    while min(given) < share:
        now += step
        most = [
            0.0 if sent >= share else min(can, limit or can)
            for sent, can, limit in zip(given, able, limits, strict=True)
        ]
        left, rates, open_ = uplink, [0.0] * len(weights), {k for k, one in enumerate(most) if one}
        while open_ and left > 1:
            unit = left / sum(weights[k] for k in open_)
            for k in sorted(open_):
                more = min(unit * weights[k], most[k] - rates[k])
                rates[k], left = rates[k] + more, left - more
            open_ = {k for k in open_ if most[k] - rates[k] > 1}
        given = [min(share, sent + rate * step) for sent, rate in zip(given, rates, strict=True)]
        if paced:
            limits = pace.limits(now, [int(sent) for sent in given])
        assert now < 1000
    return now


def test_a_seat_that_gets_little_of_the_uplink_gives_as_much_as_the_others() -> None:
    pace, given = Pace(int(1000 * MB)), [0.0, 0.0, 0.0, 0.0]
    weights, limits = [8.0, 1.0, 8.0, 8.0], [0, 0, 0, 0]
    for step in range(1, 100):
        free = 10 * MB - sum(limit for limit in limits if limit)
        heavy = sum(weight for weight, limit in zip(weights, limits, strict=True) if not limit) or 1.0
        for k in range(4):
            given[k] += 0.5 * (limits[k] or free * weights[k] / heavy)
        limits = pace.limits(step / 2, [int(sent) for sent in given])
    assert max(given) - min(given) < 0.1 * max(given)


@pytest.mark.parametrize("slow", [0.05, 0.5, 1.0])
def test_a_host_that_can_take_little_does_not_hold_the_others_up_for_long(slow: float) -> None:
    able = [slow * MB, 100 * MB, 100 * MB, 100 * MB]
    until = 30 * MB
    paced = drive([1, 1, 1, 1], able, share=until, uplink=10 * MB)
    unpaced = drive([1, 1, 1, 1], able, share=until, uplink=10 * MB, paced=False)
    assert paced <= unpaced + 1.0  # it is the slow host that both wait for


def test_what_seats_may_give_is_within_the_budget() -> None:
    pace = Pace(int(10 * MB))
    given = [0, 0, 0]
    for step in range(1, 60):
        limits = pace.limits(step / 2, given, 3 * MB)
        assert all(limits) and sum(limits) <= 3 * MB + 3
        given = [
            min(int(10 * MB), sent + limit // (k + 1) // 2)
            for k, (sent, limit) in enumerate(zip(given, limits, strict=True))
        ]


def test_a_seat_that_is_given_out_leaves_its_part_of_the_budget() -> None:
    pace = Pace(int(10 * MB))
    done, *going = pace.limits(1.0, [int(10 * MB), 0, 0], 3 * MB)
    assert 0 < done < 0.1 * MB and all(1.4 * MB < one < 1.5 * MB for one in going)


def test_nobody_is_slowed_before_anything_was_measured_or_below_the_least() -> None:
    pace = Pace(int(100 * MB))
    assert pace.limits(1.0, [0, 0]) == [0, 0]
    assert pace.limits(2.0, [0, 0]) == [0, 0]
    for second in range(3, 30):
        for limit in pace.limits(float(second), [int(second * MB), 1]):
            assert limit == 0 or limit >= LEAST * MB / 2 - 1


def test_a_seeder_that_was_started_again_counts_from_zero() -> None:
    pace = Pace(int(100 * MB))
    pace.limits(1.0, [int(MB), 0])
    pace.limits(2.0, [int(9 * MB), 0])
    assert pace.limits(3.0, [0, 0]) == [0, 0]
