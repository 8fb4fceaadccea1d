"""Match records: one match once, beside whatever tables the reference made, and rates that follow from the rows."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.errors import SchemaError, UnverifiedError, UsageError
from backend.evaluation.match_record import MatchRecord, MatchSeat
from backend.evaluation.records import Records, stored_moves, win_rates
from backend.evaluation.statistics import wilson
from backend.paths import Paths

MODEL = "c0ffee" * 10 + "c0de"
HEURISTIC = MatchSeat("heuristic:1")


def match(number: int, *, won: bool = True, search: int = 32, sha256: str = MODEL, **changes: object) -> MatchRecord:
    """A made-up match of a model against Heuristic; its moves depend on the number."""
    seats = (MatchSeat(f"neural:{sha256[:16]}:s{search}", sha256), HEURISTIC)
    record = MatchRecord(
        config="hex8_2p",
        seats=seats,
        candidate=1,
        winner=1 if won else 2,
        ranking=(1, 2) if won else (2, 1),
        reason="territory",
        termination="natural",
        opening=f"random:1:7:{number}",
        opening_moves=4,
        seed=7,
        moves=np.array([5, 1 << 33, number], dtype=np.int64),
        engine_version="1",
        wall_s=0.5,
        worker="here:1",
    )
    return replace(record, **changes)


def rows(paths: Paths, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db:
        return db.execute(query).fetchall()


def test_rates_count_wins_unique_games_and_crashes_apart(paths: Paths) -> None:
    same_moves = match(2, won=False, opening="random:1:7:99")
    crash = match(4, winner=0, ranking=(), reason="crash", termination="crash", crashed=1)
    cap = match(5, winner=0, ranking=(), reason="cap", termination="cap")
    played = [match(0), match(1), match(2, won=False), same_moves, match(3), crash, cap]
    with Records.open(paths) as records:
        records.add("run", [(f"slot {n}", record) for n, record in enumerate(played)])
        tally = records.run_tally("run", [f"slot {n}" for n in range(7)], "heuristic:1")
    assert (tally.wins, tally.games, tally.unique, tally.crashes, tally.caps) == (3, 6, 5, 1, 1)
    (rate,) = win_rates(paths)[MODEL]
    assert (rate.opponent, rate.wins, rate.games, rate.unique, rate.crashes) == ("heuristic:1", 3, 6, 5, 1)
    assert (rate.low, rate.high) == wilson(3, 6)
    # Only matches that were played out are history: a crash is no loss and a cap no draw.
    assert rows(paths, "SELECT count(*) FROM match_history") == [(5,)]


def test_a_match_is_stored_once_however_often_it_comes(paths: Paths) -> None:
    with Records.open(paths) as records:
        for run in ("first", "first", "second"):
            records.add(run, [("a", match(0)), ("b", match(1))])
        assert records.taken("first") == records.taken("second") == {"a", "b"}
        # A slot that is taken keeps its match: a second process under the same id changes nothing.
        records.add("first", [("a", match(2))])
    assert rows(paths, "SELECT count(*) FROM match_games") == [(2,)]
    assert rows(paths, "SELECT count(*) FROM match_history") == [(2,)]
    assert win_rates(paths)[MODEL][0].games == 2


def test_rates_are_of_the_settings_played_last(paths: Paths) -> None:
    with Records.open(paths) as records:
        records.add("old", [(str(n), match(n, won=False, search=0)) for n in range(4)])
        records.add("new", [(str(n), match(n, won=True, search=64)) for n in range(2)])
    assert [(rate.wins, rate.games) for rate in win_rates(paths)[MODEL]] == [(2, 2)]


def test_matches_come_back_with_their_moves(paths: Paths) -> None:
    with Records.open(paths) as records:
        records.add("run", [("a", match(3))])
    assert stored_moves(paths, match(3).game_id) == [5, 1 << 33, 3]
    assert stored_moves(paths, "nothing") == []
    (row,) = rows(
        paths,
        "SELECT participant_ids, rankings, winner, winner_id, board_type, num_players, game_length FROM match_history",
    )
    assert json.loads(str(row[0])) == [f"neural:{MODEL[:16]}:s32", "heuristic:1"]
    assert json.loads(str(row[1])) == [0, 1]
    assert row[2:] == (f"neural:{MODEL[:16]}:s32",) * 2 + ("hex8", 2, 3)
    people = rows(paths, "SELECT participant_id, participant_type FROM participants ORDER BY 1")
    assert people == [("heuristic:1", "baseline"), (f"neural:{MODEL[:16]}:s32", "model")]


_UNIFIED = """CREATE TABLE match_history (id INTEGER PRIMARY KEY AUTOINCREMENT, participant_ids TEXT, rankings TEXT,
    winner TEXT, board_type TEXT, num_players INTEGER, timestamp REAL, game_id TEXT)"""
_SERVICE = """CREATE TABLE match_history (id TEXT PRIMARY KEY, participant_ids TEXT, winner_id TEXT, board_type TEXT,
    num_players INTEGER, timestamp TEXT NOT NULL)"""


@pytest.mark.parametrize("schema", [_UNIFIED, _SERVICE], ids=["unified", "service"])
def test_rows_go_into_whichever_columns_the_reference_made(paths: Paths, schema: str) -> None:
    paths.elo_db.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db, db:
        db.execute(schema)
        db.execute("CREATE TABLE participants (participant_id TEXT PRIMARY KEY, ai_type TEXT)")
        db.execute("INSERT INTO participants VALUES ('someone', 'mcts')")
    with Records.open(paths) as records:
        records.add("run", [("a", match(0)), ("b", match(1, won=False))])
    kinds = rows(paths, "SELECT typeof(id), typeof(timestamp), count(*) FROM match_history GROUP BY 1, 2")
    assert kinds == [("integer", "real", 2)] if schema is _UNIFIED else kinds == [("text", "text", 2)]
    assert rows(paths, "SELECT count(*) FROM participants") == [(3,)]
    assert win_rates(paths)[MODEL][0].games == 2


def test_a_run_keeps_its_settings(paths: Paths) -> None:
    with Records.open(paths) as records:
        for _ in range(2):
            records.begin_run("run", "hex8_2p", {"seed": 1})
        with pytest.raises(UsageError, match="other settings"):
            records.begin_run("run", "hex8_2p", {"seed": 2})
        records.end_run("run", 40)
    assert rows(paths, "SELECT run_id, config_key, total_games, status FROM gauntlet_runs") == [
        ("run", "hex8_2p", 40, "completed")
    ]


def test_without_records_there_are_no_rates_and_bad_files_are_errors(paths: Paths, tmp_path: Path) -> None:
    assert win_rates(paths) == {}
    paths.elo_db.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db, db:
        db.execute("CREATE TABLE elo_ratings (participant_id TEXT)")
    assert win_rates(paths) == {}  # the reference's file, not played in by us
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db, db:
        db.execute("CREATE TABLE participants (name TEXT)")
    with pytest.raises(SchemaError, match="participants lacks participant_id"):
        Records.open(paths)
    assert "match_games" not in str(rows(paths, "SELECT name FROM sqlite_master"))
    paths.elo_db.write_bytes(b"no database " * 200)
    for read in (win_rates, Records.open):
        with pytest.raises(UnverifiedError):
            read(paths)


def test_two_processes_may_add_at_the_same_time(paths: Paths) -> None:
    with Records.open(paths) as one, Records.open(paths) as two:
        one.add("one", [("a", match(0))])
        two.add("two", [("a", match(1))])
        one.add("one", [("b", match(2))])
    assert win_rates(paths)[MODEL][0].games == 3
