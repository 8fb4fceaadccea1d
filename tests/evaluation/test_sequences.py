from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.evaluation.statistics import clopper_pearson, wilson
from backend.evaluation.stats.sequences import confidence_sequence
from tests.evaluation.exact import characteristics


def test_the_intervals_of_the_design_come_out() -> None:
    assert confidence_sequence(70, 100) == pytest.approx((0.537, 0.834), abs=6e-4)
    assert confidence_sequence(280, 400) == pytest.approx((0.616, 0.776), abs=6e-4)


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.5, 0.99))
def test_the_interval_is_mirrored_holds_the_rate_and_narrows_as_games_repeat(
    wins: int, losses: int, confidence: float
) -> None:
    games = wins + losses
    low, high = confidence_sequence(wins, games, confidence)
    other_low, other_high = confidence_sequence(losses, games, confidence)
    assert 0 <= low <= high <= 1
    assert low == pytest.approx(1 - other_high, abs=1e-9) and high == pytest.approx(1 - other_low, abs=1e-9)
    wider = confidence_sequence(wins, games, (1 + confidence) / 2)
    assert wider[0] <= low and high <= wider[1]
    if games:
        assert low <= wins / games <= high
        half = confidence_sequence(wins / 2, games / 2, confidence)
        assert half[0] <= low + 1e-9 and high - 1e-9 <= half[1]


@given(st.integers(0, 200), st.integers(1, 200))
def test_one_more_win_raises_both_ends(wins: int, losses: int) -> None:
    low, high = confidence_sequence(wins, wins + losses)
    higher_low, higher_high = confidence_sequence(wins + 1, wins + losses)
    assert higher_low >= low and higher_high >= high


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9])
def test_the_true_rate_is_in_every_interval_of_a_growing_record_in_95_of_100_records(p: float) -> None:
    """Exact, for the worst reader: one who stops as soon as the interval is wrong. A Wilson interval read so fails."""

    def excludes(interval):  # type: ignore[no-untyped-def]
        @cache
        def decide(wins: int, games: int) -> str:
            low, high = interval(wins, games)
            return "CONTINUE" if low <= p <= high else "FAIL"

        return decide

    assert characteristics(excludes(confidence_sequence), p, 250).failed <= 0.05
    assert characteristics(excludes(wilson), p, 250).failed > 0.2


def test_simulated_readers_who_stop_when_they_like_what_they_see_are_told_the_truth() -> None:
    """Seeded: rates drawn at random, each reader stops when the lower end clears a target of his own, or at the end."""
    random = np.random.Generator(np.random.PCG64(11))
    told, readers = 0, 1500
    for _ in range(readers):
        p, target, wins = random.random(), random.random(), 0
        interval = (0.0, 1.0)
        for games in range(1, 121):
            wins += random.random() < p
            if games % 4 == 0:
                interval = confidence_sequence(wins, games)
                if interval[0] > target:
                    break
        told += interval[0] <= p <= interval[1]
    assert told / readers >= 0.95


def test_nothing_is_known_without_games_and_impossible_counts_are_refused() -> None:
    assert confidence_sequence(0, 0) == (0.0, 1.0)
    assert confidence_sequence(0, 30)[0] == 0 and confidence_sequence(30, 30)[1] == 1
    assert confidence_sequence(98, 100)[0] < clopper_pearson(98, 100)[0]
    for arguments in ((3, 2), (-1, 2), (1, 2, 1.0), (1, 2, 0.0)):
        with pytest.raises(ValueError):
            confidence_sequence(*arguments)
