"""What transfers may use of the links now: what was set, shared out among those under way; less where a host trains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from backend.distribution.budgets import MBIT, WEIGHT, WEIGHTS, Going, from_json, in_force, to_json
from backend.distribution.ledger import Transfer
from backend.distribution.states import WORKING
from backend.distribution.transports.base import Budget
from backend.state.store import StateStore


async def budget_of_all(store: StateStore) -> Budget:
    """What was set for all transfers together."""
    async with store.database.read() as db:
        row = await db.one("SELECT value FROM budget")
    return from_json(json.loads(row["value"])) if row is not None else Budget()


async def training_hosts(store: StateStore) -> frozenset[str]:
    """Hosts on which a training runs now."""
    async with store.database.read() as db:
        rows = await db.all(
            "SELECT DISTINCT attempts.host FROM attempts JOIN jobs ON jobs.id = attempts.job "
            "WHERE jobs.kind = 'train' AND attempts.phase = 'running' AND attempts.ended_at IS NULL"
        )
    return frozenset(row["host"] for row in rows)


def going(transfers: Sequence[Transfer], training: frozenset[str], mbits: Mapping[str, float]) -> Going:
    """What is under way, of what is open."""
    weights, busy = {}, dict[str, int]()
    for one in transfers:
        hosts = [row.host for row in one.rows if row.delivery.state in WORKING]
        if hosts:
            weights[one.id] = WEIGHTS.get(one.kind, WEIGHT)
        for host in hosts:
            busy[host] = busy.get(host, 0) + 1
    return Going(weights, busy, training, {name: mbit * MBIT for name, mbit in mbits.items()})


class Limiter:
    """What each transfer may use now; looks once a round."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self._all, self._going = Budget(), Going()
        self._told: dict[str, dict[str, Any]] = {}

    async def look(self, transfers: Sequence[Transfer], mbits: Mapping[str, float]) -> None:
        """Takes in what was set and what is under way."""
        self._all = await budget_of_all(self.store)
        self._going = going(transfers, await training_hosts(self.store), mbits)

    def of(self, transfer: Transfer) -> Budget:
        """What a transfer may use now."""
        hosts = [row.host for row in transfer.rows]
        return in_force(transfer.id, transfer.budget, self._all, self._going, hosts)

    async def tell(self, transfer: Transfer) -> None:
        """Stores what is in force, for readers; nothing when that is what they know."""
        training = sorted({row.host for row in transfer.rows}.intersection(self._going.training, self._going.links))
        value = to_json(self.of(transfer)) | ({"training": training} if training else {})
        if self._told.get(transfer.id) != value:
            async with self.store.database.write() as db:
                await db.run("UPDATE transfers SET limits = ? WHERE id = ?", (json.dumps(value), transfer.id))
            self._told[transfer.id] = value
