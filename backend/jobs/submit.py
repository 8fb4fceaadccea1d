"""One job by itself: from the words an operator typed to a plan, and from the plan to a row."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.configs import Config, parse_config
from backend.errors import NotFoundError, UsageError
from backend.fleet.hosts import Hosts, load_hosts
from backend.jobs.pipelines import DEFAULT_EPOCHS, DEFAULT_GAMES, DEFAULT_GAUNTLET_GAMES, add_gang, add_job
from backend.jobs.placement import Asks, slots_of, unfit
from backend.jobs.plans import resolve
from backend.jobs.recipes import RECIPES, title_of
from backend.jobs.store import HostRecord, host_records
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.snapshot import ENDED, JobRow
from backend.state.store import StateStore


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


@dataclass(frozen=True, slots=True)
class Taken:
    """What may stand behind ``--`` for one kind.

    Attributes:
        options: that become parameters of the job: name, parameter and what its value is.
        passed: that are handed to the command as they are.
        words: how many words without an option there have to be.
    """

    options: Mapping[str, tuple[str, Callable[[str], Any]]]
    passed: Mapping[str, Callable[[str], Any]]
    words: int = 0


KINDS: dict[str, Taken] = {
    "selfplay": Taken(
        {"--games": ("games", _count), "--seed": ("seed", _seed)}, {"--players": str, "--workers": _count}
    ),
    "export": Taken({}, {"--validation": float, "--max-games": _count}),
    "train": Taken(
        {"--epochs": ("epochs", _count), "--seed": ("seed", _seed), "--save-path": ("save", str)},
        {
            "--batch-size": _count, "--lr": float, "--blocks": _count, "--channels": _count, "--device": str,
            "--init-weights": str,
        },
    ),
    "gauntlet": Taken(
        {"--games": ("games", _count), "--seed": ("seed", _seed)},
        {"--simulations": _seed, "--opponents": str, "--workers": _count},
        words=1,
    ),
}  # fmt: skip
"""Kinds that take options of their own; a ``command`` takes all its words as they are."""


def read_words(kind: str, words: Sequence[str]) -> dict[str, Any]:
    """The parameters of a job that its words mean; ``options`` holds those for the command itself.

    Raises:
        UsageError: an option is unknown for this kind, lacks its value or has a bad one.
    """
    taken = KINDS[kind]
    params: dict[str, Any] = {}
    passed: list[str] = []
    plain: list[str] = []
    rest = list(words)
    while rest:
        word, _, joined = rest.pop(0).partition("=")
        if not word.startswith("-"):
            plain.append(f"{word}={joined}" if joined else word)
            continue
        known = [*taken.options, *taken.passed]
        if word not in known:
            raise UsageError(f"{kind} jobs take no such option", where=word, hint="they take " + " ".join(known))
        if not joined and not rest:
            raise UsageError("the option lacks its value", where=word)
        text = joined or rest.pop(0)
        name, check = taken.options.get(word) or ("", taken.passed.get(word, str))
        try:
            value = check(text)
        except ValueError:
            raise UsageError("not a value that the option takes", where=f"{word} {text}") from None
        if name:
            params[name] = value
        else:
            passed += [word, text]
    if len(plain) != taken.words:
        hint = "name the model" if taken.words else "options only"
        raise UsageError(
            f"{kind} jobs take {taken.words or 'no'} word besides options", where=" ".join(plain), hint=hint
        )
    return params | ({"options": passed} if passed else {}) | ({"model": plain[0]} if plain else {})


def _parameters(paths: Paths, kind: str, config: Config, words: Sequence[str]) -> dict[str, Any]:
    if kind == "command":
        if not words:
            raise UsageError("no command given", hint="ringrift jobs submit command hex8_2p -- PROGRAM ARGUMENTS")
        return {"argv": list(words)}
    params = read_words(kind, words)
    if kind == "selfplay":
        return {"games": DEFAULT_GAMES, "seed": 1} | params
    if kind == "train":
        params = {"epochs": DEFAULT_EPOCHS, "seed": 1} | params
        made = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8]
        return {"save": f"models/candidates/{config.key}_{made}.pth"} | params
    if kind == "gauntlet":
        model = str(params.pop("model"))
        return {"games": DEFAULT_GAUNTLET_GAMES} | params | {"save": _model_file(paths, model, config)}
    return params


def _model_file(paths: Paths, name: str, config: Config) -> str:
    """The file of a model, relative to the root where it lies in it.

    Raises:
        NotFoundError: there is no such file and no such model.
    """
    from backend.registry.files import full_path
    from backend.registry.store import find

    path = paths.root / name
    if not path.is_file():
        if "/" in name or name.endswith((".pth", ".pt")):
            raise NotFoundError("no such file", where=str(path))
        row = find(paths, name)
        if row.config not in (None, config.key):
            raise UsageError(f"the model is for {row.config}, not {config.key}", where=name)
        path = full_path(paths, row.path)
    return str(path).removeprefix(f"{paths.root}/")


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
    nodes: int | None = None,
    args: str | Sequence[str] | None = None,
) -> Plan:
    """What submitting one job will do.

    Raises:
        UsageError: the kind, the config or an option makes no sense.
        NotFoundError: a job it should wait for, its host or its model is not there.
        SettingsError: the hosts file cannot be understood.
    """
    if kind not in RECIPES:
        raise UsageError("no such kind of job", where=kind, hint="one of " + " ".join(RECIPES))
    made = parse_config(config)
    words = shlex.split(args) if isinstance(args, str) else list(args or ())
    params = _parameters(paths, kind, made, words)
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
    warnings = _host_warnings(load_hosts(paths.hosts_yaml), records, kind, Asks.of(params, host), host)
    given = [*(("--host", host) if host else ()), *(("--priority", str(priority)) if priority else ())]
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
            *(Change(name, "", _text(value)) for name, value in params.items()),
        ),
        steps=("check whether the output is there already", "place it on a host with room", "see it through"),
        command=shlex.join(line),
        undo="ringrift jobs cancel JOB at any time; what it finished is kept",
        warnings=warnings,
        revision=revision,
    )  # fmt: skip


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
    slots = [slots_of(one, RECIPES, facts=records.get(one.name, nothing).facts) for one in hosts.hosts]
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
