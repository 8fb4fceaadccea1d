from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.evaluation.stats.blocks import BlockTest, _Bet, gsprt
from backend.evaluation.stats.luce import same_odds
from backend.evaluation.stats.sprt import Decision, Sprt
from tests.evaluation.exact import betting_rule, elo, normal_form_rule, pair_scores, pairs

CRITERIA = [(0.60, 0.70), (0.85, 0.94), (0.90, 0.97), (0.50, elo(50))]
pair_lists = st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=60)


@given(pair_lists, st.sampled_from(CRITERIA))
def test_the_tests_are_the_ones_that_the_oracle_enumerates(scores: list[float], rates: tuple[float, float]) -> None:
    """The exact numbers below are about these functions: after every block both say the same."""
    test = BlockTest(*rates, size=2)
    betting, normal = betting_rule(*rates), normal_form_rule(*rates)
    for n in range(1, len(scores) + 1):
        seen = scores[:n]
        halves, wholes = np.array(seen.count(0.5)), np.array(seen.count(1.0))
        found = {Decision.PASS: 1, Decision.CONTINUE: 0, Decision.FAIL: -1}
        llr, bound = gsprt(seen, 2, *rates), math.log(19)
        assert int(normal(n, halves, wholes)) == int(llr >= bound) - int(llr <= -bound)
        look = test.replay(seen)
        assert found[look.decision] == int(betting(n, halves, wholes))
        if look.decision is not Decision.CONTINUE:
            assert look.games == 2 * n and test.replay(scores) == look  # the first decision stands
            break


@pytest.mark.parametrize(("rates", "passed"), zip(CRITERIA, [0.0999, 0.1990, 0.2806, 0.0573], strict=True))
def test_the_normal_form_passes_a_model_at_the_threshold_too_often(rates: tuple[float, float], passed: float) -> None:
    """Why no verdict rests on it: its variance is small where luck was great, even when games are independent."""
    assert pairs(normal_form_rule(*rates), pair_scores(rates[0]), 200).passed == pytest.approx(passed, abs=2e-3)


@pytest.mark.parametrize("rates", CRITERIA)
def test_betting_keeps_both_errors_however_the_games_of_a_pair_hang_together(rates: tuple[float, float]) -> None:
    low, high = rates
    for together in (0.0, 0.1, 0.2, 0.5, 1.0):
        assert pairs(betting_rule(*rates), pair_scores(low, together), 200).passed <= 0.05
        assert pairs(betting_rule(*rates), pair_scores(high, together), 200).failed <= 0.05
    for edge in (0.1, 0.3):
        if high + edge < 1:
            assert pairs(betting_rule(*rates), pair_scores(low, edge=edge), 200).passed <= 0.05
            assert pairs(betting_rule(*rates), pair_scores(high, edge=edge), 200).failed <= 0.05


def test_what_the_guarantee_costs_when_games_are_independent() -> None:
    """Mean games of the betting test at both rates, against the SPRT's 125/129, 59/77 and 234/236."""
    for rates, at_low, at_high, power in (
        ((0.60, 0.70), 134, 139, 0.93),
        ((0.90, 0.97), 64, 101, 0.96),
        ((0.50, elo(50)), 247, 249, 0.74),
    ):
        rule = betting_rule(*rates)
        assert pairs(rule, pair_scores(rates[0]), 200).games == pytest.approx(at_low, rel=0.005)
        better = pairs(rule, pair_scores(rates[1]), 200)
        assert better.games == pytest.approx(at_high, rel=0.005) and better.passed >= power


def test_independent_games_fool_the_plain_sprt_no_more_than_five_percent_but_joined_ones_do() -> None:
    def rule(n: int, halves, wholes):  # type: ignore[no-untyped-def]
        llr = Sprt(0.6, 0.7).llr(halves + 2 * wholes, 2 * n)
        return (llr >= math.log(19)).astype(int) - (llr <= -math.log(19)).astype(int)

    assert pairs(rule, pair_scores(0.6), 200).passed == pytest.approx(0.0434, abs=1e-3)
    assert pairs(rule, pair_scores(0.6, edge=0.3), 200).passed < 0.0434
    assert pairs(rule, pair_scores(0.6, together=1.0), 200).passed == pytest.approx(0.1755, abs=2e-3)


@given(
    st.sampled_from(CRITERIA),
    st.sampled_from([2, 3, 4]),
    st.lists(st.floats(0, 1), max_size=30),
    st.lists(st.floats(0.01, 1), min_size=5, max_size=5),
)
def test_a_bet_is_fair_whatever_the_block_scores_look_like(
    rates: tuple[float, float], players: int, before: list[float], weights: list[float]
) -> None:
    """The whole guarantee: at the threshold the wealth is expected to stay what it is, and it is never lost whole."""
    fair, good = (same_odds(rate, players) for rate in rates)
    scores = [n / players for n in range(players + 1)]
    shares = np.array(weights[: players + 1]) / sum(weights[: players + 1])
    mean = float(shares @ scores)
    # Shift weight onto the scores 0 or 1 until the mean is the threshold.
    to = 1.0 if mean < fair else 0.0
    move = (fair - mean) / (to - mean) if mean != fair else 0.0
    shares = (1 - move) * shares
    shares[-1 if to else 0] += move
    assert float(shares @ scores) == pytest.approx(fair)

    def wealth(more: list[float]) -> float:
        bet = _Bet(fair, good - fair, players)
        for score in before + more:
            bet.add(score)
        return math.exp(bet.log_wealth)

    now = wealth([])
    assert now > 0
    expected = sum(share * wealth([score]) for share, score in zip(shares, scores, strict=True))
    assert expected == pytest.approx(now, rel=1e-9)


@pytest.mark.parametrize("players", [3, 4])
@pytest.mark.parametrize("rates", CRITERIA)
def test_three_and_four_players_keep_the_error_with_joined_blocks(rates: tuple[float, float], players: int) -> None:
    low, high = (same_odds(rate, players) for rate in rates)
    random = np.random.Generator(np.random.PCG64(7))
    test = BlockTest(low, high, players)
    for together in (0.0, 0.5, 1.0):
        wrong, runs = 0, 1500
        for _ in range(runs):
            games = random.random((400 // players, players)) < low
            joined = random.random(400 // players) < together
            games[joined] = games[joined, :1]
            wrong += test.replay(games.mean(axis=1).tolist()).decision is Decision.PASS
        assert wrong / runs <= 0.05


@given(pair_lists, st.randoms(use_true_random=False))
def test_evidence_does_not_depend_on_the_order_and_repeats_weaken_it(scores: list[float], random) -> None:  # type: ignore[no-untyped-def]
    test = BlockTest(0.6, 0.7, 2, alpha=1e-9, beta=1e-9)  # no decision, so that all blocks are looked at
    shuffled = random.sample(scores, len(scores))
    look = test.replay(scores)
    assert test.replay(shuffled).llr == pytest.approx(look.llr, abs=1e-9)
    assert abs(test.replay(scores, 0.5).llr) <= abs(look.llr) + 1e-9
    if scores:
        better = [1.0, *scores[1:]]
        assert test.replay(better).llr >= look.llr - 1e-9


def test_blocks_that_are_missing_or_beyond_the_cap() -> None:
    test = BlockTest(0.6, 0.7, 3, max_games=100)
    fresh = test.replay([])
    assert fresh.decision is Decision.CONTINUE and fresh.llr == 0 and fresh.more % 3 == 0 and fresh.more > 0
    dull = [1.0, 1 / 3] * 40
    look = test.replay(dull)
    assert look.capped and look.games == 99 and look.more == 0 and look.decision is Decision.CONTINUE
    growing = [test.replay([1.0] * n).more for n in range(1, 8)]
    assert all(a > b > 0 for a, b in pairwise(growing))
    with pytest.raises(ValueError):
        test.replay([1.5])
    with pytest.raises(ValueError):
        test.replay([], weight=2)
    with pytest.raises(ValueError):
        BlockTest(0.6, 0.7, 0)
