"""Ratings: a function of the games and of nothing else, with intervals that cover what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.evaluation.rating_spec import ANCHOR, ANCHOR_ELO, RatingSpec, code_digest
from backend.evaluation.ratings import SCALE, Ratings, rate, win_chance
from backend.evaluation.ratings_check import chi2_tail
from backend.evaluation.ratings_newton import contrasts
from backend.players.heuristic import VERSION
from backend.thresholds import DEFAULT

Ints = NDArray[np.int64]
WINNER, RANKING = RatingSpec(), RatingSpec(stages="ranking")


def names(count: int) -> list[str]:
    """The anchor and models behind it."""
    return [ANCHOR, *(f"model{i:03d}" for i in range(1, count))]


def games(*rows: tuple[tuple[int, ...], tuple[int, ...], int]) -> tuple[Ints, Ints, Ints]:
    """Line-ups, their rankings, and how often."""
    seats, ranks, counts = zip(*rows, strict=True)
    return np.array(seats), np.array(ranks), np.array(counts)


def fit(count: int, rows: tuple[Ints, Ints, Ints], spec: RatingSpec = WINNER) -> Ratings:
    seats, ranks, counts = rows
    return rate(names(count), seats, ranks, spec, counts)


def test_the_pin_is_heuristic_as_it_plays_today_at_the_contracts_number() -> None:
    assert f"heuristic:{VERSION}" == ANCHOR
    assert DEFAULT.anchor_elo == ANCHOR_ELO


def test_two_players_agree_with_the_formula() -> None:
    """70 of 100 games and one virtual draw, from both seats alike: the logit of 70.5/101, and its standard error."""
    result = fit(2, games(((1, 0), (1, 2), 35), ((0, 1), (2, 1), 35), ((1, 0), (2, 1), 15), ((0, 1), (1, 2), 15)))
    p = 70.5 / 101
    assert result.elo[1] == pytest.approx(1500 + SCALE * math.log(p / (1 - p)), abs=1e-9)
    assert result.se[1] == pytest.approx(SCALE / math.sqrt(101 * p * (1 - p)), rel=1e-3)
    assert result.elo[0] == 1500 and result.se[0] == 0
    assert result.games.tolist() == [100, 100]
    assert result.superiority(1, 0) > 0.9999 and result.superiority(0, 0) == 0.5
    assert np.allclose(result.seat_edge, 0, atol=1e-9)


def test_1650_is_seventy_percent_against_the_anchor() -> None:
    assert win_chance(150) == pytest.approx(0.7034, abs=1e-4)
    assert win_chance(150, 4) == pytest.approx(0.4415, abs=1e-4)


def test_a_draw_is_half_a_win_of_each_and_a_tie_of_all_says_nothing() -> None:
    halves = fit(2, games(((1, 0), (1, 2), 20), ((1, 0), (2, 1), 20), ((1, 0), (1, 2), 10)))
    draws = fit(2, games(((1, 0), (1, 1), 40), ((1, 0), (1, 2), 10)))
    assert draws.elo == pytest.approx(halves.elo, abs=1e-9)
    for spec in (WINNER, RANKING):
        tie = fit(4, games(((0, 1, 2, 3), (1, 1, 1, 1), 30)), spec)
        assert tie.elo == pytest.approx([1500] * 4, abs=1e-9)


def test_the_winner_alone_counts_unless_the_ranking_is_trusted() -> None:
    rows = games(((0, 1, 2), (1, 2, 3), 30), ((1, 2, 0), (2, 3, 1), 30), ((2, 0, 1), (3, 1, 2), 30))
    one, two = fit(3, rows, WINNER), fit(3, rows, RANKING)
    assert one.elo[1] == pytest.approx(one.elo[2], abs=1e-6)
    assert two.elo[1] > two.elo[2] + 300


def simulate(
    rng: np.random.Generator, elo: NDArray[np.float64], edge: NDArray[np.float64], blocks: int
) -> tuple[Ints, Ints]:
    """Each model against the anchor and three others, every block from every seat; outcomes as Luce says."""
    players, width, rows = len(elo), len(edge), []
    for model in range(1, players):
        others = [x for x in range(1, players) if x != model]
        for opponent in [0, *rng.choice(others, min(3, len(others)), replace=False).tolist()]:
            for seat in range(width):
                row = [opponent] * width
                row[seat] = model
                rows += [row] * blocks
    seats = np.array(rows)
    scores = (elo[seats] + edge) / SCALE + rng.gumbel(size=seats.shape)
    return seats, (scores[:, :, None] < scores[:, None, :]).sum(2) + 1


@pytest.mark.parametrize("players", [2, 3, 4])
def test_intervals_of_95_percent_cover_95_percent(players: int) -> None:
    """1,800 intervals: with a coverage of 95 % the binomial's own standard deviation is half a point."""
    hits, differences, misfits = [], [], []
    for number in range(200):
        rng = np.random.default_rng([players, number])
        elo = np.append(0.0, rng.normal(100, 150, 9))
        seats, ranks = simulate(rng, elo, np.linspace(30, -30, players), 8)
        result = rate(names(10), seats, ranks, WINNER)
        for model in range(1, 10):
            low, high = result.band(model)
            hits.append(low <= 1500 + elo[model] <= high)
        difference, se = result.difference(1, 2)
        differences.append(abs(difference - (elo[1] - elo[2])) <= 1.96 * se)
        assert result.check.p is not None
        misfits.append(result.check.p < 0.05)
    assert 0.93 <= np.mean(hits) <= 0.97
    assert 0.91 <= np.mean(differences) <= 0.99  # 200 of them: one deviation is 1.5 points
    assert np.mean(misfits) <= 0.11  # the fit check rejects what is true in one of twenty


def test_the_edge_of_a_seat_is_found_and_does_not_leak_into_the_ratings() -> None:
    rng = np.random.default_rng(5)
    elo, edge = np.array([0.0, 120.0, -80.0, 40.0]), np.array([90.0, 0.0, -90.0])
    found = []
    for _ in range(20):
        seats, ranks = simulate(rng, elo, edge, 30)
        found.append(rate(names(4), seats, ranks, WINNER))
    assert np.mean([one.seat_edge for one in found], axis=0) == pytest.approx(edge, abs=12)
    assert np.mean([one.elo for one in found], axis=0) == pytest.approx(1500 + elo, abs=20)
    assert found[0].seat_edge.sum() == pytest.approx(0, abs=1e-9)


@given(st.randoms(use_true_random=False), st.sampled_from([2, 3, 4]))
@settings(max_examples=25, deadline=None)
def test_neither_the_order_of_games_nor_of_names_matters(random: object, players: int) -> None:
    rng = np.random.default_rng(random.getrandbits(64))  # type: ignore[attr-defined]
    count = int(rng.integers(2, 8))
    seats = rng.integers(0, count, (60, players))
    ranks = rng.integers(1, players + 1, (60, players))
    for spec in (WINNER, RANKING):
        one = rate(names(count), seats, ranks, spec)
        order, label = rng.permutation(60), rng.permutation(count)
        back = np.argsort(label)
        other = rate([names(count)[i] for i in label], back[seats][order], ranks[order], spec)
        assert other.players == one.players and other.unrated == one.unrated
        assert np.abs(other.elo - one.elo).max(initial=0) < 1e-6
        assert np.abs(other.covariance - one.covariance).max(initial=0) < 1e-6
        assert np.abs(other.seat_edge - one.seat_edge).max() < 1e-6


def test_a_full_score_is_finite_and_says_that_nothing_bounds_it() -> None:
    all_won = fit(2, games(((1, 0), (1, 2), 50), ((0, 1), (2, 1), 50)))
    low, high = all_won.band(1)
    assert 2100 < all_won.elo[1] < 2700 and all_won.se[1] > 150
    assert bool(all_won.open_above[1]) and not all_won.open_below[1]
    # Whoever won 100 of 100 wins 96.4 % or more at 95 % (Clopper and Pearson): +570. The band starts no higher.
    assert low < 1500 + 570 < high
    lost = fit(2, games(((1, 0), (2, 1), 50), ((0, 1), (1, 2), 50)))
    assert lost.elo[1] == pytest.approx(3000 - all_won.elo[1], abs=1e-6)
    assert bool(lost.open_below[1]) and not lost.open_above[1]


def test_separable_groups_are_finite_and_open_where_only_the_prior_holds_them() -> None:
    """Models 1 and 2 exchange wins, and neither ever lost to the anchor or to 3, which lost to it too."""
    result = fit(
        4,
        games(
            ((1, 2), (1, 2), 10), ((1, 2), (2, 1), 10), ((1, 0), (1, 2), 20), ((2, 0), (1, 2), 20), ((0, 3), (1, 2), 9)
        ),
    )
    assert np.isfinite(result.elo).all() and np.isfinite(result.se).all()
    assert result.open_above.tolist() == [False, True, True, False]
    assert result.open_below.tolist() == [False, False, False, True]
    assert result.difference(1, 2)[1] < result.se[1]  # they know of each other more than of the anchor


def test_players_without_a_way_to_the_anchor_have_no_number() -> None:
    result = fit(5, games(((0, 1), (1, 2), 9), ((0, 1), (2, 1), 3), ((2, 3), (1, 2), 7), ((4, 4), (1, 2), 5)))
    assert result.players == (ANCHOR, "model001")
    assert result.unrated == {"model002": 7, "model003": 7, "model004": 5}
    assert result.index("model002") is None
    nobody = rate(["a", "b"], np.array([[0, 1]]), np.array([[1, 2]]), WINNER)
    assert nobody.players == () and nobody.unrated == {"a": 1, "b": 1}


def test_one_extra_group_does_not_change_the_others() -> None:
    rows = games(((0, 1), (1, 2), 9), ((0, 1), (2, 1), 3))
    more = games(((0, 1), (1, 2), 9), ((0, 1), (2, 1), 3), ((2, 3), (1, 2), 7))
    assert fit(4, more).elo == pytest.approx(fit(2, rows).elo, abs=1e-9)


def test_an_intransitive_pair_is_flagged() -> None:
    rng = np.random.default_rng(2)
    seats, ranks = simulate(rng, np.zeros(6), np.zeros(2), 20)
    assert not rate(names(6), seats, ranks, WINNER).check.suspicious
    beaten = np.array([[1, 2]] * 60 + [[2, 1]] * 60)
    places = np.array([[2, 1]] * 60 + [[1, 2]] * 60)
    result = rate(names(6), np.concatenate([seats, beaten]), np.concatenate([ranks, places]), WINNER)
    assert result.check.suspicious and result.check.p is not None and result.check.p < 0.01
    worst = result.check.worst
    assert worst is not None and {result.players[worst.first], result.players[worst.second]} == {"model001", "model002"}


def test_the_prior_does_not_drag_a_large_pool() -> None:
    """120 models 300 Elo above the anchor, each met it for a quarter of its games."""
    rng = np.random.default_rng(3)
    elo = np.append(0.0, rng.normal(300, 100, 120))
    seats, ranks = simulate(rng, elo, np.zeros(2), 10)
    result = rate(names(121), seats, ranks, WINNER)
    assert abs((result.elo - 1500 - elo)[1:].mean()) < 25


def test_the_tail_of_chi_square_and_the_contrasts_are_right() -> None:
    for value, freedom, tail in ((3.841, 1, 0.05), (18.307, 10, 0.05), (5.0, 5, 0.4159), (124.342, 100, 0.05)):
        assert chi2_tail(value, freedom) == pytest.approx(tail, abs=0.006)
    for seats in (2, 3, 4):
        columns = contrasts(seats)
        assert columns.T @ columns == pytest.approx(np.eye(seats - 1))
        assert columns.sum(0) == pytest.approx(0)


def test_a_spec_is_data_and_names_its_code() -> None:
    assert code_digest() in WINNER.to_json()
    assert WINNER.digest != RANKING.digest
    assert RatingSpec(pins={ANCHOR: 1200.0}).digest != WINNER.digest
