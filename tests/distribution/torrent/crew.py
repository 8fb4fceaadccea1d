"""Hosts of a swarm on loopback: each a process of its own, at an address of its own, as Linux accepts all of 127/8."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from backend.distribution.torrent.channel import Child, Opener
from backend.distribution.torrent.swarm import Swarm
from backend.distribution.transports.base import DATA, Budget, Group, Payload, Target
from backend.fleet.hosts import Host

PATIENCE_S = 120.0


async def until(good: Callable[[], object], swarm: Swarm | None = None) -> None:
    """Waits for a condition, as long as anybody would."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not good():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"it never came about: {swarm.observe() if swarm else ''}") from None


def payload_of(path: Path) -> Payload:
    data = path.read_bytes()
    return Payload(path, len(data), hashlib.sha256(data).hexdigest(), "other", 1 << 16, ())


class Rogue(Child):
    """A peer whose program was tampered with: it says that it has everything, and gives what lies there."""

    told = False

    def write(self, data: bytes) -> None:
        if not self.told:
            self.told = True
            size = int(data[:8])
            honest = b"params.storage_mode = lt.storage_mode_t.storage_mode_allocate"
            assert honest in data
            program = data[8 : 8 + size].replace(honest, b"params.have_pieces = [True] * params.ti.num_pieces()")
            data = b"%8d" % len(program) + program + data[8 + size :]
        super().write(data)


class Crew:
    """Hosts ``h1`` to ``hN`` and a file.

    Args:
        within: words before the command of a host's peer, by its number; e.g. to put it into a namespace.
    """

    def __init__(
        self, folder: Path, count: int, size: int = 8_000_000, *, address: str = "127.77.0.{n}",
        within: Callable[[int], Sequence[str]] = lambda n: (), python: str = sys.executable,
    ) -> None:  # fmt: skip
        self.folder, self.within, self.address = folder, within, address
        self.source = folder / "model.pth"
        self.source.write_bytes(os.urandom(size))
        self.payload = payload_of(self.source)
        self.children: dict[str, Child] = {}
        self.rogues: set[str] = set()
        self.targets = [self.target(n, python) for n in range(1, count + 1)]

    def target(self, n: int, python: str = sys.executable) -> Target:
        folder = self.folder / f"h{n}"
        folder.mkdir(mode=0o700)
        (folder / "lease").touch()
        host = Host(f"h{n}", {"peer_address": self.address.format(n=n), "python_path": python})
        return Target(host, n, str(folder), str(folder / "lease"))

    def opener(self, host: Host) -> Opener:
        async def opened(argv: Sequence[str]) -> Child:
            kind = Rogue if host.name in self.rogues else Child
            child = await kind.open([*self.within(int(host.name[1:])), *argv])
            self.children[host.name] = child
            return child

        return opened

    def swarm(self, *, tls: bool = False, budget: Budget | None = None, targets: Sequence[Target] = ()) -> Swarm:
        group = Group("t1", self.payload, tuple(targets or self.targets), budget=budget or Budget())
        return Swarm(group, self.opener, tls=tls)

    def data(self, name: str) -> Path:
        return self.folder / name / DATA

    def has_all(self, name: str) -> bool:
        return hashlib.sha256(self.data(name).read_bytes()).hexdigest() == self.payload.sha256


def all_complete(swarm: Swarm, *names: str) -> Callable[[], bool]:
    """Whether those hosts (or all) are complete; fails at once where one has failed."""

    def good() -> bool:
        seen = swarm.observe()
        for name in names or seen:
            assert seen[name].failure is None, seen[name]
        return all(seen[name].complete for name in names or seen)

    return good
