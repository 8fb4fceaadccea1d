"""What the text of the reference installation's programs means; the texts have the form that their sources print."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.fleet import checkout_host
from backend.jobs import reader
from backend.jobs.reader import READING, Reading, value_of
from backend.jobs.recipes import recipe_of
from backend.jobs.rows import last_progress
from backend.paths import Paths
from backend.progress import read_progress

AI = {"runtime": "ai-service"}
ROOT = Paths(Path("/r"))


def spec(kind: str, config: str = "hex8_2p", **params: Any) -> dict[str, Any]:
    found = recipe_of(kind, AI | params).reading(ROOT, config, AI | params)
    assert found is not None
    return found


def read(asked: dict[str, Any], text: str) -> tuple[Reading, list[dict[str, Any]]]:
    reading = Reading(json.loads(json.dumps(asked)))
    return reading, [row for line in text.splitlines() if (row := reading.line(line)) is not None]


TRAIN = """\
2026-01-12 10:00:00,123 - app.training.train - INFO - Starting training on cuda
2026-01-12 10:01:40,001 - app.training.train - INFO -   Current LR: 0.000500
2026-01-12 10:01:40,002 - app.training.train - INFO - Epoch [1/20], Train Loss: 3.4210, Val Loss: 3.3001
2026-01-12 10:03:20,002 - app.training.train - INFO - Epoch [2/20], Train Loss: 2.9876, Val Loss: 3.1042
2026-01-12 10:03:20,003 - app.training.train - INFO - Early stopping triggered at epoch 2 (best loss: 3.1042)
"""

GAUNTLET = """\
  [vs Random] Starting 30 games (2p)...
    [5/30] wins: 5
    [30/30] wins: 28
  [vs Random] Done: 28/30 wins (93%)
  [vs Heuristic] Starting 30 games (2p)...
    [15/30] wins: 9

=== Gauntlet Result: m.pth ===
Model type: nn
vs Random: 93.3%
vs Heuristic: 63.3%
Composite score: 0.69
Games played: 60
"""


def test_epochs_and_losses_of_a_training() -> None:
    reading, rows = read(spec("train", save="m.pth", epochs=20), TRAIN)
    assert [(row["done"], row["total"], row["unit"]) for row in rows] == [(1, 20, "epochs"), (2, 20, "epochs")]
    assert reading.result() == AI | {"epochs": 2, "train_loss": 2.9876, "val_loss": 3.1042, "early_stop": 2}
    assert reading.problem(0) == ""


def test_games_and_rates_of_a_gauntlet() -> None:
    asked = spec("gauntlet", save="models/m.pth", games=30)
    reading, rows = read(asked, GAUNTLET)
    assert [(row["done"], row["total"], row["message"]) for row in rows] == [
        (5, 60, "Random"), (30, 60, "Random"), (45, 60, "Heuristic"),
    ]  # fmt: skip
    assert reading.problem(0) == ""
    assert reading.result() == AI | {
        "model_file": "m.pth", "model_type": "nn", "random_percent": 93.3, "heuristic_percent": 63.3,
        "composite": 0.69, "games_played": 60,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("m.pth", "other.pth"), "its model file is other.pth, not m.pth"),
        (("Games played: 60", "Games played: 0"), "its games played is 0, not 60"),
        (("vs Heuristic: 63.3%\n", ""), "told no heuristic percent; it said last: Games played: 60"),
        (("Model type", "UnifiedModelLoader failed for m.pth: KeyError('x')\nModel type"), "played Heuristic"),
        (("Model type", "Model path not found: m.pth, using HeuristicAI\nModel type"), "played Heuristic"),
        (("  [vs Random] Starting", "  Running 3-player games (inferred from model)\n ["), "its players is 3, not 2"),
    ],
)
def test_a_gauntlet_that_shows_something_else_has_shown_nothing(change: tuple[str, str], problem: str) -> None:
    reading, _ = read(spec("gauntlet", save="models/m.pth", games=30), GAUNTLET.replace(*change, 1))
    assert problem in reading.problem(0)


def test_the_game_counts_of_an_export_and_of_a_promotion() -> None:
    reading, _ = read(spec("export"), "Exported 81,420 samples from 781 games into /r/data/training/hex8_2p.npz\n")
    assert reading.result() == AI | {"samples": 81420, "games": 781}
    reading, _ = read(spec("export"), "Exported 0 samples from 0 games into x\n")
    assert reading.problem(0) == "its samples is 0, less than 1"
    text = "Gauntlet Results:\n  Total games: 100\n  vs RANDOM: 92.0% (✓ PASS, need 85%)\n"
    text += (
        "  vs HEURISTIC: 61.0% (✗ FAIL, need 65%)\n  Estimated ELO: 1502\n\n✗ GAUNTLET FAILED - Model not promoted\n"
    )
    reading, _ = read(spec("promote", save="m.pth", games=50), text)
    assert reading.facts["estimated_elo"] == 1502 and reading.facts["games_played"] == 100
    assert reading.problem(1) == "its gauntlet rejected the model, nothing was promoted"


def test_the_last_of_argparse_is_kept_and_other_failures_speak_for_themselves() -> None:
    reading, _ = read(spec("export"), "usage: x.py [-h]\nx.py: error: unrecognized arguments: --use-discovery\n")
    assert reading.problem(2).endswith("x.py: error: unrecognized arguments: --use-discovery")
    assert reading.problem(1) == ""


def test_words_are_numbers_where_they_are() -> None:
    assert [value_of(word) for word in ("1,234", "0.50", "nan", "inf", "v2 ")] == [1234, 0.5, "nan", "inf", "v2"]


def test_odd_text_does_no_harm() -> None:
    reading = Reading({"progress": [r"(?P<done>\w+)/(?P<total>\w+)"], "json": True})
    assert reading.line("x/y") is None
    assert reading.line("{" * 10_000) is None
    assert reading.line("[1]") is None
    assert reading.line("3/y") == {"done": 3.0, "total": None, "unit": "", "message": ""}
    assert "told no result" in reading.problem(0)


@pytest.mark.parametrize("module", [reader, checkout_host])
def test_what_runs_on_hosts_runs_on_an_old_python(module: Any) -> None:
    source = Path(module.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    names = {name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in (a.name for a in node.names)}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= {*sys.stdlib_module_names, "__future__"}


def run(tmp_path: Path, asked: dict[str, Any], code: str) -> tuple[int, list[str]]:
    env = dict(os.environ) | {READING: json.dumps(asked), "RINGRIFT_PROGRESS": str(tmp_path / "progress.jsonl")}
    done = subprocess.run(
        [sys.executable, "-I", reader.__file__, sys.executable, "-c", code],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_a_run_ends_as_its_command_and_leaves_its_result(tmp_path: Path) -> None:
    asked = {"progress": [r"(?P<done>\d+) of (?P<total>\d+)"], "facts": [r"score (?P<score>\d+)"], "outputs": ["o"]}
    code, lines = run(tmp_path, asked, "print('1 of 2\\r2 of 2'); print('score 7', end=''); open('o', 'w').write('x')")
    assert (code, lines) == (0, ["1 of 2", "2 of 2", "score 7"])
    assert read_progress(tmp_path / "progress.jsonl")[-1]["result"] == {"score": 7}
    found = last_progress(tmp_path / "progress.jsonl")
    assert found is not None and (found.done, found.total) == (2, 2)


@pytest.mark.parametrize(
    ("code", "ends", "line"),
    [
        ("", 4, "ringrift: it ended with exit code 0 and left no o; it said nothing"),
        ("print('well', end='')", 4, "ringrift: it ended with exit code 0 and left no o; it said last: well"),
        ("raise SystemExit(5)", 5, None),
        ("import os; os.kill(os.getpid(), 9)", 137, "ringrift: the command was ended by signal 9"),
    ],
)
def test_a_run_without_its_output_is_no_success(tmp_path: Path, code: str, ends: int, line: str | None) -> None:
    found, lines = run(tmp_path, {"outputs": ["o"]}, code)
    assert found == ends
    assert lines[-1:] == ([line] if line else [])
    assert not read_progress(tmp_path / "progress.jsonl")


def test_what_an_earlier_attempt_left_is_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "o").write_text("old")
    assert run(tmp_path, {"outputs": ["o"], "fresh": True}, "")[0] == 4
    (tmp_path / "o").write_text("old")
    assert run(tmp_path, {"outputs": ["o"]}, "")[0] == 0


def test_a_child_that_holds_the_output_open_does_not_hold_the_job(tmp_path: Path) -> None:
    stray = "import time; time.sleep(3600)"
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {stray!r}]).pid)"
    with (tmp_path / "log").open("wb") as log:  # a pipe of ours it would hold open too
        argv = [sys.executable, "-I", reader.__file__, sys.executable, "-c", code]
        done = subprocess.run(argv, cwd=tmp_path, stdout=log, check=False, timeout=90)
    os.kill(int((tmp_path / "log").read_text()), signal.SIGKILL)
    assert done.returncode == 0


def test_a_checkout_that_is_not_there_is_told_before_anything_runs(tmp_path: Path) -> None:
    code, lines = run(tmp_path, {"cwd": "/nowhere/ai-service"}, "print('ran')")
    assert (code, lines) == (3, ["ringrift: there is no checkout at /nowhere/ai-service"])
    code, lines = run(tmp_path, {"cwd": str(tmp_path), "present": ["scripts/x.py"]}, "print('ran')")
    assert (code, lines) == (3, [f"ringrift: the checkout at {tmp_path} has no scripts/x.py"])
    (tmp_path / "m").write_text("other")
    code, lines = run(tmp_path, {"inputs": {"m": "0" * 64}}, "print('ran')")
    assert (code, lines) == (3, ["ringrift: its input m is not there as it was sent"])
