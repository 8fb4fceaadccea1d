"""Who is far behind the others, and since when."""

from __future__ import annotations

from backend.distribution.behind import Behind


def test_a_tenth_of_the_median_is_behind_since_it_fell_there() -> None:
    pace = Behind()
    rates = {"a": 100.0, "b": 100.0, "c": 120.0, "d": 9.0}
    assert pace.look(5.0, rates, {}) == {"d": 5.0}
    assert pace.look(8.0, rates, {}) == {"d": 5.0}
    assert pace.look(9.0, rates | {"d": 11.0}, {}) == {}, "slow is not behind"
    assert pace.look(10.0, rates, {}) == {"d": 10.0}, "counted anew"


def test_two_hosts_say_nothing_of_each_other_but_the_last_median_stands() -> None:
    pace = Behind()
    assert pace.look(1.0, {"a": 100.0, "b": 0.0}, {}) == {}
    assert pace.look(2.0, {"a": 100.0, "b": 100.0, "c": 0.0}, {}) == {"c": 2.0}
    assert pace.look(30.0, {"c": 5.0}, {}) == {"c": 2.0}, "the others are done, and it crawls on"
    assert pace.look(31.0, {}, {}) == {}


def test_who_uses_a_slow_link_or_a_limit_is_not_behind() -> None:
    pace = Behind()
    rates = {"a": 100.0, "b": 100.0, "c": 4.0, "d": 0.2}
    assert pace.look(1.0, rates, {"a": 1000.0, "c": 4.0, "d": 4.0}) == {"d": 1.0}


def test_where_all_stand_still_nobody_is_behind() -> None:
    pace = Behind()
    assert pace.look(1.0, {"a": 0.0, "b": 0.0, "c": 0.0}, {}) == {}
