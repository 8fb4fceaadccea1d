"""Hosts on a bed to which transfers go, what is done to them on the way, and what must hold whatever was done.

The hosts share this machine's files, so :class:`Witness` sees everything that ever lay under a published name there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.distribution import plans, runner
from backend.distribution.drift import audit_hosts, holdings
from backend.distribution.rows import transfer_rows
from backend.distribution.runner import Runner
from backend.distribution.transports import registry
from backend.fleet.hosts import load_hosts
from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.ssh import Limits, SshPool
from backend.fleet.store import KNOWN_HOSTS
from backend.paths import Paths
from backend.snapshot import TransferRow
from backend.state.store import StateStore
from tests.distribution.conftest import some_bytes
from tests.lab.bed import Bed, missing
from tests.lab.disks import small_disk
from tests.lab.sshd import Sshd

PATIENCE_S = 180.0
LOOK_S = 0.005
TRANSPORTS = ("torrent", "aria2", "rsync", "stream")
QUICK = Limits(connect_s=5, login_s=20, keepalive_s=2, keepalive_count=2, backoff_s=0.02, backoff_max_s=0.5)


def begin_with(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves a transport and those that come after it in the order of preference, also for small files."""
    left = {name: registry.REFERENCES[name] for name in TRANSPORTS[TRANSPORTS.index(transport) :]}
    monkeypatch.setattr(registry, "SWARM_BYTES", 0)
    for module in (registry, runner):  # their order counts, so nothing is taken out and put back
        monkeypatch.setattr(module, "REFERENCES", left)


class Witness:
    """Looks at published names all the time, and remembers the hash of everything that was ever seen there."""

    def __init__(self) -> None:
        self.seen: dict[Path, set[str]] = {}
        self._known: set[tuple[Path, int, int, int]] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def watch(self, path: Path) -> None:
        self.seen.setdefault(path, set())

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            for path in list(self.seen):
                self.look(path)

    def look(self, path: Path) -> None:
        with suppress(FileNotFoundError), path.open("rb") as stream:
            about = os.fstat(stream.fileno())
            mark = (path, about.st_ino, about.st_mtime_ns, about.st_size)
            if mark not in self._known:
                self.seen[path].add(hashlib.sha256(stream.read()).hexdigest())
                self._known.add(mark)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Field:
    """A head with hosts ``lab-h1`` and so on; transfers are worked on in this process, or by a supervisor."""

    def __init__(self, bed: Bed, paths: Paths, store: StateStore, owner: str) -> None:
        self.bed, self.paths, self.store = bed, paths, store
        self.names = tuple(bed.servers)
        self.witness = Witness()
        self.pool = SshPool(paths, QUICK)
        self.runner = Runner(paths, store, lambda: self.pool, owner, 1)

    async def close(self) -> None:
        await self.runner.close()
        await self.pool.close()
        self.witness.close()

    # hosts

    def describe(self, **more: dict[str, Any]) -> None:
        """Writes the hosts file; ``h1={...}`` are further settings of the first host."""
        hosts = {}
        for name, server in self.bed.servers.items():
            own = more.get(name.removeprefix("lab-"), {})
            hosts[name] = server.settings() | {"python_path": sys.executable} | own
        self.paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}, sort_keys=False))

    def server(self, n: int) -> Sshd:
        return self.bed.servers[f"lab-h{n}"]

    def base(self, n: int) -> Path:
        """The folder under which a host keeps what is ours."""
        return self.server(n).folder / "agent"

    def inside(self, n: int, *argv: str) -> None:
        """Runs a command in a host's network."""
        subprocess.run(["ip", "netns", "exec", self.bed.namespace(n), *argv], check=True, capture_output=True)

    def cap(self, n: int, rate: str) -> None:
        """Another speed of a host's link, both ways."""
        shape = ["root", "tbf", "rate", rate, "burst", "32k", "latency", "50ms"]
        for where in (["-n", self.bed.namespace(n)], []):
            dev = "eth0" if where else self.bed.link(n)
            subprocess.run(["tc", *where, "qdisc", "replace", "dev", dev, *shape], check=True)

    def rule(self, n: int, rule: str) -> None:
        """A rule of nft(8) for the packets that reach a host."""
        if shutil.which("nft") is None:
            pytest.skip("needs nft")
        self.inside(n, "nft", "add table inet lab")
        self.inside(n, "nft", "add chain inet lab in { type filter hook input priority 0; }")
        self.inside(n, "nft", f"add rule inet lab in {rule}")

    def lose(self, n: int, percent: int) -> None:
        """Drops that share of the packets that reach a host."""
        self.rule(n, f"numgen random mod 100 < {percent} drop")

    def came_to(self, n: int) -> int:
        """Bytes that have come over a host's link."""
        return int(Path(f"/sys/class/net/{self.bed.link(n)}/statistics/tx_bytes").read_text())

    def left_head(self) -> int:
        """Bytes that the head has sent."""
        return int(Path(f"/sys/class/net/{self.bed.bridge}/statistics/tx_bytes").read_text())

    # transfers

    def file(self, size: int, seed: str = "", name: str = "model.bin") -> Path:
        path = self.paths.root / name
        path.write_bytes(some_bytes(size, seed))
        return path

    async def submit(self, what: Path | str, **options: Any) -> str:
        """Plans a transfer and writes it down, as the supervisor's handler does; returns its name."""
        plan = await plans.plan_distribute(self.paths, what=str(what), **options)
        operation = self.store.bound(await self.store.submit(plan))
        made = await plans.apply_distribute(self.paths, plan, operation)
        await self.store.end_operation(operation.own_operation(), "done", result=made)
        self.follow(str(plan.params["name"]))
        return str(made["transfer"])

    def follow(self, name: str) -> None:
        """Has the witness look at a published name on every host."""
        for n in range(1, len(self.names) + 1):
            self.witness.watch(self.base(n) / name)

    async def until(
        self, name: str, good: Callable[[TransferRow], object] = lambda row: row.ended_at, *, work: bool = True
    ) -> TransferRow:
        """Waits, and works on it unless a supervisor does, until a transfer is as it should be."""
        row = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    if work:
                        await self.runner.tick()
                    (row,) = await transfer_rows(self.store, only=name)
                    if good(row):
                        return row
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(str(row)) from None

    async def under_way(self, name: str, count: int, *hosts: int, work: bool = True) -> None:
        """Until so many bytes more have come to each of these hosts, which have not all of the file then."""
        before = [self.came_to(n) for n in hosts]

        def good(row: TransferRow) -> bool:
            assert not any(self.of(row, n).live for n in hosts), row
            return all(self.came_to(n) - was >= count for n, was in zip(hosts, before, strict=True))

        await self.until(name, good, work=work)

    def position(self, row: TransferRow, n: int) -> int:
        return [host.host for host in row.hosts].index(f"lab-h{n}")

    def of(self, row: TransferRow, n: int) -> Any:
        return row.hosts[self.position(row, n)]

    async def holds(self, row: TransferRow, without: Sequence[int] = ()) -> None:
        """What must hold in the end, whatever was done: nothing bad was ever published, and all hosts but those
        ``without`` have the file, have proved it, and have nothing of the transfer left."""
        for path, seen in self.witness.seen.items():
            assert seen <= {row.sha256}, f"{path} was {seen}"
        for n in range(1, len(self.names) + 1):
            host, place = self.of(row, n), self.base(n) / row.name
            if n in without:
                assert not host.live and not place.exists(), host
                continue
            assert host.live and host.receipt, host
            assert hashlib.sha256(place.read_bytes()).hexdigest() == row.sha256
            (own,) = (self.base(n) / ".distribution").iterdir()
            assert host.receipt["verify"]["sha256"] == row.sha256
            assert str(host.receipt["published_at"]) in (own / "receipts.jsonl").read_text().splitlines()[-1]
            end = time.monotonic() + PATIENCE_S  # it is emptied after the transfer has ended
            while left := list((own / "stage").iterdir()):
                assert time.monotonic() < end, left
                await self.runner.tick()
                await asyncio.sleep(0.05)
        hosts = [host for host in load_hosts(self.paths.hosts_yaml).hosts if host.name in self.names]
        well = [host for n, host in enumerate(hosts, 1) if n not in without]
        assert await audit_hosts(self.paths, self.store, well, deep=True) == {}
        assert not [one for one in await holdings(self.store) if one.drifted]
        await self.quiet()

    async def quiet(self) -> None:
        """Until nothing of ours runs on any host, nor listens there."""
        end = time.monotonic() + PATIENCE_S
        for n in range(1, len(self.names) + 1):
            while left := [pid for pid in self.running(n) if pid not in self.ssh(n)]:
                assert time.monotonic() < end, f"still there on host {n}: {left}"
                await asyncio.sleep(0.05)

    def running(self, n: int) -> list[int]:
        argv = ["ip", "netns", "pids", self.bed.namespace(n)]
        return [int(pid) for pid in subprocess.run(argv, capture_output=True, text=True).stdout.split()]

    def writers(self, n: int) -> list[int]:
        """Whatever has a staged file of a host open for writing."""
        found = []
        for pid in self.running(n):
            for one in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    flags = Path(f"/proc/{pid}/fdinfo/{one.name}").read_text().split("flags:")[1].split()[0]
                    if "/stage/" in str(one.readlink()) and one.readlink().name == "data" and int(flags, 8) & 3:
                        found.append(pid)
        return sorted(set(found))

    def ssh(self, n: int) -> list[int]:
        """The server of a host and its connections."""
        found = []
        for pid in self.running(n):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    found.append(pid)
        return found


@asynccontextmanager
async def field(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, hosts: int, *, cap: str = "20mbit",
    disks: dict[int, str] | None = None,
) -> AsyncIterator[Field]:  # fmt: skip
    """Raises hosts with links of their own; skips where that cannot be done.

    Args:
        disks: hosts whose base is a file system of its own, with its size.
    """
    if reason := missing():
        pytest.skip(f"no bed of hosts: {reason}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    paths.console.mkdir(parents=True)
    bed = Bed(tmp_path / "lab", 100 + os.getpid() % 150)
    with ExitStack() as stack:
        for n, size in (disks or {}).items():
            folder = bed.folder / f"h{n}"
            folder.mkdir(parents=True)
            stack.enter_context(small_disk(folder / "agent", size))  # before the host is up, which then sees it too
        bed.up(hosts, cap)
        stack.callback(bed.down)
        for name, server in bed.servers.items():
            key = server.host_key.with_suffix(".pub").read_text()
            enrol_key(paths.console / KNOWN_HOSTS, name, HostKey.parse(key))
        async with await StateStore.open(paths) as store:
            made = Field(bed, paths, store, await store.owner())
            made.describe()
            try:
                yield made
            finally:
                await made.close()
