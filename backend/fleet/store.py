"""Hosts in ``state.db``: what they said, what was decided about them, and the rows that readers see.

What a host is called and how it is reached stands in ``hosts.yaml``; the database only adds to that.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from backend.errors import NotFoundError
from backend.fleet.hosts import Host, Hosts, load_hosts
from backend.fleet.known_hosts import HostKey, enrolled_keys
from backend.fleet.probe import Report, sample_of
from backend.fleet.reading import changed_settings, load_in_use
from backend.paths import Paths
from backend.snapshot import HostRow, HostSample, HostState, HostTrouble
from backend.state.db import Row, Transaction
from backend.state.store import StateStore, add_event, moment

KNOWN_HOSTS = "known_hosts"
"""The file of enrolled keys, under ``Paths.console``."""
STALE_S = 900.0
"""An answer that is older says nothing about now."""
SAMPLES_KEPT = 240
SAMPLES_SHOWN = 60
TROUBLES_KEPT = 5
_BUNDLE = re.compile(r"bundles/([0-9a-f]{64})/")
OFF = frozenset({"retired", "archived", "offline"})
"""Values of ``status`` of hosts that are not in use."""


async def host_rows(store: StateStore, hosts: Hosts | None = None, *, samples: bool = True) -> tuple[HostRow, ...]:
    """All hosts of the hosts file (or of ``hosts``), in its order, with what is known of them.

    Those that were taken out of the file and that a supervisor still goes by come last.

    Args:
        samples: whether to read those too; of many hosts they are most of the work.

    Raises:
        SettingsError: the hosts file cannot be understood.
    """
    present, used, keys = await asyncio.to_thread(_files, store.paths, hosts)
    async with store.database.read() as db:
        records = {row["name"]: row for row in await db.all("SELECT * FROM hosts")}
        found = await _samples(db, store.paths.state_db, records) if samples else {}
    return make_rows(present, time.time(), records, found, keys, used)


def _files(paths: Paths, hosts: Hosts | None) -> tuple[Hosts, Hosts | None, dict[str, HostKey]]:
    """The hosts, those in use where they were not given, and the keys that are enrolled."""
    keys = enrolled_keys(paths.console / KNOWN_HOSTS)
    return (load_hosts(paths.hosts_yaml), load_in_use(paths), keys) if hosts is None else (hosts, None, keys)


def make_rows(
    hosts: Hosts,
    now: float,
    records: Mapping[str, Row] = MappingProxyType({}),
    samples: Mapping[str, tuple[HostSample, ...]] = MappingProxyType({}),
    keys: Mapping[str, HostKey] = MappingProxyType({}),
    used: Hosts | None = None,
) -> tuple[HostRow, ...]:
    """Rows from the file, the time (unix seconds), the database, the enrolled keys, and the hosts in use."""

    def row(host: Host, changed: tuple[str, ...]) -> HostRow:
        name = host.name
        return _row(host, records.get(name), samples.get(name, ()), keys.get(name), now, changed)

    gone = [host for host in used.hosts if hosts.get(host.name) is None] if used is not None else []
    return (
        *(row(host, () if used is None else changed_settings(host, used)) for host in hosts.hosts),
        *(row(host, ("taken out of the hosts file",)) for host in gone),
    )


def find_host(hosts: Hosts, name: str) -> Host:
    """The host of a name.

    Raises:
        NotFoundError: the hosts file has none.
    """
    host = hosts.get(name)
    if host is None:
        known = " ".join(host.name for host in hosts.hosts[:8])
        raise NotFoundError("no such host", where=name, hint=f"{hosts.source} has: {known}")
    return host


def _row(
    host: Host,
    record: Row | None,
    samples: tuple[HostSample, ...],
    key: HostKey | None,
    now: float,
    changed: tuple[str, ...],
) -> HostRow:
    settings = host.settings
    facts = _facts(record["facts"], record["code"]) if record else {}
    state, why = host_state(host, record, key is not None, now)
    drained = json.loads(record["drained"]) if record and record["drained"] else None
    troubles = json.loads(record["troubles"]) if record else []
    return HostRow(
        name=host.name,
        state=state,
        why=why,
        role=str(settings.get("role", "")),
        address="" if host.is_here else address(host),
        groups=host.groups,
        local=host.is_here,
        runtime=str(settings.get("runtime", "builtin")),
        slots=host.max_parallel_jobs,
        drained=(drained.get("reason") or "no reason given") if drained else None,
        fingerprint=key.fingerprint if key else None,
        facts=facts | {"packages": host.packages},
        facts_at=moment(record["facts_at"]) if record else None,
        seen_at=moment(record["seen_at"]) if record else None,
        latency_ms=record["latency_ms"] if record else None,
        samples=samples,
        troubles=tuple(HostTrouble(datetime.fromtimestamp(at, UTC), text) for at, text in troubles),
        changed=changed,
        mbit=float(settings["bandwidth_mbps"]) if settings.get("bandwidth_mbps") else None,
    )


@lru_cache(maxsize=2**11)
def _facts(facts: str, code: str) -> dict[str, Any]:
    """What is stored of a host, not to be changed; the console reads the same texts again and again."""
    return dict(json.loads(facts) | json.loads(code))


def address(host: Host) -> str:
    """How a host is reached: ``user@address:port``, as far as the hosts file says."""
    settings = host.settings
    target = f"[{host.target}]" if ":" in host.target else host.target
    user = f"{settings['ssh_user']}@" if settings.get("ssh_user") and "@" not in target else ""
    port = f":{int(settings['ssh_port'])}" if settings.get("ssh_port") else ""
    return f"{user}{target}{port}"


def host_state(host: Host, record: Row | None, enrolled: bool, now: float) -> tuple[HostState, str]:
    """State of a host and why; an answer says nothing any more after :data:`STALE_S`."""
    status = str(host.settings.get("status", "")).lower()
    if status in OFF:
        return "off", f"its status is {status}"
    if host.is_here:
        return "up", ""  # whoever reads this runs on it
    if not enrolled and (record is None or record["state"] not in ("up", "refused")):
        return "new", f"its key is not enrolled: ringrift hosts enrol {host.name}"
    if record is None or record["checked_at"] is None:
        return "unknown", f"it was never asked: ringrift hosts probe {host.name}"
    state: HostState = record["state"]
    if state == "up" and record["seen_at"] is None:  # it answered to something, and told nothing of itself
        return "unknown", record["why"]
    if state == "up" and now - record["seen_at"] > STALE_S:
        return "unknown", "its last answer is too old: is the supervisor running?"
    return state, record["why"]


_Samples = dict[str, tuple[float | None, tuple[HostSample, ...]]]
_known: dict[Path, _Samples] = {}
"""Per database and host the time of its last answer when its samples were read, and these."""


async def _samples(db: Transaction, path: Path, records: Mapping[str, Row]) -> dict[str, tuple[HostSample, ...]]:
    """The last samples of every host, oldest first; those of hosts that have not answered since are not read again.

    A sample and the time of the answer that it came with are stored together.
    """
    known = _known.get(path, {})
    stale = [name for name, row in records.items() if name not in known or known[name][0] != row["seen_at"]]
    # CROSS JOIN keeps SQLite to this order of the tables, in which each host's newest rows are looked up.
    rows = await db.all(
        "SELECT s.host, s.at, s.sample FROM json_each(?) h CROSS JOIN host_samples s WHERE s.host = h.value "
        "AND s.at >= coalesce((SELECT at FROM host_samples WHERE host = h.value ORDER BY at DESC LIMIT 1 OFFSET ?), 0)",
        (json.dumps(stale), SAMPLES_SHOWN - 1),
    )
    read: dict[str, list[HostSample]] = {name: [] for name in stale}
    for row in rows:
        read[row["host"]].append(_sample(row["at"], row["sample"]))
    now: _Samples = {name: known[name] for name in records if name not in read}
    for name, samples in read.items():
        now[name] = records[name]["seen_at"], tuple(sorted(samples, key=lambda sample: sample.at))
    _known[path] = now
    return {name: samples for name, (_, samples) in now.items()}


@lru_cache(maxsize=2**15)
def _sample(at: float, text: str) -> HostSample:
    """A sample as it was stored; the console reads the same ones again each time anything changes."""
    return sample_of(json.loads(text), datetime.fromtimestamp(at, UTC))


# Writing


async def record_report(store: StateStore, name: str, report: Report, *, silent: bool = False) -> None:
    """Stores an answer of a host. ``silent`` leaves the revision as it is, for looks that come round by themselves."""
    at = report.at.timestamp()
    sample = asdict(report.sample)
    del sample["at"]
    async with store.database.write(silent=silent) as db:
        await _ensure(db, name)
        await db.run(
            "UPDATE hosts SET checked_at = ?1, seen_at = ?1, latency_ms = ?2, state = 'up', why = '' WHERE name = ?3",
            (at, round(report.took_ms, 1), name),
        )
        if report.facts is not None:
            await db.run(
                "UPDATE hosts SET facts = ?, facts_at = ? WHERE name = ?", (json.dumps(report.facts), at, name)
            )
        else:  # a clock that was set is known from the next sample on
            await db.run(
                "UPDATE hosts SET facts = json_set(facts, '$.clock_offset_s', ?, '$.clock_error_s', ?) WHERE name = ?",
                (round(report.clock.offset, 3), round(report.clock.error, 3), name),
            )
        if report.pool is not None:
            await db.run(
                "UPDATE hosts SET facts = json_set(facts, '$.pool', json(?)) WHERE name = ?",
                (json.dumps(report.pool), name),
            )
        await db.run("INSERT OR REPLACE INTO host_samples VALUES (?, ?, ?)", (name, at, json.dumps(sample)))
        await db.run(
            "DELETE FROM host_samples WHERE host = ?1 AND at < (SELECT min(at) FROM "
            "(SELECT at FROM host_samples WHERE host = ?1 ORDER BY at DESC LIMIT ?2))",
            (name, SAMPLES_KEPT),
        )


async def record_trouble(store: StateStore, name: str, state: HostState, text: str, *, silent: bool = False) -> None:
    """Stores that a host could not be asked, and why; the same trouble again only moves its time."""
    now = time.time()
    async with store.database.write(silent=silent) as db:
        await _ensure(db, name)
        row = await db.one("SELECT troubles FROM hosts WHERE name = ?", (name,))
        assert row is not None
        earlier = [entry for entry in json.loads(row["troubles"]) if entry[1] != text]
        troubles = [[now, text], *earlier][:TROUBLES_KEPT]
        await db.run(
            "UPDATE hosts SET checked_at = ?, state = ?, why = ?, troubles = ? WHERE name = ?",
            (now, state, text, json.dumps(troubles), name),
        )


async def record_enrolment(store: StateStore, name: str, fingerprint: str, by: str) -> None:
    """Stores who confirmed a host's key, and forgets what was said of it before."""
    value = {"fingerprint": fingerprint, "by": by, "at": time.time()}
    async with store.database.write() as db:
        await _ensure(db, name)
        await db.run(
            "UPDATE hosts SET enrolled = ?, state = 'unknown', why = '', checked_at = NULL WHERE name = ?",
            (json.dumps(value), name),
        )
        await add_event(db, "HOST_ENROLLED", name, {"title": fingerprint, "by": by})


async def record_code(store: StateStore, name: str, code: Mapping[str, Any]) -> None:
    """Stores what a bootstrap set up: ``python``, ``bundle``, ``root`` and what the self-test said."""
    async with store.database.write() as db:
        await _ensure(db, name)
        await db.run("UPDATE hosts SET code = ? WHERE name = ?", (json.dumps(dict(code)), name))
        title = f"code {str(code.get('bundle'))[:12]}"
        if "commands" in code:
            title = f"checkout {code.get('checkout_path')} {code.get('checkout_revision')}".rstrip()
        await add_event(db, "HOST_BOOTSTRAPPED", name, {"title": title})


async def record_refused_checkout(store: StateStore, name: str, problem: str, mend: str) -> None:
    """Stores why a host's checkout cannot be used; what was set up there before stays known for what runs there."""
    value = json.dumps({"refused": problem, "mend": mend})
    async with store.database.write() as db:
        await _ensure(db, name)
        await db.run("UPDATE hosts SET code = json_patch(code, ?) WHERE name = ?", (value, name))


async def code_in_use(store: StateStore, name: str) -> frozenset[str]:
    """SHA-256 of the code on a host that its attempts may still run, and of what new ones would be started with."""
    async with store.database.read() as db:
        rows = await db.all("SELECT spec FROM attempts WHERE host = ? AND ended_at IS NULL", (name,))
        row = await db.one("SELECT code FROM hosts WHERE name = ?", (name,))
    found = {sha256 for spec in rows for sha256 in _BUNDLE.findall(spec["spec"])}
    recorded = json.loads(row["code"]).get("bundle") if row is not None else None
    return frozenset(found | {recorded} if recorded else found)


async def set_drained(store: StateStore, name: str, drained: bool, *, by: str = "", reason: str = "") -> bool:
    """Stops or allows new jobs on a host; False when it is so already."""
    value = json.dumps({"by": by, "reason": reason, "at": time.time()}) if drained else None
    async with store.database.write() as db:
        await _ensure(db, name)
        row = await db.one("SELECT drained FROM hosts WHERE name = ?", (name,))
        assert row is not None
        if (row["drained"] is not None) == drained:
            return False
        await db.run("UPDATE hosts SET drained = ? WHERE name = ?", (value, name))
        await add_event(db, "HOST_DRAINED" if drained else "HOST_UNDRAINED", name, {"title": reason} if reason else {})
    return True


async def drained_hosts(store: StateStore) -> frozenset[str]:
    """Names of the hosts that get no new jobs."""
    async with store.database.read() as db:
        return frozenset(row["name"] for row in await db.all("SELECT name FROM hosts WHERE drained IS NOT NULL"))


async def _ensure(db: Transaction, name: str) -> None:
    await db.run("INSERT INTO hosts (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
