"""Ratings out of the match records: every point of the history from the rows, corrections, what verify finds."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backend.configs import parse_config
from backend.errors import Exit, NotFoundError, UnverifiedError, UsageError
from backend.evaluation.gauntlet import Candidate, GauntletSettings, gauntlet
from backend.evaluation.match_record import MatchRecord, MatchSeat
from backend.evaluation.rated_games import model_of, player_key
from backend.evaluation.rating_history import (
    by_model,
    configs_with_games,
    current,
    history,
    load_games,
    publish,
    rate_at,
    series,
    spec_of,
)
from backend.evaluation.rating_store import pack_covariance, pack_ratings, unpack_ratings, void_games
from backend.evaluation.rating_verify import verify
from backend.evaluation.records import Records
from backend.evaluation.reference_ratings import stored_ratings
from backend.paths import Paths
from backend.progress import Progress
from ringrift_console.cli import main

A, B = "aa" * 32, "bb" * 32
CONFIG = "hex8_2p"


def match(number: int, one: str = A, won: bool = True, *, opponent: str = "heuristic:1", search: int = 32,
          termination: str = "natural") -> MatchRecord:  # fmt: skip
    """A made-up match of a model; its moves depend on the number."""
    natural = termination == "natural"
    return MatchRecord(
        config=CONFIG,
        seats=(MatchSeat(f"neural:{one[:16]}:s{search}", one), MatchSeat(opponent)),
        candidate=1,
        winner=(1 if won else 2) if natural else 0,
        ranking=((1, 2) if won else (2, 1)) if natural else (),
        reason="territory",
        termination=termination,  # type: ignore[arg-type]
        opening=f"random:1:7:{number}",
        opening_moves=4,
        seed=7,
        moves=np.array([5, 1 << 33, number], dtype=np.int64),
        engine_version="1",
        wall_s=0.5,
        worker="here:1",
        crashed=int(termination == "crash"),
    )


def store(paths: Paths, run: str, matches: list[MatchRecord]) -> None:
    with Records.open(paths) as records:
        records.add(run, [(str(number), one) for number, one in enumerate(matches)])


def change(paths: Paths, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db, db:
        assert db.execute(statement, values).rowcount > 0


@pytest.fixture
def played(paths: Paths) -> Paths:
    """Two runs: A wins 7 of 10 and a capped game, B 4 of 10; one crash; published after each."""
    store(paths, "first", [*(match(n, won=n < 7) for n in range(10)), match(10, termination="cap")])
    publish(paths, CONFIG)
    store(paths, "second", [*(match(20 + n, B, won=n < 4) for n in range(10)), match(40, B, termination="crash")])
    publish(paths, CONFIG)
    return paths


def test_a_model_is_its_file_and_its_search_and_a_baseline_its_identity() -> None:
    assert player_key(f"neural:{A[:16]}:s32", A) == f"{A}:s32"
    assert player_key("heuristic:1:e0.05", None) == "heuristic:1:e0.05"
    assert model_of(f"{A}:s32") == A and model_of("ladder:1:heuristic:1:n32") is None


def test_a_cap_is_a_tie_and_a_crash_counts_for_nobody(played: Paths) -> None:
    games = load_games(played, CONFIG)
    assert len(games.seq) == 21 and games.ranks[10].tolist() == [1, 1]
    found = current(played, CONFIG)
    assert found.players == (f"{A}:s32", f"{B}:s32", "heuristic:1")
    assert found.games.tolist() == [11, 10, 21]
    a, b = by_model(found)[A], by_model(found)[B]
    assert a.elo > 1500 > b.elo and a.low < 1500 < b.high


def test_every_point_of_the_history_comes_again_from_the_rows(played: Paths) -> None:
    points = history(played, CONFIG)
    assert [(point.run, point.games) for point in points] == [("first", 11), ("second", 21)]
    games = load_games(played, CONFIG)
    for point in points:
        again = rate_at(games, spec_of(CONFIG), point.seq)
        for index, player in enumerate(again.players):
            assert point.players[player].elo == again.elo[index]  # to the last bit
            assert point.players[player].se == pytest.approx(again.se[index], abs=1e-12)
    assert [len(line) for player, line in sorted(series(points).items())] == [2, 1, 2]
    assert [point.seq for point in history(played, CONFIG, 1)] == [points[-1].seq]


def test_what_is_read_without_a_snapshot_is_the_same(played: Paths) -> None:
    stored = current(played, CONFIG)
    change(played, "DELETE FROM rating_snapshots")
    fresh = current(played, CONFIG)
    assert (fresh.elo == stored.elo).all() and fresh.covariance == pytest.approx(stored.covariance, rel=1e-6)


def test_ratings_survive_packing_bit_by_bit(played: Paths) -> None:
    games = load_games(played, CONFIG)
    found = rate_at(games, spec_of(CONFIG), games.last)
    again = unpack_ratings(pack_ratings(found), pack_covariance(found.covariance))
    assert (again.elo == found.elo).all() and (again.se == found.se).all()
    assert again.check == found.check and again.players == found.players
    assert again.covariance == pytest.approx(found.covariance, rel=1e-6)


def test_a_void_game_leaves_the_present_and_stays_in_the_past(played: Paths) -> None:
    games = load_games(played, CONFIG)
    before, past = current(played, CONFIG), history(played, CONFIG)[0]
    with pytest.raises(UsageError):
        void_games(played, games.game_ids[:1], "  ")
    with pytest.raises(NotFoundError):
        void_games(played, [games.game_ids[0], "nothing"], "broken host")
    assert void_games(played, games.game_ids[:2], "broken host") == 2
    assert void_games(played, games.game_ids[:2], "again") == 0
    assert len(load_games(played, CONFIG).seq) == 21  # the rows are there
    after = current(played, CONFIG)
    assert after.games.tolist() == [9, 10, 19] and after.elo[0] < before.elo[0]
    assert history(played, CONFIG)[0] == past
    assert history(played, CONFIG)[1].games == 19
    publish(played, CONFIG)
    assert verify(played, CONFIG).snapshots == 3
    assert (current(played, CONFIG).elo == after.elo).all()


def test_players_apart_from_the_anchor_are_unrated(paths: Paths) -> None:
    store(paths, "run", [match(n, opponent="heuristic:1:e0.05") for n in range(4)])
    found = publish(paths, CONFIG)
    assert found.players == () and found.unrated == {f"{A}:s32": 4, "heuristic:1:e0.05": 4}
    assert verify(paths, CONFIG).snapshots == 1


def _outcome(paths: Paths) -> None:
    change(paths, "UPDATE match_games SET ranking = '[1, 2]', winner = 1, won = 1 WHERE seq = 9")


def _moves(paths: Paths) -> None:
    change(paths, "UPDATE match_games SET moves = x'00' WHERE seq = 3")


def _seats(paths: Paths) -> None:
    change(paths, "UPDATE match_games SET seats = replace(seats, 'heuristic', 'random') WHERE seq = 3")


def _gone(paths: Paths) -> None:
    change(paths, "DELETE FROM match_games WHERE seq = 3")


def _rating(paths: Paths) -> None:
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db:
        ratings, covariance = db.execute("SELECT ratings, covariance FROM rating_snapshots WHERE id = 2").fetchone()
    found = unpack_ratings(ratings, covariance)
    found.elo[0] += 2e-6
    change(paths, "UPDATE rating_snapshots SET ratings = ? WHERE id = 2", pack_ratings(found))


def _damage(paths: Paths) -> None:
    change(paths, "UPDATE rating_snapshots SET ratings = x'1234' WHERE id = 1")


def _spec(paths: Paths) -> None:
    change(paths, "UPDATE rating_snapshots SET spec = 'other' WHERE id = 1")


@pytest.mark.parametrize("fault", [_outcome, _moves, _seats, _gone, _rating, _damage, _spec])
def test_verify_finds_what_was_changed_behind_its_back(
    played: Paths, fault: Callable[[Paths], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(played, CONFIG).largest_difference < 1e-6
    assert main(["ratings", "verify", "--root", str(played.root)]) == Exit.DONE
    fault(played)
    with pytest.raises(UnverifiedError):
        verify(played, CONFIG)
    capsys.readouterr()
    assert main(["ratings", "verify", "--root", str(played.root)]) == Exit.UNVERIFIED == 7
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "match" in said.err


def test_a_replay_finds_a_result_that_no_snapshot_covers(paths: Paths) -> None:
    config = parse_config("square8_2p")
    settings = GauntletSettings(config, Candidate("heuristic"), ("random",), 3)
    gauntlet(paths, settings, 4, run_id="real", workers=1, progress=Progress(None, "games", echo=False))
    assert verify(paths, config.key, replay=True).snapshots == 1  # a gauntlet publishes
    change(paths, "DELETE FROM rating_snapshots")
    change(
        paths,
        "UPDATE match_games SET winner = 3 - winner, ranking = CASE winner WHEN 1 THEN '[2, 1]' ELSE '[1, 2]' END "
        "WHERE seq = 1",
    )
    assert verify(paths, config.key).matches == 4
    with pytest.raises(UnverifiedError, match="did not end as stored"):
        verify(paths, config.key, replay=True)


def test_snapshots_of_other_code_are_compared_too(played: Paths) -> None:
    with contextlib.closing(sqlite3.connect(played.elo_db)) as db:
        (text,) = db.execute("SELECT spec FROM rating_specs").fetchone()
    older = json.dumps(json.loads(text) | {"code": "before"}, sort_keys=True)
    change(played, "UPDATE rating_specs SET digest = 'before', spec = ?", older)
    change(played, "UPDATE rating_snapshots SET spec = 'before'")
    checked = verify(played, CONFIG)
    assert (checked.snapshots, checked.other_code) == (2, 2)


def test_the_references_table_is_filled_when_it_is_ours(played: Paths) -> None:
    with contextlib.closing(sqlite3.connect(played.elo_db)) as db:
        rows = db.execute(
            "SELECT participant_id, rating, games_played, wins, losses, draws, rating_deviation FROM elo_ratings "
            "WHERE board_type = 'hex8' AND num_players = 2 ORDER BY 1"
        ).fetchall()
    found = current(played, CONFIG)
    assert [row[0] for row in rows] == ["heuristic:1", f"neural:{A[:16]}:s32", f"neural:{B[:16]}:s32"]
    assert [row[2:6] for row in rows] == [(21, 9, 11, 1), (11, 7, 3, 1), (10, 4, 6, 0)]
    assert rows[1][1] == found.elo[0] and rows[1][6] == pytest.approx(found.se[0])
    assert stored_ratings(played, CONFIG) == []


def test_the_references_own_table_is_read_and_never_written(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    paths.elo_db.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db, db:
        db.execute("CREATE TABLE elo_ratings (participant_id TEXT, board_type TEXT, num_players INT, rating REAL)")
        db.execute("INSERT INTO elo_ratings VALUES ('theirs', 'hex8', 2, 1234.5), ('other', 'hex8', 3, 1)")
    store(paths, "run", [match(n, won=n % 2 == 0) for n in range(4)])
    publish(paths, CONFIG)
    assert [(one.participant, one.rating, one.games) for one in stored_ratings(paths, CONFIG)] == [
        ("theirs", 1234.5, 0)
    ]
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db:
        assert db.execute("SELECT count(*), sum(rating) FROM elo_ratings").fetchone() == (2, 1235.5)
    assert main(["ratings", "list", "--config", CONFIG, "--root", str(paths.root)]) == Exit.DONE
    assert "theirs" in capsys.readouterr().out


def test_the_verbs_print_text_and_json(played: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(played.root)]
    assert main(["ratings", "list", "--config", CONFIG, *root]) == Exit.DONE
    out = capsys.readouterr().out
    assert "pinned" in out and A[:12] in out and "seat edge" in out
    assert main(["ratings", "list", "--config", CONFIG, "--json", *root]) == Exit.DONE
    data = json.loads(capsys.readouterr().out)
    assert {row["sha256"] for row in data["players"]} == {A, B, None}
    assert main(["ratings", "history", "--config", CONFIG, "--json", *root]) == Exit.DONE
    assert len(json.loads(capsys.readouterr().out)["points"]) == 2
    assert main(["ratings", "history", "--config", CONFIG, *root]) == Exit.DONE
    assert A[:12] in capsys.readouterr().out
    assert main(["ratings", "history", "--config", CONFIG, "--points", "0", *root]) == Exit.USAGE


def test_without_records_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list", "--config", CONFIG], ["verify"]):
        assert main(["ratings", *words, "--root", str(tmp_path)]) == Exit.NOT_FOUND
        assert capsys.readouterr().err.count("\n") == 1
    assert history(Paths(tmp_path), CONFIG) == [] and configs_with_games(Paths(tmp_path)) == []
    with pytest.raises(NotFoundError):
        publish(Paths(tmp_path), CONFIG)
