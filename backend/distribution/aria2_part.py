"""One host's part of an aria2 delivery: its program there, what it says, and how it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.distribution import aria2_host
from backend.distribution.aria2_reasons import ended, nobody
from backend.distribution.conversation import Conversation, talk
from backend.distribution.reasons import Failure, Reason
from backend.distribution.receiving import failure_of
from backend.distribution.shipping import program
from backend.distribution.transports.base import LEASE_S, Group, Observation, Target
from backend.errors import RingRiftError
from backend.fleet.ssh import SshPool

MODULES = tuple(
    f"backend.distribution.{name}" for name in ("standing", "metalink", "http_source", "aria2_engine", "aria2_host")
)
STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: of a source that sends nothing, and without a byte from any source."""

    source_s: float = 20.0
    stall_s: float = 60.0


class Part:
    """See the module.

    Args:
        unreached: is called with a source's name when the host cannot reach it; whether another address was tried.

    Attributes:
        seen: the newest observation.
        speeds: bytes a second by source.
    """

    def __init__(
        self,
        pool: SshPool,
        group: Group,
        target: Target,
        patience: Patience,
        *,
        ready: Callable[[Part], None],
        unreached: Callable[[Part, str], bool],
    ) -> None:
        self.pool, self.group, self.target, self.patience = pool, group, target, patience
        self.seen = Observation(target.name)
        self.speeds: dict[str, float] = {}
        self.sources: dict[str, str] = {}  # name -> what it said
        self.bad: list[str] = []
        self.talking: Conversation | None = None
        self._ready, self._unreached = ready, unreached
        self._stopping = False
        self._cause: Failure | None = None
        self.work = asyncio.create_task(self._run())

    def _request(self, op: str) -> dict[str, Any]:
        payload, target = self.group.payload, self.target
        tools = target.facts.get("tools")
        return {
            "op": op,
            "folder": target.folder,
            "size": payload.size,
            "sha256": payload.sha256,
            "piece_size": payload.piece_size,
            "pieces": b"".join(payload.pieces).hex(),
            "aria2c": (tools.get("aria2c") or "") if isinstance(tools, Mapping) else "",
            "lease": target.lease,
            "lease_s": LEASE_S,
            "epoch": self.group.epoch,
            "limit": self.group.budget.down(target.name) or 0.0,
            "timeout_s": self.patience.source_s,
            "stall_s": self.patience.stall_s,
        }

    async def _talk(self, op: str) -> Conversation:
        text = program(*MODULES)
        return await talk(self.pool, self.target.host, text, self._request(op), aria2_host.MAGIC)

    async def _run(self) -> None:
        try:
            self.talking = await self._talk("fetch")
            try:
                async for said in self.talking.heard():
                    await self._take(said)
                    if self.seen.ended:
                        break
            finally:
                await self.talking.close()
            if not self.seen.ended:
                self._fail(Failure(Reason.LINK_LOST, "the connection broke"))
        except RingRiftError as error:
            self._fail(failure_of(error))

    async def _take(self, said: Mapping[str, Any]) -> None:
        if "ready" in said and not said["whole"]:
            self._ready(self)
        if "source" in said:
            await self._source(str(said["source"]), str(said["said"]))
        if "piece" in said:
            self.bad.append(str(said["blamed"]))
            self._note()
        if "have" in said:
            self.speeds = {str(name): float(speed) for name, speed in said["by"].items()}
            have, rate = int(said["have"]), float(said["rate"])
            self.seen = replace(self.seen, have=have, rate=rate, pieces=str(said["pieces"]), waits=bool(said["checks"]))
        if "complete" in said:
            self.speeds = {}
            self.seen = replace(self.seen, have=self.group.payload.size, rate=0.0, complete=True)
        if "failed" in said:
            self._fail(ended(said["failed"], said.get("sources"), said.get("blamed") or self.bad))
        if "stopped" in said:
            self._fail(Failure(Reason.CANCELLED, "ended there"))

    async def _source(self, name: str, said: str) -> None:
        self.sources[name] = said
        if said == "unreachable" and self._unreached(self, name):
            self.sources[name] = "asked"  # at another address
            return
        self._note()
        await self.look()

    async def look(self) -> None:
        """Gives up when every source that there is has said no."""
        if self.sources and not {"ok", "asked"} & set(self.sources.values()) and not self.seen.ended:
            self._fail(self._cause or nobody(self.sources, self.bad))
            if self.talking is not None:
                await self.talking.tell({"op": "stop"})

    def _note(self) -> None:
        troubles = [f"{name} sent bad bytes and is left out" for name in self.bad]
        troubles += [f"{name}: {said}" for name, said in self.sources.items() if said not in ("ok", "asked")]
        self.seen = replace(self.seen, fault="; ".join(troubles))

    def _fail(self, failure: Failure) -> None:
        if not self.seen.ended:
            if self._stopping:
                failure = Failure(Reason.CANCELLED, "")
            self.speeds = {}
            self.seen = replace(self.seen, rate=0.0, failure=failure)

    async def give(self, sources: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Names sources with the addresses where they may be found."""
        for name, _ in sources:
            self.sources[name] = "asked"
        if self.talking is not None:
            named = [{"name": name, "urls": list(urls)} for name, urls in sources]
            await self.talking.tell({"op": "sources", "sources": named})

    async def lose(self, name: str, said: str, cause: Failure | None = None) -> None:
        """A source is gone for good; ``cause`` is why, when no other is left."""
        self.sources[name], self._cause = said, cause or self._cause
        if self.talking is not None:
            await self.talking.tell({"op": "drop", "name": name})
        self._note()
        await self.look()

    async def limit(self, rate: float | None) -> None:
        if self.talking is not None:
            await self.talking.tell({"op": "limit", "limit": rate or 0.0})

    async def stop(self) -> None:
        """Ends it; when this returns nothing writes there, or the host cannot be reached."""
        self._stopping = True
        if self.talking is not None and not self.work.done():
            await self.talking.tell({"op": "stop"})
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.shield(self.work)
        except TimeoutError:
            self.work.cancel()
            await asyncio.gather(self.work, return_exceptions=True)
        lost = self.seen.failure is not None and not self.seen.complete
        self._fail(Failure(Reason.CANCELLED, ""))
        if lost:
            await self._make_sure()

    async def _make_sure(self) -> None:
        """Another program there takes the place of the one that may still be at work, and ends."""
        try:
            async with asyncio.timeout(2 * STOP_S):
                talking = await self._talk("end")
                try:
                    async for _ in talking.heard():
                        pass
                finally:
                    await talking.close()
        except (RingRiftError, TimeoutError):
            return  # not to be reached: it ends with its lease
