"""A head with a real database, and hosts over SSH: what a supervisor does, in this process and one look at a time.

:meth:`Kept.agree` is the invariant of the chaos tests: after one look by a supervisor that knows nothing but what is
stored, database and hosts say the same of every attempt, and nothing ran twice.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from backend.errors import RingRiftError
from backend.fleet.ssh import Limits, SshPool
from backend.fleet.store import record_code
from backend.jobs import agent
from backend.jobs.keeper import Keeper
from backend.jobs.launchers.roster import Roster
from backend.jobs.pipelines import add_job
from backend.jobs.rows import job_row, job_rows
from backend.paths import Paths
from backend.snapshot import ENDED, JobRow
from backend.state.store import StateStore
from tests.lab.sshd import Alias, Sshd

OWNER = "head"
PATIENCE_S = 120.0
QUICK = Limits(keepalive_s=0.3, keepalive_count=2, backoff_s=0.02, backoff_max_s=0.1)
COUNTED = (
    "import os\n"
    "os.write(os.open({ran!r} + os.environ['RINGRIFT_ATTEMPT'], os.O_CREAT | os.O_APPEND | os.O_WRONLY), b'x')\n"
)


def describe(paths: Paths, *servers: Sshd | Alias, local: bool = False, slots: int = 1) -> None:
    """Writes hosts.yaml; a host runs ``slots`` jobs at a time."""
    lines = ["hosts:", *(["  local: {}"] if local else [])]
    for server in servers:
        lines.append(f"  {server.name}:")
        lines += [f"    {name}: {value}" for name, value in server.settings().items() if isinstance(value, str | int)]
        lines.append(f"    storage_paths: {{agent: {server.folder / 'agent'}}}")
        lines.append(f"    max_parallel_jobs: {slots}")
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.hosts_yaml.write_text("\n".join(lines) + "\n")


async def set_up(store: StateStore, server: Sshd | Alias) -> None:
    """Enrols a host, and records this installation as its own."""
    async with SshPool(store.paths) as pool:
        pool.confirm_enrolment(await pool.enrol(server.host()))
    code = {"python": sys.executable, "root": str(server.folder / "data"), "bundle": "0" * 64}
    await record_code(store, server.name, code)


class Kept:
    """A head and its hosts.

    Attributes:
        attempts: all that the database has, as :meth:`agree` last saw them: key -> (phase, executions).
    """

    def __init__(self, paths: Paths, store: StateStore, servers: Sequence[Sshd | Alias]) -> None:
        self.paths, self.store = paths, store
        self.servers = {server.name: server for server in servers}
        self.epoch = 0
        self.attempts: dict[str, tuple[str, int]] = {}
        self.open()

    @property
    def server(self) -> Sshd:
        """The first host."""
        server = next(iter(self.servers.values()))
        assert isinstance(server, Sshd)
        return server

    def open(self, epoch: int | None = None) -> None:
        """A supervisor that knows nothing but what is stored, as after a restart."""
        self.epoch = epoch if epoch is not None else self.epoch + 1
        self.roster = Roster(self.paths, OWNER, self.epoch)
        self.pool = self.roster._pool = SshPool(self.paths, QUICK)
        self.keeper = Keeper(self.paths, self.store, self.roster, OWNER, self.epoch)
        pool = self.pool
        self.keeper.porter.ways = lambda host: pool

    async def close(self) -> None:
        """Leaves as a killed supervisor does: whatever was under way is let go of."""
        for task in asyncio.all_tasks():
            if task.get_name().startswith("work "):
                task.cancel()
                with suppress(asyncio.CancelledError, RingRiftError):
                    await task
        await self.roster.close()

    async def restart(self) -> None:
        await self.close()
        self.open()

    # jobs

    def counted(self, host: str, code: str) -> str:
        """A program that leaves a mark of every execution, named after its attempt."""
        return COUNTED.format(ran=str(self.servers[host].folder / "ran.")) + code

    async def add(self, code: str, *, host: str | None = None, kind: str = "command", **params: Any) -> str:
        host = host or next(iter(self.servers))
        argv = [sys.executable, "-I", "-S", "-c", self.counted(host, code)]
        async with self.store.database.write() as db:
            return await add_job(db, kind, "hex8_2p", {"argv": argv} | params, host=host)

    async def cancel(self, name: str) -> None:
        wish = json.dumps({"by": "test", "at": time.time()})
        async with self.store.database.write() as db:
            await db.run("UPDATE jobs SET cancel = ? WHERE id = ?", (wish, name))

    async def row(self, name: str) -> JobRow:
        row = await job_row(self.store, name)
        assert row is not None
        return row

    async def tick(self) -> None:
        self.keeper._not_before.clear()  # no pauses after troubles: the next look is the next line of the test
        self.keeper.porter._not_before.clear()
        await self.roster.refresh()
        await self.keeper.tick()

    async def until(self, name: str, good: Callable[[JobRow], bool] | str) -> JobRow:
        """Looks again and again until a job is in a state, or as wished."""
        wished = (lambda row: row.state == good) if isinstance(good, str) else good
        async with asyncio.timeout(PATIENCE_S):
            while not wished(row := await self.row(name)):
                await self.tick()
                await asyncio.sleep(0.02)
        return row

    async def settled(self, name: str) -> JobRow:
        """Until a job has ended, or its outcome is unknown."""
        return await self.until(name, lambda row: row.state in (*ENDED, "unknown"))

    # the invariant

    def executions(self, host: str, key: str) -> int:
        """How often a command of :meth:`add` ran."""
        path = self.servers[host].folder / f"ran.{key}"
        return path.stat().st_size if path.exists() else 0

    async def agree(self) -> Counter[str]:
        """Asserts the invariant; returns how many attempts are in which phase."""
        await self.restart()
        await self.tick()
        # A host that takes longer than a tick waits for it is part of the same look.
        while self.keeper._talking:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await self.tick()
        async with self.store.database.read() as db:
            stored = await db.all("SELECT a.*, j.kind FROM attempts a JOIN jobs j ON j.id = a.job")
        states = {row.id: row.state for row in await job_rows(self.store)}
        hosts: dict[str, dict[str, Any]] = {}
        for name in self.servers:
            hosts[name] = await self._evidence(name, [row["key"] for row in stored if row["host"] == name])
        self.attempts = {}
        for row in stored:
            seen, runs = hosts[row["host"]][row["key"]], self.executions(row["host"], row["key"])
            assert runs <= 1, f"{row['key']} ran {runs} times"
            assert row["phase"] == seen["state"] or (row["phase"], seen["state"]) == ("placed", "absent"), row["key"]
            if row["phase"] == "exited":
                ours = json.loads(row["exit"])
                ours = {key: value for key, value in ours.items() if key not in ("abandoned", "cancelled")}
                assert ours.items() <= seen["exit"].items(), row["key"]
                counted = row["kind"] == "command" and seen["exit"].get("executed", True)
                assert runs == 1 or not counted or seen["exit"]["cancelled"], row["key"]
            if states[row["job"]] in ENDED:
                assert row["phase"] in ("exited", "void", "lost", "unknown"), (row["key"], row["phase"])
            self.attempts[row["key"]] = (row["phase"], runs)
        for name, seen in hosts.items():
            strays = set(seen) - {row["key"] for row in stored if row["host"] == name}
            assert not strays, f"{name} has {strays}, which the database does not know"
        return Counter(phase for phase, _ in self.attempts.values())

    async def _evidence(self, name: str, keys: list[str]) -> dict[str, Any]:
        """What the host itself says: of these attempts, and of all others it has."""
        server = self.servers[name]
        folder = str(server.folder / "agent")
        known = sorted(path.name for path in (server.folder / "agent" / "jobs").glob("*.*"))
        request = json.dumps({"keys": sorted({*keys, *known})})
        argv = [sys.executable, "-I", "-S", agent.__file__, "--root", folder, "status", "-"]
        done = await self.pool.exec(server.host(), argv, stdin=request.encode(), timeout_s=60)
        assert done.code == 0, done.stderr
        reports: dict[str, Any] = json.loads(done.stdout)["ok"]["reports"]
        return reports


@asynccontextmanager
async def kept(paths: Paths, *servers: Sshd | Alias, slots: int = 1) -> AsyncIterator[Kept]:
    """A head that knows these hosts."""
    describe(paths, *servers, slots=slots)
    async with await StateStore.open(paths) as store:
        for server in servers:
            await set_up(store, server)
        bed = Kept(paths, store, servers)
        try:
            yield bed
        finally:
            await bed.close()
