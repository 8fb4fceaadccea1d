"""What a supervisor of many hosts costs the head, and how soon its console shows a change.

A real supervisor with its watch (a sample of every host each 30 s), its agents on all hosts, and some running jobs; the
hosts are names of one OpenSSH server on loopback, with agent roots of their own. Prints the share of one core that the
supervisor's process uses, apart from that of server, agents and jobs, which the hosts would bear; how late its loop ran
at worst; and seconds from a change on a host to the frame of a headless console that shows it.

    python benchmarks/fleet.py [--hosts 200] [--jobs 20] [--steady 60] [--changes 5] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.plans import plan_drain
from backend.fleet.store import host_rows, record_code
from backend.jobs.pipelines import add_job
from backend.jobs.rows import job_rows
from backend.paths import Paths
from backend.state.store import StateStore
from backend.supervisor import ensure_running, stop
from ringrift_console.app import ConsoleApp
from tests.conftest import end_jobs
from tests.lab.kept import describe
from tests.lab.sshd import SSHD, Alias, Sshd, children

PATIENCE_S = 300.0
TICKS = os.sysconf("SC_CLK_TCK")
WORK = (  # a line and a progress row each second, as a training run writes them, until a file says that it is enough
    "import json, os, time\n"
    "n = 0\n"
    "while not os.path.exists({enough!r}):\n"
    "    n += 1; print('epoch', n, 'loss', 1 / n, flush=True)\n"
    "    open(os.environ['RINGRIFT_PROGRESS'], 'a').write(json.dumps(dict(done=n, total=10**6)) + '\\n')\n"
    "    end = time.monotonic() + 1\n"
    "    while time.monotonic() < end and not os.path.exists({enough!r}): time.sleep(0.01)\n"
)


def cpu_s(pids: Iterable[int], *, ended: bool) -> float:
    """CPU seconds of processes; ``ended``: with those of their children that have ended."""
    total = 0
    for pid in pids:
        try:
            fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11 : 15 if ended else 13]))
    return total / TICKS


async def until(good: Callable[[], Awaitable[bool]], pause_s: float = 0.02) -> float:
    """Seconds until something holds."""
    began = time.perf_counter()
    async with asyncio.timeout(PATIENCE_S):
        while not await good():  # noqa: ASYNC110
            await asyncio.sleep(pause_s)
    return time.perf_counter() - began


class Fleet:
    """A root with hosts, and its supervisor."""

    def __init__(self, folder: Path, store: StateStore, server: Sshd, lone: list[Sshd], count: int) -> None:
        self.folder, self.store, self.server, self.lone = folder, store, server, lone
        self.hosts: list[Sshd | Alias] = [*lone, *(Alias(server, f"h{n}") for n in range(count))]

    async def describe(self) -> None:
        paths = self.store.paths
        describe(paths, *self.hosts, slots=4)
        for host in self.hosts:
            server = host.server if isinstance(host, Alias) else host
            key = HostKey.parse(server.host_key.with_suffix(".pub").read_text())
            enrol_key(paths.console / "known_hosts", host.name, key)
            code = {"python": sys.executable, "root": str(host.folder / "data"), "bundle": "0" * 64}
            await record_code(self.store, host.name, code)

    async def all_up(self) -> bool:
        return {row.state for row in await host_rows(self.store, samples=False)} == {"up"}

    async def add(self, host: str, enough: Path) -> str:
        argv = [sys.executable, "-I", "-S", "-c", WORK.format(enough=str(enough))]
        async with self.store.database.write() as db:
            return await add_job(db, "command", "hex8_2p", {"argv": argv}, host=host)

    async def running(self, names: list[str]) -> bool:
        states = {row.id: row.state for row in await job_rows(self.store)}
        return all(states[name] == "running" for name in names)


async def steady(fleet: Fleet, pid: int, seconds: float) -> dict[str, float]:
    """What it costs while nothing happens but samples, looks at running jobs, and their logs."""

    def hosts() -> list[int]:
        found = [one for server in (fleet.server, *fleet.lone) for one in (server.listener, *children(server.listener))]
        runners = (json.loads(path.read_text()) for path in fleet.folder.rglob("jobs/*/runner.json"))
        return found + [one for runner in runners for one in (runner["pid"], *children(runner["pid"]))]

    lags = []
    before = cpu_s([pid], ended=False), cpu_s(hosts(), ended=True)
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        await asyncio.sleep(5.0)
        about = await fleet.store.supervisor()
        lags.append(float(about.lag_ms or 0) if about else 0.0)
    took = time.perf_counter() - began
    after = cpu_s([pid], ended=False), cpu_s(hosts(), ended=True)
    return {
        "supervisor, % of a core": round(100 * (after[0] - before[0]) / took, 1),
        "hosts' side, % of a core": round(100 * (after[1] - before[1]) / took, 1),
        "worst lag of its loop, ms": max(lags),
        "load": round(os.getloadavg()[0], 1),
    }


class Screen:
    """A headless console, 160x50."""

    def __init__(self, app: ConsoleApp) -> None:
        self.app = app

    async def shows(self, row: str, *words: str) -> float:
        """Seconds until the line of ``row`` has one of the words."""

        async def good() -> bool:
            lines = [strip.text.replace("▌", " ").split() for strip in self.app.screen._compositor.render_strips()]
            return any(row in line and any(word in one for one in line for word in words) for line in lines)

        return await until(good)


async def changes(fleet: Fleet, count: int) -> dict[str, float]:
    """Seconds from a change to the frame that shows it."""
    store, paths = fleet.store, fleet.store.paths
    app = ConsoleApp(paths)
    names = ("a job ends", "and is done with", "a host is drained", "a host is gone")
    found: dict[str, list[float]] = {name: [] for name in names}
    async with app.run_test(size=(160, 50)):
        screen = Screen(app)
        await app.go("jobs")
        for n in range(count):
            enough = fleet.folder / f"enough{n}"
            name = await fleet.add(f"h{n}", enough)
            await screen.shows(name, "running")
            await asyncio.sleep(0.37 * n % 1.0)  # at any moment of the looks
            enough.touch()
            seen = await screen.shows(name, "collect", "done")
            found["a job ends"].append(seen)
            found["and is done with"].append(seen + await screen.shows(name, "done"))
        await app.go("hosts")
        await screen.shows("h0", "up")
        for n in range(count):
            await asyncio.sleep(0.37 * n % 1.0)
            plan = await plan_drain(paths, host=f"h{n}", reason="bench")
            await store.submit(plan)
            found["a host is drained"].append(await screen.shows(f"h{n}", "drain"))
        for server in fleet.lone[:-1]:
            server.stop()
            found["a host is gone"].append(await screen.shows(server.name, "down"))
        fleet.lone[-1].freeze()
        silent = await screen.shows(fleet.lone[-1].name, "down")
        fleet.lone[-1].freeze(signal.SIGCONT)
    medians: dict[str, float] = {}
    for what, took in found.items():
        medians[f"{what}, s, median"] = round(statistics.median(took), 2)
        medians[f"{what}, s, worst"] = round(max(took), 2)
    return medians | {"a host falls silent, s": round(silent, 1)}


async def measure(folder: Path, server: Sshd, lone: list[Sshd], args: argparse.Namespace) -> dict[str, Any]:
    paths = Paths(folder / "root")
    paths.console.mkdir(parents=True)
    async with await StateStore.open(paths) as store:
        fleet = Fleet(folder, store, server, lone, args.hosts - len(lone))
        await fleet.describe()
        pid = await asyncio.to_thread(ensure_running, paths)
        try:
            found: dict[str, Any] = {"hosts": args.hosts, "jobs": args.jobs}
            found["all hosts up after, s"] = round(await until(fleet.all_up, 0.2), 1)
            names = [await fleet.add(f"h{n}", folder / "enough") for n in range(args.jobs)]
            await until(lambda: fleet.running(names), 0.2)
            await asyncio.sleep(10.0)
            found |= await steady(fleet, pid, args.steady)
            if args.changes:
                found |= await changes(fleet, args.changes)
        finally:
            await asyncio.to_thread(stop, paths)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--steady", type=float, default=60.0)
    parser.add_argument("--changes", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if shutil.which(str(SSHD)) is None:
        print(f"left out: needs {SSHD}")
        return 0
    os.environ.pop("SSH_AUTH_SOCK", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HOME"] = name  # nobody's ~/.ssh has a say
        server = Sshd(folder / "host", MaxStartups="200")
        lone = [Sshd(folder / f"lone{n}", f"lone{n}") for n in range(4)]
        servers = [server, *lone]
        for one in servers:
            one.start()
        try:
            found = asyncio.run(measure(folder, server, lone, args))
        finally:
            for one in servers:
                one.stop()
            for root in folder.rglob("agent"):
                end_jobs(root)
    print(json.dumps(found) if args.json else "\n".join(f"{name:28} {value:g}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
