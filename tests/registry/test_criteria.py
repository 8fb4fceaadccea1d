"""Which player of a model is judged, and what its other searches count for."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from backend.configs import parse_config
from backend.evaluation.criteria import Assessment, assess
from backend.evaluation.rating_store import void_games
from backend.evaluation.verdict import Outcome
from backend.paths import Paths
from backend.snapshot import ModelRow
from tests.registry.conftest import Make
from tests.registry.synthetic import play

CONFIG = parse_config("hex8_2p")


def judged(
    paths: Paths, row: ModelRow, stage: str, search: str | None = None, champion: str | None = None
) -> Assessment:
    return assess(paths, CONFIG, row.sha256, stage, champion, search)


def test_games_with_different_searches_are_not_put_together(paths: Paths, make_model: Make) -> None:
    row = make_model()
    play(paths, row.sha256, "heuristic:1", 240, wins=206, search="s800")
    play(paths, row.sha256, "random:1", 120, wins=118, search="s0")
    found = judged(paths, row, "production")
    verdicts = {one.criterion: one.verdict for one in found.rows}
    assert verdicts["Random"] is Outcome.NO_EVIDENCE and verdicts["games at s800"] is Outcome.PASS
    assert found.outcome == "NO EVIDENCE" and found.search == found.record()["search"] == "s800"
    play(paths, row.sha256, "random:1", 120, wins=118, search="s800")
    assert judged(paths, row, "production").outcome == "PASS"


def test_a_fail_with_one_search_stands_whatever_another_says(paths: Paths, make_model: Make) -> None:
    row = make_model()
    play(paths, row.sha256, "heuristic:1", 120, wins=50, search="s16")
    play(paths, row.sha256, "heuristic:1", 2, wins=2, search="s17")
    assert (judged(paths, row, "staging").outcome, judged(paths, row, "staging").search) == ("FAIL", "s16")
    play(paths, row.sha256, "heuristic:1", 240, wins=206, search="s17")
    found = judged(paths, row, "staging")
    assert (found.outcome, found.search) == ("FAIL", "s17")
    assert [one.verdict for one in found.rows[:2]] == [Outcome.PASS, Outcome.PASS]
    assert found.deciding is not None and found.deciding.criterion == "Elo delta to Heuristic at s16"
    assert judged(paths, row, "staging", "s16").outcome == "FAIL"


def test_the_champion_is_met_with_the_same_search(paths: Paths, make_model: Make) -> None:
    row, champion = make_model(), "c" * 64
    identity = f"neural:{champion[:16]}"
    play(paths, row.sha256, f"{identity}:s1", 200, wins=170, opponent_sha256=champion)
    assert judged(paths, row, "staging", champion=champion).outcome == "NO EVIDENCE"
    play(paths, row.sha256, f"{identity}:s16", 200, wins=150, opponent_sha256=champion)
    assert judged(paths, row, "staging", champion=champion).outcome == "PASS"


def test_a_weaker_model_does_not_take_the_place_of_a_champion_that_came_after_it_was_staged(
    paths: Paths, make_model: Make
) -> None:
    champion, row = make_model(), make_model()
    play(paths, row.sha256, "heuristic:1", 240, wins=206)
    play(paths, row.sha256, "random:1", 120, wins=118)
    staged, strong = judged(paths, row, "production"), judged(paths, row, "production", champion=champion.sha256)
    assert staged.outcome == "PASS" and strong.outcome == "NO EVIDENCE"
    identity = f"neural:{champion.sha256[:16]}:s16"
    play(paths, row.sha256, identity, 100, wins=30, opponent_sha256=champion.sha256)
    found = judged(paths, row, "production", champion=champion.sha256)
    assert found.outcome == "FAIL" and found.deciding is not None and found.deciding.criterion == "Elo delta"


def test_games_that_were_made_void_count_for_no_criterion(paths: Paths, make_model: Make) -> None:
    row = make_model()
    play(paths, row.sha256, "heuristic:1", 240, wins=206)
    assert judged(paths, row, "staging").outcome == "PASS"
    with closing(sqlite3.connect(paths.elo_db)) as db:
        games = [game for (game,) in db.execute("SELECT game_id FROM match_games ORDER BY seq")]
    assert void_games(paths, games[:200], "a broken host") == 200
    found = judged(paths, row, "production")
    assert {one.games for one in found.rows if one.criterion != "Random"} == {"40 (40)"}
    assert judged(paths, row, "staging").outcome == "CONTINUE"
