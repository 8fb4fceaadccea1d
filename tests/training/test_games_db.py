"""Games databases: what goes in comes out, one writer at a time, and every bad file has its own error."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.configs import parse_config
from backend.errors import LockedError, NotFoundError, ResourceError, SchemaError, UnverifiedError
from backend.paths import Paths
from backend.training.game_record import (
    MOST_BYTES,
    GameRecord,
    PolicyTargets,
    Seat,
    pack_moves,
    pack_policy,
    unpack_moves,
    unpack_policy,
)
from backend.training.games_db import GamesDb, Slot, iterate_games
from backend.training.selfplay import SelfplayRunner, SelfplaySettings
from backend.training.verify_games import replay_problem, verify_games
from backend.training.volume import count_games, volume
from tests.lab.disks import small_disk

CONFIG = parse_config("square8_2p")


@pytest.fixture(scope="module")
def played() -> list[GameRecord]:
    """Twelve real games."""
    runner = SelfplayRunner(SelfplaySettings(CONFIG, ("heuristic:e0.05",) * 2, seed=3))
    for index in range(12):
        runner.add(index)
    games: list[GameRecord] = []
    while runner.active:
        games += runner.step()
    return sorted(games, key=lambda game: game.index)


def slots(games: list[GameRecord]) -> list[tuple[GameRecord, Slot]]:
    return [(game, Slot("test", game.seed, game.index)) for game in games]


@pytest.fixture
def stored(tmp_path: Path, played: list[GameRecord]) -> Path:
    path = tmp_path / "canonical_square8_2p.db"
    with GamesDb.write(path, CONFIG, "a test") as db:
        assert db.append(slots(played)) == 12
    return path


def test_games_come_back_as_they_were_stored_and_replay_to_their_result(stored: Path, played: list[GameRecord]) -> None:
    found = list(iterate_games(stored))
    assert [game.index for game in found] == list(range(12))
    for game, original in zip(found, played, strict=True):
        assert game.game_id == original.game_id
        assert game.moves.tolist() == original.moves.tolist()
        assert (game.winner, game.ranking, game.reason) == (original.winner, original.ranking, original.reason)
        assert game.seats == original.seats and game.seats[0].player == "heuristic:1:e0.05"
        assert (game.opening, game.turns, game.ring_supply) == (original.opening, original.turns, 18)
        assert game.policy is not None and original.policy is not None
        assert game.policy.offsets.tolist() == original.policy.offsets.tolist()
        assert np.abs(game.policy.weights - original.policy.weights).max() < 0.02
    report = verify_games(stored)
    assert (report.games, report.skipped, report.mismatches) == (12, 0, ())


def test_a_changed_result_or_move_does_not_pass_a_replay(played: list[GameRecord]) -> None:
    game = played[0]
    assert replay_problem(game) is None
    assert "stored" in str(replay_problem(replace(game, winner=3 - game.winner)))
    assert "stop before the end" in str(replay_problem(replace(game, moves=game.moves[:-1])))
    assert "after the end" in str(replay_problem(replace(game, moves=np.append(game.moves, game.moves[-1]))))
    swapped = game.moves.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert "not legal" in str(replay_problem(replace(game, moves=swapped)))


def test_the_same_game_is_stored_once_and_its_new_slot_is_noted(stored: Path, played: list[GameRecord]) -> None:
    with GamesDb.write(stored, CONFIG, "a test") as db:
        again = [(game, Slot("another run", 99, game.index)) for game in played]
        assert db.append(again) == 0
        assert db.count() == 12
        assert db.taken("another run", 99) == set(range(12))
        assert db.taken("test", 3) == set(range(12)) and db.taken("test", 4) == set()


def test_what_the_reference_reads_is_where_the_reference_has_it(stored: Path, played: list[GameRecord]) -> None:
    with sqlite3.connect(stored) as db:
        row = db.execute(
            "SELECT board_type, num_players, game_status, winner, termination_reason, total_moves FROM games "
            "WHERE game_id = ?",
            (played[0].game_id,),
        ).fetchone()
        assert row == ("square8", 2, "completed", played[0].winner, played[0].reason, played[0].moves.size)
        players = db.execute("SELECT count(*) FROM game_players").fetchone()
        assert players == (24,)
        assert db.execute("SELECT value FROM schema_metadata WHERE key = 'schema_version'").fetchone() == ("18",)
    db.close()


def test_games_without_a_winner_are_kept_but_do_not_count(tmp_path: Path, played: list[GameRecord]) -> None:
    path = tmp_path / "games.db"
    stopped = replace(played[0], winner=0, ranking=(), reason="move_cap", moves=played[0].moves[:30], policy=None)
    with GamesDb.write(path, CONFIG, "a test") as db:
        db.append(slots([stopped, *played[1:3]]))
        assert db.count() == 2
    found = list(iterate_games(path))
    assert len(found) == 3 and found[0].winner == 0 and found[0].policy is None
    assert verify_games(path).mismatches == ()


def test_policies_keep_their_shape_to_one_part_in_255() -> None:
    rng = np.random.default_rng(0)
    lists = [rng.dirichlet(np.full(n, 0.3)).astype(np.float32) for n in (2, 7, 300)]
    offsets = np.array([0, 2, 2, 9, 9, 309])
    found = unpack_policy(pack_policy(PolicyTargets(offsets, np.concatenate(lists))), "a test")
    assert found.offsets.tolist() == offsets.tolist()
    for move, original in zip((0, 2, 4), lists, strict=True):
        weights = found.of(move)
        assert weights.sum() == pytest.approx(1, abs=1e-5)
        assert np.abs(weights - original).max() < original.max() / 100
    assert found.of(1).size == 0


def test_a_second_writer_is_refused_and_told_who_is_first(stored: Path) -> None:
    with GamesDb.write(stored, CONFIG, "self-play of square8_2p"):
        with pytest.raises(LockedError, match=rf"self-play of square8_2p \(pid {os.getpid()} on "):
            GamesDb.write(stored, CONFIG, "another")
        assert len(list(iterate_games(stored))) == 12  # readers are welcome
    GamesDb.write(stored, CONFIG, "another").close()


def test_a_database_that_another_program_locks_is_a_locked_error(
    stored: Path, played: list[GameRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.training.games_db.open_writer", _impatient)
    other = sqlite3.connect(stored, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        with GamesDb.write(stored, CONFIG, "a test") as db, pytest.raises(LockedError, match="another program"):
            db.append(slots(played))
    finally:
        other.close()
    with sqlite3.connect(stored) as plain:
        plain.execute("PRAGMA journal_mode = DELETE")
    plain.close()
    other = sqlite3.connect(stored, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LockedError):
            count_games(stored)
    finally:
        other.close()


def _impatient(path: Path) -> sqlite3.Connection:
    from backend.databases import open_writer

    return open_writer(path, timeout_s=0.05)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda data: data[: len(data) // 2], UnverifiedError),
        (lambda data: data[:60], UnverifiedError),
        (lambda data: b"not a database at all " * 100, UnverifiedError),
        (lambda data: data[:4096] + b"\xa5" * 8192 + data[12288:], UnverifiedError),
        (lambda data: b"", SchemaError),
    ],
    ids=["half", "header cut", "text", "overwritten pages", "empty"],
)
def test_a_damaged_file_is_never_read_as_if_it_were_whole(stored: Path, paths: Paths, damage, error) -> None:  # type: ignore[no-untyped-def]
    place = paths.games_db(CONFIG)
    place.parent.mkdir(parents=True)
    place.write_bytes(damage(stored.read_bytes()))
    with pytest.raises(error):
        list(iterate_games(place))
    found = volume(paths, CONFIG)
    if found.games is None:
        assert found.status == "unknown" and found.note


def test_a_damaged_file_is_not_written_to(stored: Path) -> None:
    data = stored.read_bytes()[:20000]
    stored.write_bytes(data)
    with pytest.raises(UnverifiedError):
        GamesDb.write(stored, CONFIG, "a test")
    assert stored.read_bytes() == data


def test_moves_that_are_not_those_stored_are_found(stored: Path) -> None:
    with sqlite3.connect(stored) as db:
        one, two = db.execute("SELECT game_id, moves FROM compact_games ORDER BY game_id LIMIT 2").fetchall()
        db.execute("UPDATE compact_games SET moves = ? WHERE game_id = ?", (two[1], one[0]))
    db.close()
    with pytest.raises(UnverifiedError, match=one[0]):
        list(iterate_games(stored))


def test_other_schemas_and_other_configs_are_refused_and_left_alone(tmp_path: Path, stored: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE games (game_id TEXT PRIMARY KEY, board_type TEXT, winner INTEGER)")
        db.execute("INSERT INTO games VALUES ('a', 'square8', 1)")
    db.close()
    before = foreign.read_bytes()
    for open_it in (GamesDb.read, lambda path: GamesDb.write(path, CONFIG, "a test")):
        with pytest.raises(SchemaError, match="another program"):
            open_it(foreign)
    assert count_games(foreign) == 1  # their games can still be counted
    with pytest.raises(SchemaError, match="holds games of square8_2p, not hex8_2p"):
        GamesDb.write(stored, parse_config("hex8_2p"), "a test")
    with sqlite3.connect(stored) as db:
        db.execute("UPDATE schema_metadata SET value = '7' WHERE key = 'ringrift_console_schema'")
    db.close()
    with pytest.raises(SchemaError, match="schema 7"):
        GamesDb.read(stored)
    with sqlite3.connect(foreign) as db:
        assert [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")] == ["games"]
    db.close()
    assert len(before) == foreign.stat().st_size


def test_a_missing_database_is_not_found_and_its_volume_is_empty(paths: Paths) -> None:
    with pytest.raises(NotFoundError):
        GamesDb.read(paths.games_db(CONFIG))
    found = volume(paths, CONFIG)
    assert (found.games, found.status) == (0, "empty")


def test_volume_says_scaling_below_two_hundred_games_and_ready_from_there(paths: Paths) -> None:
    moves = np.arange(5, dtype=np.int64)
    seats = (Seat("random:1", 0, 0, 0), Seat("random:1", 0, 0, 0))

    def fake(index: int) -> tuple[GameRecord, Slot]:
        record = GameRecord("square8_2p", moves + index, 1, (1, 2), "territory", seats, 0, index, "1", 18)
        return record, Slot("test", 0, index)

    path = paths.games_db(CONFIG)
    with GamesDb.write(path, CONFIG, "a test") as db:
        for count, status in ((199, "scaling"), (200, "ready")):
            db.append(fake(index) for index in range(count))
            found = volume(paths, CONFIG)  # while the writer is at work
            assert (found.games, found.status) == (count, status)


_FILL = """
import resource, sys
from pathlib import Path
from dataclasses import replace
from backend.configs import parse_config
from backend.errors import ResourceError
from backend.training.games_db import GamesDb, Slot, iterate_games

source, target, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
games = list(iterate_games(source))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
stored = 0
try:
    with GamesDb.write(target, parse_config("square8_2p"), "a test") as db:
        for round in range(1000):
            for game in games:
                copy = replace(game, lps_rounds=3 + round)
                db.append([(copy, Slot("test", round, game.index))])
                stored += 1
except ResourceError as error:
    print(stored, "|", error.line())
"""


def test_a_full_disk_is_a_resource_error_and_keeps_what_was_stored(stored: Path, tmp_path: Path) -> None:
    target = tmp_path / "small" / "games.db"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(stored), str(target), "200000"], capture_output=True, text=True, timeout=120
    )
    count, _, line = done.stdout.partition(" | ")
    assert done.returncode == 0, done.stderr
    assert int(count) > 3 and line.startswith("the disk is full")
    found = list(iterate_games(target))
    assert len(found) == int(count)
    assert len({game.game_id for game in found}) == int(count)


def test_a_full_file_system_is_a_resource_error_and_keeps_what_was_stored(
    tmp_path: Path, played: list[GameRecord]
) -> None:
    with small_disk(tmp_path / "tiny", "200k") as folder:
        count = 0
        with pytest.raises(ResourceError), GamesDb.write(folder / "games.db", CONFIG, "a test") as db:
            while True:
                batch = [replace(game, lps_rounds=3 + count) for game in played]
                db.append(slots(batch))
                count += len(batch)
        assert len(list(iterate_games(folder / "games.db"))) == count


def test_a_few_bytes_that_unpack_to_gigabytes_are_damage() -> None:
    bomb = zlib.compress(bytes(MOST_BYTES + 1))
    for unpack in (lambda: unpack_moves(bomb, "", "here"), lambda: unpack_policy(bomb, "here")):
        with pytest.raises(UnverifiedError, match="damaged"):
            unpack()
    with pytest.raises(UnverifiedError, match="damaged"):
        unpack_moves(pack_moves(np.arange(100))[0][:-4], "", "here")
