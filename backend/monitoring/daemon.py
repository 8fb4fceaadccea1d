"""The monitor in the supervisor: reads facts, lets :mod:`.reconcile` decide, and does it.

A look is a process of its own with low priority (it loads networks), a round of games an ordinary job. Nothing is kept
here that a restart would miss: after a kill the next round reads the same facts again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from backend.configs import parse_config
from backend.crash import crash_point
from backend.errors import Exit, RingRiftError
from backend.jobs.pipelines import add_job
from backend.jobs.recipes import environment
from backend.monitoring.check import read_watched
from backend.monitoring.mode import Mode, read_mode
from backend.monitoring.reconcile import DAY_S, Action, Background, Cancel, Champion, Facts, Look, Play, decide
from backend.monitoring.records import PREFIX, run_prefix
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.alarms import read_alarms
from backend.registry.changes import row_of
from backend.registry.health import FAULTS, last_check
from backend.registry.outbox import publish
from backend.registry.schema import reading
from backend.snapshot import ENDED
from backend.state.store import StateStore, add_event

TICK_S = 5.0
"""Seconds between two rounds; one in which nothing has changed and nothing is due costs a few lookups."""
PRIORITY = -10
"""Of background jobs: everything else comes first."""
REFERENCE_OPTIONS = ("--opponents", "heuristic", "--workers", "1")
_NO_REGISTRY = (Mode(), ())

log = logging.getLogger("ringrift.supervisor")


class Monitor:
    """The monitor of one root. Never raises: a monitor that fails must not stop the jobs.

    Args:
        wake: called when it has changed jobs: the supervisor does not see writes of its own connection.
    """

    def __init__(self, paths: Paths, store: StateStore, wake: Callable[[], None] = lambda: None) -> None:
        self.paths, self.store, self.wake = paths, store, wake
        self._looking: str | None = None
        self._tried: dict[str, float] = {}
        self._below = 0  # no job of the last day has a number up to this
        self._seen: tuple[int, int] | None = None
        self._off = False
        self._complaint = ""

    async def run(self) -> None:
        """Works for ever; ends by being cancelled, and its look with it."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self.round(group)
                    self._complaint = ""
                except RingRiftError as error:
                    self._complain(error.line())
                except Exception:
                    log.exception("the monitor stumbled")
                await asyncio.sleep(TICK_S)

    async def round(self, group: asyncio.TaskGroup) -> None:
        """Does what is to be done now; a look goes on in a task of ``group``."""
        seen = self._stamp()
        if self._off and seen == self._seen:
            return
        mode, champions = await asyncio.to_thread(self._registry)
        jobs = await self._jobs()
        prefixes = {one.config: run_prefix(one.config, one.sha256) for one in champions}
        facts = Facts(time.time(), mode.on, mode.games_per_day, champions, jobs, self._looking, dict(self._tried))
        for action in decide(facts, prefixes):
            await self._do(action, group)
        self._seen, self._off = seen, not mode.on

    def _stamp(self) -> tuple[int, int] | None:
        """Time and size of the registry, which holds the mode: the same stamp, the same mode."""
        try:
            status = self.paths.registry_db.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size

    def _registry(self) -> tuple[Mode, tuple[Champion, ...]]:
        """The mode, and the production models of all configs with what is known of them."""
        with reading(self.paths.registry_db) as db:
            if db is None:
                return _NO_REGISTRY
            mode, watches, found = read_mode(db), read_watched(db), []
            alarmed = {alarm.sha256 for alarm in read_alarms(db) if alarm.state == "open"}
            for pointer in pointers.all_pointers(db):
                assert pointer.label is not None and pointer.sha256 is not None
                watch = watches.get(pointer.config)
                ours = watch is not None and (watch.sha256, watch.revision) == (pointer.sha256, pointer.revision)
                check = last_check(db, pointer.sha256)
                found.append(
                    Champion(
                        pointer.config,
                        parse_config(pointer.config).players,
                        pointer.sha256,
                        row_of(db, pointer.label).path,
                        watch.at if watch is not None and ours else None,
                        check is not None and check["outcome"] not in FAULTS | {"unsupported"},
                        pointer.sha256 in alarmed,
                    )
                )
            return mode, tuple(found)

    async def _jobs(self) -> tuple[Background, ...]:
        """Background jobs of the last day, and older ones that are open."""
        ended = ", ".join("?" * len(ENDED))
        wanted = "SELECT id, config, params, state, created_at, ended_at, number FROM jobs WHERE"
        ours = "AND kind = 'gauntlet' AND priority = ?"
        async with self.store.database.read() as db:
            rows = await db.all(f"{wanted} number > ? {ours}", (self._below, PRIORITY))
            rows += await db.all(
                f"{wanted} number <= ? AND state NOT IN ({ended}) {ours}", (self._below, *sorted(ENDED), PRIORITY)
            )
            row = await db.one(
                "SELECT max(number) FROM jobs WHERE number > ? AND created_at < ?", (self._below, time.time() - DAY_S)
            )
        self._below = max(self._below, int((row and row[0]) or 0))
        found = []
        for one in rows:
            params = json.loads(one["params"])
            if str(params.get("run", "")).startswith(PREFIX):
                ended_at = (one["ended_at"] or one["created_at"]) if one["state"] in ENDED else None
                found.append(
                    Background(
                        one["id"], one["config"], params["run"], int(params["games"]), one["state"],
                        one["created_at"], ended_at,
                    )
                )  # fmt: skip
        return tuple(found)

    async def _do(self, action: Action, group: asyncio.TaskGroup) -> None:
        if isinstance(action, Look):
            self._looking = action.config
            group.create_task(self._look(action.config))
        elif isinstance(action, Play):
            await self._play(action)
            self.wake()
        else:
            await self._cancel(action)
            self.wake()

    async def _play(self, action: Play) -> None:
        """Adds a round, unless one of the config is open by now."""
        async with self.store.database.write() as db:
            number = await db.one("SELECT coalesce(max(number), 0) + 1 FROM jobs")
            assert number is not None
            run = f"{run_prefix(action.config, action.sha256)}{number[0]}"
            params = {
                "save": action.save, "games": action.games, "run": run,
                "options": list(REFERENCE_OPTIONS), "shard": 0, "of": action.games, "first_block": 0,
            }  # fmt: skip
            await add_job(db, "gauntlet", action.config, params, priority=PRIORITY, part="background")
        crash_point("monitor.played")

    async def _cancel(self, action: Cancel) -> None:
        async with self.store.database.write() as db:
            wish = json.dumps({"by": "monitor", "reason": action.why, "at": time.time()})
            changed = await db.run(
                "UPDATE jobs SET cancel = ? WHERE id = ? AND cancel IS NULL"
                " AND state NOT IN ('done', 'failed', 'cancelled', 'skipped', 'blocked')",
                (wish, action.job),
            )
            if changed:
                key = f"cancel monitor {action.job}"
                await add_event(db, "JOB_CANCEL_REQUESTED", action.job, {"reason": action.why}, key=key)

    async def _look(self, config: str) -> None:
        """A look by a process of its own; its alarms come into ``state.db`` even if it was killed before that."""
        words = ["-m", "ringrift_console.cli", "monitor", "check", "--config", config, "--root", str(self.paths.root)]
        began = time.time()
        try:
            code = await self._child(["nice", "-n", "15", sys.executable, *words])
            if code in (Exit.DONE, Exit.UNVERIFIED) and await asyncio.to_thread(self._was_looked_at, config, began):
                self._tried.pop(config, None)
            else:
                self._tried[config] = time.time()
                log.error("the monitor's look at %s ended with %d", config, code)
            await publish(self.paths, self.store)
        except RingRiftError as error:
            self._tried[config] = time.time()
            self._complain(error.line())
        except OSError as error:
            self._tried[config] = time.time()
            self._complain(f"the monitor's look at {config} could not be begun: {error}")
        finally:
            self._looking = None

    def _was_looked_at(self, config: str, began: float) -> bool:
        """Whether a look was stored since; exit code 7 may mean an alarm, or a look that failed halfway."""
        with reading(self.paths.registry_db) as db:
            watch = None if db is None else read_watched(db).get(config)
        return watch is not None and watch.at >= began

    async def _child(self, argv: list[str]) -> int:
        child = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, env=_environment()
        )
        try:
            return await child.wait()
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.error("%s", text)


def _environment() -> dict[str, str]:
    return dict(os.environ) | environment()
