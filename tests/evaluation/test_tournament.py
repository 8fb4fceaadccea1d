"""Tournaments: real networks and anchors, whole blocks, a run that goes on, models known by their digests."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from backend.configs import parse_config
from backend.errors import Exit, UsageError
from backend.evaluation.gauntlet import Candidate
from backend.evaluation.rating_verify import verify
from backend.evaluation.tournament import PairSlot, TournamentSettings, incomplete, tournament
from backend.paths import Paths
from backend.progress import Progress
from backend.registry.hashing import sha256_file
from backend.training.checkpoint import Metadata, save_model
from backend.training.network import Architecture, Network
from ringrift_console.cli import main

SQUARE = parse_config("square8_2p")


@pytest.fixture
def models(tmp_path: Path) -> tuple[Candidate, ...]:
    """Two untrained networks of the smallest size."""
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        path, architecture = tmp_path / f"net{seed}.pth", Architecture(1, 8)
        save_model(path, Network(architecture), Metadata(SQUARE.key, asdict(architecture), "2026-01-01T00:00:00+00:00"))
        made.append(Candidate("neural", str(path), sha256_file(path), None, 0))
    return tuple(made)


def quiet() -> Progress:
    return Progress(None, "games", echo=False)


def stored(paths: Paths) -> list[tuple[str, str, int]]:
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db:
        return db.execute(
            "SELECT s.slot, g.seats, g.candidate_seat FROM match_slots s JOIN match_games g ON g.game_id = s.game_id "
            "WHERE s.run_id = 'cup'"
        ).fetchall()


def test_a_tournament_is_played_goes_on_and_rates_everybody(paths: Paths, models: tuple[Candidate, ...]) -> None:
    settings = TournamentSettings(SQUARE, models, ("random", "heuristic"), 5)
    first = tournament(paths, settings, 16, run_id="cup", workers=1, progress=quiet())
    assert first["games"] == 16
    with contextlib.closing(sqlite3.connect(paths.elo_db)) as db, db:  # as if it had been killed in a block
        (slot,) = db.execute("SELECT min(slot) FROM match_slots").fetchone()
        db.execute("DELETE FROM match_slots WHERE slot = ?", (slot,))
    again = tournament(paths, settings, 40, run_id="cup", workers=1, progress=quiet())
    assert again["games"] == 40
    rows = stored(paths)
    assert slot in {row[0] for row in rows}
    blocks = Counter((PairSlot.parse(key).reference, *key.rsplit("/", 2)[:2]) for key, _, _ in rows)
    assert set(blocks.values()) == {2}  # every opening from both seats
    digests = {model.sha256 for model in models}
    for key, seats, candidate in rows:
        slot_of, seated = PairSlot.parse(key), json.loads(seats)
        assert slot_of.seat == candidate
        assert str(seated[candidate - 1]["sha256"])[:16] == slot_of.reference
        assert {seat["sha256"] for seat in seated} <= digests | {None}
        assert seated[0]["identity"] != seated[1]["identity"]
    assert any(PairSlot.parse(key).opponent in {str(digest)[:16] for digest in digests} for key, _, _ in rows)
    assert {f"{digest}:s0" for digest in digests} <= again["players"].keys()
    assert verify(paths, SQUARE.key, replay=True).matches == 40


def test_a_block_is_completed_seat_by_seat() -> None:
    slots = [PairSlot("a", "ladder:8", 0, 1), PairSlot("a", "ladder:8", 0, 3), PairSlot("b", "a", 2, 2)]
    assert [PairSlot.parse(slot.key) for slot in slots] == slots
    left = incomplete({slot.key for slot in slots}, 3)
    assert [slot.key for slot in left] == ["a~ladder:8/0/2", "b~a/2/1", "b~a/2/3"]


def test_a_tournament_needs_somebody(paths: Paths, models: tuple[Candidate, ...]) -> None:
    for settings, games in (
        (TournamentSettings(SQUARE, models[:1], (), 5), 4),
        (TournamentSettings(SQUARE, (), ("random", "heuristic"), 5), 4),
        (TournamentSettings(SQUARE, models, (), 5), 0),
    ):
        with pytest.raises(UsageError):
            tournament(paths, settings, games, run_id="cup", workers=1, progress=quiet())


def test_the_verb_takes_files_and_refuses_what_is_no_model(
    tmp_path: Path, models: tuple[Candidate, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--config", SQUARE.key, "--root", str(tmp_path / "root"), "--workers", "1"]
    files = ",".join(str(model.model) for model in models)
    assert main(["tournament", *root, "--models", files, "--anchors", "heuristic", "--games", "8",
                 "--simulations", "0", "--run", "cup"]) == Exit.DONE  # fmt: skip
    assert "heuristic:1" in capsys.readouterr().out
    for words in (["--models", "heuristic"], [], ["--models", files, "--anchors", "nobody"]):
        assert main(["tournament", *root, *words]) == Exit.USAGE
        assert capsys.readouterr().err.count("\n") == 1
