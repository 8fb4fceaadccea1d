"""How databases are opened: nothing is left beside a foreign one, no lock is lost, and nothing stays open."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backend.databases import check_file, open_reader, open_writer, transaction
from backend.errors import NotFoundError, UnverifiedError
from tests.lab.disks import read_only, small_disk

_HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("INSERT INTO t VALUES ('second')")
print("there", flush=True)
sys.stdin.read()
"""
_DIE = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 2")
db.execute("BEGIN")
db.execute("UPDATE t SET a = 'half-written' || zeroblob(3000)")
os._exit(0)
"""


def make(path: Path, mode: str, rows: int = 1) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE t (a)")
        db.executemany("INSERT INTO t VALUES (?)", [("first",)] * rows)
        db.commit()
    return path


def picture(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder: times and bytes, its own time included."""
    found = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    return found | {"": (folder.stat().st_mtime_ns, b"")}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    before = picture(folder)
    yield
    assert picture(folder) == before


@contextmanager
def writer(path: Path) -> Iterator[None]:
    """Another process that has written and stays."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "there\n"
        yield
        other.communicate("")


def read(path: Path) -> list[str]:
    with closing(open_reader(path)) as db:
        return [row[0] for row in db.execute("SELECT a FROM t")]


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_nothing_is_left_beside_a_foreign_database(tmp_path: Path, mode: str) -> None:
    path = make(tmp_path / "a.db", mode)
    with untouched(tmp_path):
        assert read(path) == ["first"]
        check_file(path)
    with writer(path), untouched(tmp_path):
        assert read(path) == ["first", "second"]
    with untouched(tmp_path):
        assert read(path) == ["first", "second"]


@pytest.mark.parametrize("index", [True, False], ids=["with its index", "without"])
def test_a_log_that_was_left_is_read_and_left_as_it_is(tmp_path: Path, index: bool) -> None:
    path, folder = make(tmp_path / "a.db", "WAL"), tmp_path / "copy"
    folder.mkdir()
    with writer(path):
        for end in ("", "-wal", *(("-shm",) if index else ())):
            shutil.copy2(f"{path}{end}", f"{folder}/a.db{end}")
    with untouched(folder):
        assert read(folder / "a.db") == ["first", "second"]


def test_a_change_that_was_cut_off_is_not_seen_and_not_taken_back(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE", rows=500)
    subprocess.run([sys.executable, "-c", _DIE, str(path)], check=True)
    assert (tmp_path / "a.db-journal").stat().st_size
    with untouched(tmp_path):
        assert read(path) == ["first"] * 500


def test_a_database_of_ours_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ours.db"
    with closing(open_writer(path)) as db:
        db.execute("CREATE TABLE match_games (a)")
        for count in range(3):
            with transaction(db, path):
                db.execute("INSERT INTO match_games VALUES (1)")
            with closing(open_reader(path)) as other:
                assert other.execute("SELECT count(*) FROM match_games").fetchone() == (count + 1,)


def test_looking_at_a_database_drops_no_lock_of_this_process(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t VALUES ('mine')")
        check_file(path)
        read(path)
        attempt = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        other = subprocess.run([sys.executable, "-c", attempt, str(path)], capture_output=True, text=True, check=False)
        assert "database is locked" in other.stderr
        db.execute("COMMIT")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:50], "truncated"),
        (lambda data: b"x" * len(data), "not a database"),
    ],
)
def test_what_is_no_database_is_told(tmp_path: Path, damage: Callable[[bytes], bytes], words: str) -> None:
    path = make(tmp_path / "a.db", "DELETE", rows=500)
    path.write_bytes(damage(path.read_bytes()))
    for look in (check_file, open_reader):
        with pytest.raises(UnverifiedError, match=words):
            look(path)
    with pytest.raises(UnverifiedError, match="folder"):
        check_file(tmp_path)
    with pytest.raises(NotFoundError):
        check_file(tmp_path / "b.db")


def test_a_file_system_that_held_a_database_can_be_taken_away(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as folder:
        path = make(folder / "a.db", "WAL")
        assert read(path) == ["first"]
        with closing(open_writer(folder / "b.db")) as db:
            db.execute("CREATE TABLE match_games (a)")
        open_reader(folder / "b.db").close()
    assert not os.listdir(tmp_path / "small")


@pytest.mark.parametrize("table", ["t", "match_games"])
def test_a_database_on_a_read_only_file_system_is_read(tmp_path: Path, table: str) -> None:
    folder = tmp_path / "still"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "a.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"CREATE TABLE {table} (a)")
    with read_only(folder), untouched(folder), closing(open_reader(folder / "a.db")) as db:
        assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
