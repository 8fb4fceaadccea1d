"""Attempts on this machine: one long-lived ``agent serve`` as a child, with the root's own folder as agent root."""

from __future__ import annotations

import asyncio
import sys

from backend.jobs import agent
from backend.jobs.launchers.base import LINE_BYTES, AgentChannel, UnreachableError
from backend.jobs.launchers.serving import ServingLauncher
from backend.paths import Paths


class LocalLauncher(ServingLauncher):
    """See :class:`backend.jobs.launchers.base.Launcher`.

    Args:
        root: another agent root than the root's own.
    """

    def __init__(self, paths: Paths, owner: str, epoch: int, *, name: str = "local", root: str | None = None) -> None:
        super().__init__(name, owner, epoch)
        self.paths = paths
        self.root = root or str(paths.console)
        self._process: asyncio.subprocess.Process | None = None

    async def close(self) -> None:
        await super().close()
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _open(self) -> AgentChannel:
        argv = [sys.executable, "-I", "-S", agent.__file__, "--root", self.root, "serve"]
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
