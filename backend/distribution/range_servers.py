"""The range servers of one delivery, seen from here: one on this machine, one on every host that gives the file."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from backend.distribution import ranges
from backend.distribution.aria2_reasons import HEAD, ended
from backend.distribution.conversation import Conversation, talk, talk_here
from backend.distribution.reasons import Failure, Reason
from backend.distribution.shipping import program
from backend.fleet.hosts import Host
from backend.fleet.ssh import SshPool

MODULES = tuple(f"backend.distribution.{name}" for name in ("http_ranges", "standing", "ranges"))
LINGER_S = 60.0
"""Seconds that the server on this machine outlives whoever started it, so that loads under way may end well."""
LISTEN_S = 30.0
LOOPBACK = "127.0.0.1"


class RangeServer:
    """One server.

    Attributes:
        name: of the host, or ``head``.
        ports: by address.
        sent: bytes of the file by host.
        failure: why it does not serve any more.
    """

    def __init__(self, name: str, talking: Conversation, sha256: str) -> None:
        self.name, self.sha256 = name, sha256
        self.ports: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.rates: dict[str, float] = {}
        self.failure: Failure | None = None
        self.tokens: dict[str, str] = {}
        self._talking = talking
        self._refused: dict[str, Failure] = {}
        self._admitted: set[str] = set()
        self._news = asyncio.Condition()
        self._told = time.monotonic()
        self._hearing = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        async for said in self._talking.heard():
            async with self._news:
                self._take(said)
                self._news.notify_all()
        async with self._news:
            self.failure = self.failure or Failure(Reason.LINK_LOST, f"the source {self.name} is gone")
            self._news.notify_all()

    def _take(self, said: Mapping[str, Any]) -> None:
        if "listening" in said:
            self.ports |= said["listening"]
        if "sent" in said:
            now = time.monotonic()
            span, self._told = max(0.2, now - self._told), now
            self.rates = {name: (count - self.sent.get(name, 0)) / span for name, count in said["sent"].items()}
            self.sent = dict(said["sent"])
        if "admitted" in said:
            self._admitted.add(str(said["admitted"]))
        if "changed" in said:
            self.failure = ended({"kind": "changed", "message": f"{self.name}: {said['changed']}"})
        if "error" in said:
            failure = ended({"kind": said["error"], "message": f"{self.name}: {said['message']}"})
            if "address" in said:
                self._refused[said["address"]] = failure
            else:
                self.failure = failure
        if "end" in said:
            self.failure = self.failure or Failure(Reason.CANCELLED, f"{self.name}: {said['end']}")

    def rate(self, name: str) -> float:
        """Bytes a second to a host now; the server tells nothing while nothing goes out."""
        return self.rates.get(name, 0.0) if time.monotonic() - self._told < 3.0 else 0.0

    async def ready(self) -> bool:
        """Waits for the first word; whether it serves."""
        async with self._news:
            await self._news.wait_for(lambda: self.ports or self.failure is not None)
        return self.failure is None

    async def over(self) -> None:
        """Waits until it serves no more."""
        async with self._news:
            await self._news.wait_for(lambda: self.failure is not None)

    async def admit(self, name: str) -> str:
        """A path for one host, by a token of its own; the server knows it when this returns."""
        if name not in self.tokens:
            self.tokens[name] = secrets.token_urlsafe(32)
            await self._talking.tell({"op": "admit", "token": self.tokens[name], "label": name})
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_S), self._news:
                await self._news.wait_for(lambda: name in self._admitted or self.failure is not None)
        return f"/{self.tokens[name]}/{self.sha256}"

    async def revoke(self, name: str) -> None:
        """Its path leads nowhere any more, and what it is loading is broken off."""
        self._admitted.discard(name)
        if self.tokens.pop(name, None) is not None:
            await self._talking.tell({"op": "revoke", "label": name})

    async def listen(self, address: str) -> int | None:
        """The port at an address of its machine; None when it cannot listen there."""
        if address not in self.ports and address not in self._refused:
            await self._talking.tell({"op": "listen", "address": address})
            try:
                async with asyncio.timeout(LISTEN_S), self._news:
                    await self._news.wait_for(
                        lambda: address in self.ports or address in self._refused or self.failure is not None
                    )
            except TimeoutError:
                return None
        return self.ports.get(address)

    async def limit(self, rate: float | None) -> None:
        await self._talking.tell({"op": "rate", "rate": rate or 0.0})

    async def close(self) -> None:
        """Ends it, there too if it can be reached; else it ends with its lease."""
        await self._talking.tell({"op": "stop"})
        try:
            async with asyncio.timeout(LISTEN_S):
                await asyncio.shield(self._hearing)
        except TimeoutError:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)
        await self._talking.close()


async def serve_here(path: str, size: int, sha256: str, rate: float | None, port: int) -> RangeServer:
    """A server on this machine, at first on loopback only."""
    request = {"path": path, "size": size, "sha256": sha256, "rate": rate or 0.0, "port": port}
    request |= {"listen": [LOOPBACK], "lease_s": LINGER_S, "connections": 512, "per_address": 32}
    return RangeServer(HEAD, await talk_here(program(*MODULES), request, ranges.MAGIC), sha256)


async def serve_there(
    pool: SshPool, host: Host, path: str, size: int, sha256: str, *, claim: str, epoch: int, lease: str, lease_s: float,
    rate: float | None,
) -> RangeServer:  # fmt: skip
    """A server on a host that has the file, at the address by which SSH reaches it."""
    request = {"path": path, "size": size, "sha256": sha256, "rate": rate or 0.0}
    request |= {"claim": claim, "epoch": epoch, "lease": lease, "lease_s": lease_s}
    return RangeServer(host.name, await talk(pool, host, program(*MODULES), request, ranges.MAGIC), sha256)


def addresses(server: RangeServer, host: Host | None, target: Host) -> list[str]:
    """Where a target may find a host's server: what the hosts file says, then where it listens.

    A loopback address means another machine on every machine, so it is only tried where the target has one as well.
    """
    found: list[tuple[str, int]] = []
    for address, port in server.ports.items():
        if host is not None:
            found.append((host.peer_address, port))
        found.append((address, port))
    inside = _loopback(target.peer_address) and "proxy_jump" not in target.settings
    chosen = [(address, port) for address, port in found if inside or not _loopback(address)]
    return list(dict.fromkeys(f"http://{f'[{name}]' if ':' in name else name}:{port}" for name, port in chosen))


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "localhost")
