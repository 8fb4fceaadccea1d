"""``auto-promote --gauntlet`` with networks that really play: whom, how often, and what an interruption leaves."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import asdict

import torch

from backend.configs import parse_config
from backend.errors import Exit
from backend.evaluation.rating_history import by_model, current
from backend.paths import Paths
from backend.registry.store import Candidate, find, register
from backend.snapshot import ModelRow
from backend.training.checkpoint import Metadata, save_model
from backend.training.network import Architecture, Network
from tests.registry.test_promotion_crashes import promoted

CONFIG = "square8_2p"


def network(paths: Paths, seed: int) -> ModelRow:
    """An untrained model, registered."""
    torch.manual_seed(seed)
    architecture = Architecture(1, 8, 4)
    path = paths.root / f"m{seed}.pth"
    made = Metadata(config=CONFIG, architecture=asdict(architecture), created_at="2026-01-01T00:00:00+00:00")
    save_model(path, Network(architecture), made)
    return find(paths, register(paths, Candidate(file=path, config=parse_config(CONFIG))).label)


def command(paths: Paths, row: ModelRow, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "ringrift_console.cli", "auto-promote", "--gauntlet", "--model", row.label,
        "--board-type", "square8", "--num-players", "2", "--workers", "1", "--json",
        "--root", str(paths.root), *options,
    ]  # fmt: skip


def games(paths: Paths) -> list[tuple[str, str]]:
    """What was played: run with slot."""
    with closing(sqlite3.connect(paths.elo_db)) as db:
        return [(str(run), str(slot)) for run, slot in db.execute("SELECT run_id, slot FROM match_slots ORDER BY 1, 2")]


def test_the_gauntlet_is_played_against_baselines_and_the_production_model(root: Paths) -> None:
    champion, row = network(root, 1), network(root, 2)
    promoted(root, champion)
    done = subprocess.run(
        command(root, row, "--games", "2", "--simulations", "2"), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == Exit.REFUSED, done.stderr
    told = json.loads(done.stdout)
    assert set(told["games"]) == {"heuristic", "random", champion.sha256[:16]} and set(told["games"].values()) == {2}
    assert (told["stage"], told["stages"][0]["outcome"]) == ("development", "CONTINUE")
    before = games(root)
    assert sorted({slot.split("/")[0] for _, slot in before}) == sorted(["random", "heuristic", champion.sha256[:16]])
    assert len(before) == 6 and {run for run, _ in before} == {told["run_id"]}
    assert {champion.sha256, row.sha256} <= set(by_model(current(root, CONFIG)))  # both are rated as models
    again = subprocess.run(
        command(root, row, "--games", "2", "--simulations", "2"), capture_output=True, text=True, timeout=900
    )
    assert again.returncode == Exit.REFUSED and games(root) == before


def test_an_interruption_keeps_what_was_played_and_the_same_command_goes_on(root: Paths) -> None:
    row = network(root, 1)
    child = subprocess.Popen(
        command(root, row, "--simulations", "48"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        end = time.monotonic() + 600
        while time.monotonic() < end:
            with suppress(sqlite3.OperationalError):
                if root.elo_db.exists() and games(root):
                    break
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=300)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == Exit.INTERRUPTED, told
    assert "what was played is kept" in told and "Traceback" not in told
    before = games(root)
    assert 0 < len(before) < 40 and find(root, row.label).stage == "development"
    done = subprocess.run(
        command(root, row, "--games", "2", "--simulations", "48"), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == Exit.REFUSED, done.stderr
    assert set(before) <= set(games(root)) and len({run for run, _ in games(root)}) == 1
