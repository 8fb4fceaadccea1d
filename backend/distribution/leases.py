"""Models that are on their way to hosts, or are to be: they stay where they are until every host has them."""

from __future__ import annotations

import json

from backend.paths import Paths
from backend.state.store import StateStore

PLANNED = "transfers.distribute"


async def of_transfers(paths: Paths, store: StateStore) -> dict[str, str]:
    """SHA-256 and path of the file of every transfer that has not ended, and of every confirmed plan of one."""
    found: dict[str, str] = {}
    async with store.database.read() as db:
        rows = await db.all("SELECT id, sha256, path FROM transfers WHERE ended_at IS NULL ORDER BY number")
        planned = await db.all(
            "SELECT id, plan FROM operations WHERE state IN ('pending', 'running') AND action = ?", (PLANNED,)
        )
    for row in rows:
        for reference in (row["sha256"], row["path"]):
            found.setdefault(reference, f"transfer {row['id']} brings it to hosts")
    for row in planned:
        params = json.loads(row["plan"])["params"]
        for reference in (params["sha256"], params["path"]):
            found.setdefault(str(reference), f"operation {row['id']} is to bring it to hosts")
    return found
