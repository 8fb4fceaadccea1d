"""What transports have in common that serve every host by a task of its own: who is served, and how far each is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from backend.distribution.transports.base import Budget, Group, HeadUse, Observation, Source, Target
from backend.distribution.transports.meter import Meter

AT_ONCE = 4
"""Hosts that are served at the same time; more of them only share the same uplink."""


class EachHost:
    """A :class:`~backend.distribution.transports.base.Delivery`; a subclass gives :meth:`serve`."""

    NAME = ""

    def __init__(self, group: Group) -> None:
        self.payload, self.budget = group.payload, group.budget
        self.seen: dict[str, Observation] = {}
        self.meters: dict[str, Meter] = {}
        self.room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._before = 0  # bytes that earlier tries took from this machine

    async def serve(self, target: Target) -> None:
        """Brings the file to one host; says how it went by :attr:`seen`."""
        raise NotImplementedError

    def observe(self) -> Mapping[str, Observation]:
        now = time.monotonic()
        return {
            name: replace(seen, rate=0.0 if seen.ended else self.meters[name].rate(now))
            for name, seen in self.seen.items()
        }

    def head(self) -> HeadUse:
        sent = self._before + sum(meter.total for meter in self.meters.values())
        return HeadUse(sent, sum(seen.rate for seen in self.observe().values()))

    async def join(self, targets: Sequence[Target]) -> None:
        await self.cancel([target.name for target in targets])
        for target in targets:
            name = target.name
            if name in self.meters:
                self._before += self.meters[name].total
            self.seen[name] = Observation(name, waits=True)
            self.meters[name] = Meter()
            self._tasks[name] = asyncio.create_task(self.serve(target), name=f"{self.NAME} {name}")

    async def offer(self, sources: Sequence[Source]) -> None:
        return None

    async def limit(self, budget: Budget) -> None:
        self.budget = budget

    async def cancel(self, hosts: Collection[str]) -> None:
        tasks = [self._tasks.pop(name) for name in hosts if name in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        await self.cancel(list(self._tasks))

    def share(self) -> float | None:
        """What one of those that are served at a time may take of this machine's uplink, in bytes a second."""
        if not self.budget.head_up:
            return None
        active = sum(not seen.ended for seen in self.seen.values())
        return self.budget.head_up / max(1, min(active, AT_ONCE))

    def most(self, name: str) -> float | None:
        """Bytes a second that a host may be sent, so that neither its budget nor this machine's is passed."""
        limits = [limit for limit in (self.budget.down(name), self.share()) if limit]
        return min(limits) if limits else None
