"""Names that others chose reach the terminal as text: never as an escape sequence, a second line or a crash."""

from __future__ import annotations

import sqlite3

import pytest

from backend.configs import parse_config
from backend.errors import Exit, RingRiftError
from backend.paths import Paths
from backend.registry.store import Candidate, register
from backend.text import plain
from ringrift_console.cli import main

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
TURNED = "\u202egnp.exe"


def harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.fixture
def root(paths: Paths) -> Paths:
    """A root whose registry names a model, a stage, a path and a reason in the worst way."""
    paths.root.mkdir()
    file = paths.root / "m.pth"
    file.write_bytes(b"weights")
    register(paths, Candidate(file=file, config=parse_config("hex8_2p"), metrics={f"x{ESCAPE}": 1.0}))
    with sqlite3.connect(paths.registry_db) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("UPDATE versions SET model_id = ?, file_path = ?", (f"net{ESCAPE}\nhex8_2p:v9", f"models/{TURNED}"))
        db.execute("UPDATE artifacts SET model_id = ?", (f"net{ESCAPE}\nhex8_2p:v9",))
        db.execute("UPDATE stage_transitions SET model_id = ?, reason = ?", (f"net{ESCAPE}\nhex8_2p:v9", ESCAPE))
        db.execute("UPDATE tags SET model_id = ?, tag = tag || ?", (f"net{ESCAPE}\nhex8_2p:v9", ESCAPE))
    db.close()
    return paths


@pytest.mark.parametrize("verb", [("registry", "list"), ("registry", "info", "{sha}"), ("status",)], ids=" ".join)
def test_a_hostile_registry_is_shown_as_text(
    root: Paths, verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(root.registry_db) as db:
        sha = db.execute("SELECT file_hash FROM versions").fetchone()[0]
    db.close()
    assert main([*(word.format(sha=sha) for word in verb), "--root", str(root.root)]) == Exit.DONE
    told = capsys.readouterr()
    assert r"\x1b]0;owned\x07" in told.out and harmless(told.out + told.err)


def test_an_error_is_one_harmless_line_whatever_it_names(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"no{ESCAPE}\nsuch\udcff.pth"
    assert main(["gauntlet", name, "--root", str(paths.root)]) == Exit.NOT_FOUND
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and harmless(line) and r"\udcff" in line
    assert harmless(RingRiftError("what\r", where="where\x9b", hint="hint\u2028").line())


def test_what_can_be_printed_stays_as_it_is() -> None:
    assert plain("hex8_2p:v3 — 95 % ✓ 日本") == "hex8_2p:v3 — 95 % ✓ 日本"
    assert plain("a\tb\x00\udc80\u202e") == r"a\tb\x00\udc80\u202e"
