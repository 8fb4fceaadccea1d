"""A head and one other host: this machine again, with an agent root and a data root of its own.

Agent, verbs and files are the real ones; only the way there is not a network.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from backend.configs import parse_config
from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.store import record_code
from backend.jobs import agent
from backend.jobs.keeper import Keeper
from backend.jobs.launchers.local import LocalLauncher
from backend.jobs.pipelines import add_job
from backend.jobs.rows import job_row
from backend.jobs.staging import LocalTransfer
from backend.paths import Paths
from backend.snapshot import JobRow
from backend.state.store import StateStore

PATIENCE_S = 180.0
CONFIG = parse_config("hex8_2p")
OWNER = "head"
CODE = str(Path(__file__).parents[2])


class CutTransfer(LocalTransfer):
    """A link that breaks as often as it is told to: before a call is carried out, or after it."""

    def __init__(self) -> None:
        super().__init__({"PYTHONPATH": CODE})
        self.cuts: list[bool] = []
        self.calls: list[str] = []

    async def _through(self, what: str, call: Callable[[], Any]) -> Any:
        self.calls.append(what)
        cut = self.cuts.pop(0) if self.cuts else None
        if cut is False:
            raise RingRiftError("the link was cut", where="far")
        result = await call()
        if cut:
            raise RingRiftError("the link was cut", where="far")
        return result

    async def exec(self, host: Host, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Any:
        return await self._through(
            argv[3], lambda: super(CutTransfer, self).exec(host, argv, stdin=stdin, timeout_s=timeout_s)
        )

    async def put(self, host: Host, local: Path, remote: str, *, sha256: str) -> None:
        await self._through("put", lambda: super(CutTransfer, self).put(host, local, remote, sha256=sha256))

    async def get(self, host: Host, remote: str, local: Path, *, sha256: str | None) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        assert sha256 is not None
        await self._through("get", lambda: super(CutTransfer, self).put(host, Path(remote), str(local), sha256=sha256))


class Bed:
    """A head and a host, kept by a keeper in this process."""

    def __init__(self, paths: Paths, far: Path, store: StateStore) -> None:
        self.paths, self.far, self.store = paths, far, store
        self.transfer = CutTransfer()
        self.open()

    def open(self, epoch: int = 1) -> None:
        """A keeper that knows nothing but what is stored, as after a restart."""
        here = LocalLauncher(self.paths, OWNER, epoch)
        there = LocalLauncher(Paths(self.far / "agent"), OWNER, epoch, name="far")
        self.keeper = Keeper(self.paths, self.store, {"local": here, "far": there}, OWNER, epoch)
        self.keeper.porter.ways = lambda host: self.transfer

    async def close(self) -> None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("work "):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        for launcher in self.keeper.launchers.values():
            await launcher.close()

    async def add(self, kind: str, host: str = "far", **params: Any) -> str:
        async with self.store.database.write() as db:
            return await add_job(db, kind, CONFIG.key, params, host=host)

    async def row(self, name: str) -> JobRow:
        row = await job_row(self.store, name)
        assert row is not None
        return row

    async def until(self, name: str, *states: str) -> JobRow:
        async with asyncio.timeout(PATIENCE_S):
            while (row := await self.row(name)).state not in states:
                self.keeper._not_before.clear()
                self.keeper.porter._not_before.clear()
                await self.keeper.tick()
                await asyncio.sleep(0.05)
        return row

    @property
    def work(self) -> Path:
        return self.far / "work" / OWNER


HOSTS = "hosts:\n  local: {}\n  far: {ssh_host: 127.0.0.1, max_parallel_jobs: 2}\n"


async def prepared(paths: Paths, far: Path) -> StateStore:
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.hosts_yaml.write_text(HOSTS)
    store = await StateStore.open(paths)
    await record_code(store, "far", {"python": sys.executable, "root": str(far), "bundle": "b" * 64})
    return store


def end_all(roots: Sequence[Path]) -> None:
    for root in roots:
        for folder in (root / "jobs").glob("*.*"):
            for pid in agent.holders(agent.cookie_of(str(root), folder.name)):
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def two_hosts(paths: Paths, far: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    """The bed, with everything ended that it has started when it is left."""
    monkeypatch.setenv("PYTHONPATH", CODE)  # the interpreter there is this one, and finds the program here
    store = await prepared(paths, far)
    bed = Bed(paths, far, store)
    try:
        yield bed
    finally:
        await bed.close()
        await store.close()
        end_all([paths.console, far / "agent" / "data" / "console"])
