"""One look at a root: everything the screens and ``ringrift status`` show, read from its databases and files.

Each part that cannot be read leaves its rows unknown and a note; the others are shown all the same.
"""

from __future__ import annotations

import asyncio
import time
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import is_
from pathlib import Path
from typing import TypeVar

from backend.configs import CONFIGS, Config
from backend.databases import Memory
from backend.distribution.drift import holdings
from backend.distribution.rows import limits_of_all, transfer_rows
from backend.errors import NotFoundError, RingRiftError
from backend.evaluation.records import win_rates
from backend.event_needs import TOLD_BY_EVENT, event_needs
from backend.fleet.hosts import load_hosts
from backend.fleet.store import host_rows, make_rows
from backend.jobs.rows import job_rows, pipeline_rows
from backend.paths import Paths
from backend.reference.listing import all_models
from backend.registry.alarms import read_alarms
from backend.registry.policies import Policies, read_policies
from backend.registry.schema import reading
from backend.snapshot import BUSY, ENDED, AlarmRow, ConfigRow, HostRow, JobRow, ModelRow, Need, Snapshot, WinRate
from backend.state.store import StateStore
from backend.thresholds import thresholds
from backend.training.volume import volume
from backend.transfer_needs import transfer_needs

EVENTS_SHOWN = 50

T = TypeVar("T")


async def read_snapshot(paths: Paths) -> Snapshot:
    """Reads a root. Makes nothing: a root that does not exist yet is an empty snapshot."""
    trouble: list[Need] = []
    state, rows = None, None
    if paths.state_db.exists():
        state, rows = await _part(_read_state(paths, trouble), "state", trouble) or (None, None)
    else:
        rows = await _part(_hosts_of_file(paths), "hosts", trouble)
    base = state or Snapshot(str(paths.root), 0, datetime.now(UTC))
    jobs = base.jobs
    rest = await asyncio.to_thread(_read_rest, paths, jobs, trouble)
    taken = Counter(job.host for job in jobs if job.state in BUSY)
    hosts = tuple(replace(row, jobs=taken[row.name]) if taken[row.name] else row for row in rows or ())
    return replace(
        base,
        configs=rest.configs,
        models=rest.models,
        policies=rest.policies.rows,
        hosts=hosts,
        alarms=rest.alarms,
        needs=tuple(_alarm_need(alarm) for alarm in rest.alarms)
        + tuple(trouble)
        + needs(base, jobs, rest.models, rest.configs, hosts),
    )


@dataclass(frozen=True, slots=True)
class _Rest:
    """What stands in the root's other databases and files."""

    models: tuple[ModelRow, ...]
    policies: Policies
    alarms: tuple[AlarmRow, ...]
    configs: tuple[ConfigRow, ...]


def _read_rest(paths: Paths, jobs: tuple[JobRow, ...], trouble: list[Need]) -> _Rest:
    """In one thread: every change of thread costs more than most of these looks."""
    models, policies = _try(lambda: _read_models(paths), "registry", trouble) or ((), Policies(()))
    rung = _try(lambda: _open_alarms(paths), "alarms", trouble) or ()
    rates = _try(lambda: win_rates(paths), "match records", trouble) or {}
    models = _with_rates(paths, models, rates)
    return _Rest(models, policies, rung, _configs(paths, jobs, models))


def _open_alarms(paths: Paths) -> tuple[AlarmRow, ...]:
    return tuple(alarm for alarm in _alarms.get(paths.registry_db) if alarm.state == "open")


def _read_alarms(path: Path) -> tuple[AlarmRow, ...]:
    with reading(path) as db:
        return () if db is None else read_alarms(db)


_alarms = Memory(_read_alarms)


def _alarm_need(alarm: AlarmRow) -> Need:
    """An open alarm; on the config's row the key for the rollback holds."""
    text = f"{alarm.model} in production, alarm {alarm.id}: {alarm.cause}. {alarm.detail}"
    return Need(text, alarm.config, "pulse", "error")


async def _part(work: Awaitable[T], name: str, trouble: list[Need]) -> T | None:
    try:
        return await work
    except RingRiftError as error:
        _note(error, name, trouble)
        return None


def _try(read: Callable[[], T], name: str, trouble: list[Need]) -> T | None:
    try:
        return read()
    except RingRiftError as error:
        _note(error, name, trouble)
        return None


def _note(error: RingRiftError, name: str, trouble: list[Need]) -> None:
    """What is not there is no trouble."""
    if not isinstance(error, NotFoundError):
        trouble.append(Need(f"{name}: {error.line()}", name, "pulse", "error"))


async def _read_state(paths: Paths, trouble: list[Need]) -> tuple[Snapshot, tuple[HostRow, ...] | None]:
    """What ``state.db`` holds at one moment, and the hosts; of a hosts file with a mistake only the mistake."""
    async with await StateStore.open(paths) as store, store.database.read():
        hosts = await _part(host_rows(store), "hosts", trouble)
        return Snapshot(
            root=str(paths.root),
            revision=await store.revision(),
            taken_at=datetime.now(UTC),
            jobs=await job_rows(store),
            pipelines=await pipeline_rows(store),
            operations=await store.operations(),
            events=await store.events(last=EVENTS_SHOWN),
            troubles=await store.latest_events(TOLD_BY_EVENT),
            supervisor=await store.supervisor(),
            transfers=await transfer_rows(store),
            limits=await limits_of_all(store),
            holdings=await holdings(store),
        ), hosts


async def _hosts_of_file(paths: Paths) -> tuple[HostRow, ...]:
    return make_rows(await asyncio.to_thread(load_hosts, paths.hosts_yaml), time.time())


def _read_models(paths: Paths) -> tuple[tuple[ModelRow, ...], Policies]:
    policies = read_policies(paths)
    return all_models(paths), policies


@dataclass(frozen=True, slots=True)
class _Rated:
    """The last look at the models of a root: what it was made from, the pairs by model, and the rows."""

    models: tuple[ModelRow, ...] = ()
    rates: dict[str, tuple[WinRate, ...]] = field(default_factory=dict)
    pairs: dict[tuple[str, int], tuple[ModelRow, ModelRow]] = field(default_factory=dict)
    rows: tuple[ModelRow, ...] = ()


_rated: dict[str, _Rated] = {}


def _with_rates(
    paths: Paths, models: tuple[ModelRow, ...], rates: dict[str, tuple[WinRate, ...]]
) -> tuple[ModelRow, ...]:
    """Models with their results; what is as it was at the last look is the same object."""
    last = _rated.get(str(paths.root), _Rated())
    if models is last.models and rates == last.rates:
        return last.rows
    made: dict[tuple[str, int], tuple[ModelRow, ModelRow]] = {}
    for model in models:
        found = rates.get(model.sha256, ())
        old = last.pairs.get((model.model_id, model.version))
        if old is None or old[0] is not model or old[1].win_rates != found:
            old = model, replace(model, win_rates=found, games=sum(rate.games for rate in found))
        made[model.model_id, model.version] = old
    rows = tuple(made[model.model_id, model.version][1] for model in models)
    if len(rows) == len(last.rows) and all(map(is_, rows, last.rows)):
        rows = last.rows
    _rated[str(paths.root)] = _Rated(models, rates, made, rows)
    return rows


def _configs(paths: Paths, jobs: tuple[JobRow, ...], models: tuple[ModelRow, ...]) -> tuple[ConfigRow, ...]:
    own: dict[str | None, list[ModelRow]] = {}
    for model in models:
        if model.stage not in ("archived", "rejected"):
            own.setdefault(model.config, []).append(model)
    return tuple(_config(paths, config, jobs, own.get(config.key, [])) for config in CONFIGS)


def _config(paths: Paths, config: Config, jobs: tuple[JobRow, ...], own: list[ModelRow]) -> ConfigRow:
    counted = volume(paths, config)
    ready = thresholds(config).ready_games
    samples, made_at, note = dataset_summary(paths.dataset(config))
    return ConfigRow(
        config=config.key,
        games=counted.games,
        ready_games=ready,
        data=counted.status,
        samples=samples,
        dataset_at=made_at,
        best=best_model(own),
        production=next((model for model in own if model.stage == "production"), None),
        models=len(own),
        running=sum(job.config == config.key and job.state in BUSY for job in jobs),
        note="; ".join(text for text in (f"games: {counted.note}" if counted.note else "", note) if text),
    )


def best_model(models: list[ModelRow]) -> ModelRow | None:
    """The model to show for a config: production, else the best against Heuristic, else the newest.

    Judged by the lower end of the interval, so that few games do not look good by luck.
    """
    if not models:
        return None
    stages = {"production": 2, "staging": 1}

    def worth(model: ModelRow) -> tuple[int, float, int]:
        against = [rate.low for rate in model.win_rates if rate.opponent.startswith("heuristic") and rate.games]
        return stages.get(model.stage, 0), max(against, default=-1.0), model.version

    return max(models, key=worth)


def dataset_summary(path: Path) -> tuple[int | None, datetime | None, str]:
    """Samples and time of a dataset, read from the header of one array; a note when it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("values.npy") as stream:
            head = stream.read(512)
        length = int.from_bytes(head[8:10], "little") if head[6:7] == b"\x01" else int.from_bytes(head[8:12], "little")
        start = 10 if head[6:7] == b"\x01" else 12
        text = head[start : start + length].decode("latin-1")
        samples = int(text.split("'shape': (", 1)[1].split(",", 1)[0])
        return samples, datetime.fromtimestamp(path.stat().st_mtime, UTC), ""
    except FileNotFoundError:
        return None, None, ""
    except (OSError, zipfile.BadZipFile, KeyError, IndexError, ValueError):
        return None, None, "the dataset cannot be read"


def needs(
    state: Snapshot,
    jobs: tuple[JobRow, ...],
    models: tuple[ModelRow, ...],
    configs: tuple[ConfigRow, ...],
    hosts: tuple[HostRow, ...] = (),
) -> tuple[Need, ...]:
    """What waits for the operator, most urgent first."""
    found: list[Need] = []
    now = state.taken_at
    live = [job for job in jobs if job.state not in ENDED]
    found += [
        Need(f"{job.id} {job.kind} {job.config}: outcome unknown", job.id, "jobs", "error")
        for job in jobs
        if job.state == "unknown"
    ]
    retried = {job.pipeline for job in live if job.pipeline}
    found += [
        Need(f"{job.id} {job.kind} {job.config} failed: {job.why or 'see its log'}", job.id, "jobs", "error")
        for job in jobs
        if job.state == "failed" and job.pipeline not in retried and _recent(job.ended_at or job.created_at, now)
    ]
    if live and not state.supervisor.alive:
        text = f"the supervisor is down while {len(live)} jobs wait or run: ringrift supervise"
        found.append(Need(text, "supervisor", "jobs", "error"))
    found += [
        Need(f"{operation.title}: {operation.error or operation.state}", operation.id, "pulse", "warning")
        for operation in state.operations
        if operation.state in ("failed", "refused") and _recent(operation.created_at, now)
    ]
    found += event_needs(state.troubles, now)
    found += transfer_needs(state.transfers, state.holdings, now)
    found += [
        Need(f"{model.label}: its file is missing", model.label, "models", "error")
        for model in models
        if not model.present and model.stage != "rejected"
    ]
    found += [
        Need(f"host {host.name}: {host.why}", host.name, "hosts", "error" if host.state == "refused" else "warning")
        for host in hosts
        if host.state == "refused" or (host.state == "down" and host.jobs)
    ]
    foreign = [model.label for model in models if model.foreign]
    if foreign:
        text = f"{len(foreign)} models of another installation, read-only: ringrift doctor, ringrift adopt"
        found.append(Need(text, foreign[0], "models", "info"))
    changed = [host.name for host in hosts if host.changed]
    if changed:
        names = ", ".join(changed[:4]) + (" …" if len(changed) > 4 else "")
        found.append(Need(f"the hosts file has changed ({names}): reload it", changed[0], "hosts", "warning"))
    found += [Need(f"{row.config}: {row.note}", row.config, "pulse", "warning") for row in configs if row.note]
    return tuple(found)


def _recent(at: datetime, now: datetime, *, hours: float = 24.0) -> bool:
    return (now - at).total_seconds() < hours * 3600
