"""Carries policies out: looks when something has changed or time has passed, and submits operations by ``policy``.

What to do is decided by pure functions (:class:`Clockwork`, :func:`choose`); the daemon reads, and submits what they
say. An idle root costs a few ``stat`` calls; nothing is fitted or judged again before registry or records change.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from backend.configs import CONFIGS, parse_config
from backend.databases import open_reader, sqlite_errors, tables
from backend.errors import NoEvidenceError, NotFoundError, RefusedError, RingRiftError, UnverifiedError
from backend.paths import Paths
from backend.plans import Plan
from backend.registry.archival import Ruled, plan_of, rulings, summary
from backend.registry.policies import Policies, read_policies
from backend.registry.policy_facts import numbers_of, standings
from backend.registry.promotion import assess, ground_of, plan_promote
from backend.registry.store import model_rows
from backend.snapshot import ModelRow
from backend.state.store import StateStore

BY = "policy"
EVENT = "ARCHIVAL_DUE"
FAILED, WORKS = "POLICY_FAILED", "POLICY_WORKS"
SHOWN = 20
"""Models that an event of a dry run names; it counts all."""
NEXT = {"development": "staging", "staging": "production"}

log = logging.getLogger("ringrift.supervisor")

Mark = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between two glances; of quiet before a look at what changed; at most until one; between looks at
    models that only grow older."""

    glance: float = 2.0
    quiet: float = 4.0
    longest: float = 300.0
    age: float = 3600.0


@dataclass(slots=True)
class Clockwork:
    """Decides when to look; pure: it is told the time and what is seen.

    A gauntlet writes records every second for an hour: the look comes when it is quiet, or after ``longest``.
    """

    pace: Pace = Pace()
    seen: Mark | None = None
    looked: Mark | None = None
    looked_at: float = float("-inf")
    changed_at: float = float("-inf")
    dirty_since: float = float("-inf")

    def due(self, mark: Mark, now: float) -> bool:
        """Whether it is time for a look at what ``mark`` stands for."""
        if mark != self.seen:
            if self.seen == self.looked:
                self.dirty_since = now
            self.seen, self.changed_at = mark, now
        if self.looked is None:
            return True
        if mark != self.looked:
            return now - self.changed_at >= self.pace.quiet or now - self.dirty_since >= self.pace.longest
        return now - self.looked_at >= self.pace.age

    def done(self, mark: Mark, now: float) -> None:
        """Notes that what ``mark`` stands for was looked at."""
        self.looked, self.looked_at = mark, now


@dataclass(frozen=True, slots=True)
class Passed:
    """A model whose criteria for a stage all pass; ``low`` is the lower end of its rating, when it has one."""

    label: str
    version: int
    stage: str
    low: float | None


def choose(passed: Sequence[Passed]) -> Passed | None:
    """The one to promote next in a config: to production before staging, the surest rating first, then the newest."""
    return max(
        passed,
        key=lambda one: (one.stage == "production", one.low if one.low is not None else float("-inf"), one.version),
        default=None,
    )


@dataclass(slots=True)
class PolicyDaemon:
    """The looks of one supervisor's life. Never raises: a policy that fails must not stop the jobs.

    Attributes:
        wake: called when an operation was submitted.
    """

    paths: Paths
    store: StateStore
    pace: Pace = field(default_factory=Pace)
    wake: Callable[[], None] = lambda: None
    _judged: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)
    _complaint: str = ""
    _troubles: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Looks for ever; ends by being cancelled."""
        clockwork = Clockwork(self.pace)
        while True:
            mark = await asyncio.to_thread(mark_of, self.paths)
            if clockwork.due(mark, time.monotonic()):
                clockwork.done(mark, time.monotonic())
                try:
                    await self.look()
                    self._complaint = ""
                except RingRiftError as error:
                    if error.line() != self._complaint:
                        self._complaint = error.line()
                        log.error("policies: %s", error.line())
                except Exception:
                    log.exception("a policy stumbled")
            await asyncio.sleep(self.pace.glance)

    async def look(self) -> None:
        """Does what the policies ask for now; nothing but a read where all are off."""
        policies = await asyncio.to_thread(read_policies, self.paths)
        await self._promote(policies)
        await self._told("archival", self._archive(policies))

    async def _told(self, what: str, work: Awaitable[None]) -> None:
        """Does one part of a look. What fails is told once, and again when it is something else; the others go on."""
        try:
            await work
            line = ""
        except RingRiftError as error:
            line = error.line()
        if line == self._troubles.get(what, ""):
            return
        self._troubles[what] = line
        if line:
            log.error("policy of %s: %s", what, line)
        await self.store.add_event(FAILED if line else WORKS, what, {"reason": line} if line else {})

    # promotion

    async def _promote(self, policies: Policies) -> None:
        configs = policies.configs("promotion", ("on",))
        if not configs:
            return
        busy = await self._configs_at_work()
        rows = await asyncio.to_thread(model_rows, self.paths)
        for config in configs:
            own = [row for row in rows if row.config == config and row.stage in NEXT and row.present]
            if own and config not in busy:
                await self._told(f"promotion {config}", self._promote_in(config, own))

    async def _configs_at_work(self) -> set[str]:
        """Configs with an operation under way that moves one of their models up or back."""
        found = set()
        for name, _ in await self.store.open_operations():
            plan = await self.store.plan_of(name)
            if plan.action in ("registry.promote", "registry.rollback"):
                found.add(str(plan.params.get("config")))
        return found

    async def _promote_in(self, config: str, rows: Sequence[ModelRow]) -> None:
        """Submits the promotion that is due in a config; at most one."""
        passed = await asyncio.to_thread(self._passed, config, rows)
        unfit: RingRiftError | None = None
        while (chosen := choose(passed)) is not None:
            try:
                plan = await plan_promote(
                    self.paths, model=chosen.label, stage=chosen.stage, reason="all criteria pass; promoted by policy"
                )
                break
            except (RefusedError, NoEvidenceError):  # it has changed since it was judged a moment ago
                return
            except (UnverifiedError, NotFoundError) as error:  # its file is not what was registered: the next one
                unfit = unfit or error
                passed = [one for one in passed if one != chosen]
        if chosen is None:
            if unfit is not None:
                raise unfit
            return
        ground = await asyncio.to_thread(ground_of, self.paths, config)
        seq = await asyncio.to_thread(_newest, self.paths)
        what = f"{plan.params['sha256']} {chosen.stage} {ground.revision} {seq.get(config, '0')}"
        await self._submit(plan, what)
        if unfit is not None:
            raise unfit

    async def _submit(self, plan: Plan, what: str) -> None:
        """The same again is the same operation, whatever became of it; on another day it is tried anew."""
        await self.store.submit(plan, BY, key=f"{BY} {datetime.now(UTC):%Y-%m-%d} {what}")
        log.info("policy: %s", plan.title)
        self.wake()

    def _passed(self, config: str, rows: Sequence[ModelRow]) -> list[Passed]:
        """Those of some models of a config that the evidence carries to their next stage."""
        counts, seq = _games(self.paths, config), _newest(self.paths).get(config, "0")
        limits, found = numbers_of(config), []
        ratings: Mapping[str, Any] | None = None
        revision = ground_of(self.paths, config).revision
        for row in rows:
            stage = NEXT[row.stage]
            floor = limits.production_games if stage == "production" else limits.staging_games
            key, ground = (row.sha256, stage), (seq, revision, row.stage_since)
            if counts.get(row.sha256, 0) < floor or self._judged.get(key) == ground:
                continue
            if assess(self.paths, row, stage).outcome != "PASS":
                self._judged[key] = ground
                continue
            ratings = standings(self.paths, config) if ratings is None else ratings
            rating = ratings.get(row.sha256)
            found.append(Passed(row.label, row.version, stage, rating.low if rating else None))
        return found

    # archival

    async def _archive(self, policies: Policies) -> None:
        acting, telling = policies.configs("archival", ("on",)), policies.configs("archival", ("dry-run",))
        if telling:
            await self._tell(await rulings(self.paths, telling, store=self.store), telling)
        if not acting or await self._archiving():
            return
        ruled = await rulings(self.paths, acting, store=self.store)
        if any(one.acts for one in ruled):
            await self._submit(plan_of(self.paths, ruled, acting), digest([one for one in ruled if one.acts]))

    async def _archiving(self) -> bool:
        for name, _ in await self.store.open_operations():
            if (await self.store.plan_of(name)).action == "registry.archive-policy":
                return True
        return False

    async def _tell(self, ruled: Sequence[Ruled], configs: Sequence[str]) -> None:
        """An event of what would be put away, unless the last one said the same."""
        due = [one for one in ruled if one.acts]
        told = digest(due)
        last = await self.store.events(last=1, type=EVENT)
        if (last[-1].payload.get("digest") if last else digest(())) == told:
            return
        payload = {
            "digest": told, "models": len(due), "by_rule": summary(due),
            "first": [f"{one.ruling.label}: {one.ruling.action}, {one.ruling.reason}" for one in due[:SHOWN]],
        }  # fmt: skip
        where = configs[0] if len(configs) == 1 else "all configs" if len(configs) == len(CONFIGS) else "some configs"
        await self.store.add_event(EVENT, where, payload)


def digest(due: Sequence[Ruled]) -> str:
    """Names a set of rulings: the same models at the same stages and places, ruled alike, have the same name."""
    rows = [
        (one.ruling.label, one.ruling.action, one.ruling.folder, one.known.row.path, str(one.known.row.stage_since))
        for one in due
    ]
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:16]


def mark_of(paths: Paths) -> Mark:
    """Stands for the contents of registry and records: time and size of their files and write-ahead logs."""
    found = []
    for path in (paths.registry_db, paths.elo_db):
        for name in (path, path.with_name(path.name + "-wal")):
            try:
                facts = os.stat(name)
            except OSError:
                found.append((0, 0))
            else:
                found.append((facts.st_mtime_ns, facts.st_size))
    return tuple(found)


def _rows(paths: Paths, sql: str, values: tuple[Any, ...] = (), of: str = "match_games") -> list[tuple[Any, ...]]:
    if not paths.elo_db.exists():
        return []
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        return db.execute(sql, values).fetchall() if of in tables(db) else []


def _games(paths: Paths, config: str) -> dict[str, int]:
    """Finished games of each model of a config, as a candidate."""
    sql = (
        "SELECT candidate_sha256, count(*) FROM match_games WHERE config = ? AND termination != 'crash'"
        " AND candidate_sha256 IS NOT NULL GROUP BY candidate_sha256"
    )
    return {str(sha256): int(count) for sha256, count in _rows(paths, sql, (parse_config(config).key,))}


def _newest(paths: Paths) -> dict[str, str]:
    """What the records of each config have come to: the number of its newest game, and of games made void."""
    games = _rows(paths, "SELECT config, max(seq) FROM match_games GROUP BY 1")
    void = dict(_rows(paths, "SELECT config, count(*) FROM match_voids GROUP BY 1", of="match_voids"))
    return {str(config): f"{seq}-{void[config]}" if config in void else str(seq) for config, seq in games}
