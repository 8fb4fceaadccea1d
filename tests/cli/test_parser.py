"""The command line as a whole: every verb is there, a mistake is one line, the generated pages are current."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backend.errors import Exit
from ringrift_console.actions import ACTIONS, BY_NAME, load
from ringrift_console.cli import build_parser, main

REPO = Path(__file__).parents[2]


def test_action_names_and_verbs_are_unique() -> None:
    verbs = [action.verb for action in ACTIONS if action.verb]
    assert len(BY_NAME) == len(ACTIONS)
    assert len(set(verbs)) == len(verbs)


@pytest.mark.parametrize("action", [action for action in ACTIONS if action.verb], ids=lambda action: action.name)
def test_every_verb_has_a_handler_help_and_a_root_option(action, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(load(action.run))
    if action.plan:
        assert callable(load(action.plan))
    with pytest.raises(SystemExit) as done:
        build_parser().parse_args([*action.verb, "--help"])
    assert done.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--root" in text
    assert action.help in text


def test_a_help_that_screens_show_names_no_option() -> None:
    assert [action.name for action in ACTIONS if action.key and "--" in action.help + action.label] == []


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["nonsense"], Exit.USAGE, "nonsense"),
        (["jobs"], Exit.USAGE, "VERB"),
        (["train", "--lr", "fast"], Exit.USAGE, "--lr"),
        (["events", "--last", "all"], Exit.USAGE, "--last: not a whole number: 'all'"),
        (["events", "--last", str(2**63)], Exit.USAGE, f"--last: too large: {2**63}"),
        (["pipeline", "hex9_2p"], Exit.USAGE, "did you mean hex8_2p?"),
        (["export", "--board-type", "hex8", "--num-players", "5"], Exit.USAGE, "2, 3 or 4"),
        (["export", "--board", "hexagon", "--num-players", "2"], Exit.USAGE, "did you mean hexagonal?"),
        (["selfplay", "--config", "hex8_2p", "--board-type", "square8", "--games", "1"], Exit.USAGE, "two different"),
        (["gauntlet", "/nowhere/m.pth"], Exit.NOT_FOUND, "/nowhere/m.pth"),
        (["registry", "info", "hex8_2p:v9"], Exit.NOT_FOUND, "hex8_2p:v9"),
        (["rules", "play", "--config", "hex8_2p", "--players", "random", "--seed", "-1"], Exit.USAGE, "-1"),
        (["rules", "record", "--config", "hex8_2p", "--output", "/nowhere/g.gz", "--seed", "-1"], Exit.USAGE, "-1"),
        (["jobs", "show", "t99"], Exit.NOT_FOUND, "t99"),
        (["export", "--use-discovery", "--board-type", "hex8", "--num-players", "2"], Exit.NO_EVIDENCE, "hex8_2p"),
        (["train", "--config", "hex8_2p"], Exit.NOT_FOUND, "hex8_2p.npz"),
    ],
)
def test_a_mistake_is_one_line_and_its_own_exit_code(
    argv: list[str], code: Exit, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--root", str(tmp_path / "root")]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert words in err


def through_bash(words: str, after: str) -> subprocess.CompletedProcess[bytes]:
    """Runs ``ringrift`` with buffered output, as an operator's shell does."""
    command = f"set -o pipefail; {sys.executable} -m ringrift_console.cli {words} {after}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(["bash", "-c", command], cwd=REPO, capture_output=True, check=False, env=environment)


@pytest.mark.parametrize("words", ["--help", "status", "registry list --json"])
def test_a_reader_that_goes_away_is_no_error(words: str, tmp_path: Path) -> None:
    done = through_bash(f"--root {tmp_path} {words}" if words != "--help" else words, "| true")
    assert (done.returncode, done.stderr) == (Exit.DONE, b"")


def test_output_that_has_no_room_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    done = through_bash(f"registry list --json --root {tmp_path}", "> /dev/full")
    assert done.returncode == Exit.RESOURCE
    assert done.stderr.startswith(b"ringrift: the disk is full") and len(done.stderr.splitlines()) == 1


def test_help_names_every_verb_of_every_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # so that no name is broken at its hyphen
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    groups: dict[str, list[str]] = {}
    for action in ACTIONS:
        if len(action.verb) == 2:
            groups.setdefault(action.verb[0], []).append(action.verb[1])
    for group, verbs in groups.items():
        assert re.search(rf" {group} [^:]+: {', '.join(verbs)} ", text + " ")


def test_texts_name_only_verbs_that_there_are() -> None:
    verbs = {action.verb for action in ACTIONS if action.verb}
    groups = {verb[0] for verb in verbs if len(verb) == 2}
    found = set()
    for file in (*REPO.glob("backend/**/*.py"), *REPO.glob("ringrift_console/**/*.py"), *REPO.glob("screens/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"\bringrift ([a-z]+[a-z-]*)(?: ([a-z]+[a-z-]*))?", node.value))
    named = {(first, second) if first in groups else (first,) for first, second in found}
    assert ("registry", "list") in named
    assert {words for words in named if words[-1]} - verbs == {("transfer",)}  # a certificate's name


def test_the_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
