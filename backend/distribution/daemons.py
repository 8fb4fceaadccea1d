"""What starts transfers without a person: promotions and rollbacks, datasets, and files that differ from receipts.

Each makes the same plan that an operator would confirm and submits it under a key of its cause, so that a supervisor
that was killed at any point starts nothing twice and leaves nothing out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.distribution.described import hosts_described
from backend.distribution.drift import audit_hosts, holdings
from backend.distribution.plans import gpus_of, plan_distribute
from backend.distribution.policy import Policy, read_policy
from backend.errors import RingRiftError
from backend.fleet.hosts import Host, Hosts
from backend.fleet.store import host_rows
from backend.paths import Paths
from backend.snapshot import EventRow, HoldingRow, HostRow
from backend.state.store import StateStore

POLL_S = 1.0
SCAN_S = 60.0
CURSOR = "distribution events"
MODELS = ("MODEL_PROMOTED", "MODEL_ROLLED_BACK")
EXPORTED = "EXPORT_COMPLETED"
BY = "policy"

log = logging.getLogger("ringrift.supervisor")


class Daemons:
    """The daemons of one root.

    Args:
        wake: tells the supervisor that an operation was submitted; what its own process writes it does not notice.
    """

    def __init__(self, paths: Paths, store: StateStore, wake: Callable[[], None] = lambda: None) -> None:
        self.paths, self.store, self._wake = paths, store, wake
        self._scanned = float("-inf")
        self._audited = time.monotonic()
        self._version: int | None = None

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            try:
                await self.tick()
            except RingRiftError as error:
                log.error("%s", error.line())
                await asyncio.sleep(SCAN_S)
            except Exception:
                log.exception("the distribution daemons stumbled")
                await asyncio.sleep(SCAN_S)
            await asyncio.sleep(POLL_S)

    async def tick(self) -> None:
        """One look: new events, now and then the datasets, now and then the hosts."""
        hosts = await hosts_described(self.paths)
        if all(host.is_local for host in hosts.hosts):
            return
        policy = await asyncio.to_thread(read_policy, self.paths.root)
        exported = await self._events(policy)
        now = time.monotonic()
        if policy.datasets and (exported or now - self._scanned >= SCAN_S):
            self._scanned = now
            await self.scan(hosts)
        if policy.audit_minutes and now - self._audited >= 60 * policy.audit_minutes:
            self._audited = now
            await self.audit(hosts, policy)

    async def _events(self, policy: Policy) -> bool:
        """Sends models on their events; whether a dataset was exported."""
        cursor = await self._cursor()
        fresh = await self.store.events(after=cursor)
        if not fresh:
            return False
        last: dict[str, EventRow] = {}
        for event in fresh:
            if event.type in MODELS and event.payload.get("config") and event.payload.get("sha256"):
                last[str(event.payload["config"])] = event  # an older promotion of a config is of no use any more
        for event in last.values() if policy.models else ():
            cause = "rollback" if event.type == MODELS[1] else "promotion"
            await self._submit(f"{cause} event {event.id}", str(event.payload["sha256"]), cause, [])
        await self._move(fresh[-1].id)
        return any(event.type == EXPORTED for event in fresh)

    async def _cursor(self) -> int:
        async with self.store.database.read() as db:
            row = await db.one("SELECT value FROM counters WHERE name = ?", (CURSOR,))
        return int(row[0]) if row is not None else 0

    async def _move(self, to: int) -> None:
        async with self.store.database.write(silent=True) as db:
            await db.run(
                "INSERT INTO counters VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = max(value, ?2)",
                (CURSOR, to),
            )

    async def scan(self, hosts: Hosts) -> None:
        """Sends datasets that no transfer was made of yet to the hosts with GPUs."""
        rows = {row.name: row for row in await host_rows(self.store, hosts)}
        chosen = [host.name for host in hosts.hosts if _takes_datasets(host, rows[host.name])]
        if not chosen:
            return
        for path in await asyncio.to_thread(_datasets, self.paths.training):
            about = await asyncio.to_thread(path.stat)
            key = f"dataset {path.name} {about.st_size} {about.st_mtime_ns}"
            await self._submit(key, str(path), "export", chosen)

    async def audit(self, hosts: Hosts, policy: Policy) -> list[HoldingRow]:
        """Asks hosts what they hold; tells of drift, and mends it where the policy says so."""
        names = {row.host for row in await holdings(self.store)}
        asked = [host for host in hosts.hosts if host.name in names]
        await audit_hosts(self.paths, self.store, asked)
        found = [row for row in await holdings(self.store) if row.drifted and hosts.get(row.host)]
        by_name: dict[tuple[str, str], list[HoldingRow]] = {}
        for row in found:
            by_name.setdefault((row.name, row.transfer), []).append(row)
        for (name, transfer), rows in by_name.items():
            facts = sorted((row.host, row.held or "", row.why) for row in rows)
            at = max(row.audited_at.isoformat() for row in rows if row.audited_at is not None)
            mark = hashlib.sha256(repr((name, transfer, facts)).encode()).hexdigest()[:16]
            title = f"{name} differs on {len(rows)} hosts"
            payload = {"title": title, "hosts": [row.host for row in rows], "transfer": transfer}
            await self.store.add_event("DRIFT_FOUND", name, payload, key=f"drift {mark} {at[:13]}")
            if policy.repair:
                async with self.store.database.read() as db:
                    row_ = await db.one("SELECT model, path FROM transfers WHERE id = ?", (transfer,))
                if row_ is not None:
                    what = str(row_["model"] or row_["path"])
                    await self._submit(f"repair {mark} {at}", what, "repair", [row.host for row in rows], name)
        return found

    async def _submit(self, key: str, what: str, cause: str, hosts: list[str], name: str = "") -> None:
        """Plans and submits, once a key; a plan that cannot be made is told of, once."""
        async with self.store.database.read() as db:
            done = await db.one("SELECT 1 FROM operations WHERE key = ?", (key,))
            told = await db.one("SELECT 1 FROM events WHERE key = ?", (f"refused {key}",))
        if done is not None or told is not None:
            return
        try:
            plan = await plan_distribute(self.paths, what=what, hosts=hosts or None)
        except RingRiftError as error:
            payload: dict[str, Any] = {"title": error.line(), "cause": cause}
            await self.store.add_event("DISTRIBUTION_REFUSED", what, payload, key=f"refused {key}")
            return
        params = plan.params | {"cause": cause} | ({"name": name} if name else {})
        await self.store.submit(replace(plan, params=params), BY, key=key)
        self._wake()


def _datasets(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.npz") if path.is_file() and not path.name.startswith("."))


def _takes_datasets(host: Host, row: HostRow) -> bool:
    usable = row.state in ("up", "down", "unknown") and (host.is_here or row.fingerprint is not None)
    return not host.is_local and gpus_of(host, row) > 0 and usable and not host.settings.get("skip_sync_receive")
