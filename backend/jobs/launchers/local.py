"""Attempts on this machine: one long-lived ``agent serve`` as a child, with the root's own folder as agent root."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection
from typing import Any

from backend.jobs import agent
from backend.jobs.launchers.base import (
    LINE_BYTES,
    AgentChannel,
    AttemptSpec,
    LogChunk,
    UnreachableError,
    log_chunk,
    observation,
)
from backend.jobs.model import Observation
from backend.paths import Paths


class LocalLauncher:
    """See :class:`backend.jobs.launchers.base.Launcher`.

    Args:
        owner: the root's name towards agents.
        epoch: of this supervisor; the agent refuses lower ones.
    """

    def __init__(self, paths: Paths, owner: str, epoch: int, *, name: str = "local") -> None:
        self.name = name
        self.paths = paths
        self._owner, self._epoch = owner, epoch
        self._process: asyncio.subprocess.Process | None = None
        self._channel: AgentChannel | None = None
        self._opening = asyncio.Lock()

    async def start(self, spec: AttemptSpec) -> Observation:
        return observation(await self._ask("start", spec=spec.to_json(), digest=spec.digest, epoch=self._epoch))

    async def observe(self, keys: Collection[str]) -> dict[str, Observation]:
        reports = (await self._ask("status", keys=sorted(keys)))["reports"]
        return {key: observation(report) for key, report in reports.items()}

    async def cancel(self, key: str, *, by: str, reason: str, grace_s: float = 10.0) -> Observation:
        wish = {"by": by, "reason": reason, "grace_s": grace_s}
        return observation(await self._ask("cancel", key=key, owner=self._owner, epoch=self._epoch, **wish))

    async def read_log(self, key: str, offset: int, limit: int, *, name: str = "log") -> LogChunk:
        return log_chunk(await self._ask("read", key=key, offset=offset, limit=limit, name=name))

    async def owned(self) -> tuple[str, ...]:
        return tuple((await self._ask("list", owner=self._owner))["attempts"])

    async def acknowledge(self, keys: Collection[str]) -> None:
        await self._ask("ack", keys=sorted(keys), owner=self._owner, epoch=self._epoch)

    async def close(self) -> None:
        channel, process, self._channel, self._process = self._channel, self._process, None, None
        if channel is not None:
            channel.close()
        if process is not None:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        async with self._opening:
            if self._channel is None or self._channel.broken:
                await self.close()
                self._channel = await self._open()
            channel = self._channel
        return await channel.ask(operation, **fields)

    async def _open(self) -> AgentChannel:
        argv = [sys.executable, "-I", "-S", agent.__file__, "--root", str(self.paths.console), "serve"]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES,
                start_new_session=True,
            )
        except OSError as error:
            raise UnreachableError("the agent cannot be started", where=self.name, hint=str(error)) from error
        assert self._process.stdin is not None and self._process.stdout is not None
        channel = AgentChannel(self._process.stdout, self._process.stdin, self.name)
        await channel.greet()
        return channel
