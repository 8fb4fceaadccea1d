"""The head's end of a peer: brings its program up, on a host or as a child here, sends orders and hears its lines."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from backend.distribution.reasons import Failure, Reason
from backend.distribution.torrent import peer
from backend.errors import RingRiftError
from backend.fleet.errors import HostUnreachable, LinkLost, SshError

LOADER = (
    "import os, sys\n"
    "def take(n):\n"
    "    found = b''\n"
    "    while len(found) < n:\n"
    "        block = os.read(0, n - len(found))\n"
    "        if not block: sys.exit(2)\n"
    "        found += block\n"
    "    return found\n"
    "exec(compile(take(int(take(8))), 'peer.py', 'exec'), {'__name__': '__main__'})\n"
)
"""Takes the program from standard input, its length in eight digits first, and leaves there what follows it."""
STOP_S = 8.0
NO_COMMAND = (126, 127)
REASONS = {
    "no_libtorrent": Reason.NOT_THERE,
    "port_in_use": Reason.PORT_IN_USE,
    "unsafe_path": Reason.UNSAFE,
    "busy": Reason.ENGINE,
    "bad_torrent": Reason.ENGINE,
    "source_changed": Reason.SOURCE_CHANGED,
    "lease": Reason.LINK_LOST,
}
HINTS = {
    Reason.NOT_THERE: "install libtorrent 2.1 for the host's Python, or let it have another transport",
    Reason.UNSAFE: "look at who put it there, then remove it",
}


class Stream(Protocol):
    """A running command; see :class:`backend.fleet.ssh.SshStream`."""

    async def readline(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...
    async def end(self) -> tuple[int | None, str | None, bytes]: ...


Opener = Callable[[Sequence[str]], Awaitable[Stream]]
"""Starts a command somewhere."""


CRASHES = frozenset({"SEGV", "BUS", "ABRT", "11", "7", "6"})
"""Signals by which a process ends itself, by name or number. libtorrent 2.1.1 does, rarely, when a disk is full."""


class Child:
    """A command on this machine, as a stream; in a session of its own, it outlives us until its lease is over."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._stderr = asyncio.create_task(self._drain())

    @classmethod
    async def open(cls, argv: Sequence[str]) -> Child:
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                *argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, limit=1 << 20
            )
        )

    async def _drain(self) -> bytes:
        assert self.process.stderr is not None
        return (await self.process.stderr.read())[-4096:]

    async def readline(self) -> bytes:
        assert self.process.stdout is not None
        return await self.process.stdout.readline()

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    async def drain(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.drain()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def end(self) -> tuple[int | None, str | None, bytes]:
        code = await self.process.wait()
        errors = await self._stderr
        return (code, None, errors) if code >= 0 else (None, str(-code), errors)


def here() -> list[str]:
    """The interpreter of this process, which has libtorrent."""
    return [sys.executable]


class Channel:
    """One peer and the conversation with it.

    Args:
        name: of the host, or ``head``.
        python: words that start its interpreter.
        hear: is told every line, then once ``{"ev": "ended", "failure": Failure}``.

    Attributes:
        crashed: whether the engine has died of a mistake of its own.
    """

    def __init__(
        self, name: str, opener: Opener, python: Sequence[str], order: dict[str, Any],
        hear: Callable[[Channel, dict[str, Any]], None],
    ) -> None:  # fmt: skip
        self.name = name
        self._opener, self._python, self._order, self._hear = opener, tuple(python), order, hear
        self._stream: Stream | None = None
        self._failure: Failure | None = None
        self.crashed = False
        self._task = asyncio.create_task(self._run())

    @property
    def pid(self) -> int | None:
        """Of a child; None for a host's."""
        return self._stream.process.pid if isinstance(self._stream, Child) else None

    def send(self, do: str, **more: Any) -> None:
        """Tells the peer something; what a dead one is told is lost."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.write(json.dumps({"do": do, **more}).encode() + b"\n")

    async def stop(self) -> bool:
        """Ends the peer; whether it is known to have ended."""
        self.send("stop")
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await asyncio.shield(self._task)
        known = self._task.done() and (self._failure is None or self._failure.reason is not Reason.LINK_LOST)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        return known

    async def _run(self) -> None:
        try:
            self._failure = await self._talk()
        except HostUnreachable as error:
            self._failure = Failure(Reason.LINK_LOST, error.line())
        except (OSError, LinkLost) as error:
            self._failure = Failure(Reason.LINK_LOST, str(error) or "the connection broke")
        except SshError as error:
            self._failure = Failure(Reason.REFUSED if error.permanent else Reason.LINK_LOST, error.line())
        except RingRiftError as error:
            self._failure = Failure(Reason.ENGINE, error.line())
        finally:
            if self._stream is not None:
                self._stream.close()
        self._hear(self, {"ev": "ended", "failure": self._failure})

    async def _talk(self) -> Failure:
        program = await asyncio.to_thread(Path(peer.__file__).read_bytes)
        stream = self._stream = await self._opener([*self._python, "-I", "-c", LOADER])
        with suppress(BrokenPipeError):  # it has ended already; how is told below
            stream.write(b"%8d" % len(program) + program + json.dumps(self._order).encode() + b"\n")
            await stream.drain()
        told: Failure | None = None
        while line := await stream.readline():
            mark, _, text = line.partition(b" ")
            if mark != peer.MAGIC.encode() or not text.endswith(b"\n"):
                continue  # a login shell's own words, or the last line of one that was killed
            event = json.loads(text)
            if event["ev"] == "failed":
                reason = REASONS.get(str(event["reason"]), Reason.ENGINE)
                told = Failure(reason, str(event["detail"]), HINTS.get(reason, ""))
            else:
                self._hear(self, event)
        code, by, stderr = await stream.end()
        if told is not None:
            return told
        if code in NO_COMMAND:
            return Failure(Reason.NOT_THERE, f"no {self._python[0]} that can be run", "set python_path in hosts.yaml")
        last = (stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        self.crashed = (by or "").removeprefix("SIG") in CRASHES
        how = f"signal {by}" if by else f"exit code {code}"
        return Failure(Reason.ENGINE, f"the peer ended with {how}: {last}" if last else f"the peer ended with {how}")


async def end_left(opener: Opener, python: Sequence[str], folder: str) -> None:
    """Ends a peer that still runs in a folder though nobody talks to it; raises as the opener does."""
    program = await asyncio.to_thread(Path(peer.__file__).read_bytes)
    stream = await opener([*python, "-I", "-c", LOADER])
    try:
        order = json.dumps({"do": "end", "folder": folder}).encode()
        stream.write(b"%8d" % len(program) + program + order + b"\n")
        await stream.drain()
        await stream.end()
    finally:
        stream.close()
