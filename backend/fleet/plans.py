"""Plans about hosts, and how the supervisor carries them out. Each ``apply_`` may be called again after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from backend.errors import RefusedError, RingRiftError
from backend.fleet.hosts import Host, load_hosts
from backend.fleet.look import look_at_all, way_to
from backend.fleet.store import drained_hosts, find_host, set_drained
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.state.store import StateStore

PLAN_ROWS = 12


async def host_of(paths: Paths, name: str) -> Host:
    """The host of a name as the hosts file has it now.

    Raises:
        NotFoundError: the hosts file has none.
        SettingsError: the hosts file cannot be understood.
    """
    return find_host(await asyncio.to_thread(load_hosts, paths.hosts_yaml), name)


async def guard_host(paths: Paths, store: StateStore, name: str) -> str:
    """Whether a host gets new jobs: ``open`` or ``drained``."""
    return "drained" if name in await drained_hosts(store) else "open"


async def _look(paths: Paths, name: str) -> tuple[int, str]:
    """Revision and whether the host gets new jobs; makes no database."""
    if not paths.state_db.exists():
        return 0, "open"
    async with await StateStore.open(paths) as store:
        return await store.revision(), await guard_host(paths, store, name)


async def plan_drain(paths: Paths, *, host: str, reason: str | None = None) -> Plan:
    """What draining a host will do.

    Raises:
        NotFoundError: there is no such host.
        RefusedError: it is drained already.
    """
    await host_of(paths, host)
    revision, now = await _look(paths, host)
    if now == "drained":
        raise RefusedError("it is drained already", where=host, hint=f"ringrift hosts undrain {host}")
    return Plan(
        action="hosts.drain",
        title=f"Drain {host}",
        params={"host": host, "reason": reason or ""},
        changes=(Change(f"new jobs on {host}", "placed", "none"),),
        steps=("place no new jobs there", "jobs that run there go on to their end"),
        command=f"ringrift hosts drain {host}",
        undo=f"ringrift hosts undrain {host}",
        revision=revision,
        guard={f"host {host}": now},
    )


async def plan_undrain(paths: Paths, *, host: str) -> Plan:
    """What undraining a host will do.

    Raises:
        NotFoundError: there is no such host.
        RefusedError: it is not drained.
    """
    await host_of(paths, host)
    revision, now = await _look(paths, host)
    if now == "open":
        raise RefusedError("it is not drained", where=host)
    return Plan(
        action="hosts.undrain",
        title=f"Undrain {host}",
        params={"host": host},
        changes=(Change(f"new jobs on {host}", "none", "placed"),),
        steps=("place new jobs there again",),
        command=f"ringrift hosts undrain {host}",
        undo=f"ringrift hosts drain {host}",
        revision=revision,
        guard={f"host {host}": now},
    )


async def plan_probe(paths: Paths, *, host: str | Sequence[str] = ()) -> Plan:
    """What probing hosts (all of them when none is named) will do: nothing there, only facts here.

    Raises:
        NotFoundError: there is no such host.
    """
    names = [host] if isinstance(host, str) else list(host)
    hosts = await asyncio.to_thread(load_hosts, paths.hosts_yaml)
    found = [find_host(hosts, name) for name in names] or list(hosts.hosts)
    revision, _ = await _look(paths, found[0].name)
    who = "all hosts" if not names else " ".join(names)
    return Plan(
        action="hosts.probe",
        title=f"Probe {who}",
        params={"hosts": [each.name for each in found]},
        changes=tuple(Change(f"facts of {each.name}", "as stored", "as it answers") for each in found[:PLAN_ROWS]),
        steps=("ask for versions, sizes, tools and GPUs; nothing is changed there",),
        command=f"ringrift hosts probe {' '.join(names)}".rstrip(),
        undo="Nothing to undo.",
        revision=revision,
    )


async def apply_drain(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Drains a host; returns ``{"host", "drained"}``."""
    name = str(plan.params["host"])
    operation = await store.operation(store.operation_id) if store.operation_id else None
    by = operation.by if operation else ""
    await set_drained(store, name, True, by=by, reason=str(plan.params.get("reason") or ""))
    return {"host": name, "drained": True}


async def apply_undrain(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Undrains a host; returns ``{"host", "drained"}``."""
    name = str(plan.params["host"])
    await set_drained(store, name, False)
    return {"host": name, "drained": False}


async def apply_probe(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Asks hosts for their facts and stores them; returns ``{"up", "trouble": {host: why}}``.

    Raises:
        RingRiftError: the only host that was asked for could not be asked.
    """
    hosts = await asyncio.to_thread(load_hosts, paths.hosts_yaml)
    asked = [find_host(hosts, str(name)) for name in plan.params["hosts"]]
    async with way_to(paths, asked) as remote:
        answers = await look_at_all(store, remote, asked)
    trouble = {name: answer for name, answer in answers.items() if isinstance(answer, RingRiftError)}
    if len(asked) == 1:
        for error in trouble.values():
            raise error
    return {
        "up": [name for name in answers if name not in trouble],
        "trouble": {name: error.line() for name, error in trouble.items()},
    }
