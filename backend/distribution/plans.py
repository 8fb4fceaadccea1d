"""Plans about transfers, and how the supervisor carries them out. Each ``apply_`` may be called again after a crash."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.distribution import ledger
from backend.distribution.ledger import Transfer, Wanted
from backend.distribution.manifest import kind_of
from backend.distribution.states import LIVE, State
from backend.errors import NotFoundError, RefusedError, ResourceError, UnverifiedError, UsageError
from backend.fleet.hosts import Host, Hosts, load_hosts
from backend.fleet.pools import pool_of
from backend.fleet.store import find_host, host_rows
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.registry.deployment import check_source, production_file
from backend.registry.hashing import sha256_file
from backend.registry.store import find as find_model
from backend.snapshot import HostRow, ModelRow
from backend.state.store import StateStore
from backend.text import size_text

if TYPE_CHECKING:
    from backend.distribution.transports.base import Means

PLAN_ROWS = 12
SLOW_MBIT = 20.0
SPARE = 64 << 20
_UNSAFE = re.compile(r"[^A-Za-z0-9._+@-]")


async def plan_distribute(
    paths: Paths, *, what: str, hosts: str | Sequence[str] | None = None, transport: str | None = None,
    limit: float | None = None,
) -> Plan:  # fmt: skip
    """What bringing a model or a file to hosts will do: who gets it, in which order, by which way, how long it takes.

    Args:
        what: label or SHA-256 of a registered model, or a file.
        hosts: names, as a list or with commas; all that are in use by default.
        transport: the only one to use.
        limit: Mbit/s of this machine's uplink that it may take.

    Raises:
        NotFoundError: there is no such model or file, or no such host.
        UnverifiedError: a model's file is not the registered one, or a dataset's arrays do not fit their headers.
        UsageError: there is no such transport.
        RefusedError: no host can get it.
        ResourceError: no host has room for it.
    """
    if limit is not None and not 0 < limit < 1e6:
        raise UsageError("a limit is a number of Mbit/s above 0", where=f"{limit:g}")
    model, path = await asyncio.to_thread(_source, paths, what)
    kind = kind_of(path)
    sha256 = await asyncio.to_thread(validate, path, kind) if model is None else model.sha256
    size = (await asyncio.to_thread(path.stat)).st_size
    named = hosts.split(",") if isinstance(hosts, str) else list(hosts or ())
    chosen, warnings, table = await choose(paths, named, size, transport)
    name = published_name(model, path, kind)
    title = f"Distribute {model.label if model else path.name} to {len(chosen)} hosts"
    words = ["ringrift", "distribute", what]
    words += ["--hosts", ",".join(named)] if named else []
    words += ["--transport", transport] if transport else []
    words += ["--limit", f"{limit:g}"] if limit else []
    live = await _live(paths, name)
    changes = tuple(
        Change(f"{host}: {name}", "live already" if live.get(host) == sha256 else live.get(host, "")[:12], sha256[:12])
        for host, _, _ in chosen[:PLAN_ROWS]
    )
    return Plan(
        action="transfers.distribute",
        title=title,
        params={
            "path": str(path), "sha256": sha256, "size": size, "kind": kind, "name": name,
            "model": model.label if model else None, "cause": "distribute",
            "budget": {"head_up": limit * 1e6 / 8} if limit else {},
            "hosts": [[host, list(routes), wave] for host, routes, wave in chosen],
        },
        changes=changes,
        steps=(
            f"{size_text(size)}, SHA-256 {sha256[:12]}, as {name} on {len(chosen)} hosts, those with GPUs first",
            "each host proves size, SHA-256 and that it loads, then publishes it in one step and gives a receipt",
            "the version before is kept there",
        ),
        command=shlex.join(words),
        undo="Distribute the version before: hosts that kept it need no bytes.",
        warnings=tuple(warnings),
        guard={f"file {path}": await guard_file(paths, None, str(path))},
        table=table,
    )  # fmt: skip


def _source(paths: Paths, what: str) -> tuple[ModelRow | None, Path]:
    path = Path(what).expanduser()
    if path.is_file():
        return None, path.absolute()
    if "/" in what:
        raise NotFoundError("no such file", where=what)
    try:
        row = find_model(paths, what)
    except NotFoundError:
        raise NotFoundError(
            "neither a registered model nor a file", where=what, hint="ringrift registry list"
        ) from None
    return row, check_source(paths, row)


def validate(path: Path, kind: str) -> str:
    """The SHA-256 of a file that can be read as what it says it is.

    Raises:
        UnverifiedError: it cannot; nobody would publish it.
    """
    from backend.distribution import loadable

    if kind == "npz":
        with path.open("rb") as stream:
            answer = loadable.check(stream, kind)
        if answer["result"] == "does not load":
            raise UnverifiedError(
                f"the dataset does not load: {answer['message']}", where=str(path), hint="export it again"
            )
    return sha256_file(path)


def published_name(model: ModelRow | None, path: Path, kind: str) -> str:
    """Where a file lies on hosts, below their base."""
    if model is not None and model.stage == "production" and model.config:
        return f"models/{production_file(model.config)}"
    if model is not None:
        return f"models/{_UNSAFE.sub('_', model.label).lstrip('.-')}.pth"
    folder = {"checkpoint": "models", "npz": "data/training"}.get(kind, "files")
    leaf = _UNSAFE.sub("_", path.name).lstrip(".-")[:200]
    if not leaf:
        raise UsageError("not a name for a file on hosts", where=path.name, hint="rename it")
    return f"{folder}/{leaf}"


async def choose(
    paths: Paths, named: Sequence[str], size: int, only: str | None
) -> tuple[list[tuple[str, tuple[str, ...], int]], list[str], tuple[tuple[str, ...], ...]]:
    """Hosts in order with their routes and waves, warnings, and the rows of the plan's table.

    Raises:
        NotFoundError, UsageError, RefusedError, ResourceError: see :func:`plan_distribute`.
    """
    from backend.distribution.transports.registry import REFERENCES, routes_for

    if only is not None and only not in REFERENCES:
        raise UsageError("no such transport", where=only, hint="one of " + " ".join(REFERENCES))
    described = await asyncio.to_thread(load_hosts, paths.hosts_yaml)
    wanted = [find_host(described, name) for name in named] or [
        host for host in described.hosts if not host.is_local and not host.settings.get("skip_sync_receive")
    ]
    if not wanted:
        raise RefusedError("there is no host to distribute to", where=described.source, hint="add hosts to hosts.yaml")
    async with await StateStore.open(paths) as store:
        rows = {row.name: row for row in await host_rows(store, described)}
        means = _means(paths, described)
    able, warnings = [], []
    for host in wanted:
        why = unable(host, rows[host.name])
        if why is None:
            able.append(host)
        elif named:
            raise RefusedError(why[0], where=host.name, hint=why[1])
        else:
            warnings.append(f"{host.name} is left out: {why[0]} ({why[1]})")
    full = [host.name for host in able if (room := _free(rows[host.name])) is not None and room < size + SPARE]
    if able and len(full) == len(able):
        what = f"no room for {size_text(size + SPARE)}"
        raise ResourceError(what, where=" ".join(full[:6]), hint="free some space there, then plan again")
    warnings += [f"{name} has no room for {size_text(size + SPARE)} and waits until it has" for name in full]
    able.sort(key=lambda host: _order(host, rows[host.name]))
    chosen, table = [], [("host", "way", "first", "size", "link")]
    for host in able:
        routes, refused = routes_for(means, host, rows[host.name].facts, size, len(able), only)
        if not routes:
            first = next(iter(refused.values()))
            raise RefusedError(f"{only or 'no way'}: {first.what}", where=host.name, hint=first.hint)
        if rows[host.name].state == "down":
            warnings.append(f"{host.name} does not answer now: it gets the file when it does")
        wave = 0 if gpus_of(host, rows[host.name]) else 1
        mbit = host.settings.get("bandwidth_mbps")
        chosen.append((host.name, routes, wave))
        table.append(
            (
                host.name,
                " > ".join(routes),
                "GPU" if wave == 0 else "",
                size_text(size),
                f"{mbit} Mbit/s" if mbit else "?",
            )
        )
    if not chosen:
        raise RefusedError("no host can get it", where=described.source, hint="; ".join(warnings)[:200])
    warnings.append(estimate(size, [described.get(host) for host, _, _ in chosen], described, chosen))
    return chosen, warnings, tuple(table)


def _means(paths: Paths, described: Hosts) -> Means:
    from backend.distribution.transports.base import Means
    from backend.fleet.ssh import SshPool

    return Means(paths, SshPool(paths), described, "", paths.console / "distribution")


def unable(host: Host, row: HostRow) -> tuple[str, str] | None:
    """Why nothing can be sent to a host, and what mends it."""
    if host.is_local:
        return "it is this machine", "it has the file"
    if row.state == "off":
        return row.why, "change its status in hosts.yaml"
    if not host.is_here and (row.state == "new" or row.fingerprint is None):
        return "its key is not enrolled", f"ringrift hosts enrol {host.name}"
    if row.state == "refused":
        return row.why, f"ringrift hosts probe {host.name}"
    return None


def _free(row: HostRow) -> int | None:
    return row.samples[-1].disk_free if row.samples else None


def gpus_of(host: Host, row: HostRow) -> int:
    """GPUs that a host has for its jobs, as far as is known; of a pool, those that it gives to a training job."""
    if host.is_pool:  # what its login host has is not what its nodes have
        return int(host.settings.get("gpus", 0)) or pool_of(host.name, host.settings).gpus
    seen = len(row.samples[-1].gpus) if row.samples else 0
    return seen or int(host.settings.get("gpus", 0)) or int(bool(host.settings.get("gpu")))


def _order(host: Host, row: HostRow) -> tuple[Any, ...]:
    """GPU hosts first, the most first; slow links last, so that nobody depends on them."""
    mbit = float(host.settings.get("bandwidth_mbps") or 0)
    slow = 0 < mbit < SLOW_MBIT
    return slow, -gpus_of(host, row), -mbit, host.name


def estimate(size: int, hosts: Sequence[Host | None], described: Hosts, chosen: Sequence[tuple[str, Any, int]]) -> str:
    """The physical limit for the last host, as far as the links are known (research 2.2: F / min(R_head, R_host))."""
    from backend.distribution.transports.registry import transport

    links = [float(host.settings["bandwidth_mbps"]) for host in hosts if host and host.settings.get("bandwidth_mbps")]
    head = next((float(one.settings["bandwidth_mbps"]) for one in described.hosts
                 if one.is_local and one.settings.get("bandwidth_mbps")), None)  # fmt: skip
    if head is None and not links:
        return "the time cannot be told: no host has bandwidth_mbps in hosts.yaml"
    swarm = sum(transport(routes[0]).many for _, routes, _ in chosen)
    copies = len(chosen) - swarm + min(1, swarm)
    bound = max(8e-6 * size * copies / head if head else 0.0, 8e-6 * size / min(links) if links else 0.0)
    return f"at least {bound:.1f} s for the last host, with {copies} copies from this machine"


async def _live(paths: Paths, name: str) -> dict[str, str]:
    async with await StateStore.open(paths) as store, store.database.read() as db:
        rows = await db.all("SELECT host, coalesce(held, sha256) AS held FROM holdings WHERE name = ?", (name,))
    return {row["host"]: row["held"] for row in rows}


async def guard_file(paths: Paths, store: StateStore | None, name: str) -> str:
    """Size and time of change of a file here; ``missing`` when it is not there."""
    try:
        about = await asyncio.to_thread(Path(name).stat)
    except OSError:
        return "missing"
    return f"{about.st_size} bytes of {about.st_mtime_ns}"


async def apply_distribute(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Writes the transfer down, for the runner; returns ``{"transfer"}``."""
    params = plan.params
    wanted = Wanted(
        plan.title, str(params["cause"]), str(params["name"]), str(params["path"]), str(params["sha256"]),
        int(params["size"]), str(params["kind"]),
        tuple((str(host), tuple(routes), int(wave)) for host, routes, wave in params["hosts"]),
        params.get("model"), params.get("budget", {}), by=await store.operator(),
    )  # fmt: skip
    return {"transfer": await ledger.create(store, wanted, store.own_operation())}


# What is done with a transfer


async def _found(paths: Paths, name: str) -> tuple[Transfer, str]:
    if not paths.state_db.exists():
        raise NotFoundError("no such transfer", where=name, hint="ringrift transfers list")
    async with await StateStore.open(paths) as store:
        return await ledger.find(store, name), await guard_transfer(paths, store, name)


async def guard_transfer(paths: Paths, store: StateStore, name: str) -> str:
    """What somebody wants of a transfer: ``open``, ``paused``, ``cancelled`` or ``ended``."""
    async with store.database.read() as db:
        row = await db.one("SELECT paused, cancel, ended_at FROM transfers WHERE id = ?", (name,))
    if row is None:
        return "missing"
    if row["ended_at"] is not None:
        return "ended"
    return "cancelled" if row["cancel"] else "paused" if row["paused"] is not None else "open"


def _plan(verb: str, found: Transfer, now: str, change: tuple[str, str], steps: tuple[str, ...], **more: Any) -> Plan:
    params: Mapping[str, Any] = more.pop("params", {})
    return Plan(
        action=f"transfers.{verb}",
        title=f"{verb.capitalize()} transfer {found.id}: {found.title}",
        params={"transfer": found.id, **params},
        changes=(Change(found.id, *change),),
        steps=steps,
        command=f"ringrift transfers {verb} {found.id}",
        guard={f"transfer {found.id}": now},
        **more,
    )


async def plan_pause(paths: Paths, *, transfer: str, reason: str | None = None) -> Plan:
    """What pausing a transfer will do. Raises NotFoundError or RefusedError."""
    found, now = await _found(paths, transfer)
    if now != "open":
        raise RefusedError(f"it is {now}", where=transfer)
    steps = ("engines end; what hosts have stays", "what has arrived whole is still proved and published")
    return _plan("pause", found, now, (now, "paused"), steps, params={"reason": reason or "paused by hand"},
                 undo=f"ringrift transfers resume {transfer}")  # fmt: skip


async def plan_resume(paths: Paths, *, transfer: str) -> Plan:
    """What resuming a transfer will do. Raises NotFoundError or RefusedError."""
    found, now = await _found(paths, transfer)
    if now != "paused":
        raise RefusedError(f"it is {now}, not paused", where=transfer)
    return _plan("resume", found, now, (f"paused: {found.paused}", "open"), ("go on with what hosts have",),
                 undo=f"ringrift transfers pause {transfer}")  # fmt: skip


async def plan_cancel(paths: Paths, *, transfer: str) -> Plan:
    """What cancelling a transfer will do. Raises NotFoundError or RefusedError."""
    found, now = await _found(paths, transfer)
    if now in ("ended", "cancelled"):
        raise RefusedError(f"it is {now} already", where=transfer)
    have = sum(row.delivery.state in LIVE for row in found.rows)
    steps = (f"{have} hosts that have the file keep it", "engines end on the others; what they have stays for a day")
    return _plan("cancel", found, now, (now, "cancelled"), steps, undo=f"ringrift transfers retry {transfer}")


async def plan_retry(paths: Paths, *, transfer: str) -> Plan:
    """What trying again will do for the hosts that have not got the file. Raises NotFoundError or RefusedError."""
    found, now = await _found(paths, transfer)
    again = {State.FAILED, State.CANCELLED, State.BLOCKED}
    hosts = [row.host for row in found.rows if row.delivery.state in again]
    if not hosts:
        raise RefusedError("no host of it has failed", where=transfer)
    steps = (f"{' '.join(hosts[:8])}: again, with every transport", "what they have is used")
    return _plan("retry", found, now, (now, "open"), steps, params={"hosts": hosts}, undo="cancel it")


async def plan_verify(paths: Paths, *, transfer: str) -> Plan:
    """What verifying a transfer will do: hosts hash what lies there. Raises NotFoundError or RefusedError."""
    found, now = await _found(paths, transfer)
    hosts = [row.host for row in found.rows if row.delivery.state in LIVE]
    if not hosts:
        raise RefusedError("no host has it yet", where=transfer)
    steps = (f"{len(hosts)} hosts read {found.name} from its first byte to its last",)
    return _plan("verify", found, now, ("as the receipts say", "as it lies there"), steps, params={"hosts": hosts},
                 undo="Nothing to undo.")  # fmt: skip


async def apply_pause(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    await ledger.set_paused(store, plan.params["transfer"], plan.params["reason"])
    return {"transfer": plan.params["transfer"]}


async def apply_resume(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    await ledger.set_paused(store, plan.params["transfer"], None)
    return {"transfer": plan.params["transfer"]}


async def apply_cancel(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    await ledger.want_cancel(store, plan.params["transfer"], await store.operator())
    return {"transfer": plan.params["transfer"]}


async def apply_retry(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    if await store.step("again") is None:
        await ledger.want_again(store, plan.params["transfer"], plan.params["hosts"])
        await store.record_step("again")
    return {"transfer": plan.params["transfer"]}


async def apply_verify(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Has the hosts of a transfer hash what they hold; fails when one holds something else."""
    from backend.distribution.drift import audit_hosts

    transfer = await ledger.find(store, plan.params["transfer"])
    hosts = await asyncio.to_thread(load_hosts, paths.hosts_yaml)
    found = [host for name in plan.params["hosts"] if (host := hosts.get(name)) is not None]
    silent = await audit_hosts(paths, store, found, deep=True)
    async with store.database.read() as db:
        rows = await db.all("SELECT host, held FROM holdings WHERE name = ?", (transfer.name,))
    held = {row["host"]: row["held"] for row in rows}
    wrong = [host.name for host in found if host.name not in silent and held.get(host.name) != transfer.sha256]
    if wrong or silent:
        what = f"{len(wrong)} hosts hold something else, {len(silent)} did not answer"
        raise UnverifiedError(what, where=" ".join([*wrong, *silent][:8]), hint="ringrift fleet drift")
    return {"transfer": transfer.id, "verified": len(found)}
