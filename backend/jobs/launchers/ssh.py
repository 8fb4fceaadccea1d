"""Attempts on a host over SSH: one long-lived ``agent serve`` on the host's one connection.

The agent is uploaded under the hash of its text, so another version never replaces one that jobs were started with.
A host needs ``python3`` and an SSH server, nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.pools import pool_of
from backend.fleet.transfers import no_program, put, python_of
from backend.jobs import agent
from backend.jobs.launchers.base import AgentChannel, UnreachableError
from backend.jobs.launchers.serving import ServingLauncher

if TYPE_CHECKING:
    from backend.fleet.ssh import SshPool

AGENT_ROOT = "~/.local/state/ringrift"
UPLOAD_S = 60.0


def agent_root(host: Host) -> str:
    """Where the agent keeps jobs on a host: ``storage_paths: {agent: ...}`` of hosts.yaml, else under the home.

    That of a pool lies where its nodes see it.
    """
    if host.is_pool:
        return pool_of(host.name, host.settings).agent
    return str((host.settings.get("storage_paths") or {}).get("agent") or AGENT_ROOT)


class SshLauncher(ServingLauncher):
    """See :class:`backend.jobs.launchers.base.Launcher`.

    Args:
        pool: the connections; shared, and left open by :meth:`close`.
    """

    def __init__(self, pool: SshPool, host: Host, owner: str, epoch: int) -> None:
        super().__init__(host.name, owner, epoch)
        self.host = host
        self._pool = pool

    async def _open(self) -> AgentChannel:
        text = Path(agent.__file__)
        digest = hashlib.sha256(await asyncio.to_thread(text.read_bytes)).hexdigest()
        root = agent_root(self.host)
        try:
            place = await self._upload(text, f"{root}/agent/{digest}/agent.py", digest)
            words = [python_of(self.host), "-I", "-S", place, "--root", place.rsplit("/agent/", 1)[0], "serve"]
            stream = await self._pool.open_stream(self.host, words)
        except UnreachableError:
            raise
        except RingRiftError as error:
            raise UnreachableError(error.what, where=error.where or self.name, hint=error.hint) from error
        channel = AgentChannel(stream, stream, self.name)
        try:
            await channel.greet()
        except UnreachableError as error:
            reason = await no_program(stream, self.host)
            channel.close()
            raise UnreachableError(reason.what, where=self.name, hint=reason.hint) from error
        except BaseException:
            channel.close()
            raise
        return channel

    async def _upload(self, text: Path, place: str, digest: str) -> str:
        """Brings the agent to its place unless it lies there; returns the place as an absolute path."""
        script = f"printf '\\nAGENT %s\\n' {_home(place)}; test -s {_home(place)} && echo PRESENT"
        done = await self._pool.exec(self.host, ["/bin/sh", "-c", script], timeout_s=UPLOAD_S)
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        found = next((line[6:] for line in reversed(lines) if line.startswith("AGENT ")), None)
        if found is None:
            raise UnreachableError("the host runs no commands of ours", where=self.name, hint=f"exit code {done.code}")
        if lines[-1] != "PRESENT":
            async with self._pool.channel(self.host):
                found = await put(self._pool, self.host, text, place, sha256=digest, timeout_s=UPLOAD_S)
        return found


def _home(path: str) -> str:
    """``path`` as a word for sh, where a leading ``~`` stands for the home."""
    return '"$HOME"' + shlex.quote(path[1:]) if path == "~" or path.startswith("~/") else shlex.quote(path)
