"""Stored counts are what the matches say, whoever stored them and whenever."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backend.evaluation import match_totals
from backend.evaluation.records import Records, win_rates
from backend.paths import Paths
from tests.evaluation.test_rating_history import A, B, match, store


def counted(path: Path) -> list[match_totals.Total]:
    """All results by looking at every match."""
    with closing(sqlite3.connect(path)) as db:
        return sorted(db.execute(match_totals._COUNT.format("IS NOT NULL")))


def told(path: Path) -> list[match_totals.Total]:
    with closing(sqlite3.connect(path)) as db:
        return sorted(match_totals.totals(db))


@pytest.fixture
def played(paths: Paths) -> Paths:
    store(paths, "one", [*(match(n, won=n < 7) for n in range(10)), match(10, termination="crash"), match(3)])
    store(paths, "two", [match(20 + n, B, won=n < 2, search=8) for n in range(5)])
    store(paths, "three", [match(30 + n, opponent="random:1") for n in range(4)])
    return paths


def test_counts_grow_with_the_matches(played: Paths) -> None:
    assert told(played.elo_db) == counted(played.elo_db)
    with closing(sqlite3.connect(played.elo_db)) as db:
        assert len(db.execute("SELECT * FROM match_totals").fetchall()) == 3
    rates = {rate.opponent: rate for rate in win_rates(played)[A]}
    assert (rates["heuristic:1"].wins, rates["heuristic:1"].games, rates["heuristic:1"].crashes) == (7, 10, 1)
    assert rates["random:1"].games == 4


def test_matches_that_others_stored_without_counting_are_counted(played: Paths) -> None:
    with closing(sqlite3.connect(played.elo_db)) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(match_games)") if row[1] not in ("seq", "game_id")]
        names = ", ".join(columns)
        db.execute(
            f"INSERT INTO match_games (game_id, {names}) SELECT 'x', {names} FROM match_games "
            "WHERE candidate_sha256 = ? LIMIT 1",
            (B,),
        )
    assert told(played.elo_db) == counted(played.elo_db)
    store(played, "four", [match(50)])
    with closing(sqlite3.connect(played.elo_db)) as db:
        assert sorted(db.execute("SELECT * FROM match_totals")) == counted(played.elo_db)


def test_records_from_before_the_counts_are_counted_at_the_first_write(played: Paths) -> None:
    with closing(sqlite3.connect(played.elo_db)) as db, db:
        db.execute("DROP TABLE match_totals")
        db.execute("DROP TABLE match_totals_upto")
    assert told(played.elo_db) == counted(played.elo_db)
    Records.open(played).close()
    assert told(played.elo_db) == counted(played.elo_db)  # the tables are there, and empty
    store(played, "five", [match(60)])
    with closing(sqlite3.connect(played.elo_db)) as db:
        assert sorted(db.execute("SELECT * FROM match_totals")) == counted(played.elo_db)


def test_what_has_not_changed_is_the_same_object(played: Paths) -> None:
    before = win_rates(played)
    store(played, "six", [match(70)])
    after = win_rates(played)
    assert after[B] is before[B]
    assert after[A] is not before[A]
