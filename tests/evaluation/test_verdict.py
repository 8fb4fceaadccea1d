from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.evaluation.stats.sequences import confidence_sequence
from backend.evaluation.verdict import (
    Criterion,
    Games,
    Outcome,
    Verdict,
    gauntlet_criteria,
    judge,
    production_criteria,
    staging_criterion,
)
from backend.thresholds import DEFAULT
from tests.evaluation.exact import characteristics, elo

STAGING = staging_criterion(DEFAULT, 2)
HEURISTIC, RANDOM = production_criteria(DEFAULT, 2)


def totals(wins: int, games: int, **more: int) -> Games:
    return Games(wins, games, **{"unique": games, **more})


def of_blocks(*blocks: int, players: int = 2) -> Games:
    games = players * len(blocks)
    return Games(sum(blocks), games, games, blocks=blocks)


def test_no_games_are_no_evidence_even_if_some_crashed() -> None:
    for crashes in (0, 7):
        verdict = judge(HEURISTIC, Games(0, 0, 0, crashes))
        assert verdict.verdict is Outcome.NO_EVIDENCE and not verdict.minimum
        assert (verdict.measured, verdict.interval, verdict.evidence) == (None, None, None)
        assert ("7 crashed" in verdict.reason) == bool(crashes)


def test_the_floor_of_the_contract_is_kept_whatever_the_evidence() -> None:
    before, at = judge(STAGING, totals(45, 49)), judge(STAGING, totals(46, 50))
    assert before.verdict is Outcome.CONTINUE and before.more == 1 and not before.minimum
    assert "1 more unique games to the contract's 50" in before.reason
    assert before.evidence is not None and before.evidence.llr >= before.evidence.upper
    assert at.verdict is Outcome.PASS and at.minimum and at.more == 0
    assert judge(HEURISTIC, totals(90, 99)).verdict is Outcome.CONTINUE
    assert judge(HEURISTIC, totals(91, 100)).verdict is Outcome.PASS


def test_a_floor_over_several_opponents_counts_all_their_games() -> None:
    short = judge(HEURISTIC, totals(54, 60))
    assert short.verdict is Outcome.CONTINUE and short.more == 40
    assert judge(HEURISTIC, totals(54, 60, counted=130)).verdict is Outcome.PASS
    assert judge(HEURISTIC, totals(120, 150, counted=99)).verdict is Outcome.CONTINUE


def test_the_rate_alone_is_not_enough() -> None:
    """60 of 100 meets the contract's own rule and is undecided: the model may well be at 55 %."""
    verdict = judge(HEURISTIC, totals(60, 100))
    assert verdict.minimum and verdict.verdict is Outcome.CONTINUE and 0 < verdict.more <= 300
    assert f"about {verdict.more} more games" in verdict.reason
    assert verdict.measured == 0.6 and verdict.interval == confidence_sequence(60, 100)


def test_evidence_against_fails_without_waiting_for_the_floor() -> None:
    verdict = judge(HEURISTIC, totals(2, 20))
    assert verdict.verdict is Outcome.FAIL and "evidence against" in verdict.reason and not verdict.minimum


def test_undecided_at_the_cap_is_not_passed() -> None:
    verdict = judge(HEURISTIC, totals(260, 400))
    assert verdict.verdict is Outcome.FAIL and verdict.minimum
    assert verdict.reason == "insufficient evidence after 400 games"
    assert judge(HEURISTIC, totals(259, 398)).verdict is Outcome.CONTINUE


@pytest.mark.parametrize(("crashes", "outcome"), [(1, Outcome.PASS), (2, Outcome.INVALID), (50, Outcome.INVALID)])
def test_more_than_one_percent_of_crashes_make_it_invalid(crashes: int, outcome: Outcome) -> None:
    verdict = judge(HEURISTIC, totals(100, 110, crashes=crashes))
    assert verdict.verdict is outcome and verdict.crashes == crashes
    lost = judge(HEURISTIC, totals(1, 110, crashes=crashes)).verdict
    assert lost is (Outcome.FAIL if outcome is Outcome.PASS else outcome)


def test_a_game_played_again_says_nothing_new() -> None:
    once, again = judge(HEURISTIC, totals(90, 100)), judge(HEURISTIC, totals(90, 100, unique=10))
    assert once.verdict is Outcome.PASS and again.verdict is Outcome.CONTINUE
    assert "90 of 100 games are repeats" in again.reason and "repeats" not in once.reason
    assert again.interval == confidence_sequence(9, 10) and again.measured == once.measured
    assert once.evidence and again.evidence and again.evidence.llr == pytest.approx(once.evidence.llr / 10)
    for unique in range(1, 100):  # whole numbers or not
        assert judge(HEURISTIC, totals(100, 100, unique=unique)).unique == unique
    assert judge(HEURISTIC, totals(400, 400, unique=1)).reason.startswith("insufficient evidence")
    pairs = Games(100, 100, 4, blocks=(2,) * 50)
    assert judge(HEURISTIC, pairs).verdict is Outcome.CONTINUE


def test_blocks_are_looked_at_in_turn_and_the_first_decision_stands() -> None:
    strong = judge(HEURISTIC, of_blocks(*[2] * 50))
    assert strong.verdict is Outcome.PASS and strong.evidence is not None
    assert strong.evidence.unit == "blocks" and strong.evidence.games < 40
    late = judge(HEURISTIC, of_blocks(*[0] * 20, *[2] * 80))
    assert late.verdict is Outcome.FAIL and late.minimum and late.evidence is not None and late.evidence.games < 40
    fallen = judge(HEURISTIC, of_blocks(*[2] * 20, *[0] * 40))
    assert fallen.verdict is Outcome.FAIL and not fallen.minimum and "rate of all games" in fallen.reason


def test_blocks_won_or_lost_whole_count_as_what_they_are() -> None:
    """Pairs of one win each say more than as many games won and lost in pairs; totals cannot tell."""
    split, whole = of_blocks(*[2, 2, 1, 1] * 14), of_blocks(*[2, 2, 2, 0] * 14)
    assert (split.wins, split.games) == (whole.wins, whole.games)
    a, b = judge(HEURISTIC, split).evidence, judge(HEURISTIC, whole).evidence
    assert a is not None and b is not None and a.llr > b.llr


@pytest.mark.parametrize(
    ("players", "heuristic", "random", "champion"),
    [
        (2, ">= 60.0 %", ">= 90.0 %", "> 50.0 %"),
        (3, ">= 42.9 % (same odds as 60 % of two)", ">= 81.8 % (same odds as 90 % of two)",
         "> 33.3 % (same odds as 50 % of two)"),
        (4, ">= 33.3 % (same odds as 60 % of two)", ">= 75.0 % (same odds as 90 % of two)",
         "> 25.0 % (same odds as 50 % of two)"),
    ],
)  # fmt: skip
def test_requirements_know_how_many_play(players: int, heuristic: str, random: str, champion: str) -> None:
    criteria = (*production_criteria(DEFAULT, players), staging_criterion(DEFAULT, players))
    assert [criterion.requirement for criterion in criteria] == [heuristic, random, champion]
    assert [criterion.floor for criterion in criteria] == [100, 100, 50]
    games = gauntlet_criteria(DEFAULT, players)
    assert [criterion.floor for criterion in games] == [0, 0] and games[0].required == criteria[0].required


def test_the_threshold_itself_is_reached_but_equality_is_not_better() -> None:
    assert judge(HEURISTIC, totals(60, 100)).minimum and not judge(HEURISTIC, totals(59, 100)).minimum
    assert judge(STAGING, totals(51, 100)).minimum and not judge(STAGING, totals(50, 100)).minimum
    thirds = production_criteria(DEFAULT, 4)[0]
    assert judge(thirds, totals(40, 120)).minimum and not judge(thirds, totals(39, 120)).minimum
    assert not judge(staging_criterion(DEFAULT, 3), totals(40, 120)).minimum


def promoted(criterion: Criterion, p: float):  # type: ignore[no-untyped-def]
    @cache
    def decide(wins: int, games: int) -> str:
        return judge(criterion, totals(wins, games)).verdict.value

    return characteristics(decide, p, criterion.max_games, criterion.players)


@pytest.mark.parametrize("players", [2, 3, 4])
def test_an_equal_model_is_promoted_in_one_of_twenty_cases_at_most(players: int) -> None:
    """Exact, of the whole verdict with its floor. The rule of the contract alone promotes an equal pair in 44 % (56 %
    if a tie counts)."""
    criterion = staging_criterion(DEFAULT, players)
    assert promoted(criterion, 1 / players).passed <= 0.05
    if players == 2:
        assert promoted(criterion, elo(100)).passed > 0.95
        alone = characteristics(
            lambda wins, games: "CONTINUE" if games < 50 else "PASS" if 2 * wins > games else "FAIL", 0.5, 50
        )
        assert alone.passed == pytest.approx(0.444, abs=1e-3)


@pytest.mark.parametrize("criterion", [*production_criteria(DEFAULT, 2), *gauntlet_criteria(DEFAULT, 2)])
def test_a_model_at_a_threshold_passes_in_one_of_twenty_cases_at_most(criterion: Criterion) -> None:
    assert promoted(criterion, criterion.required).passed <= 0.05


@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from([STAGING, HEURISTIC, RANDOM]))
def test_one_more_win_instead_of_a_loss_never_makes_it_worse(wins: int, losses: int, criterion: Criterion) -> None:
    if not losses:
        return
    order = {Outcome.FAIL: 0, Outcome.CONTINUE: 1, Outcome.PASS: 2}
    worse, better = (judge(criterion, totals(w, wins + losses)) for w in (wins, wins + 1))
    assert order[worse.verdict] <= order[better.verdict]
    assert worse.evidence and better.evidence and worse.evidence.llr < better.evidence.llr


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(0, 3))
def test_a_verdict_holds_together(blocks: list[int], crashes: int) -> None:
    criterion = production_criteria(DEFAULT, 3)[0]
    games = 3 * len(blocks)
    verdict: Verdict = judge(criterion, Games(sum(blocks), games, games, crashes, tuple(blocks)))
    assert verdict.reason and (verdict.more > 0) == (verdict.verdict is Outcome.CONTINUE)
    if verdict.verdict is Outcome.PASS:
        assert verdict.minimum and verdict.evidence and verdict.evidence.decision == "PASS"
    if verdict.interval and verdict.measured is not None:
        assert verdict.interval[0] <= verdict.measured <= verdict.interval[1]


@pytest.mark.parametrize(
    "games",
    [
        Games(3, 2, 2), Games(-1, 2, 2), Games(1, 2, 3), Games(1, 2, 0), Games(1, 2, 2, -1),
        Games(2, 2, 2, blocks=(3,)), Games(1, 2, 2, blocks=(2,)), Games(2, 2, 2, blocks=(1, 1)),
    ],
)  # fmt: skip
def test_counts_that_contradict_one_another_are_refused(games: Games) -> None:
    with pytest.raises(ValueError):
        judge(HEURISTIC, games)
