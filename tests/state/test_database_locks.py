"""Looking at a database file leaves the locks of this process's own connections alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from backend.databases import check_file, open_reader

_WRITER = (
    "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')"
)


def another_writes(path: Path) -> bool:
    done = subprocess.run([sys.executable, "-c", _WRITER, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "database is locked" in done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_look_at_the_file_does_not_let_another_process_write(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE t (a)")
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t VALUES (1)")
        check_file(path)
        with closing(open_reader(path)) as reader:
            assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
        assert not another_writes(path)
        db.execute("COMMIT")
        assert another_writes(path)


def test_another_process_does_not_take_itself_for_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (a)")
        check_file(path)
        code = (
            "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('INSERT INTO t VALUES (1)'); d.commit()"
        )
        subprocess.run([sys.executable, "-c", code + "; d.close()", str(path)], check=True)
        assert path.with_name("a.db-wal").exists()
        assert db.execute("SELECT count(*) FROM t").fetchone() == (1,)
