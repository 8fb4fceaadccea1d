from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.evaluation.stats.luce import expected_score, same_odds
from backend.evaluation.stats.sprt import Decision, Sprt
from tests.evaluation.exact import characteristics, elo

rates = st.floats(0.02, 0.98)


def exact(test: Sprt, p: float):  # type: ignore[no-untyped-def]
    return characteristics(lambda wins, games: test.at(wins, games).decision, p, test.max_games, test.look)


# The operating characteristics of the design: (true rate, P(pass), mean games). They come out with a look
# after each pair of games and a cap of 400 games (600 for the test of [-50, 0]).
HEURISTIC = [
    (0.30, 0, 20), (0.50, 0, 47), (0.55, 0.002, 70), (0.60, 0.043, 125), (0.65, 0.423, 194),
    (0.70, 0.940, 129), (0.75, 0.999, 70), (0.80, 1, 47), (0.90, 1, 28),
]  # fmt: skip
RANDOM = [
    (0.50, 0, 7), (0.80, 0, 20), (0.88, 0.014, 43), (0.90, 0.047, 59),
    (0.95, 0.711, 110), (0.98, 0.994, 60), (0.99, 1, 48), (0.999, 1, 41),
]  # fmt: skip
CHAMPION_50 = [
    (elo(-100), 0, 61), (elo(-20), 0.004, 161), (elo(0), 0.036, 234), (elo(35), 0.482, 285),
    (elo(50), 0.773, 236), (elo(100), 1, 102), (elo(200), 1, 48),
]  # fmt: skip
CHAMPION_100 = [
    (elo(-100), 0, 26), (elo(-20), 0.012, 54), (elo(0), 0.041, 72), (elo(35), 0.28, 114),
    (elo(50), 0.496, 121), (elo(100), 0.959, 73), (elo(200), 1, 29),
]  # fmt: skip
REGRESSION = [(elo(100), 1, 61), (elo(0), 0.893, 258), (elo(-50), 0.042, 259), (elo(-100), 0, 102)]


@pytest.mark.parametrize(
    ("test", "tabled"),
    [
        (Sprt(0.60, 0.70, look=2), HEURISTIC),
        (Sprt(0.90, 0.97, look=2), RANDOM),
        (Sprt(0.50, elo(50), look=2), CHAMPION_50),
        (Sprt(0.50, elo(100), look=2), CHAMPION_100),
        (Sprt(elo(-50), 0.50, max_games=600, look=2), REGRESSION),
    ],
    ids=["60 %", "90 %", "[0, +50]", "[0, +100]", "[-50, 0]"],
)
def test_the_tables_of_the_design_come_out(test: Sprt, tabled: list[tuple[float, float, float]]) -> None:
    for p, passed, games in tabled:
        found = exact(test, p)
        assert found.passed == pytest.approx(passed, abs=0.0011)
        assert found.games == pytest.approx(games, abs=0.6)
        assert found.passed + found.failed + found.undecided == pytest.approx(1)


@pytest.mark.parametrize("players", [2, 3, 4])
@pytest.mark.parametrize(("low", "high"), [(0.60, 0.70), (0.85, 0.94), (0.90, 0.97), (0.50, elo(50)), (0.50, elo(100))])
def test_a_model_at_the_threshold_passes_in_one_of_twenty_tests_at_most(low: float, high: float, players: int) -> None:
    test = Sprt(same_odds(low, players), same_odds(high, players), look=players)
    at, above = exact(test, test.p0), exact(test, test.p1)
    assert 0.02 < at.passed <= 0.05  # far below 5 % the test would only be slow
    assert above.failed <= 0.05


@given(rates, rates, st.integers(0, 60), st.integers(0, 60))
def test_the_ratio_is_mirrored_adds_up_and_grows_with_wins(a: float, b: float, wins: int, losses: int) -> None:
    if abs(a - b) < 1e-3:
        return
    low, high = min(a, b), max(a, b)
    test, mirrored = Sprt(low, high), Sprt(1 - high, 1 - low)
    llr = test.llr(wins, wins + losses)
    assert llr == pytest.approx(-mirrored.llr(losses, wins + losses), abs=1e-9)
    assert llr == pytest.approx(wins * test.llr(1, 1) + losses * test.llr(0, 1), abs=1e-9)
    assert test.llr(wins + 1, wins + losses + 1) > llr > test.llr(wins, wins + losses + 1)
    assert test.upper == pytest.approx(-test.lower)


@pytest.mark.parametrize("test", [Sprt(0.6, 0.7), Sprt(0.9, 0.97), Sprt(0.5, expected_score(50))])
def test_the_games_still_needed_are_about_those_that_enumeration_gives(test: Sprt) -> None:
    endless = Sprt(test.p0, test.p1, max_games=3000)
    for p in (test.p0 - 0.1, test.p0, (test.p0 + test.p1) / 2, test.p1, test.p1 + 0.015):
        assert test.expected_more(p) == pytest.approx(exact(endless, p).games, rel=0.1)


def test_a_look_tells_what_is_left_and_where_it_ends() -> None:
    test = Sprt(0.6, 0.7, look=2)
    fresh = test.at(0, 0)
    assert fresh.decision is Decision.CONTINUE and 100 < fresh.more < 150 and not fresh.capped
    assert test.at(65, 100).more < test.max_games - 100
    near, far = test.at(71, 100), test.at(69, 100)
    assert near.decision is far.decision is Decision.CONTINUE and near.more < far.more
    assert test.at(20, 20).decision is Decision.PASS and test.at(19, 19).decision is Decision.CONTINUE
    assert test.at(0, 11).decision is Decision.FAIL and test.at(0, 10).decision is Decision.CONTINUE
    last = test.at(260, 400)
    assert last.decision is Decision.CONTINUE and last.capped and last.more == 0
    assert not test.at(258, 398).capped and test.at(258, 398).more <= 2


@pytest.mark.parametrize(
    "arguments", [(0.7, 0.6), (0.6, 0.6), (0.0, 0.5), (0.5, 1.0), (0.5, 0.6, 0.0), (0.5, 0.6, 0.05, 0.5)]
)
def test_impossible_tests_and_counts_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError):
        Sprt(*arguments)
    with pytest.raises(ValueError):
        Sprt(0.5, 0.6).at(3, 2)
