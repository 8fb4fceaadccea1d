"""What starts transfers without a person: promotions and rollbacks, datasets, and files that differ from receipts.

Each makes the same plan that an operator would confirm and submits it under a key of its cause, so that a supervisor
that was killed at any point starts nothing twice and leaves nothing out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backend.distribution.described import hosts_described
from backend.distribution.drift import audit_hosts, holdings
from backend.distribution.plans import gpus_of, plan_distribute, unable
from backend.distribution.policy import Policy, read_policy
from backend.errors import LockedError, RefusedError, ResourceError, RingRiftError, UnverifiedError
from backend.fleet.hosts import Host, Hosts
from backend.fleet.store import host_rows
from backend.paths import Paths
from backend.snapshot import EventRow, HoldingRow, HostRow
from backend.state.store import StateStore

POLL_S = 1.0
SCAN_S = 60.0
RETRY_S = 300.0
RETRIED_FOR = timedelta(hours=24)
CURSOR = "distribution events"
MODELS = ("MODEL_PROMOTED", "MODEL_ROLLED_BACK")
EXPORTED = "EXPORT_COMPLETED"
BY = "policy"

log = logging.getLogger("ringrift.supervisor")


@dataclass(frozen=True, slots=True)
class Wish:
    """One distribution that nobody asked for by hand.

    Attributes:
        key: of its cause; it is submitted once.
        what: label or SHA-256 of a model, or a file.
        hosts: names; empty for all.
        name: under which it is published; empty for its own.
        sha256: what the file must be; empty for whatever it is.
        config: of a production model, which a newer one replaces.
    """

    key: str
    what: str
    cause: str
    hosts: tuple[str, ...] = ()
    name: str = ""
    sha256: str = ""
    config: str = ""


class Daemons:
    """The daemons of one root.

    Args:
        wake: tells the supervisor that an operation was submitted; what its own process writes it does not notice.
    """

    def __init__(self, paths: Paths, store: StateStore, wake: Callable[[], None] = lambda: None) -> None:
        self.paths, self.store, self._wake = paths, store, wake
        self._scanned = self._retried = float("-inf")
        self._audited = time.monotonic()

    async def run(self) -> None:
        """Works until it is cancelled; a promotion does not wait for an audit or for the hashing of datasets."""
        async with asyncio.TaskGroup() as group:
            for work in (self._models, self._datasets, self._audits):
                group.create_task(self._always(work))

    async def _always(self, work: Callable[[Hosts, Policy], Awaitable[None]]) -> None:
        while True:
            try:
                await self._once(work)
            except RingRiftError as error:
                log.error("%s", error.line())
                await asyncio.sleep(SCAN_S)
            except Exception:
                log.exception("the distribution daemons stumbled")
                await asyncio.sleep(SCAN_S)
            await asyncio.sleep(POLL_S)

    async def tick(self) -> None:
        """One look: new events, now and then the datasets, now and then the hosts."""
        await self._once(self._models, self._datasets, self._audits)

    async def _once(self, *works: Callable[[Hosts, Policy], Awaitable[None]]) -> None:
        hosts = await hosts_described(self.paths)
        if all(host.is_local for host in hosts.hosts):
            return
        policy = await asyncio.to_thread(read_policy, self.paths.root)
        for work in works:
            await work(hosts, policy)

    async def _models(self, hosts: Hosts, policy: Policy) -> None:
        if await self._events(policy):
            self._scanned = float("-inf")
        now = time.monotonic()
        if now - self._retried >= RETRY_S:
            self._retried = now
            await self._retry()

    async def _datasets(self, hosts: Hosts, policy: Policy) -> None:
        now = time.monotonic()
        if policy.datasets and now - self._scanned >= SCAN_S:
            self._scanned = now
            await self.scan(hosts)

    async def _audits(self, hosts: Hosts, policy: Policy) -> None:
        now = time.monotonic()
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
        for config, event in last.items() if policy.models else ():
            cause = "rollback" if event.type == MODELS[1] else "promotion"
            await self._submit(Wish(f"{cause} event {event.id}", str(event.payload["sha256"]), cause, config=config))
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
            try:
                about = await asyncio.to_thread(path.stat)
                key = f"dataset {path.name} {about.st_size} {about.st_mtime_ns}"
                await self._submit(Wish(key, str(path), "export", tuple(chosen)))
            except OSError as error:  # it went while it was looked at; the next scan sees what there is then
                log.warning("%s: %s", path, error.strerror or error)

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
                await self._repair(f"repair {mark} {at}", hosts, [row.host for row in rows], name, transfer)
        return found

    async def _repair(self, key: str, hosts: Hosts, names: list[str], name: str, transfer: str) -> None:
        """Sends what a transfer has brought once more, to those of some hosts that can be sent anything now."""
        async with self.store.database.read() as db:
            row = await db.one("SELECT model, path, sha256 FROM transfers WHERE id = ?", (transfer,))
        rows = {one.name: one for one in await host_rows(self.store, hosts)}
        able = tuple(one for one in names if (host := hosts.get(one)) and unable(host, rows[one]) is None)
        if row is not None and able:
            what = str(row["model"] or row["path"])
            await self._submit(Wish(key, what, "repair", able, name, str(row["sha256"])))

    async def _submit(self, wish: Wish, *, again: bool = False) -> None:
        """Plans and submits, once a key; a plan that cannot be made is told of, once."""
        async with self.store.database.read() as db:
            done = await db.one("SELECT 1 FROM operations WHERE key = ?", (wish.key,))
            told = await db.one("SELECT 1 FROM events WHERE key = ?", (f"refused {wish.key}",))
        if done is not None or (told is not None and not again):
            return
        try:
            plan = await plan_distribute(self.paths, what=wish.what, hosts=wish.hosts or None)
            if wish.sha256 and plan.params["sha256"] != wish.sha256:
                raise UnverifiedError("the file here is no longer the one that was sent", where=wish.what)
        except RingRiftError as error:
            passing = isinstance(error, (RefusedError, ResourceError, LockedError))
            payload: dict[str, Any] = {"title": error.line(), "cause": wish.cause}
            payload |= {"wish": asdict(wish), "again": passing}
            await self.store.add_event("DISTRIBUTION_REFUSED", wish.what, payload, key=f"refused {wish.key}")
            return
        params = plan.params | {"cause": wish.cause} | ({"name": wish.name} if wish.name else {})
        await self.store.submit(replace(plan, params=params), BY, key=wish.key)
        if told is not None:
            await self.store.add_event("DISTRIBUTION_PLANNED", wish.what, key=f"planned {wish.key}")
        self._wake()

    async def _retry(self) -> None:
        """Tries what was refused within a day for the state of hosts, which passes, unless something newer came."""
        newest: dict[str, str] = {}
        for event in await self.store.latest_events(MODELS):
            newest[str(event.payload.get("config"))] = str(event.payload.get("sha256"))
        for event in await self.store.latest_events(("DISTRIBUTION_REFUSED",)):
            told = event.payload.get("wish")
            if not told or not event.payload.get("again") or datetime.now(UTC) - event.at > RETRIED_FOR:
                continue
            wish = Wish(**{**told, "hosts": tuple(told["hosts"])})
            if not wish.config or newest.get(wish.config) == wish.what:
                await self._submit(wish, again=True)


def _datasets(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.npz") if path.is_file() and not path.name.startswith("."))


def _takes_datasets(host: Host, row: HostRow) -> bool:
    usable = row.state in ("up", "down", "unknown") and (host.is_here or row.fingerprint is not None)
    return not host.is_local and gpus_of(host, row) > 0 and usable and not host.settings.get("skip_sync_receive")
