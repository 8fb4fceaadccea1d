from __future__ import annotations

import math

import pytest

from backend.evaluation.statistics import chance, clopper_pearson, wilson


@pytest.mark.parametrize(
    ("wins", "games", "low", "high"),
    [
        # Published examples: Wilson's interval of 70/100 and 280/400; Newcombe (1998), 81/263 and 15/148.
        (70, 100, 0.604, 0.781),
        (280, 400, 0.653, 0.743),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_wilson_gives_the_published_intervals(wins: int, games: int, low: float, high: float) -> None:
    assert wilson(wins, games) == pytest.approx((low, high), abs=6e-4)


def test_clopper_pearson_gives_the_published_intervals() -> None:
    # Newcombe (1998), method 5.
    assert clopper_pearson(81, 263) == pytest.approx((0.2527, 0.3676), abs=1e-4)
    assert clopper_pearson(15, 148) == pytest.approx((0.0578, 0.1617), abs=1e-4)
    assert clopper_pearson(0, 20)[1] == pytest.approx(1 - 0.025 ** (1 / 20), abs=1e-9)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
@pytest.mark.parametrize("games", [1, 2, 17, 100])
def test_intervals_are_mirrored_hold_the_rate_and_end_at_the_ends(interval, games: int) -> None:  # type: ignore[no-untyped-def]
    for wins in range(games + 1):
        low, high = interval(wins, games)
        mirrored_low, mirrored_high = interval(games - wins, games)
        assert 0 <= low <= wins / games <= high <= 1
        assert low == pytest.approx(1 - mirrored_high) and high == pytest.approx(1 - mirrored_low)
    assert interval(0, games)[0] == 0 and interval(games, games)[1] == 1


def test_the_exact_interval_covers_at_least_as_often_as_it_says() -> None:
    games = 40
    intervals = [clopper_pearson(wins, games) for wins in range(games + 1)]
    for p in (0.05, 0.3, 0.5, 0.9):
        covered = sum(
            math.comb(games, wins) * p**wins * (1 - p) ** (games - wins)
            for wins, (low, high) in enumerate(intervals)
            if low <= p <= high
        )
        assert covered >= 0.95


def test_nothing_is_known_without_games_and_impossible_counts_are_refused() -> None:
    assert wilson(0, 0) == clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError):
        wilson(3, 2)
    assert chance(4) == 0.25
