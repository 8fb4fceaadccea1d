"""The plan that lets a running supervisor go by a changed hosts file, and how it is carried out."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from backend.errors import RefusedError
from backend.fleet.hosts import Hosts, parse_hosts
from backend.fleet.reading import differences, digest, load_in_use, read_text, source_in_use, take
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.snapshot import BUSY
from backend.state.store import StateStore


async def plan_reload(paths: Paths) -> Plan:
    """What going by the hosts file as it is now will change.

    Raises:
        SettingsError: the file cannot be understood; the message has the line.
        RefusedError: nothing would change, or nothing has been read before.
    """
    where = str(paths.hosts_yaml)
    text = await asyncio.to_thread(read_text, paths)
    now = parse_hosts(text, where)
    used = await asyncio.to_thread(load_in_use, paths)
    if used is None:
        raise RefusedError("no supervisor goes by an earlier reading", where=where, hint="its start reads the file")
    source = await asyncio.to_thread(source_in_use, paths)
    changes = differences(used, now)
    if source != where:
        changes = (Change("hosts file", source, where), *changes)
    if not changes:
        raise RefusedError("the supervisor goes by this file already", where=where)
    async with await StateStore.open(paths) as store:
        revision, busy = await store.revision(), await _busy(store)
    return Plan(
        action="hosts.reload",
        title="Reload the hosts file",
        params={"sha256": digest(text)},
        changes=changes,
        steps=("go by the file as it is now; no restart, and jobs that run go on",),
        command="ringrift hosts reload",
        undo="put the file back as it was and reload again",
        warnings=tuple(_warnings(used, now, busy)),
        revision=revision,
        guard={"hosts file": digest(text)},
    )


async def _busy(store: StateStore) -> Counter[str]:
    """Jobs that take a place, by host."""
    async with store.database.read() as db:
        rows = await db.all(
            "SELECT a.host, j.state FROM jobs j JOIN attempts a ON a.job = j.id "
            "AND a.n = (SELECT max(n) FROM attempts WHERE job = j.id)"
        )
    return Counter(str(row["host"]) for row in rows if row["state"] in BUSY)


def _warnings(used: Hosts, now: Hosts, busy: Counter[str]) -> list[str]:
    gone = [host.name for host in used.hosts if now.get(host.name) is None and busy[host.name]]
    return [f"{busy[name]} jobs are on {name}: they go on there, and nobody hears of them before it is back in the file"
            for name in gone]  # fmt: skip


async def guard_hosts(paths: Paths, store: StateStore, name: str) -> str:
    """SHA-256 of the hosts file as it is now."""
    return digest(await asyncio.to_thread(read_text, paths))


async def apply_reload(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Makes the file that was planned with the one in use; returns ``{"hosts"}``, how many there are.

    Raises:
        RefusedError: it is another file by now.
    """
    text = await asyncio.to_thread(read_text, paths)
    if digest(text) != plan.params["sha256"]:
        raise RefusedError("the hosts file has changed since the plan was made", where=str(paths.hosts_yaml))
    await asyncio.to_thread(take, paths, text)
    lines = [f"{change.subject}: {change.before or '-'} -> {change.after}" for change in plan.changes]
    facts = {"title": f"{len(lines)} changes", "changes": lines}
    await store.add_event("HOSTS_RELOADED", str(paths.hosts_yaml), facts, key=f"reload {store.operation_id}")
    return {"hosts": len(parse_hosts(text, str(paths.hosts_yaml)).hosts)}
