"""Of two transfers that bring the same bytes to a host, one waits, and says for which."""

from __future__ import annotations

from dataclasses import replace

from backend.distribution.same_bytes import Part, second_in_line
from backend.distribution.states import State


def test_who_is_at_it_goes_on_and_else_the_older_one_that_may() -> None:
    one = Part("x1", 1, "ab", "n1", State.FETCHING, True)
    two = Part("x2", 2, "ab", "n1", State.QUEUED, True)
    others = [replace(two, host="n2"), replace(two, transfer="x3", number=3, sha256="cd")]
    assert second_in_line([two, *others, one]) == {("x2", "n1"): "x1"}
    assert second_in_line([two, replace(one, state=State.DONE)]) == {}
    older = replace(one, number=0, transfer="x0", state=State.QUEUED)
    assert second_in_line([two, older]) == {("x2", "n1"): "x0"}
    assert second_in_line([two, replace(older, goes_on=False)]) == {("x0", "n1"): "x2"}
