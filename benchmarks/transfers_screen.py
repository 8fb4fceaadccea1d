"""What the Transfers screen costs while a file is on its way to many hosts.

    python benchmarks/transfers_screen.py [--hosts 64] [--hz 2] [--seconds 15] [--pages wide table swarm] [--json]

The console runs in a real pseudo-terminal on a scratch root with as many hosts (with the samples that a supervisor
keeps of each) and 120 models. This process writes what a supervisor writes of a running swarm, through the ledger, for
all hosts as often as asked: every time every host has another rate and other bytes, from ten peers. All of them fetch
from the first to the last moment, and none has finished before it ends.

Prints per page the bytes of terminal output a second and the processor time of the console (all its threads; not the
writer's) in percent of one core, the same with nothing written, and a calibration in the same run: a fixed piece of
interpreter work. The pages: ``wide`` is 160x50 with the hosts and the swarm beside each other, ``table`` and ``swarm``
are 80x24.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import json
import os
import pty
import random
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from backend.distribution import ledger  # noqa: E402
from backend.distribution.ledger import Transfer, Wanted  # noqa: E402
from backend.distribution.states import State  # noqa: E402
from backend.distribution.transports.base import Observation, Peer  # noqa: E402
from backend.paths import Paths  # noqa: E402
from backend.state.store import StateStore  # noqa: E402
from benchmarks.calibration import calibrate  # noqa: E402

PAGES = {"wide": ((160, 50), "6"), "table": ((80, 24), "6"), "swarm": ((80, 24), "6w")}
"""Size of the terminal and the keys that lead to the page."""
SETTLE_S, CELLS, PEERS, MBIT = 3.0, 64, 10, 10.0
SAMPLES, MODELS, FINISHED = 60, 120, 11
ROUTES = ("torrent", "aria2", "rsync", "stream")


def host_names(count: int) -> list[str]:
    return [f"node-{n:03}" for n in range(1, count + 1)]


async def make(paths: Paths, count: int) -> None:
    """A root with hosts, what is known of them, models, and transfers that have ended."""
    from benchmarks.models_root import CONFIGS, register

    names = host_names(count)
    hosts: dict[str, Any] = {"local": {"role": "coordinator", "bandwidth_mbps": 100}}
    hosts |= {name: {"ssh_host": f"{name}.example", "bandwidth_mbps": MBIT, "role": "gpu_selfplay"} for name in names}
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}, sort_keys=False))
    each = MODELS // len(CONFIGS)
    register(paths, {config.key: each for config in CONFIGS}, {config.key: [each // 2] for config in CONFIGS})
    gpu = {"index": 0, "name": "GH200", "memory_total": 2**36, "memory_used": 2**34, "busy": 71.0, "celsius": 58.0}
    sample = {"load": 3.5, "memory_used": 2**33, "memory_total": 2**38, "disk_free": 2**39, "disk_total": 2**40}
    async with await StateStore.open(paths) as store:
        now = time.time()
        async with store.database.write() as db:
            for name in ["local", *names]:
                await db.run(
                    "INSERT INTO hosts (name, state, checked_at, seen_at, facts) VALUES (?, 'up', ?, ?, ?)",
                    (name, now, now, json.dumps({"python_version": "3.12.1", "tools": {"rsync": "/usr/bin/rsync"}})),
                )
                for n in range(SAMPLES):
                    value = json.dumps(sample | {"load": n / 10, "gpus": [gpu]})
                    await db.run("INSERT INTO host_samples VALUES (?, ?, ?)", (name, now - 30 * n, value))
        for n in range(FINISHED):
            transfer = await begin(store, names[:16], 5_000_000, f"models/old{n}.pth")
            await arrive(store, transfer)


async def begin(store: StateStore, hosts: list[str], size: int, name: str) -> Transfer:
    """A transfer whose hosts all fetch."""
    wanted = Wanted(
        title=f"{name} to {len(hosts)} hosts", cause="distribute", name=name, path=f"/data/{name}",
        sha256=hashlib.sha256(name.encode()).hexdigest(), size=size, kind="checkpoint",
        hosts=tuple((host, ROUTES, n // 8 % 2) for n, host in enumerate(hosts)), by="benchmark",
    )  # fmt: skip
    transfer = await ledger.find(store, await ledger.create(store, wanted, f"operation {name}"))
    for row in transfer.rows:
        going = replace(row.delivery, state=State.FETCHING, tries=1, attempts=1)
        await ledger.save(store, transfer, row.delivery, going)
    return await ledger.find(store, transfer.id)


async def arrive(store: StateStore, transfer: Transfer) -> None:
    """All hosts have it, with their receipts."""
    for row in transfer.rows:
        receipt = {"verify": {"sha256": transfer.sha256}, "load": {"result": "loads", "method": "weights_only"}}
        await ledger.save(store, transfer, row.delivery, replace(row.delivery, state=State.DONE), receipt)


class Swarm:
    """What would be seen of a file's way to hosts: each at its own pace, from the head and the hosts near it.

    Pieces come in no order, and none goes away again; rates are never twice the same.
    """

    def __init__(self, transfer: Transfer, lasts_s: float) -> None:
        self.transfer, self.lasts_s = transfer, lasts_s
        self.chance = random.Random(7)
        self.hosts = [row.host for row in transfer.rows]
        self.pace = {host: self.chance.uniform(0.7, 0.98) for host in self.hosts}
        self.ahead = {host: [self.chance.uniform(-3, 3) for _ in range(CELLS)] for host in self.hosts}
        self.near: dict[str, list[tuple[str, float]]] = {}
        for n, host in enumerate(self.hosts):
            around = ["head", *(self.hosts[(n + step) % len(self.hosts)] for step in range(1, PEERS))]
            self.near[host] = [(name, self.chance.random()) for name in around]

    def at(self, seconds: float) -> tuple[dict[str, Observation], dict[str, Any]]:
        size, vary = self.transfer.size, self.chance.uniform
        seen = {}
        for host in self.hosts:
            share = min(0.99, self.pace[host] * seconds / self.lasts_s)
            have, rate = int(size * share), size / self.lasts_s * vary(0.6, 1.4)
            cells = "".join(str(min(9, max(0, round(15 * share - 3 + extra)))) for extra in self.ahead[host])
            parts = [(name, part * vary(0.5, 1.5), part) for name, part in self.near[host]]
            now, ever = sum(part for _, part, _ in parts), sum(part for _, _, part in parts)
            peers = tuple(
                Peer(name, rate * part / now, rate / PEERS, int(have * whole / ever), have // PEERS)
                for name, part, whole in parts
            )
            seen[host] = Observation(host, have, rate, have, int(have * 0.97), peers, cells)
        sent = int(size * seconds / self.lasts_s)
        return seen, {"torrent": {"sent": sent, "rate": size / self.lasts_s * vary(0.9, 1.1)}}


class Terminal:
    """A console in a pseudo-terminal; what it writes is counted as it comes."""

    def __init__(self, root: Path, size: tuple[int, int], keys: str) -> None:
        self.root, self.size, self.keys = root, size, keys
        self.count, self.tail = 0, b""

    def _read(self) -> None:
        found = os.read(self.master, 65536)
        self.count += len(found)
        self.tail = (self.tail + found)[-200_000:]

    async def until(self, word: bytes) -> None:
        end = time.monotonic() + 60
        while word not in self.tail:
            if time.monotonic() > end:
                raise TimeoutError(f"no {word.decode()} within 60 s")
            await asyncio.sleep(0.02)

    def start(self) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", self.size[1], self.size[0], 0, 0))
        os.set_blocking(self.master, False)
        asyncio.get_running_loop().add_reader(self.master, self._read)
        environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "SSH_CONNECTION")}
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
        command = [sys.executable, "-m", "ringrift_console.start", "--root", str(self.root)]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=REPOSITORY, env=environment
        )
        os.close(slave)

    async def open(self) -> None:
        """Goes to the page, and waits until it is drawn and nothing of the start is still to come."""
        self.start()
        await self.until(b"quit")
        for key in self.keys:
            self.tail = b""
            os.write(self.master, key.encode())
            await self.until(b"VIA" if key == "6" else b"head gave")
        await asyncio.sleep(SETTLE_S)

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        os.close(self.master)

    def busy_s(self) -> float:
        """Processor time of the console so far, of all its threads (proc(5), fields 14 and 15)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def watch(self, seconds: float) -> tuple[float, float]:
        """Bytes a second, and percent of a core."""
        count, busy, began = self.count, self.busy_s(), time.perf_counter()
        await asyncio.sleep(seconds)
        took = time.perf_counter() - began
        return (self.count - count) / took, 100 * (self.busy_s() - busy) / took


@asynccontextmanager
async def written(store: StateStore, swarm: Swarm, hz: float) -> AsyncIterator[list[float]]:
    """Writes progress until the block ends; yields when each was stored."""
    times: list[float] = []

    async def go_on() -> None:
        began = time.monotonic()
        while True:
            await ledger.record_progress(store, swarm.transfer.id, *swarm.at(time.monotonic() - began))
            times.append(time.monotonic())
            await asyncio.sleep(max(0.0, began + len(times) / hz - time.monotonic()))

    task = asyncio.create_task(go_on())
    try:
        yield times
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def one_page(paths: Paths, page: str, args: argparse.Namespace) -> dict[str, Any]:
    size, keys = PAGES[page]
    lasts_s = args.seconds + 4 * SETTLE_S
    async with await StateStore.open(paths) as store:
        transfer = await begin(store, host_names(args.hosts), int(lasts_s * MBIT * 125_000), f"models/{page}.pth")
        terminal = Terminal(paths.root, size, keys)
        try:
            async with written(store, Swarm(transfer, lasts_s), args.hz) as times:
                await terminal.open()
                before = len(times)
                output, busy = await terminal.watch(args.seconds)
                hz = (len(times) - before) / args.seconds
            await asyncio.sleep(1)
            still, idle = await terminal.watch(min(args.seconds, 6.0))
        finally:
            await terminal.close()
        await arrive(store, transfer)
    return {
        "page": page, "size": f"{size[0]}x{size[1]}", "written_hz": round(hz, 2), "kB_s": round(output / 1000, 2),
        "core_percent": round(busy, 1), "still_kB_s": round(still / 1000, 2), "still_core_percent": round(idle, 1),
    }  # fmt: skip


async def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    paths = Paths(folder)
    await make(paths, args.hosts)
    first = calibrate()
    pages = [await one_page(paths, page, args) for page in args.pages]
    calibrations = sorted([first, calibrate()], key=lambda one: one[1])
    return {
        "hosts": args.hosts, "seconds": args.seconds, "pages": pages,
        "calibration_cpu_s": [round(busy, 3) for _, busy in calibrations], "load_1m": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--hz", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--pages", nargs="+", choices=sorted(PAGES), default=list(PAGES))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), args))
    if args.json:
        print(json.dumps(found))
        return 0
    low, high = found["calibration_cpu_s"]
    print(f"{args.hosts} hosts, {args.seconds:g} s a page; calibration {low} to {high} s; load {found['load_1m']}")
    for one in found["pages"]:
        print(
            f"  {one['page']:<6} {one['size']:<7} {one['kB_s']:6.2f} kB/s {one['core_percent']:5.1f} % of a core"
            f"  (nothing written: {one['still_kB_s']:.2f} kB/s, {one['still_core_percent']:.1f} %; "
            f"written {one['written_hz']:g} times a second)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
