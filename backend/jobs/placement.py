"""Which host a waiting job goes to, and for every other host why it does not; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from backend.fleet.hosts import Host
from backend.fleet.pools import pool_of, pool_rank

Reasons = tuple[tuple[str, tuple[str, ...]], ...]
"""Why a job waits: a reason, and the hosts it is true of, in the order of the hosts file."""
NAMED = 12
"""Hosts named for one reason; the others are counted."""


@dataclass(frozen=True, slots=True)
class Asks:
    """What a job asks of its host besides taking its kind.

    Attributes:
        host: the only host it may run on.
        gpu_vram_gb, memory_gb: least memory of the GPU and of the machine, in GB; 0 asks for nothing.
        role: the role that the hosts file has to give the host.
        home: it reads much of what is on this machine, so it had better run here.
        gpus: GPUs that it has for itself; None for what its kind has by default, see :func:`wanted_gpus`.
        runtime: what the host has to run; what another one makes is not the same.
    """

    host: str | None = None
    gpu_vram_gb: float = 0.0
    memory_gb: float = 0.0
    role: str | None = None
    home: bool = False
    gpus: int | None = None
    runtime: str = "builtin"

    @classmethod
    def of(cls, params: Mapping[str, Any], host: str | None = None) -> Asks:
        """What a job's parameters and the host it is bound to ask for."""
        gpu, memory = float(params.get("gpu_vram_gb") or 0), float(params.get("memory_gb") or 0)
        tally = "run" in params and "shard" not in params
        gpus = params.get("gpus")
        options = list(params.get("options") or ())
        if gpus is None and ("--device", "cpu") in pairwise(options):
            gpus = 0
        count = None if gpus is None else int(gpus)
        runtime = str(params.get("runtime") or "builtin")
        return cls(host, gpu, memory, params.get("role") or None, tally, count, runtime)


NOTHING = Asks()


@dataclass(frozen=True, slots=True)
class HostSlots:
    """A host as far as placement needs to know it.

    Attributes:
        slots: jobs at a time.
        kinds: those that it takes; None for all.
        caps: jobs of one kind at a time, where that is fewer than ``slots``.
        gpu_vram_gb, memory_gb: None where nobody said; then a job that asks for some is not sent here.
        prefers: kinds that it is meant for.
        local: it is this machine, where all data is.
        closed: why it takes no new job now, e.g. ``drained``; empty when it does.
        gpus: indices of its GPUs; None where nobody said and nobody looked.
        runtime: what it runs.
        cannot: kinds that it would take and for which it lacks something, with what that is.
        address: how other hosts reach it; empty where that is not known.
        pool: a scheduler stands behind it, which gives out nodes and GPUs; ``slots`` caps what it is sent at a time.
        pool_gpus: GPUs that it gives a training job which asks for no number; 0 where it gives none.
    """

    name: str
    slots: int = 1
    kinds: frozenset[str] | None = None
    caps: Mapping[str, int] = field(default_factory=dict)
    gpu_vram_gb: float | None = None
    memory_gb: float | None = None
    role: str | None = None
    prefers: frozenset[str] = frozenset()
    local: bool = False
    closed: str = ""
    gpus: tuple[str, ...] | None = None
    runtime: str = "builtin"
    cannot: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    pool: bool = False
    pool_gpus: int = 0

    def takes(self, kind: str) -> bool:
        return self.kinds is None or kind in self.kinds

    def cap(self, kind: str) -> int:
        return min(self.slots, self.caps.get(kind, self.slots))


def slots_of(
    host: Host, kinds: Collection[str], *, closed: str = "", facts: Mapping[str, Any] = MappingProxyType({}),
    cannot: Mapping[str, str] = MappingProxyType({}),
) -> HostSlots:  # fmt: skip
    """What the hosts file says of a host, for placement.

    Args:
        kinds: all there are; those that the host has switched off or excludes are left out.
        closed: why it takes nothing now for another reason than the file's.
        facts: what it said of itself; tells its GPUs where the file does not.
        cannot: see :class:`HostSlots`.
    """
    settings = host.settings
    excluded = _kinds(settings.get("excluded_workloads"))
    status = str(settings.get("status") or "ready")
    given = settings.get("max_parallel") or {}
    return HostSlots(
        host.name,
        host.max_parallel_jobs,
        frozenset(kind for kind in kinds if host.enabled(kind) and kind not in excluded),
        {_KIND.get(str(kind), str(kind)): int(number) for kind, number in given.items()},
        settings.get("gpu_vram_gb"),
        settings.get("memory_gb"),
        settings.get("role"),
        _kinds(settings.get("preferred_workloads")),
        host.is_local,
        closed or ("" if status in OPEN_STATUSES else f"{status} by the hosts file"),
        _gpus(settings.get("gpus"), facts.get("gpus")),
        host.runtime,
        cannot,
        _address(host),
        host.is_pool,
        pool_of(host.name, settings).gpus if host.is_pool else 0,
    )


def _address(host: Host) -> str:
    """By what other hosts reach it; empty for this machine where the hosts file says nothing of that."""
    return "" if host.is_local and not host.settings.get("peer_address") else host.peer_address


def _gpus(stated: Any, found: Any) -> tuple[str, ...] | None:
    if stated is not None:
        return tuple(map(str, range(int(stated))))
    return tuple(map(str, found)) if isinstance(found, list) else None


OPEN_STATUSES = ("ready", "active", "online", "up", "enabled")
"""Words of a host's ``status`` that mean that it may be used."""

_KIND = {"training": "train", "evaluation": "gauntlet", "tournament": "gauntlet"}


def _kinds(listed: Any) -> frozenset[str]:
    return frozenset(_KIND.get(str(name), str(name)) for name in listed or ())


@dataclass(slots=True)
class Load:
    """Jobs that live on each host, in all and by kind, and who has its GPUs: (host, index) -> attempt."""

    totals: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    leases: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, host: str, kind: str, gpus: Sequence[str] = (), attempt: str = "") -> None:
        self.totals[host] += 1
        self.kinds[host, kind] += 1
        self.leases |= {(host, gpu): attempt for gpu in gpus}

    def free_gpus(self, host: HostSlots) -> list[str]:
        return [gpu for gpu in host.gpus or () if (host.name, gpu) not in self.leases]


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a job goes and with which GPUs; without a host, ``why`` says in a few words what it waits for."""

    host: str | None
    why: str = ""
    reasons: Reasons = ()
    gpus: tuple[str, ...] = ()


def wanted_gpus(host: HostSlots, kind: str, asks: Asks) -> int:
    """GPUs that a job has for itself on a host: as many as it asks for; training has one where there are some."""
    if host.pool:  # those are leased to nobody here, see pool_gpus
        return 0
    if asks.gpus is not None:
        return asks.gpus
    return 1 if kind == "train" and host.gpus else 0


def pool_gpus(host: HostSlots, kind: str, asks: Asks) -> int:
    """GPUs that a job asks a scheduler for."""
    if asks.gpus is not None:
        return asks.gpus
    return host.pool_gpus if kind == "train" else 0


def unfit(host: HostSlots, kind: str, asks: Asks) -> str | None:
    """Why a host can never take such a job while the hosts file stays as it is, or None."""
    if asks.host is not None and host.name != asks.host:
        return f"the job is bound to {asks.host}"
    if host.runtime != asks.runtime:
        return f"its runtime is {host.runtime}, the job is for {asks.runtime}"
    if not host.takes(kind):
        return f"takes no {kind} jobs"
    if kind in host.cannot:
        return host.cannot[kind]
    if asks.role is not None and host.role != asks.role:
        return f"its role is not {asks.role}"
    for wanted, has, what in (
        (asks.gpu_vram_gb, host.gpu_vram_gb, "GPU memory"),
        (asks.memory_gb, host.memory_gb, "memory"),
    ):
        if wanted and has is None:
            return f"its {what} is not known ({wanted:g} GB asked for)"
        if wanted and has is not None and has < wanted:
            return f"less than {wanted:g} GB of {what}"
    if host.pool and asks.gpus and not host.pool_gpus:
        return f"it gives no GPUs ({asks.gpus} asked for, and no gres in the hosts file)"
    count = wanted_gpus(host, kind, asks)
    if count and host.gpus is None:
        return f"its GPUs are not known ({count} asked for)"
    if count > len(host.gpus or ()):
        return f"it has {len(host.gpus or ())} GPUs ({count} asked for)"
    return None


def full(host: HostSlots, kind: str, load: Load, asks: Asks = NOTHING) -> str | None:
    """Why there is no place on a host now, or None."""
    if load.totals[host.name] >= host.slots:
        return f"full ({host.slots} at a time)"
    if load.kinds[host.name, kind] >= host.cap(kind):
        return f"full for {kind} ({host.cap(kind)} at a time)"
    if wanted_gpus(host, kind, asks) > len(load.free_gpus(host)):
        holders = sorted({load.leases[host.name, gpu] for gpu in host.gpus or () if (host.name, gpu) in load.leases})
        return f"its GPUs are leased ({' '.join(_some(holders))})"
    return None


def choose(kind: str, asks: Asks, hosts: Sequence[HostSlots], load: Load) -> Choice:
    """The best host with room for a job.

    Hosts that are meant for the kind come first; an export goes where the games are, training and gauntlets to the
    largest GPU; then the host that is least busy for its size, then the order of the hosts file.
    """
    fitting: list[HostSlots] = []
    why: list[tuple[str, str]] = []
    for host in hosts:
        reason = unfit(host, kind, asks)
        if reason is None:
            fitting.append(host)
        else:
            why.append((reason, host.name))
    free: list[tuple[tuple[float, ...], HostSlots]] = []
    for number, host in enumerate(fitting):
        reason = host.closed or full(host, kind, load, asks)
        if reason:
            why.append((reason, host.name))
        else:
            free.append(((*_taste(host, kind, asks), load.totals[host.name] / host.slots, number), host))
    if free:
        best = min(free, key=lambda one: one[0])[1]
        return Choice(best.name, gpus=tuple(load.free_gpus(best)[: wanted_gpus(best, kind, asks)]))
    return Choice(None, _summary(kind, asks, hosts, fitting, load), _grouped(why))


def choose_several(
    kind: str, asks: Asks, hosts: Sequence[HostSlots], load: Load, count: int, before: str | None = None
) -> tuple[list[Choice], Choice | None]:
    """Places on ``count`` hosts, one on each, or all in one pool; with fewer, also the refusal of what is missing.

    All have as many GPUs: what trains together does so on one kind of device.

    Args:
        before: where the first had better be. Without that, it is on a host that the others can reach.
    """
    if asks.gpus is None:
        some = replace(asks, gpus=1)
        able = sum(unfit(host, kind, some) is None for host in hosts if not host.pool)
        apart = some if kind == "train" and able >= count else replace(asks, gpus=0)
    else:
        apart = asks
    pools = [host for host in hosts if host.pool and count <= host.cap(kind)]
    best = choose(kind, asks, hosts, load)
    if any(host.name == best.host for host in pools):
        whole = _in_pool(kind, asks, [host for host in pools if host.name == best.host], load, count)
        if whole:
            return whole, None
    found, missing = _apart(kind, apart, [host for host in hosts if not host.pool], load, count, before)
    if missing is None:
        return found, None
    whole = _in_pool(kind, asks, pools, load, count)
    return (whole, None) if whole else (found, missing)


def _in_pool(kind: str, asks: Asks, pools: Sequence[HostSlots], load: Load, count: int) -> list[Choice]:
    """All members in the first pool that has room for them, which runs them as one job; or none."""
    for host in pools:
        room = min(host.slots - load.totals[host.name], host.cap(kind) - load.kinds[host.name, kind])
        if choose(kind, asks, [host], load).host is not None and room >= count:
            return [Choice(host.name)] * count
    return []


def _apart(
    kind: str, asks: Asks, hosts: Sequence[HostSlots], load: Load, count: int, before: str | None
) -> tuple[list[Choice], Choice | None]:
    """Places on hosts of which each takes one."""
    left = list(hosts)
    found: list[Choice] = []
    while len(found) < count:
        kept = [host for host in left if host.name == before] if not found else []
        choice = choose(kind, asks, kept, load)
        if choice.host is None:
            choice = choose(kind, asks, left, load)
        if choice.host is None:
            return found, choice
        found.append(choice)
        left = [host for host in left if host.name != choice.host]
    reached = {host.name for host in hosts if host.address}
    return sorted(found, key=lambda choice: choice.host not in reached), None


def _taste(host: HostSlots, kind: str, asks: Asks) -> tuple[float, ...]:
    away = (kind == "export" or asks.home) and not host.local
    gpu = host.gpu_vram_gb or 0.0 if kind in ("train", "gauntlet") else 0.0
    return (
        float(away and asks.home),
        float(kind not in host.prefers),
        pool_rank(kind, host.pool, host.pool_gpus),
        float(away),
        -gpu,
    )


def _grouped(why: Sequence[tuple[str, str]]) -> Reasons:
    found: dict[str, list[str]] = {}
    for reason, name in why:
        found.setdefault(reason, []).append(name)
    return tuple((reason, _some(names)) for reason, names in found.items())


def _some(names: Sequence[str]) -> tuple[str, ...]:
    """The names, or the first of them and how many more there are."""
    if len(names) <= NAMED:
        return tuple(names)
    return (*names[:NAMED], f"and {len(names) - NAMED} more")


def _summary(kind: str, asks: Asks, hosts: Sequence[HostSlots], fitting: Sequence[HostSlots], load: Load) -> str:
    if asks.host is not None and all(host.name != asks.host for host in hosts):
        return f"for the host {asks.host}, which is not in the hosts file"
    if not fitting:
        able = [host for host in hosts if host.takes(kind) and asks.host in (None, host.name)]
        able.sort(key=lambda host: host.runtime != asks.runtime)
        if not able:
            return f"{asks.host} takes no {kind} jobs" if asks.host else f"no host takes {kind} jobs"
        return f"no host fits: {able[0].name}: {unfit(able[0], kind, asks)}" + (
            f", and {len(able) - 1} more" if len(able) > 1 else ""
        )
    opened = [host for host in fitting if not host.closed]
    if not opened:
        more = f", and {len(fitting) - 1} more" if len(fitting) > 1 else ""
        return f"for a host: {fitting[0].name} is {fitting[0].closed}{more}"
    if len(opened) > 1:
        return f"for a place on one of {len(opened)} hosts"
    only = opened[0]
    if not full(only, kind, load, replace(asks, gpus=0)):  # but for the GPUs there is a place
        return f"for GPUs on {only.name}: {full(only, kind, load, asks)}"
    limit = only.cap(kind)
    return f"for a place on {only.name} ({limit}{f' {kind}' if limit < only.slots else ''} at a time)"
