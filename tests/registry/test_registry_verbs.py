"""The verbs of training and of the registry: what they print, and how they say no."""

from __future__ import annotations

import json

import pytest

from backend.configs import parse_config
from backend.errors import Exit
from backend.paths import Paths
from backend.registry.store import Candidate, register
from ringrift_console.cli import main


@pytest.fixture
def root(paths: Paths) -> Paths:
    """Two registered models of hex8_2p and one of square8_3p."""
    paths.root.mkdir()
    for number, key in enumerate(("hex8_2p", "hex8_2p", "square8_3p")):
        file = paths.root / f"{number}.pth"
        file.write_bytes(f"weights {number}".encode())
        register(paths, Candidate(file=file, config=parse_config(key), metrics={"policy_accuracy": 0.25}))
    return paths


def run(paths: Paths, *argv: str) -> int:
    return main([*argv, "--root", str(paths.root)])


def test_list_shows_the_models_and_filters_them(root: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "registry", "list") == Exit.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["MODEL", "square8_3p:v1", "hex8_2p:v2", "hex8_2p:v1"]
    assert run(root, "registry", "list", "--config", "hex8_2p", "--stage", "Development", "--json") == Exit.DONE
    rows = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in rows] == ["hex8_2p:v2", "hex8_2p:v1"]
    assert run(root, "registry", "list", "--stage", "production", "--json") == Exit.DONE
    assert json.loads(capsys.readouterr().out) == []


def test_a_missing_file_is_shown_as_missing(root: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    next((root.models / "square8_3p").glob("*.pth")).unlink()
    assert run(root, "registry", "list") == Exit.DONE
    assert "development (file missing)" in capsys.readouterr().out


def test_info_tells_what_is_known(root: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "registry", "info", "hex8_2p:v2") == Exit.DONE
    text = capsys.readouterr().out
    assert "hex8_2p:v2" in text and "policy accuracy 0.25" in text and "- -> development" in text
    assert run(root, "registry", "info", "hex8_2p:v2", "--json") == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["label"] == "hex8_2p:v2" and told["transitions"][0]["after"] == "development"


def test_archive_shows_its_plan_without_doing_it(root: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "registry", "archive", "hex8_2p:v1", "--reason", "old", "--dry-run") == Exit.DONE
    assert "development -> archived" in capsys.readouterr().out
    assert run(root, "registry", "list", "--stage", "archived", "--json") == Exit.DONE
    assert json.loads(capsys.readouterr().out) == []
    assert not root.state_db.exists()


@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        (("registry", "info", "hex8_2p:v9"), Exit.NOT_FOUND, "no such model"),
        (("registry", "info", "hex8_2p"), Exit.USAGE, "several models match"),
        (("registry", "archive", "nothing"), Exit.NOT_FOUND, "no such model"),
        (("registry", "list", "--stage", "best"), Exit.USAGE, "unknown stage"),
        (("registry", "list", "--config", "hex9_2p"), Exit.USAGE, "unknown config"),
        (("export", "--config", "hex8_2p", "--use-discovery"), Exit.NO_EVIDENCE, "no finished games"),
        (("export", "--config", "hex8_2p", "--validation", "2"), Exit.USAGE, "--validation"),
        (("export", "--config", "hex8_2p", "--max-games", "0"), Exit.USAGE, "--max-games"),
        (("export", "--config", "hex8_2p", "--db", "none.db", "--use-discovery"), Exit.USAGE, "exclude"),
        (("export", "--config", "hex8_2p", "--db", "none.db"), Exit.NOT_FOUND, "no such database"),
        (("train", "--config", "hex8_2p"), Exit.NOT_FOUND, "no such dataset"),
        (("train", "--config", "hex8_2p", "--epochs", "0"), Exit.USAGE, "--epochs"),
        (("train",), Exit.USAGE, "no config"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_is_one_clear_line_with_its_exit_code(
    root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], code: Exit, word: str
) -> None:
    assert run(root, *argv) == code
    error = capsys.readouterr().err
    assert error.startswith("ringrift: ") and word in error and error.count("\n") == 1
