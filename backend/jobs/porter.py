"""Carries inputs to hosts, outputs and logs from them, beside the reconcile loop; see :mod:`backend.jobs.staging`."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from backend.errors import RingRiftError, resource_error
from backend.fleet.hosts import Host
from backend.fleet.transfers import python_of
from backend.jobs import staging
from backend.jobs import store as rows
from backend.jobs.launchers.base import Launcher, UnreachableError
from backend.jobs.model import Attempt
from backend.jobs.said import Said
from backend.jobs.staging import LocalTransfer, Site, Transfer
from backend.paths import Paths
from backend.state.store import StateStore

AT_ONCE = 8
"""Transfers under way at a time."""
AGAIN_S = 5.0
MIRROR_S = 1.0
"""Seconds between two looks at the logs of a host; each costs two questions a job."""
READ_BYTES = 256 * 1024
READS = 16
MIRRORED = ("log", "progress.jsonl")

log = logging.getLogger("ringrift.supervisor")


class Porter:
    """All transfers of one root; at most one for each attempt.

    Args:
        owner: the root's name towards hosts.

    Attributes:
        ways: the way to a host that is not this machine; None while there is none.
        spawn: starts a task that ends with the supervisor.
    """

    def __init__(self, paths: Paths, store: StateStore, owner: str) -> None:
        self.paths, self.store, self.owner = paths, store, owner
        self.ways: Callable[[Host], Transfer] | None = None
        self.spawn: Callable[..., asyncio.Task[Any]] = asyncio.create_task
        self.wake: Callable[[], None] = lambda: None
        self._busy: set[str] = set()
        self._copying: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # there while somebody holds it
        self._whole: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._here = LocalTransfer()
        self._said = Said()
        self._turns: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    def site(self, host: Host, facts: Mapping[str, Any]) -> Site | None:
        """Where staged attempts run on a host; None while nobody has set it up."""
        if host.is_local:
            return Site(host, self._here, sys.executable, str(self.paths.console))
        if host.is_here:
            return Site(host, self._here, python_of(host), str(host.settings["shared_root"]))
        python, root = facts.get("python"), facts.get("root")
        if self.ways is None or not python or not str(root or "").startswith("/"):
            return None
        if facts.get("runtime", "builtin") != host.runtime:  # it was set up for another one
            return None
        return Site(host, self.ways(host), str(python), str(root), facts.get("checkout_path"))

    def push(self, attempt: Attempt, site: Site, kind: str, config: str, params: Mapping[str, Any]) -> None:
        """Begins to send an attempt's inputs, unless that is under way."""

        async def work() -> None:
            try:
                sent = await staging.push(site, self.paths, self.owner, attempt.job, kind, config, params)
            except staging.FINAL as error:
                await rows.record_refusal(self.store, attempt.key, error.line(), never=True)
            else:
                await rows.record_pushed(self.store, attempt, sent)

        self._begin("push", attempt, work)

    def collect(
        self, attempt: Attempt, site: Site, kind: str, config: str, params: Mapping[str, Any],
        launcher: Launcher | None,
    ) -> None:  # fmt: skip
        """Begins to fetch and merge an attempt's outputs, unless that is under way."""

        async def work() -> None:
            if launcher is not None and not site.host.is_local:
                await self._mirror(launcher, attempt.key, to_end=True)
            reported = await rows.reported_result(self.store, attempt.job)
            done = await staging.collect(
                site, self.paths, self.owner, attempt.job, attempt.key, kind, config, params, reported,
                self._turns[kind, config],
            )  # fmt: skip
            await rows.record_collected(self.store, attempt, done.result, done.failure)
            if not done.failure:
                try:
                    await staging.clean(site, self.paths, self.owner, attempt.job, attempt.key)
                except RingRiftError as error:  # what is left there only takes room
                    log.warning("%s is not cleaned up: %s", attempt.key, error.line())

        self._begin("collect", attempt, work)

    def _begin(self, what: str, attempt: Attempt, work: Callable[[], Awaitable[None]]) -> None:
        now = asyncio.get_running_loop().time()
        name = f"{what} {attempt.key}"
        if name in self._busy or self._not_before.get(name, 0.0) > now:
            return
        self._busy.add(name)

        async def run() -> None:
            try:
                async with self._room:
                    await work()
            except Exception as error:  # it concerns this attempt alone
                await self._later(name, attempt, self._tell(name, error))
            finally:
                self._busy.discard(name)
                self.wake()

        self.spawn(run(), name=f"work {name}")

    async def _later(self, name: str, attempt: Attempt, why: str) -> None:
        self._not_before[name] = asyncio.get_running_loop().time() + AGAIN_S
        try:
            await rows.record_trouble(self.store, attempt, why)
        except Exception as error:  # on a full disk for one; it is said in the log alone
            self._tell(f"{name}: its trouble is not stored", error)

    def _tell(self, what: str, error: Exception) -> str:
        """Logs a trouble that is new, with the traceback where it is no user's; returns it in a line."""
        ours = isinstance(error, RingRiftError)
        text = error.line() if isinstance(error, RingRiftError) else f"{type(error).__name__}: {error}"
        if self._said.is_new(what, text, asyncio.get_running_loop().time()):
            log.log(logging.WARNING if ours else logging.ERROR, "%s: %s", what, text, exc_info=None if ours else error)
        return text

    def mirror(self, launcher: Launcher, keys: list[str], still: Collection[str] = ()) -> None:
        """Begins to bring what these attempts have logged since the last time, unless that is under way.

        ``still`` are those that write no more: once their logs are here they are not asked for again.
        """
        name = f"mirror {launcher.name}"
        keys = [key for key in keys if key not in self._whole]

        async def work() -> None:
            self._not_before[name] = asyncio.get_running_loop().time() + MIRROR_S
            for key in keys:
                if await self.bring(launcher, key) and key in still:
                    self._whole.add(key)

        self._beside(name, keys, work)

    def finish(self, launcher: Launcher, keys: list[str], done: Callable[[list[str]], Awaitable[None]]) -> None:
        """Begins to bring the rest of what ended attempts have logged; ``done`` is told of those that are here."""

        async def work() -> None:
            for key in keys:
                await self._mirror(launcher, key, to_end=True)
                await done([key])

        self._beside(f"finish {launcher.name}", keys, work)

    def _beside(self, name: str, keys: list[str], work: Callable[[], Awaitable[None]]) -> None:
        """Spawns what is not under way yet; after a trouble it is left alone for a while."""
        now = asyncio.get_running_loop().time()
        if not keys or name in self._busy or self._not_before.get(name, 0.0) > now:
            return
        self._busy.add(name)

        async def run() -> None:
            try:
                await work()
            except Exception as error:  # it must not end all that runs beside
                self._tell(name, error)
                self._not_before[name] = asyncio.get_running_loop().time() + AGAIN_S
            finally:
                self._busy.discard(name)

        self.spawn(run(), name=f"work {name}")

    async def bring(self, launcher: Launcher, key: str) -> bool:
        """Brings what an attempt has logged, a few megabytes at most; True when nothing more was there.

        Raises:
            RefusedStartError: the host would not read it.
        """
        try:
            return await self._mirror(launcher, key)
        except UnreachableError:
            return False

    async def _mirror(self, launcher: Launcher, key: str, *, to_end: bool = False) -> bool:
        """Appends what a host has of a job's files beyond what is here; it goes on at the end of the copy."""
        folder = self.paths.jobs / key
        whole = True
        lock = self._copying.setdefault(key, asyncio.Lock())
        async with lock:  # two that append to one copy would append the same piece
            for name in MIRRORED:
                whole = await self._copy(launcher, key, folder, name, to_end) and whole
        return whole

    async def _copy(self, launcher: Launcher, key: str, folder: Path, name: str, to_end: bool) -> bool:
        path = folder / name
        reads = 0
        while to_end or reads < READS:
            offset = path.stat().st_size if path.exists() else 0
            chunk = await launcher.read_log(key, offset, READ_BYTES, name=name)
            if not chunk.data:
                return True
            try:
                await asyncio.to_thread(_append, folder, name, chunk.data)
            except OSError as error:
                raise resource_error(error, str(path)) or error from error
            if chunk.next >= chunk.size:
                return True
            reads += 1
        return False


def _append(folder: Path, name: str, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("ab") as stream:
        stream.write(data)
