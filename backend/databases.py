"""SQLite as the rest of backend uses it: how a file is opened, and what its errors mean to a user."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import LockedError, NotFoundError, ResourceError, RingRiftError, UnverifiedError

_HEADER = b"SQLite format 3\0"
_KEEP = 64
_KEPT: dict[tuple[int, int], int] = {}  # device and inode -> descriptor, last used last
_LOOKING = threading.Lock()
_NO_ROOM = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_TRUNCATE}


def database_error(error: sqlite3.Error, path: Path) -> RingRiftError | None:
    """The user's error that an SQLite error stands for, or None when it is a bug of ours (bad SQL, for one)."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    base, where = code & 0xFF, str(path)
    if base in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LockedError("the database is locked by another program", where=where, hint="wait for it or stop it")
    if base in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return UnverifiedError("the database is damaged", where=where, hint="move it away or restore a backup")
    if base == sqlite3.SQLITE_FULL or code in _NO_ROOM:
        return ResourceError("the disk is full", where=where, hint="free some space; what was finished before is kept")
    if base in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        if base == sqlite3.SQLITE_CANTOPEN and not path.exists() and path.parent.is_dir() and _room(path.parent):
            return NotFoundError("there is no such database", where=where)
        return ResourceError(
            f"the database cannot be used ({error})", where=where, hint="see permissions and free space"
        )
    return None


def _room(folder: Path) -> bool:
    return os.statvfs(folder).f_bavail > 0


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turns SQLite errors about the file ``path`` into the errors that a user can act on.

    Raises:
        LockedError, UnverifiedError, ResourceError, NotFoundError: see :func:`database_error`.
    """
    try:
        yield
    except sqlite3.Error as error:
        known = database_error(error, path)
        if known is None:
            raise
        raise known from error


def _header(path: Path) -> bytes:
    """The first 100 bytes of a file.

    When a process closes any descriptor of a file, the kernel drops all locks that the process has on that file, those
    of SQLite's own connections too; another process then takes itself for the last one and removes the write-ahead
    log. So the descriptors are kept, as SQLite keeps its own: one a file, those that were used last.
    """
    if path.is_dir():
        raise IsADirectoryError(str(path))
    with _LOOKING:
        facts = path.stat()
        key = (facts.st_dev, facts.st_ino)
        descriptor = _KEPT.pop(key, None)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            facts = os.fstat(descriptor)
            key = (facts.st_dev, facts.st_ino)
        _KEPT[key] = descriptor
        while len(_KEPT) > _KEEP:
            os.close(_KEPT.pop(next(iter(_KEPT))))
        return os.pread(descriptor, 100, 0)


def check_file(path: Path) -> None:
    """Finds a file that is no database or that lost its end, by its header and size alone.

    Raises:
        NotFoundError: there is no such file.
        UnverifiedError: it is no SQLite database, or shorter than its header says.
    """
    try:
        header = _header(path)
    except FileNotFoundError:
        raise NotFoundError("there is no such database", where=str(path)) from None
    except IsADirectoryError:
        raise UnverifiedError("not a database", where=str(path), hint="it is a folder") from None
    if not header:
        return  # SQLite makes the file before its first page
    if header[:16] != _HEADER or len(header) < 100:
        raise UnverifiedError("not a database", where=str(path), hint="move it away or restore a backup")
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(header[28:32], "big")
    log = path.with_name(path.name + "-wal")
    pending = log.exists() and log.stat().st_size > 0  # then the header may be ahead of a checkpoint that was cut off
    if not pending and path.stat().st_size < page * pages:
        raise UnverifiedError("the database is truncated", where=str(path), hint="restore a backup")


def open_reader(path: Path, *, timeout_s: float = 5.0) -> sqlite3.Connection:
    """Opens an existing database for reading only.

    Raises:
        NotFoundError, UnverifiedError, LockedError, ResourceError: it cannot be read.
    """
    check_file(path)
    with sqlite_errors(path):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=timeout_s)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def open_writer(path: Path, *, timeout_s: float = 30.0) -> sqlite3.Connection:
    """Opens or makes a database for writing: synchronous FULL, transactions begun by hand.

    A database that is made here gets WAL; one that is there keeps its journal mode, because a peer of the reference
    installation may rely on it, and a file of another schema must be left as it is.

    Raises:
        UnverifiedError, LockedError, ResourceError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    if not new:
        check_file(path)
    with sqlite_errors(path):
        connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None)
        try:
            if new:
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            connection.close()
            raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    """One IMMEDIATE transaction: all of the block or nothing.

    Raises:
        LockedError, UnverifiedError, ResourceError: nothing of it was stored.
    """
    with sqlite_errors(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # some errors (a full disk) have rolled it back already
                connection.execute("ROLLBACK")
            raise


def columns(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """Column names of a table with their declared types in upper case; empty when there is no such table."""
    return {str(row[1]): str(row[2]).upper() for row in connection.execute(f"PRAGMA table_info({table})")}


def tables(connection: sqlite3.Connection) -> set[str]:
    """Names of all tables."""
    return {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
