"""SQLite as the rest of backend uses it: how a file is opened, and what its errors mean to a user."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from backend.errors import LockedError, NotFoundError, ResourceError, RingRiftError, UnverifiedError

T = TypeVar("T")
_NO_ROOM = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_TRUNCATE}


def database_error(error: sqlite3.Error, path: Path) -> RingRiftError | None:
    """The user's error that an SQLite error stands for, or None when it is a bug of ours (bad SQL, for one)."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        if not str(error).startswith("Could not decode to UTF-8"):  # the module's own word, so without a code
            return None
        return UnverifiedError("a text in the database is no UTF-8", where=str(path), hint="restore a backup")
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


def check_file(path: Path) -> None:
    """Finds a file that is no database or that lost its end. Leaves no trace beside it.

    The file is looked at through SQLite and never opened by hand: closing a descriptor of ours would drop the locks
    that every other connection of this process has on it (POSIX locks belong to the process, not to the descriptor).

    Raises:
        NotFoundError: there is no such file.
        UnverifiedError: it is no SQLite database, or shorter than its header says.
    """
    try:
        _look(path)
    except LockedError:
        return  # somebody is at it, so it is a database; whoever opens it next will wait for them


_OURS = {"artifacts", "match_games", "compact_games", "operations"}
"""Tables of ours: beside a database that has one, SQLite may leave its logs."""


def _look(path: Path) -> tuple[bool, bool]:
    """Whether a database keeps a write-ahead log, and whether it has tables of ours, as far as its main file tells."""
    if path.is_dir():
        raise UnverifiedError("not a database", where=str(path), hint="it is a folder")
    if not path.exists():
        raise NotFoundError("there is no such database", where=str(path))
    log = False
    try:
        there = _tables_by(path, "mode=ro&nolock=1")
    except sqlite3.OperationalError as error:
        kind = error.sqlite_errorcode & 0xFF
        if kind not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise _opening_error(error, path) or error from error
        # Without locks SQLite refuses a write-ahead log (CANTOPEN), and so it does a journal to be rolled back.
        log = kind == sqlite3.SQLITE_CANTOPEN
        try:
            there = _tables_by(path, "mode=ro&immutable=1")
        except sqlite3.Error as worse:
            if _size(_sidecar(path, "-wal")):  # a checkpoint may be writing the main file at this moment
                return log, False
            raise _opening_error(worse, path) or worse from worse
    except sqlite3.DatabaseError as error:
        raise _opening_error(error, path) or error from error
    return log, bool(there & _OURS)


def _tables_by(path: Path, how: str) -> set[str]:
    with closing(_connect(path, how, 0.0)) as connection:
        return tables(connection)


def _connect(path: Path, how: str, timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=timeout_s)


def _opening_error(error: sqlite3.Error, path: Path) -> RingRiftError | None:
    kind = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if kind == sqlite3.SQLITE_NOTADB:
        return UnverifiedError("not a database", where=str(path), hint="move it away or restore a backup")
    if kind == sqlite3.SQLITE_CORRUPT and _is_short(path):
        return UnverifiedError("the database is truncated", where=str(path), hint="restore a backup")
    return database_error(error, path)


def _is_short(path: Path) -> bool:
    """Whether a damaged database is smaller than its header says."""
    with path.open("rb") as stream:
        header = stream.read(100)
    page = int.from_bytes(header[16:18], "big")
    return path.stat().st_size < (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")


def open_reader(path: Path, *, timeout_s: float = 5.0) -> sqlite3.Connection:
    """Opens an existing database for reading only.

    A database without tables of ours belongs to another program: nothing is made or changed beside it either, as
    SQLite would do with a write-ahead log. While nobody has it open it is read as it lies; while somebody has,
    through the log that is there; and a log that its program left behind is applied to a copy in a private folder.

    Raises:
        NotFoundError, UnverifiedError, LockedError, ResourceError: it cannot be read.
    """
    log, ours = _look(path)
    with sqlite_errors(path):
        try:
            if ours or not log:
                return _open(path, "mode=ro", timeout_s)
            if _sidecar(path, "-wal").exists() and _sidecar(path, "-shm").exists():
                return _open(path, "mode=ro&readonly_shm=1", timeout_s)
        except sqlite3.OperationalError as error:
            # A log that cannot be made (a read-only file system), or something left to be rolled back or applied.
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
        if any(_size(_sidecar(path, end)) for end in ("-wal", "-journal")):
            return _open_copy(path, timeout_s)
        return _open(path, "mode=ro&immutable=1", timeout_s)


def _open(path: Path, how: str, timeout_s: float) -> sqlite3.Connection:
    connection = _connect(path, how, timeout_s)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _open_copy(path: Path, timeout_s: float) -> sqlite3.Connection:
    """A connection to a copy with its log applied; the copy has no name any more when this returns."""
    with tempfile.TemporaryDirectory(prefix="ringrift-") as folder:
        copy = Path(folder) / "copy.db"
        for end in ("", "-wal", "-journal"):
            if _sidecar(path, end).exists():
                shutil.copyfile(_sidecar(path, end), _sidecar(copy, end))
        connection = sqlite3.connect(copy, timeout=timeout_s)
        try:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def _sidecar(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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


Stamp = tuple[tuple[int, int, bytes] | None, ...]
_COUNTER = (24, 4)  # the header's count of changes; not kept in WAL mode
_SALT = (16, 8)  # of the log's header: another one each time the log begins anew


def file_stamp(path: Path) -> Stamp:
    """Time, size and change counter of a database and of its log: the same stamp, the same rows.

    Times alone do not do: two changes may fall into one tick of the file system's clock. An empty log counts as none:
    a reader makes one by looking.
    """
    found: list[tuple[int, int, bytes] | None] = []
    for file, (at, length) in ((path, _COUNTER), (path.with_name(path.name + "-wal"), _SALT)):
        try:
            with file.open("rb", buffering=0) as stream:
                status = os.fstat(stream.fileno())
                mark = os.pread(stream.fileno(), length, at)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, mark) if status.st_size else None)
    return tuple(found)


class Memory(Generic[T]):
    """What was last read of a database, by its path: the same object until :func:`file_stamp` is another."""

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._known: dict[Path, tuple[Stamp, T]] = {}

    def get(self, path: Path) -> T:
        """As it is now. Raises what reading raises; that is never remembered."""
        stamp = file_stamp(path)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = (stamp, self._read(path))
        return known[1]
