"""Operations, events and the supervisor's row in ``state.db``; other areas keep tables of their own beside them."""

from __future__ import annotations

import getpass
import json
import os
import time
import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Self

from backend.locks import is_held
from backend.paths import Paths
from backend.plans import Plan
from backend.snapshot import EventRow, OperationRow, SupervisorRow
from backend.state.db import Database, Row, Transaction

_SHOWN = "id, action, title, state, created_at, by, error, result"  # of an operation; its plan may be large


def moment(seconds: float | None) -> datetime | None:
    """Unix seconds as an aware UTC time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def who() -> str:
    """The person at the keyboard, as operations are signed: ``name@pid`` without a terminal, else ``name@tty``."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    try:
        place = os.ttyname(0).removeprefix("/dev/")
    except OSError:
        place = f"pid{os.getpid()}"
    return f"{name}@{place}"


class StateStore:
    """``state.db`` of one root.

    A handler of an operation gets a store with :attr:`operation` set, whose :meth:`step` and :meth:`record_step` keep
    the journal of that operation, so that after a crash it goes on where it stopped.
    """

    def __init__(self, paths: Paths, database: Database, operation: str | None = None) -> None:
        self.paths = paths
        self.database = database
        self.operation_id = operation

    @classmethod
    async def open(cls, paths: Paths) -> Self:
        """Opens or makes the root's state database; see :meth:`Database.open` for its errors."""
        return cls(paths, await Database.open(paths.state_db))

    async def close(self) -> None:
        await self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def bound(self, operation: str) -> StateStore:
        """The same store for the handler of one operation."""
        return StateStore(self.paths, self.database, operation)

    async def revision(self) -> int:
        """Grows with every change of anything an operator sees."""
        async with self.database.read() as db:
            row = await db.one("SELECT value FROM revision")
        assert row is not None
        return int(row[0])

    async def owner(self) -> str:
        """The name of this root towards agents."""
        async with self.database.read() as db:
            row = await db.one("SELECT owner FROM identity")
        assert row is not None
        return str(row[0])

    # operations

    async def submit(self, plan: Plan, by: str = "", *, key: str | None = None) -> str:
        """Writes a confirmed plan down as an operation and returns its id; the supervisor will carry it out.

        The same ``key`` again returns the operation that it made the first time.
        """
        key = key or uuid.uuid4().hex
        async with self.database.write() as db:
            row = await db.one("SELECT id FROM operations WHERE key = ?", (key,))
            if row is not None:
                return str(row["id"])
            name = f"o{await db.next_number('operation')}"
            await db.run(
                "INSERT INTO operations (id, key, lasting, action, title, plan, by, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    name, key, f"{name}-{uuid.uuid4().hex[:12]}", plan.action, plan.title, json.dumps(plan.to_json()),
                    by or who(), time.time(),
                ),
            )  # fmt: skip
        return name

    async def operation(self, name: str) -> OperationRow | None:
        async with self.database.read() as db:
            row = await db.one("SELECT * FROM operations WHERE id = ?", (name,))
        return None if row is None else _operation(row)

    async def operations(self, *, last: int = 100) -> tuple[OperationRow, ...]:
        """The newest operations, oldest of them first."""
        async with self.database.read() as db:
            rows = await db.all(f"SELECT {_SHOWN} FROM operations ORDER BY number DESC LIMIT ?", (last,))
        return tuple(_operation(row) for row in reversed(rows))

    async def open_operations(self) -> list[tuple[str, str]]:
        """Ids and states of what is to be carried out, in the order it was asked for."""
        async with self.database.read() as db:
            rows = await db.all(
                "SELECT id, state FROM operations WHERE state IN ('pending', 'running') ORDER BY number"
            )
        return [(str(row["id"]), str(row["state"])) for row in rows]

    async def plan_of(self, name: str) -> Plan:
        """The plan of an operation. Raises ValueError, TypeError or KeyError when the row is damaged."""
        async with self.database.read() as db:
            row = await db.one("SELECT plan FROM operations WHERE id = ?", (name,))
        if row is None:
            raise KeyError(name)
        return Plan.from_json(json.loads(row["plan"]))

    async def begin_operation(self, name: str) -> None:
        async with self.database.write() as db:
            await db.run(
                "UPDATE operations SET state = 'running', started_at = coalesce(started_at, ?) WHERE id = ?",
                (time.time(), name),
            )

    async def end_operation(
        self, name: str, state: str, *, error: str = "", result: dict[str, Any] | None = None
    ) -> None:
        """Ends an operation as ``done``, ``failed`` or ``refused``, with its event."""
        async with self.database.write() as db:
            changed = await db.run(
                "UPDATE operations SET state = ?, error = ?, result = ?, ended_at = ? "
                "WHERE id = ? AND state IN ('pending', 'running')",
                (state, error, json.dumps(result or {}), time.time(), name),
            )
            if changed:
                row = await db.one("SELECT action, title FROM operations WHERE id = ?", (name,))
                assert row is not None
                payload = {"action": row["action"], "title": row["title"]} | ({"error": error} if error else {})
                await add_event(db, f"OPERATION_{state.upper()}", name, payload, key=f"operation {name}")

    async def tell_progress(self, n: int, of: int, what: str) -> None:
        """Says which step of how many this operation is at, for whoever waits for it: ``result["progress"]``."""
        progress = {"progress": {"n": n, "of": of, "what": what}}
        async with self.database.write() as db:
            await db.run(
                "UPDATE operations SET result = ? WHERE id = ? AND state = 'running'",
                (json.dumps(progress), self.own_operation()),
            )

    async def step(self, name: str) -> dict[str, Any] | None:
        """What an earlier run of this operation recorded for a step, or None when it did not get there."""
        async with self.database.read() as db:
            row = await db.one(
                "SELECT result FROM steps WHERE operation = ? AND name = ?", (self.own_operation(), name)
            )
        return None if row is None else dict(json.loads(row["result"]))

    async def record_step(self, name: str, result: dict[str, Any] | None = None) -> None:
        """Notes that a step of this operation is done; a second time changes nothing."""
        async with self.database.write(silent=True) as db:
            await db.run(
                "INSERT INTO steps VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (self.own_operation(), name, time.time(), json.dumps(result or {})),
            )

    async def operator(self) -> str:
        """Who confirmed this operation."""
        row = await self.operation(self.own_operation())
        assert row is not None
        return row.by

    def own_operation(self) -> str:
        """The id of the operation that this store is bound to."""
        assert self.operation_id is not None, "steps belong to an operation"
        return self.operation_id

    async def lasting_operation(self) -> str:
        """What the operation that this store is bound to is called in ``registry.db``.

        That outlives this database: where a new one or a backup takes its place, ids are given a second time.
        """
        async with self.database.read() as db:
            row = await db.one("SELECT lasting FROM operations WHERE id = ?", (self.own_operation(),))
        assert row is not None
        return str(row["lasting"])

    # events

    async def add_event(
        self, type: str, subject: str, payload: dict[str, Any] | None = None, *, key: str | None = None
    ) -> None:
        """Adds an event; with a ``key`` that is there already, nothing happens."""
        async with self.database.write() as db:
            await add_event(db, type, subject, payload or {}, key=key)

    async def events(
        self, *, last: int = 50, type: str | None = None, after: int | None = None
    ) -> tuple[EventRow, ...]:
        """The newest events (``last`` of them; or all after the id ``after``), oldest first."""
        async with self.database.read() as db:
            rows = await db.all(
                "SELECT * FROM events WHERE (?1 IS NULL OR type = ?1) AND id > ?2 ORDER BY id DESC LIMIT ?3",
                (type, after or 0, -1 if after is not None else last),
            )
        return tuple(_event(row) for row in reversed(rows))

    async def latest_events(self, types: Collection[str], *, last: int = 200) -> tuple[EventRow, ...]:
        """Of the newest ``last`` events of each type the last one of each type and subject, oldest first."""
        found: dict[tuple[str, str], EventRow] = {}
        async with self.database.read() as db:
            for type in types:
                rows = await db.all("SELECT * FROM events WHERE type = ? ORDER BY id DESC LIMIT ?", (type, last))
                for row in rows:
                    found.setdefault((type, row["subject"]), _event(row))
        return tuple(sorted(found.values(), key=lambda event: event.id))

    # the supervisor

    async def begin_supervision(self) -> int:
        """Enters this process as the supervisor; returns its epoch. Call it with the supervisor's lock held."""
        async with self.database.write() as db:
            now = time.time()
            await db.run(
                "INSERT INTO supervisor VALUES (1, ?, 1, ?, ?, NULL) ON CONFLICT (one) DO UPDATE SET "
                "pid = excluded.pid, epoch = epoch + 1, started_at = excluded.started_at, "
                "heartbeat_at = excluded.heartbeat_at, lag_ms = NULL",
                (os.getpid(), now, now),
            )
            row = await db.one("SELECT epoch FROM supervisor")
            assert row is not None
            epoch = int(row["epoch"])
            await add_event(db, "SUPERVISOR_STARTED", f"pid {os.getpid()}", {"epoch": epoch}, key=f"supervisor {epoch}")
        return epoch

    async def beat(self, lag_ms: float | None) -> None:
        """Shows that the supervisor lives; no change of revision."""
        async with self.database.write(silent=True) as db:
            await db.run("UPDATE supervisor SET heartbeat_at = ?, lag_ms = ?", (time.time(), lag_ms))

    async def supervisor(self) -> SupervisorRow:
        """The supervisor as it is now; whether it lives is told by its lock alone."""
        async with self.database.read() as db:
            row = await db.one("SELECT * FROM supervisor")
        alive = is_held(self.paths.supervisor_lock)
        if row is None:
            return SupervisorRow(alive=alive)
        return SupervisorRow(
            alive=alive,
            pid=row["pid"],
            since=moment(row["started_at"]),
            lag_ms=row["lag_ms"],
            epoch=row["epoch"],
        )


async def add_event(
    db: Transaction, type: str, subject: str, payload: dict[str, Any], *, key: str | None = None
) -> None:
    """Adds an event within a transaction, so that a fact and its event are stored together or not at all."""
    await db.run(
        "INSERT INTO events (at, type, subject, payload, key) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
        (time.time(), type, subject, json.dumps(payload), key),
    )


def _operation(row: Row) -> OperationRow:
    return OperationRow(
        id=row["id"],
        action=row["action"],
        title=row["title"],
        state=row["state"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        by=row["by"],
        error=row["error"],
        result=json.loads(row["result"]),
    )


def _event(row: Row) -> EventRow:
    at = datetime.fromtimestamp(row["at"], UTC)
    return EventRow(row["id"], at, row["type"], row["subject"], json.loads(row["payload"]))
