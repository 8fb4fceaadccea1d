"""What all launchers have in common that talk to one ``agent serve``, whatever carries its input and output."""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

from backend.jobs.launchers.base import (
    AgentChannel,
    AttemptSpec,
    LogChunk,
    RefusedStartError,
    UnreachableError,
    log_chunk,
    observation,
)
from backend.jobs.model import Observation


class ServingLauncher(ABC):
    """See :class:`backend.jobs.launchers.base.Launcher`.

    Args:
        owner: the root's name towards agents.
        epoch: of this supervisor; the agent refuses lower ones.
    """

    def __init__(self, name: str, owner: str, epoch: int) -> None:
        self.name = name
        self._owner, self._epoch = owner, epoch
        self._channel: AgentChannel | None = None
        self._opening = asyncio.Lock()
        self._place = ""
        self._mute: dict[str, str] = {}

    @abstractmethod
    async def _open(self) -> AgentChannel:
        """Brings an agent up and hears its greeting."""

    async def start(self, spec: AttemptSpec) -> Observation:
        return observation(await self.ask("start", spec=spec.to_json(), digest=spec.digest, epoch=self._epoch))

    async def observe(self, keys: Collection[str]) -> dict[str, Observation]:
        return {key: observation(report) for key, report in (await self.status(sorted(keys))).items()}

    async def status(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The agent's reports; without those of folders that it cannot read."""
        told = await self.ask("status", keys=list(keys))
        self._mute = {key: why for key, why in self._mute.items() if key not in told["reports"]} | told["refused"]
        return dict(told["reports"])

    def why_mute(self, key: str) -> str:
        return self._mute.get(key, "")

    async def cancel(self, key: str, *, by: str, reason: str, grace_s: float = 10.0) -> Observation:
        wish = {"by": by, "reason": reason, "grace_s": grace_s}
        return observation(await self.ask("cancel", key=key, owner=self._owner, epoch=self._epoch, **wish))

    async def read_log(self, key: str, offset: int, limit: int, *, name: str = "log") -> LogChunk:
        return log_chunk(await self.ask("read", key=key, offset=offset, limit=limit, name=name))

    async def owned(self) -> tuple[str, ...]:
        return tuple((await self.ask("list", owner=self._owner))["attempts"])

    async def acknowledge(self, keys: Collection[str]) -> None:
        await self.ask("ack", keys=sorted(keys), owner=self._owner, epoch=self._epoch)

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    async def ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """One request to the agent, which is brought up if need be; see :meth:`AgentChannel.ask`."""
        fields |= {"place": self._place} if self._place else {}
        async with self._opening:
            if self._channel is None or self._channel.broken:
                await self.close()
                self._channel = await self._open()
            channel = self._channel
        try:
            return await channel.ask(operation, **fields)
        except RefusedStartError as error:
            if self._place and error.kind == "place":
                hint = "mount it there; if it was emptied on purpose, start the supervisor anew"
                raise UnreachableError(error.what, where=self.name, hint=hint) from error
            raise

    async def stay(self) -> None:
        """From now on only the root that lies there now is talked to: an empty folder in its place tells nothing."""
        if not self._place:
            self._place = str((await self.ask("mark", place_if_none=secrets.token_hex(8)))["place"])
