from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.evaluation.statistics import chance
from backend.evaluation.stats.luce import elo_difference, expected_score, rate_for_elo, same_odds

players = st.sampled_from([2, 3, 4])


@pytest.mark.parametrize(
    ("rate", "three", "four"), [(0.60, 0.429, 0.333), (0.90, 0.818, 0.750), (0.85, 0.739, 0.654), (0.5, 1 / 3, 0.25)]
)
def test_the_same_odds_against_more_opponents(rate: float, three: float, four: float) -> None:
    assert same_odds(rate, 2) == pytest.approx(rate)
    assert (same_odds(rate, 3), same_odds(rate, 4)) == pytest.approx((three, four), abs=5e-4)


def test_elo_thresholds_as_win_rates() -> None:
    assert rate_for_elo(1650, 1500) == pytest.approx(0.70, abs=5e-3)
    assert rate_for_elo(1400, 1500) == pytest.approx(0.36, abs=5e-3)
    assert elo_difference(0.6) == pytest.approx(70.4, abs=0.1)
    assert rate_for_elo(1650, 1200) == pytest.approx(0.930, abs=5e-4)


@given(st.floats(-900, 900), players)
def test_elo_and_win_rate_are_inverse_and_mean_the_same_strength_for_any_number_of_players(d: float, n: int) -> None:
    rate = expected_score(d, n)
    assert elo_difference(rate, n) == pytest.approx(d, abs=1e-6)
    assert same_odds(expected_score(d), n) == pytest.approx(rate)
    assert expected_score(d + 1, n) > rate
    assert expected_score(d) + expected_score(-d) == pytest.approx(1)


@given(st.floats(-600, 600), players)
def test_it_is_luces_rule(d: float, n: int) -> None:
    """All win probabilities of a lineup sum to one: each other player has strength 1 against 1's and the candidate."""
    strength = 10 ** (d / 400)
    assert expected_score(d, n) + (n - 1) / (strength + n - 1) == pytest.approx(1)


def test_the_ends() -> None:
    for n in (2, 3, 4):
        assert expected_score(0, n) == pytest.approx(chance(n))
        assert (same_odds(0, n), same_odds(1, n)) == (0, 1)
        assert (elo_difference(0, n), elo_difference(1, n)) == (-math.inf, math.inf)
    for call in (lambda: same_odds(1.1, 2), lambda: elo_difference(-0.1), lambda: expected_score(0, 1)):
        with pytest.raises(ValueError):
            call()
