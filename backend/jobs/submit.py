"""One job by itself: from what an operator asked for to a plan, and from the plan to a row."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from backend.configs import Config, parse_config
from backend.errors import NotFoundError, UsageError
from backend.fleet.checkout import lacking
from backend.fleet.hosts import Host, Hosts, load_hosts
from backend.fleet.reading import load_in_use
from backend.jobs.pipelines import add_gang, add_job
from backend.jobs.placement import Asks, slots_of, unfit
from backend.jobs.plans import resolve
from backend.jobs.recipes import (
    AI_SERVICE,
    BUILTIN,
    RECIPES,
    RUNTIMES,
    load_recipes,
    no_command,
    recipe_of,
    title_of,
)
from backend.jobs.store import HostRecord, host_records
from backend.jobs.words import AI_SERVICE_KINDS, ai_service_parameters, custom_parameters, parameters
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.snapshot import ENDED, JobRow
from backend.state.store import StateStore


async def plan_submit(
    paths: Paths,
    *,
    kind: str,
    config: str,
    host: str | None = None,
    priority: int | None = None,
    after: str | Sequence[str] | None = None,
    gpu_gb: float | None = None,
    memory_gb: float | None = None,
    role: str | None = None,
    gpus: int | None = None,
    runtime: str | None = None,
    nodes: int | None = None,
    args: str | Sequence[str] | None = None,
) -> Plan:
    """What submitting one job will do.

    Raises:
        UsageError: the kind, the config or an option makes no sense.
        NotFoundError: a job it should wait for, its host or its model is not there.
        SettingsError: the hosts file cannot be understood.
    """
    written = load_recipes(paths.recipes_toml)
    every = dict.fromkeys([*RECIPES, *AI_SERVICE_KINDS, *written])
    if kind not in every:
        raise UsageError("no such kind of job", where=kind, hint="one of " + " ".join(every))
    made = parse_config(config)
    words = shlex.split(args) if isinstance(args, str) else list(args or ())
    hosts = load_hosts(paths.hosts_yaml)
    if kind in written:
        params = custom_parameters(written[kind], made, words)
    elif _runtime(runtime, kind, hosts.get(host) if host else None) == AI_SERVICE:
        params = ai_service_parameters(paths, kind, made, words)
    elif kind not in RECIPES:
        raise UsageError(f"this program has no {kind} jobs", where=kind, hint=f"--runtime {AI_SERVICE}")
    else:
        params = parameters(paths, kind, made, words)
    params |= {
        name: value
        for name, value in (("gpu_vram_gb", gpu_gb), ("memory_gb", memory_gb), ("role", role), ("gpus", gpus))
        if value is not None
    }
    if gpus is not None and gpus < 0:
        raise UsageError("--gpus has to be at least 0", where=str(gpus))
    nodes = check_nodes(kind, host, 1 if nodes is None else nodes)
    wished = after.split() if isinstance(after, str) else list(after or ())
    needs, revision, records = await _needed(paths, wished)
    warnings = _runtime_warnings(kind, params, made)
    warnings += _host_warnings(hosts, records, kind, Asks.of(params, host), host)
    used = load_in_use(paths)
    if host is not None and used is not None and used.get(host) is None:
        warnings += (f"{host} is new in the hosts file: the job waits until ringrift hosts reload",)
    if not needs:
        _check_inputs(paths, kind, made, params)
    given = [*(("--host", host) if host else ()), *(("--priority", str(priority)) if priority else ())]
    given += ["--runtime", AI_SERVICE] if params.get("runtime") == AI_SERVICE and kind not in written else []
    given += [word for need in needs for word in ("--after", need.id)]
    given += [word for name, value in (("--gpu-gb", gpu_gb), ("--memory-gb", memory_gb), ("--role", role)) if value
              for word in (name, str(value))]  # fmt: skip
    given += ["--gpus", str(gpus)] if gpus is not None else []
    given += ["--nodes", str(nodes)] if nodes > 1 else []
    line = ["ringrift", "jobs", "submit", kind, made.key, *given, *(("--", *words) if words else ())]
    return Plan(
        action="jobs.submit",
        title=f"Submit {title_of(kind, made)}",
        params={
            "kind": kind, "config": made.key, "params": params, "host": host, "priority": priority or 0,
            "needs": [row.id for row in needs], "nodes": nodes,
        },
        changes=(
            Change("job", "", f"{title_of(kind, made)}, waiting" + (f", on {nodes} hosts" if nodes > 1 else "")),
            Change("host", "", host or ("the best ones with room" if nodes > 1 else "the best one with room")),
            Change("priority", "", str(priority or 0)),
            *(Change(f"after {row.id}", row.state, "done") for row in needs),
            *(Change(name, "", _text(value)) for name, value in _shown(params)),
        ),
        steps=("check whether the output is there already", "place it on a host with room", "see it through"),
        command=shlex.join(line),
        undo="ringrift jobs cancel JOB at any time; what it finished is kept",
        warnings=warnings,
        revision=revision,
    )  # fmt: skip


def _check_inputs(paths: Paths, kind: str, config: Config, params: dict[str, Any]) -> None:
    """That what a job reads is there, when no job before it could make it.

    Raises:
        NotFoundError: something is not.
    """
    for wanted in recipe_of(kind, params).inputs(paths, config.key, params):
        if not wanted.path.is_file():
            hint = "make it first, or name the job that makes it: --after JOB"
            raise NotFoundError(f"{kind} jobs need a file that is not there", where=str(wanted.path), hint=hint)


def _shown(params: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a plan says of a job's parameters: of a recipe its command and its words."""
    if "recipe" not in params:
        return list(params.items())
    rest = [(name, value) for name, value in params.items() if name not in ("recipe", "words")]
    return [("argv", list(params["recipe"]["argv"])), *params["words"].items(), *rest]


def _runtime_warnings(kind: str, params: Mapping[str, Any], config: Config) -> tuple[str, ...]:
    """What an operator should know of a command of the reference installation."""
    if params.get("runtime") != AI_SERVICE or "recipe" in params or kind == "command":
        return ()
    if kind == "promote":
        name = f"models/canonical_{config.key}.pth"
        return (f"it overwrites {name} of that checkout in place, without a backup; the registry here stays as it is",)
    notes = {
        "export": "it exports the games of that host, and training here does not read what comes of it",
        "train": "its checkpoint is kept as a file and not registered: it cannot play here",
        "gauntlet": "it takes the number of players from the checkpoint; no match records come of it",
    }
    return (notes[kind],)


def _runtime(runtime: str | None, kind: str, named: Host | None) -> str:
    """What the job's host has to run: what was said, else what the host that was named runs."""
    if runtime is not None and runtime not in RUNTIMES:
        raise UsageError("no such runtime", where=runtime, hint="one of " + " ".join(RUNTIMES))
    if runtime is None:
        needed = AI_SERVICE if kind not in RECIPES and kind in AI_SERVICE_KINDS else BUILTIN
        return named.runtime if named is not None and named.runtime in RUNTIMES else needed
    return runtime


def check_nodes(kind: str, host: str | None, nodes: int) -> int:
    """How many hosts a job runs on at once.

    Raises:
        UsageError: it cannot run on so many.
    """
    if nodes < 1:
        raise UsageError("--nodes has to be at least 1", where=str(nodes))
    if nodes > 1 and kind != "train":
        raise UsageError("only training runs on several hosts at once", where=f"--nodes {nodes}", hint="train")
    if nodes > 1 and host is not None:
        raise UsageError("--nodes and --host exclude each other", where=f"--nodes {nodes} --host {host}")
    return nodes


def _text(value: Any) -> str:
    return shlex.join(str(word) for word in value) if isinstance(value, list) else str(value)


def _host_warnings(
    hosts: Hosts, records: Mapping[str, HostRecord], kind: str, asks: Asks, host: str | None
) -> tuple[str, ...]:
    """That no host could take it today; the hosts file may change while it waits."""
    if host is not None and hosts.get(host) is None:
        known = " ".join(one.name for one in hosts.hosts[:8])
        raise NotFoundError("no such host", where=host, hint=f"{hosts.source} has {known}")
    nothing = HostRecord()
    slots = []
    for one in hosts.hosts:
        facts = records.get(one.name, nothing).facts
        cannot = no_command(one.runtime) | lacking(one.runtime, facts)
        slots.append(slots_of(one, {*RECIPES, kind}, facts=facts, cannot=cannot))
    why = [(one.name, unfit(one, kind, asks)) for one in slots]
    if any(reason is None for _, reason in why):
        return ()
    named = [f"{name}: {reason}" for name, reason in why if host in (None, name)]
    return (f"no host takes it as things are ({'; '.join(named[:3])})",)


async def _needed(paths: Paths, wished: Sequence[str]) -> tuple[list[JobRow], int, dict[str, HostRecord]]:
    """The jobs to wait for, the revision, and what is known of the hosts."""
    if not paths.state_db.exists():
        if wished:
            raise NotFoundError("no such job", where=wished[0], hint="there are no jobs yet")
        return [], 0, {}
    async with await StateStore.open(paths) as store:
        found = [row for name in wished for row in await resolve(store, name)]
        bad = next((row for row in found if row.state in ENDED and row.state not in ("done", "skipped")), None)
        if bad is not None:
            raise UsageError(f"it has ended ({bad.state}), so nothing can come after it", where=bad.id)
        return found, await store.revision(), await host_records(store)


async def apply_submit(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Adds the job (or the members of a gang), once however often it is called; returns ``{"jobs": [id]}``."""
    given = plan.params
    async with store.database.write() as db:
        row = await db.one("SELECT result FROM steps WHERE operation = ? AND name = 'added'", (store.operation_id,))
        if row is not None:
            return dict(json.loads(row["result"]))
        kind, config, params = str(given["kind"]), str(given["config"]), dict(given["params"])
        needs, priority, nodes = tuple(given["needs"]), int(given["priority"]), int(given.get("nodes", 1))
        if nodes > 1:
            names = await add_gang(db, kind, config, params, nodes, needs=needs, priority=priority)
        else:
            names = (await add_job(db, kind, config, params, needs=needs, host=given["host"], priority=priority),)
        result = {"jobs": list(names)}
        await db.run(
            "INSERT INTO steps VALUES (?, 'added', ?, ?)", (store.operation_id, time.time(), json.dumps(result))
        )
    return result
