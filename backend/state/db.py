"""``state.db`` as a connection: WAL, transactions begun by hand, one revision step a transaction.

Any number of processes may have it open; SQLite lets one write at a time and the others wait.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiosqlite

from backend.databases import check_file, sqlite_errors
from backend.errors import LockedError, SchemaError
from backend.locks import FileLock
from backend.state.migrations import APPLICATION_ID, MIGRATIONS

BUSY_S = 30.0

Row = sqlite3.Row


class Transaction:
    """What can be done inside :meth:`Database.write` or :meth:`Database.read`."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Executes a statement; returns how many rows it changed."""
        async with self._connection.execute(sql, parameters) as cursor:
            return cursor.rowcount

    async def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return list(await self._connection.execute_fetchall(sql, parameters))

    async def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        rows = await self.all(sql, parameters)
        return rows[0] if rows else None

    async def next_number(self, counter: str) -> int:
        """The next value of a counter; the first is 1."""
        await self.run(
            "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (counter,)
        )
        row = await self.one("SELECT value FROM counters WHERE name = ?", (counter,))
        assert row is not None
        return int(row[0])


class Database:
    """One connection to ``state.db``; its users take turns."""

    def __init__(self, connection: aiosqlite.Connection, path: Path) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()
        self._reading: tuple[asyncio.Task[Any] | None, Transaction] | None = None
        self.path = path

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Opens ``path``, making and migrating it when needed.

        Raises:
            SchemaError: it is of a newer version of this program, or another program's database.
            UnverifiedError: it is damaged, truncated or no database.
            LockedError, ResourceError: it cannot be used now.
        """
        await asyncio.to_thread(_prepare, path)
        with sqlite_errors(path):
            connection = await aiosqlite.connect(path, timeout=BUSY_S, isolation_level=None)
            try:
                connection.row_factory = sqlite3.Row
                if not await _is_ready(connection, path):
                    async with _alone(path):
                        await _migrate(connection, path)
                await connection.executescript("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")
            except BaseException:
                await connection.close()
                raise
        return cls(connection, path)

    async def close(self) -> None:
        await self._connection.close()

    @asynccontextmanager
    async def write(self, *, silent: bool = False) -> AsyncIterator[Transaction]:
        """All of the block or nothing, durable when it ends. ``silent`` leaves the revision as it is.

        Raises:
            LockedError, ResourceError, UnverifiedError: nothing of it was stored.
        """
        async with self._turn:
            with sqlite_errors(self.path):
                try:
                    await self._connection.execute("BEGIN IMMEDIATE")
                    transaction = Transaction(self._connection)
                    yield transaction
                    if not silent:
                        await transaction.run("UPDATE revision SET value = value + 1")
                    await self._connection.execute("COMMIT")
                except BaseException:
                    await self._leave()
                    raise

    async def _leave(self) -> None:
        """Ends a transaction that did not come to its COMMIT, if it is still open."""
        # A statement whose waiter was cancelled is still in the connection's queue; this comes after it.
        await self._connection.execute("SELECT 1")
        if self._connection.in_transaction:  # a full disk has rolled it back already
            await self._connection.execute("ROLLBACK")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """Reads of one moment; a read within another one of the same task is of the outer one's moment."""
        task = asyncio.current_task()
        if self._reading is not None and self._reading[0] is task:
            yield self._reading[1]
            return
        async with self._turn:
            with sqlite_errors(self.path):
                try:
                    await self._connection.execute("BEGIN")
                    transaction = Transaction(self._connection)
                    self._reading = task, transaction
                    yield transaction
                    self._reading = None
                    await self._connection.execute("ROLLBACK")
                except BaseException:
                    self._reading = None
                    await self._leave()
                    raise

    async def data_version(self) -> int:
        """A number that changes whenever another connection has written; cheap, it reads no table."""
        async with self._turn:
            with sqlite_errors(self.path):
                rows = list(await self._connection.execute_fetchall("PRAGMA data_version"))
        return int(rows[0][0])


def _prepare(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        check_file(path)


_MARKS = (  # one statement, so all of one moment
    "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
    "FROM pragma_user_version, pragma_application_id"
)


async def _is_current(connection: aiosqlite.Connection, path: Path) -> tuple[bool, int]:
    """Whether the tables are all there, and the version that they have."""
    rows: Iterable[Any] = await connection.execute_fetchall(_MARKS)
    version, application, tables = next(iter(rows))
    if application != APPLICATION_ID and (application or version or tables):
        raise SchemaError("not a state database", where=str(path), hint="it belongs to another program; move it away")
    if version > len(MIGRATIONS):
        raise SchemaError(
            f"the state database has version {version}, this program knows {len(MIGRATIONS)}",
            where=str(path),
            hint="use the newer program",
        )
    return version == len(MIGRATIONS), version


async def _is_ready(connection: aiosqlite.Connection, path: Path) -> bool:
    """Whether the tables are all there; not while another process is making them."""
    try:
        current, _ = await _is_current(connection, path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return current


@asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """One process at a time makes or migrates a database: SQLite does not let others wait for a switch to WAL."""
    lock = FileLock(path.with_name(path.name + ".lock"), "migration of the state database")
    end = asyncio.get_running_loop().time() + BUSY_S
    while True:
        try:
            lock.acquire()
            break
        except LockedError:
            if asyncio.get_running_loop().time() > end:
                raise
            await asyncio.sleep(0.02)
    try:
        yield
    finally:
        lock.release()


async def _migrate(connection: aiosqlite.Connection, path: Path) -> None:
    await connection.execute("PRAGMA journal_mode = WAL")
    await connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have migrated it while we waited for the write lock.
        current, version = await _is_current(connection, path)
        if not current:
            for statement in (text for step in MIGRATIONS[version:] for text in step):
                await connection.execute(statement)
            if version == 0:
                row = (f"root-{uuid.uuid4().hex[:16]}", time.time())
                await connection.execute("INSERT INTO identity VALUES (1, ?, ?)", row)
            await connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            await connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        await connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            await connection.execute("ROLLBACK")
        raise
