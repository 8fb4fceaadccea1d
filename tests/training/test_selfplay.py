"""Self-play as it is used: as a process of its own, on several workers, killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backend.configs import CONFIGS, Config, parse_config
from backend.errors import LockedError, UsageError
from backend.paths import Paths
from backend.pool import Pool, WorkerError
from backend.progress import Progress, read_progress
from backend.training.games_db import GamesDb, iterate_games
from backend.training.selfplay import SelfplayRunner, SelfplaySettings, seats_for, selfplay
from backend.training.verify_games import replay_problem, verify_games

CONFIG = parse_config("square8_2p")
NOISY = ("heuristic:e0.05",) * 2


def play(runner: SelfplayRunner, indices: list[int], together: int) -> dict[int, str]:
    """Game ids by index, with so many games at a time."""
    waiting, found = list(indices), {}
    while waiting or runner.active:
        while waiting and runner.active < together:
            runner.add(waiting.pop(0))
        found |= {game.index: game.game_id for game in runner.step()}
    return found


def quiet() -> Progress:
    return Progress(None, "games", echo=False)


def command(root: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "ringrift_console.cli", "selfplay", "--config", "square8_2p", "--workers", "2",
        "--root", str(root), *options,
    ]  # fmt: skip


@pytest.fixture
def process(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that a test starts; whatever is left of them is ended."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for child in started:
        if child.poll() is None:
            child.kill()
        child.wait()


def wait_for_games(path: Path, count: int, seconds: float = 120) -> int:
    """Waits until a database that is being written holds some games."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists():
            with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path)) as db:
                found = int(db.execute("SELECT count(*) FROM games").fetchone()[0])
                if found >= count:
                    return found
        time.sleep(0.02)
    raise AssertionError(f"{path} did not get {count} games")


def test_a_game_depends_on_its_index_and_not_on_its_company() -> None:
    settings = SelfplaySettings(CONFIG, ("heuristic:e0.20", "random"), seed=11)
    alone = play(SelfplayRunner(settings), list(range(10)), together=1)
    crowd = play(SelfplayRunner(settings), list(range(9, -1, -1)), together=10)
    assert alone == crowd
    assert len(set(alone.values())) == 10
    other = play(SelfplayRunner(SelfplaySettings(CONFIG, ("heuristic:e0.20", "random"), seed=12)), [0], together=1)
    assert other[0] not in alone.values()


def test_one_worker_and_three_give_the_same_games(tmp_path: Path) -> None:
    found = []
    for workers in (1, 3):
        path = tmp_path / f"{workers}.db"
        result = selfplay(path, SelfplaySettings(CONFIG, NOISY, seed=5), games=14, workers=workers, progress=quiet())
        assert result == {
            "config": "square8_2p", "games_added": 14, "games_total": 14, "seed": 5, "db": str(path),
        }  # fmt: skip
        found.append([(game.index, game.game_id, game.winner) for game in iterate_games(path)])
    assert found[0] == found[1]
    assert verify_games(tmp_path / "3.db").mismatches == ()


def test_a_run_that_goes_on_adds_only_what_is_missing(tmp_path: Path) -> None:
    path, settings = tmp_path / "games.db", SelfplaySettings(CONFIG, NOISY, seed=5)
    selfplay(path, settings, games=6, workers=1, progress=quiet())
    first = {game.index: game.game_id for game in iterate_games(path)}
    with contextlib.closing(sqlite3.connect(path)) as db, db:  # as if games 2 and 4 had been in flight
        for index in (2, 4):
            for table in ("games", "compact_games", "game_players", "game_slots"):
                db.execute(f"DELETE FROM {table} WHERE game_id = ?", (first[index],))
    assert selfplay(path, settings, until=8, workers=2, progress=quiet())["games_added"] == 4
    games = {game.index: game.game_id for game in iterate_games(path)}
    assert sorted(games) == list(range(8)) and first.items() <= games.items()
    assert selfplay(path, settings, until=8, progress=quiet())["games_added"] == 0
    assert selfplay(path, settings, games=1, workers=1, progress=quiet())["games_total"] == 9


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_games_of_every_config_replay_to_their_result(config: Config) -> None:
    names = ("heuristic:e0.05",) + ("random",) * (config.players - 1)
    runner = SelfplayRunner(SelfplaySettings(config, names, seed=2))
    runner.add(0)
    games = []
    while runner.active:
        games += runner.step()
    assert replay_problem(games[0]) is None
    assert games[0].reason != "move_cap" and games[0].winner > 0
    assert sorted(games[0].ranking)[0] == 1 and games[0].ranking[games[0].winner - 1] == 1
    assert games[0].policy is not None and games[0].policy.offsets.size == games[0].moves.size + 1


def test_a_killed_run_loses_only_games_in_flight_and_the_next_one_completes_it(
    tmp_path: Path, process: list[subprocess.Popen[bytes]]
) -> None:
    path = Paths(tmp_path).games_db(CONFIG)
    for round, target in enumerate((20, 90, 180), start=1):
        child = subprocess.Popen(command(tmp_path, "--until", "100000"), stdout=subprocess.DEVNULL)
        process.append(child)
        wait_for_games(path, target)
        workers = psutil.Process(child.pid).children(recursive=True)
        child.kill()
        child.wait()
        assert not psutil.wait_procs(workers, timeout=20)[1], f"round {round}: workers outlived their parent"
        assert verify_games(path, limit=20).mismatches == ()
    before = {game.index: game.game_id for game in iterate_games(path)}
    done = subprocess.run(
        command(tmp_path, "--until", str(len(before) + 20), "--json"), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["games_added"] == 20
    games = list(iterate_games(path))
    indices = [game.index for game in games]
    assert len(indices) == len(set(indices)) == len({game.game_id for game in games}) == len(before) + 20
    assert before.items() <= {game.index: game.game_id for game in games}.items()
    # What was in flight at the kills was played first: the holes are filled.
    assert sorted(indices)[: len(before)] == list(range(len(before)))
    alone = play(SelfplayRunner(SelfplaySettings(CONFIG, NOISY)), indices[:5], together=2)
    assert alone == {game.index: game.game_id for game in games[:5]}


def test_a_terminated_run_keeps_its_games_and_leaves_no_worker(
    tmp_path: Path, process: list[subprocess.Popen[bytes]]
) -> None:
    path, log = Paths(tmp_path).games_db(CONFIG), tmp_path / "progress.jsonl"
    environment = os.environ | {"RINGRIFT_PROGRESS": str(log)}
    child = subprocess.Popen(command(tmp_path, "--until", "100000"), stdout=subprocess.DEVNULL, env=environment)
    process.append(child)
    wait_for_games(path, 10)
    workers = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 143
    assert not psutil.wait_procs(workers, timeout=20)[1]
    assert verify_games(path, limit=20).mismatches == ()
    with GamesDb.write(path, CONFIG, "a test") as db:
        reported = max(row["done"] for row in read_progress(log) if "done" in row)
        assert db.count() >= reported >= 0


def test_a_worker_that_dies_ends_the_run_with_an_error_and_its_games_are_kept(
    tmp_path: Path, process: list[subprocess.Popen[bytes]]
) -> None:
    path = Paths(tmp_path).games_db(CONFIG)
    child = subprocess.Popen(
        command(tmp_path, "--until", "100000"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=False
    )
    process.append(child)
    wait_for_games(path, 10)
    worker = next(
        one for one in psutil.Process(child.pid).children() if any("spawn_main" in word for word in one.cmdline())
    )
    worker.kill()
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert b"a worker was killed by signal 9" in errors and b"Traceback" not in errors
    assert len(list(iterate_games(path))) >= 10


def test_a_full_disk_ends_the_run_with_one_line_and_keeps_the_games(tmp_path: Path) -> None:
    limit = 150_000  # bytes a file may have, which SQLite meets as it meets a full disk
    done = subprocess.run(
        command(tmp_path, "--until", "100000"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 6
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("compiling")]
    assert line.startswith("ringrift: the disk is full")
    path = Paths(tmp_path).games_db(CONFIG)
    assert verify_games(path).mismatches == () and len(list(iterate_games(path))) >= 10
    again = subprocess.run(command(tmp_path, "--games", "5", "--json"), capture_output=True, text=True, timeout=120)
    assert json.loads(again.stdout)["games_added"] == 5


def test_progress_counts_up_to_the_target(tmp_path: Path) -> None:
    log = tmp_path / "progress.jsonl"
    progress = Progress(None, "games", path=log, echo=False)
    selfplay(tmp_path / "games.db", SelfplaySettings(CONFIG, NOISY), games=12, workers=1, progress=progress)
    rows = read_progress(log)
    assert (rows[0]["done"], rows[-1]["done"], rows[-1]["total"]) == (0, 12, 12)


def test_a_second_run_is_refused_while_the_first_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "games.db"
    with GamesDb.write(path, CONFIG, "self-play of square8_2p"), pytest.raises(LockedError, match="self-play of"):
        selfplay(path, SelfplaySettings(CONFIG, NOISY), games=1, workers=1, progress=quiet())


def test_numbers_and_players_that_make_no_sense_are_usage_errors(tmp_path: Path) -> None:
    path, settings = tmp_path / "games.db", SelfplaySettings(CONFIG, NOISY)
    for options in ({}, {"games": 1, "until": 1}, {"games": 0}, {"until": -5}, {"games": 1, "workers": 0}):
        with pytest.raises(UsageError):
            selfplay(path, settings, **options)
    with pytest.raises(UsageError):
        selfplay(path, SelfplaySettings(CONFIG, NOISY, seed=-1), games=1)
    with pytest.raises(UsageError):
        selfplay(path, SelfplaySettings(CONFIG, ("heuristic:nonsense",) * 2), games=1)
    with pytest.raises(UsageError):
        seats_for("random,random,random", CONFIG)
    assert seats_for("random", parse_config("hex8_3p")) == ("random",) * 3
    assert not path.exists()


def test_an_exception_in_a_worker_is_told_after_the_results_before_it() -> None:
    tasks, results = iter([0, "no index"]), []
    with (
        Pool(SelfplayRunner, SelfplaySettings(CONFIG, NOISY), workers=1, batch=1) as pool,
        pytest.raises(WorkerError, match="a worker failed"),
    ):
        for game in pool.run(lambda: next(tasks, None)):
            results.append(game.index)
    assert results == [0]
