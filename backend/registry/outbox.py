"""Events of the registry on their way to ``state.db``: stored with the change, published after it, once.

Two databases cannot commit together, so the registry keeps its events until they are in ``state.db``. A crash between
the two publishes an event again, and its key makes the second time nothing.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backend.crash import crash_point
from backend.databases import tables
from backend.paths import Paths
from backend.registry.schema import reading, writing

if TYPE_CHECKING:
    from backend.state.store import StateStore


def pending(paths: Paths) -> list[tuple[int, str, str, dict[str, Any], str]]:
    """What is not published yet: (seq, type, subject, payload, operation), oldest first."""
    with reading(paths.registry_db) as db:
        if db is None or "outbox" not in tables(db):
            return []
        rows = db.execute("SELECT * FROM outbox WHERE published_at IS NULL ORDER BY seq").fetchall()
    return [(row["seq"], row["type"], row["subject"], json.loads(row["payload"]), row["operation"]) for row in rows]


def mark(paths: Paths, seqs: list[int]) -> None:
    """Notes that these events are in ``state.db``."""
    with writing(paths.registry_db) as db:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        db.executemany("UPDATE outbox SET published_at = ? WHERE seq = ?", [(now, seq) for seq in seqs])


async def publish(paths: Paths, store: StateStore) -> int:
    """Publishes what is pending, in order; returns how many events."""
    waiting = await asyncio.to_thread(pending, paths)
    for _, type, subject, payload, operation in waiting:
        await store.add_event(type, subject, payload, key=f"{type} {operation}")
        crash_point("outbox.published")
    if waiting:
        await asyncio.to_thread(mark, paths, [seq for seq, *_ in waiting])
        crash_point("outbox.marked")
    return len(waiting)
