"""What probe and bootstrap ask of the way to a host, and the shortest such way: this machine itself."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backend.atomic import atomic_file
from backend.errors import RingRiftError, UnverifiedError
from backend.fleet.hosts import Host

STDERR_BYTES = 8192
BLOCK = 1 << 20
NOT_FOUND = 127
"""Exit code of a command that is not there, of every shell (POSIX, Shell Command Language, 2.8.2)."""


class Ended(Protocol):
    """How a command on a host ended; a lost link is an error, never one of these."""

    @property
    def code(self) -> int | None: ...
    @property
    def signal(self) -> str | None: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...


class Remote(Protocol):
    """A way to hosts. Every method raises a RingRiftError with one line when the way or the host fails."""

    async def exec(self, host: Host, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Ended:
        """Runs a command to its end."""
        ...

    async def put(self, host: Host, local: Path, remote: str, *, sha256: str) -> object:
        """Brings a file there, whole and verified or not at all."""
        ...


class Stream(Protocol):
    """A running command with its input and output as bytes; every loss is an :class:`OSError`."""

    async def read(self, limit: int = -1) -> bytes: ...
    async def readline(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...
    async def end(self) -> tuple[int | None, str | None, bytes]: ...
    @property
    def stderr(self) -> bytes: ...
    def close(self) -> None: ...


class Way(Remote, Protocol):
    """A way to hosts by which commands can also be talked to."""

    async def open_stream(self, host: Host, argv: list[str], *, inside: bool = False) -> Stream:
        """A command that is talked to; the caller closes it."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command on this machine ended."""

    code: int | None
    signal: str | None
    stdout: bytes
    stderr: bytes


class ThisMachine:
    """This machine as a host of its own.

    Args:
        env: laid over this process's environment.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.env = os.environ | (env or {})

    async def _start(self, argv: Sequence[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.env.get("HOME", "/"),
            env=self.env,
            start_new_session=True,
        )

    async def exec(self, host: Host, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Finished:
        """Runs a command in the home folder, in a session of its own that ends with it."""
        try:
            process = await self._start(argv)
        except OSError as error:
            return Finished(NOT_FOUND, None, b"", str(error).encode())
        try:
            async with asyncio.timeout(timeout_s):
                output, errors = await process.communicate(stdin)
        except TimeoutError:
            raise RingRiftError(
                f"{argv[0]} took longer than {timeout_s:.0f} s", where=host.name, hint="try again when it is less busy"
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        code = process.returncode
        assert code is not None
        if code < 0:
            return Finished(None, signal.Signals(-code).name, output, errors)
        return Finished(code, None, output, errors)

    async def put(self, host: Host, local: Path, remote: str, *, sha256: str) -> None:
        """Copies a file."""
        await asyncio.to_thread(_copy, local, Path(remote), sha256)

    async def open_stream(self, host: Host, argv: Sequence[str], *, inside: bool = False) -> ChildStream:
        """A command that is talked to, in the home folder and a session of its own; the caller closes it."""
        try:
            process = await self._start(argv)
        except OSError as error:
            raise RingRiftError(f"{argv[0]} cannot be started", where=host.name, hint=str(error)) from error
        return ChildStream(process)


class ChildStream:
    """A running child with its input and output as bytes, as :class:`backend.fleet.ssh.SshStream` is on a host."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._process, self._input, self._output = process, process.stdin, process.stdout
        self._stderr = b""
        self._draining = asyncio.create_task(self._drain_stderr(process.stderr))

    async def _drain_stderr(self, errors: asyncio.StreamReader) -> None:
        while block := await errors.read(65536):
            self._stderr += block[: STDERR_BYTES - len(self._stderr)]

    async def read(self, limit: int = -1) -> bytes:
        """Up to ``limit`` bytes of standard output, all of it for -1; empty at its end."""
        return await self._output.read(limit)

    async def readline(self) -> bytes:
        return await self._output.readline()

    def write(self, data: bytes) -> None:
        self._input.write(data)

    async def drain(self) -> None:
        await self._input.drain()

    def write_eof(self) -> None:
        self._input.close()

    async def end(self) -> tuple[int | None, str | None, bytes]:
        """Waits for the end of the command: code, signal and the beginning of standard error."""
        await self._draining
        code = await self._process.wait()
        return (None, signal.Signals(-code).name, self._stderr) if code < 0 else (code, None, self._stderr)

    @property
    def stderr(self) -> bytes:
        return self._stderr

    def close(self) -> None:
        """Ends it, unless it has ended: nothing of it is left that writes."""
        self._input.close()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()


def _copy(source: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as origin, atomic_file(target) as stream:
        while block := origin.read(BLOCK):
            digest.update(block)
            stream.write(block)
        if digest.hexdigest() != sha256:
            raise UnverifiedError("not the bytes that were meant", where=str(source))
