"""Recorded games replay move for move."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from backend.configs import CONFIGS
from backend.errors import NotFoundError, UnverifiedError
from backend.rules.layout import MOVE_NAMES
from backend.rules.replay import read_rows, replay
from ringrift_console.cli import main

GOLDEN = Path(__file__).parent / "golden"


def test_every_legal_list_state_and_result_of_a_recording_is_ours(recording: Path) -> None:
    report = replay(recording)
    assert report.games > 0
    assert report.plies > 0
    assert [mismatch.text() for mismatch in report.mismatches] == []


def test_the_golden_games_cover_every_config_and_every_type_of_move() -> None:
    played: set[str] = set()
    configs: set[str] = set()
    for path in GOLDEN.glob("*.jsonl.gz"):
        for row in read_rows(path):
            if row.get("k") == "game":
                configs.add(f"{row['board']}_{row['n']}p")
            elif "mv" in row:
                played.add(re.sub("^P[123]", "P", row["mv"]).split()[0])
    assert configs == {config.key for config in CONFIGS}
    assert played == set(MOVE_NAMES)


def _rewrite(source: Path, target: Path, change: dict[str, object], where: str) -> None:
    """Copies a recording with the first row that has ``where`` in full changed."""
    done = False
    with gzip.open(target, "wt") as out:
        for row in read_rows(source):
            if not done and where in row and row.get("i", 0) > 0:
                row |= change
                done = True
            out.write(json.dumps(row) + "\n")
    assert done


@pytest.mark.parametrize(
    ("where", "change", "says"),
    [
        ("lg", {"lg": ["NP", "P1 9,9"]}, "only recorded: NP; P1 9,9"),
        ("lh", {"lh": 1}, "legal moves differ"),
        ("sh", {"sh": 1}, "the state differs"),
        ("s", {"s": "nothing"}, "recorded: nothing"),
        ("cp", {"cp": 4}, "recorded player 4"),
        ("mv", {"mv": "M 0,0 0,0"}, "is not legal"),
    ],
)
def test_a_difference_is_reported_with_the_position_drawn(
    tmp_path: Path, where: str, change: dict[str, object], says: str
) -> None:
    target = tmp_path / "changed.jsonl.gz"
    _rewrite(GOLDEN / "square8_2p.jsonl.gz", target, change, where)
    report = replay(target)
    assert report.games == 2
    assert len(report.mismatches) == 1
    assert says in report.mismatches[0].what
    assert "player 1: hand" in report.mismatches[0].position


@pytest.mark.parametrize(("name", "value"), [("winner", 9), ("reason", "luck"), ("rank", [2, 2]), ("turns", 0)])
def test_a_result_that_differs_is_a_mismatch(tmp_path: Path, name: str, value: object) -> None:
    target = tmp_path / "changed.jsonl"
    rows = list(read_rows(GOLDEN / "hex8_2p.jsonl.gz"))
    rows[-1][name] = value
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [f"at the end {name} is" in mismatch.what for mismatch in replay(target).mismatches] == [True]


def test_the_replay_verb_prints_totals_and_exits_by_the_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(GOLDEN / "square8_2p.jsonl.gz")
    assert main(["rules", "replay", good, "--root", str(tmp_path)]) == 0
    assert "0 mismatches" in capsys.readouterr().out
    bad = tmp_path / "bad.jsonl.gz"
    _rewrite(GOLDEN / "square8_2p.jsonl.gz", bad, {"sh": 1}, "sh")
    assert main(["rules", "replay", good, str(bad), "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "first mismatch: bad.jsonl.gz: game 1" in out
    assert "player 1: hand" in out


def _damage(kind: str, path: Path) -> None:
    whole = (GOLDEN / "square8_2p.jsonl.gz").read_bytes()
    lines = gzip.decompress(whole).decode().splitlines()
    match kind:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "flipped":
            path.write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
        case "no end":
            path.write_text("\n".join(lines[:-1]))
        case "no start":
            path.write_text("\n".join(lines[1:]))
        case "text":
            path.write_text("what a game\n")
        case "json":
            path.write_text('{"k": "game", "board": "square8"}\n')
        case "list":
            path.write_text("[1, 2]\n")
        case "board":
            path.write_text(lines[0].replace("square8", "square9") + "\n")
        case "empty":
            path.write_text("")


@pytest.mark.parametrize(
    "kind", ["truncated", "flipped", "no end", "no start", "text", "json", "list", "board", "empty"]
)
def test_a_damaged_recording_is_one_clear_line_and_exit_7(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.jsonl.gz"
    _damage(kind, path)
    with pytest.raises(UnverifiedError, match=r"broken\.jsonl\.gz"):
        replay(path)
    assert main(["rules", "replay", str(path), "--root", str(tmp_path)]) == 7
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_missing_recording_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(NotFoundError):
            replay(path)


def test_a_recording_of_ours_replays_and_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        argv = ["--config", "hex8_3p", "--games", "3", "--seed", "5", "--scattered", "--output", str(tmp_path / name)]
        assert main(["rules", "record", *argv, "--root", str(tmp_path)]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    report = replay(tmp_path / "a")
    assert (report.games, report.mismatches) == (3, ())
