"""Gauntlets: whole blocks, runs that go on, crashes counted apart, and results that do not depend on the workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from backend.configs import CONFIGS, Config, parse_config
from backend.errors import NoEvidenceError, UsageError
from backend.evaluation import gauntlet as module
from backend.evaluation.gauntlet import (
    Candidate,
    GauntletSettings,
    gauntlet,
    plan_slots,
    run_id_from_environment,
    seed_of,
    whole_blocks,
)
from backend.evaluation.match_record import MatchRecord, tally
from backend.evaluation.match_runner import MatchRunner
from backend.evaluation.openings import opening_draws, play_opening
from backend.evaluation.records import win_rates
from backend.paths import Paths
from backend.players.live import LiveGame, move_cap
from backend.progress import Progress
from backend.rules import load
from backend.training.checkpoint import Metadata, save_model
from backend.training.network import Architecture, Network
from ringrift_console.cli import main

SQUARE = parse_config("square8_2p")
HEURISTIC = Candidate("heuristic")


def settings(config: Config = SQUARE, opponents: tuple[str, ...] = ("random",), seed: int = 1) -> GauntletSettings:
    return GauntletSettings(config, HEURISTIC, opponents, seed)


def quiet() -> Progress:
    return Progress(None, "games", echo=False)


def in_process(runner: MatchRunner, chosen: GauntletSettings, games: int) -> list[MatchRecord]:
    """All matches of a plan, played in this process."""
    for listed in plan_slots(chosen, games).values():
        for slot in listed:
            runner.add(slot)
    found = []
    while runner.active:
        found += [record for _, record in runner.step()]
    return found


def identities(paths: Paths) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db:
        return db.execute(
            "SELECT s.slot, g.game_id, g.won FROM match_slots s JOIN match_games g ON g.game_id = s.game_id ORDER BY 1"
        ).fetchall()


@pytest.mark.parametrize(
    "config", [parse_config("hex8_2p"), parse_config("square8_3p"), parse_config("hex8_4p")], ids=str
)
def test_every_opening_is_played_once_from_every_seat(config: Config) -> None:
    chosen = settings(config)
    played = in_process(MatchRunner(chosen), chosen, 2 * config.players - 1)
    assert len(played) == 2 * config.players
    by_opening: dict[str, list[MatchRecord]] = {}
    for record in played:
        by_opening.setdefault(record.opening, []).append(record)
    assert len(by_opening) == 2
    for block in by_opening.values():
        assert sorted(record.candidate for record in block) == list(range(1, config.players + 1))
        beginnings = {tuple(record.moves[: record.opening_moves].tolist()) for record in block}
        assert len(beginnings) == 1
        for record in block:
            names = [seat.identity for seat in record.seats]
            assert names.count("heuristic:1") == 1 and names[record.candidate - 1] == "heuristic:1"
            assert record.opponent == "random:1"


def test_openings_are_one_legal_turn_and_differ() -> None:
    for config in CONFIGS:
        rules, seen = load(config), set()
        for index in range(10):
            games = [LiveGame(rules, move_cap(config)) for _ in range(2)]
            for game in games:
                play_opening(game, config, 3, index)
            assert games[0].moves.tolist() == games[1].moves.tolist()
            assert rules.player(games[0].state) == 2
            state = rules.new()
            for move in games[0].moves:
                rules.apply(state, int(move))  # checked
            seen.add(games[0].moves.tobytes())
        assert len(seen) >= 9
    assert opening_draws(SQUARE, 1, 0).tolist() != opening_draws(SQUARE, 2, 0).tolist()
    assert opening_draws(SQUARE, 1, 0).tolist() != opening_draws(parse_config("hex8_2p"), 1, 0).tolist()


def test_games_are_rounded_up_to_whole_blocks() -> None:
    assert [whole_blocks(games, 3) for games in (1, 3, 4, 100)] == [1, 1, 2, 34]
    with pytest.raises(UsageError):
        whole_blocks(0, 2)


def test_heuristic_against_random_is_measured_and_stored(paths: Paths) -> None:
    result = gauntlet(paths, settings(), 60, run_id="run", workers=2, progress=quiet())
    (line,) = result["opponents"]
    assert (result["config"], result["candidate"], result["run_id"]) == ("square8_2p", "heuristic:1", "run")
    assert (line["opponent"], line["games"], line["crashes"], line["target"]) == ("random:1", 60, 0, 0.85)
    assert line["wins"] >= 51 and line["meets"] is True and line["verdict"] in ("PASS", "CONTINUE")
    assert line["unique"] == 60 and result["chance"] == 0.5
    assert line["exact_low"] < line["low"] < line["rate"] < line["high"]
    assert sum(won for _, _, won in identities(paths)) == line["wins"]
    assert win_rates(paths) == {}  # a baseline is no model


def test_a_target_knows_how_many_play(paths: Paths) -> None:
    """85 % against one Random are the odds of 73.9 % against two, and 60 % against Heuristic those of 42.9 %."""
    chosen = settings(parse_config("square8_3p"), opponents=("random", "heuristic"))
    line, other = gauntlet(paths, chosen, 24, run_id="run", workers=2, progress=quiet())["opponents"]
    assert line["target"] == pytest.approx(0.739, abs=1e-3) and "same odds as 85 % of two" in line["requirement"]
    assert line["meets"] is (line["rate"] >= line["target"])
    assert other["target"] == pytest.approx(3 / 7) and other["verdict"] in ("CONTINUE", "FAIL")


def test_the_number_of_workers_changes_nothing_and_a_run_goes_on(paths: Paths, tmp_path: Path) -> None:
    whole = Paths(tmp_path / "whole")
    one = gauntlet(whole, settings(opponents=("random", "heuristic")), 12, run_id="run", workers=1, progress=quiet())
    for games, workers in ((4, 2), (12, 3)):
        two = gauntlet(
            paths, settings(opponents=("random", "heuristic")), games, run_id="run", workers=workers, progress=quiet()
        )
    assert one == two
    assert identities(whole) == identities(paths) and len(identities(paths)) == 24
    again = gauntlet(paths, settings(opponents=("random", "heuristic")), 12, run_id="run", progress=quiet())
    assert again == one


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    arguments = [
        sys.executable, "-m", "ringrift_console.cli", "gauntlet", "heuristic", "--config", "square8_2p", "--games",
        "1500", "--opponents", "random", "--workers", "2", "--root", str(tmp_path), "--json",
    ]  # fmt: skip
    environment = os.environ | {"RINGRIFT_ATTEMPT": "01JOB.1"}
    child = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(sqlite3.OperationalError):
                if paths.elo_db.exists() and len(identities(paths)) >= 20:
                    break
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    before = identities(paths)
    assert 20 <= len(before) < 1500
    arguments[arguments.index("1500")] = str(len(before) + 10)
    environment["RINGRIFT_ATTEMPT"] = "01JOB.2"
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["run_id"] == "01JOB" and result["seed"] == seed_of("01JOB")
    assert result["opponents"][0]["games"] >= len(before) + 10
    after = identities(paths)
    assert set(before) <= set(after)
    assert len({slot for slot, _, _ in after}) == len({game for _, game, _ in after}) == len(after)


def test_a_run_belongs_to_its_settings(paths: Paths) -> None:
    gauntlet(paths, settings(), 2, run_id="run", workers=1, progress=quiet())
    with pytest.raises(UsageError, match="other settings"):
        gauntlet(paths, settings(seed=2), 2, run_id="run", workers=1, progress=quiet())


def test_run_ids_follow_the_job_and_are_new_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGRIFT_ATTEMPT", "01ABC.3")
    assert run_id_from_environment() == "01ABC"
    monkeypatch.delenv("RINGRIFT_ATTEMPT")
    assert run_id_from_environment() != run_id_from_environment()
    assert seed_of("one") != seed_of("other") and seed_of("one") == seed_of("one")


class Faulty:
    """Plays the first legal move, but fails or cheats in some games; which, depends on the state alone."""

    name = "faulty"
    identity = "faulty:1"

    def __init__(self, config: Config, *, cheats: bool, always: bool = False) -> None:
        self.rules, self.cheats, self.always = load(config), cheats, always

    def choose(self, states: NDArray[np.int64], rngs: Sequence[np.random.Generator]) -> NDArray[np.int64]:
        picks = []
        for state in states:
            moves = self.rules.legal(state)
            bad = self.always or (int(state.sum()) % 7 == 0 and len(moves) > 20)
            if bad and not self.cheats:
                raise RuntimeError("out of ideas")
            picks.append(-1 if bad else int(moves[int(rngs[0].integers(len(moves)))]))
        return np.array(picks)


@pytest.mark.parametrize("cheats", [False, True], ids=["raises", "illegal move"])
def test_a_player_that_fails_crashes_its_own_games_only(
    cheats: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = settings()
    runner = MatchRunner(chosen)
    monkeypatch.setattr(runner, "_candidate", Faulty(SQUARE, cheats=cheats))
    played = in_process(runner, chosen, 30)
    result = tally(played)
    assert result.crashes > 0 and result.games > 0 and result.crashes + result.games == 30
    for record in played:
        if record.termination == "crash":
            assert (record.winner, record.ranking, record.crashed) == (0, (), record.candidate)
        else:
            assert record.winner > 0
    message = capfd.readouterr().err
    assert ("illegal move" if cheats else "out of ideas") in message


def test_when_every_game_crashes_there_is_no_evidence(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    class OneProcess:
        """The pool's interface without processes, so that the player can be replaced."""

        def __init__(self, make: type[MatchRunner], chosen: GauntletSettings, **_: int) -> None:
            self.runner = make(chosen)
            self.runner._candidate = Faulty(SQUARE, cheats=False, always=True)

        def __enter__(self) -> OneProcess:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def run(self, next_task):  # type: ignore[no-untyped-def]
            while (task := next_task()) is not None:
                self.runner.add(task)
            while self.runner.active:
                yield from self.runner.step()

    monkeypatch.setattr(module, "Pool", OneProcess)
    with pytest.raises(NoEvidenceError, match="all 4 games crashed"):
        gauntlet(paths, settings(), 4, run_id="run", progress=quiet())
    assert len(identities(paths)) == 4  # the crashes themselves are on record


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained model of square8_2p."""
    torch.manual_seed(1)
    architecture = Architecture(1, 8, 4)
    path = tmp_path / "model.pth"
    metadata = Metadata(config="square8_2p", architecture=asdict(architecture), created_at="2026-01-01T00:00:00+00:00")
    save_model(path, Network(architecture), metadata)
    return path


def run(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ringrift_console.cli", "gauntlet", *options, "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_checkpoint_is_measured_in_the_config_it_was_trained_for(tmp_path: Path, checkpoint: Path) -> None:
    root = tmp_path / "root"
    done = run(root, str(checkpoint), "--games", "3", "--simulations", "2", "--opponents", "random", "--json")
    assert done.returncode == 0, done.stderr
    assert "4 games instead of 3" in done.stderr
    result = json.loads(done.stdout)
    assert (result["config"], result["label"]) == ("square8_2p", None)
    assert result["candidate"] == f"neural:{result['model_sha256'][:16]}:s2"
    (line,) = result["opponents"]
    assert line["games"] + line["crashes"] == 4 and line["crashes"] == 0
    (rate,) = win_rates(Paths(root))[result["model_sha256"]]
    assert (rate.wins, rate.games) == (line["wins"], 4)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("{model}", "--board", "hex8", "--num-players", "2"), 9, "is for square8_2p, not hex8_2p"),
        (("{folder}/absent.pth",), 11, "no such file"),
        (("hex8_2p:v7",), 11, ""),
        (("heuristic",), 2, "needs a config"),
        (("heuristic", "--config", "hex9_2p"), 2, "unknown config"),
        (("{model}", "--opponents", "nobody"), 11, ""),
        (("{model}", "--games", "0"), 2, "at least 1"),
        (("{text}",), 7, ""),
        (("{model}", "--simulations", "-1"), 2, ""),
    ],
)
def test_bad_input_is_one_line_and_its_own_exit_code(
    options: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    places = {"model": checkpoint, "folder": tmp_path, "text": tmp_path / "text.pth"}
    given = [option.format(**places) for option in options]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["gauntlet", *given, "--root", str(tmp_path / "root")]) == code
    finally:
        signal.signal(signal.SIGTERM, handler)
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("compiling")]
    assert len(lines) == 1 and words in lines[0] and lines[0].startswith("ringrift: ")
    assert not (tmp_path / "root" / "data" / "unified_elo.db").exists()
