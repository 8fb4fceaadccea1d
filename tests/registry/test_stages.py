"""The stages and the ways between them."""

from __future__ import annotations

import itertools

import pytest

from backend.registry.stages import STAGES, TRANSITIONS, hops


@pytest.mark.parametrize(("before", "after"), itertools.permutations(STAGES, 2))
def test_every_way_is_made_of_legal_steps(before: str, after: str) -> None:
    way = hops(before, after)
    assert way[0][0] == before and way[-1][1] == after
    assert all(there in TRANSITIONS[here] for here, there in way)
    assert all(one[1] == next_[0] for one, next_ in itertools.pairwise(way))


def test_a_rollback_to_an_archived_model_walks_the_reference_table() -> None:
    assert hops("archived", "production") == (
        ("archived", "development"), ("development", "staging"), ("staging", "production"),
    )  # fmt: skip
    assert hops("staging", "staging") == ()


@pytest.mark.parametrize(("before", "after"), [("training", "staging"), ("development", "shadow")])
def test_unknown_stages_have_no_way(before: str, after: str) -> None:
    with pytest.raises(ValueError, match="no way"):
        hops(before, after)
