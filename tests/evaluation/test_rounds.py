"""Whom a gauntlet that decides plays next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.evaluation.criteria import Row
from backend.evaluation.rounds import FIRST_GAMES, next_round
from backend.evaluation.verdict import Outcome

CHAMPION = "c" * 16
PLAYED = {"heuristic": 40, CHAMPION: 40, "random": 40}


def row(verdict: Outcome, opponent: str = "", more: int = 0) -> Row:
    return Row("c", "r", "-", "-", "-", "-", verdict, "", more, opponent)


PASS, FAIL, CONTINUE, NONE = Outcome.PASS, Outcome.FAIL, Outcome.CONTINUE, Outcome.NO_EVIDENCE


def test_the_criterion_that_takes_the_fewest_games_comes_first() -> None:
    rows = [row(CONTINUE), row(CONTINUE, "heuristic", 90), row(CONTINUE, "random", 25), row(PASS, CHAMPION)]
    assert next_round(rows, PLAYED, 400) == ("random", 65)
    assert next_round(rows, PLAYED | {"random": 400}, 400) == ("heuristic", 80)  # never more than twice as many


def test_what_is_decided_is_not_played_for_and_a_fail_ends_it_all() -> None:
    assert next_round([row(PASS), row(PASS, "heuristic"), row(CONTINUE, "random", 30)], PLAYED, 400) == ("random", 70)
    assert next_round([row(CONTINUE), row(FAIL, "heuristic"), row(CONTINUE, "random", 30)], PLAYED, 400) is None
    assert next_round([row(PASS), row(Outcome.INVALID, "random")], PLAYED, 400) is None
    assert next_round([row(PASS), row(PASS, "heuristic")], PLAYED, 400) is None


def test_what_all_games_count_for_takes_the_one_that_tells_most_and_comes_last() -> None:
    floor = row(CONTINUE, more=30)
    assert next_round([floor, row(PASS, "random"), row(PASS, "heuristic")], PLAYED, 400) == ("heuristic", 70)
    assert next_round([floor, row(CONTINUE, CHAMPION, 200)], PLAYED, 400) == (CHAMPION, 80)
    assert next_round([floor], PLAYED | {"heuristic": 40}, 40) is None
    assert next_round([floor], PLAYED | {"random": 20}, 40) == ("random", 40)


def test_without_games_the_first_look_comes_soon() -> None:
    rows = [row(NONE, more=50), row(NONE, "heuristic"), row(NONE, "random")]
    assert next_round(rows, dict.fromkeys(PLAYED, 0), 400) == ("heuristic", FIRST_GAMES)
    assert next_round(rows, dict.fromkeys(PLAYED, 0), 2) == ("heuristic", 2)


@given(
    st.lists(st.builds(row, st.sampled_from(Outcome), st.sampled_from(["", *PLAYED]), st.integers(0, 500)), max_size=5),
    st.integers(1, 300),
)
def test_it_ends_within_the_games_that_are_allowed(rows: list[Row], most: int) -> None:
    games = dict.fromkeys(PLAYED, 0)
    for _ in range(3 * (most // FIRST_GAMES + 1) + 1):
        due = next_round(rows, games, most)
        if due is None:
            break
        assert games[due[0]] < due[1] <= most
        games[due[0]] = due[1]
    assert next_round(rows, games, most) is None
