"""A program of ours at work on a host or on this machine, told things and telling things line by line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from backend.fleet.errors import LinkLost, TransferFailed
from backend.fleet.hosts import Host
from backend.fleet.remote import ChildStream
from backend.fleet.ssh import SshPool
from backend.fleet.transfers import LOADER, NOISE_BYTES, no_program, python_of

START_S = 60.0
END_S = 20.0


class Line(Protocol):
    """What a conversation needs of whatever carries it."""

    async def readline(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


class Conversation:
    """See the module; made by :func:`talk` and :func:`talk_here`."""

    def __init__(self, line: Line, name: str) -> None:
        self._line, self.name = line, name

    async def tell(self, order: Mapping[str, Any]) -> None:
        """Sends one order; to one that is gone it does nothing, :meth:`heard` says so."""
        with suppress(OSError):
            self._line.write(json.dumps(order).encode() + b"\n")
            await self._line.drain()

    async def heard(self) -> AsyncIterator[dict[str, Any]]:
        """What it says, until it ends or the connection breaks."""
        with suppress(OSError):
            while line := await self._line.readline():
                with suppress(ValueError):
                    value = json.loads(line)
                    if isinstance(value, dict):
                        yield value

    async def close(self) -> None:
        """Lets go of it; on this machine, waits for its end."""
        if isinstance(self._line, ChildStream):
            self._line.write_eof()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._line.end()
            self._line.close()
            await self._line.end()
        else:
            self._line.close()


async def talk(pool: SshPool, host: Host, program: bytes, request: Mapping[str, Any], magic: str) -> Conversation:
    """Brings a program up on a host.

    Args:
        program: from :func:`backend.distribution.shipping.program`.
        magic: the line that it says first; what a login shell prints comes before it.

    Raises:
        SshError: the host cannot be talked to, or has no Python.
    """
    stream = await pool.open_stream(host, [python_of(host), "-I", "-S", "-c", LOADER])
    try:
        async with asyncio.timeout(START_S):
            if not await _begin(stream, program, request, magic):
                raise await no_program(stream, host)
    except TimeoutError:
        stream.close()
        raise LinkLost("no answer", where=host.name, hint="is it overloaded?") from None
    except OSError as error:
        stream.close()
        raise LinkLost("the connection broke", where=host.name, hint=str(error)) from error
    except BaseException:
        stream.close()
        raise
    return Conversation(stream, host.name)


async def talk_here(program: bytes, request: Mapping[str, Any], magic: str) -> Conversation:
    """Brings a program up on this machine, in a session of its own.

    Raises:
        TransferFailed: it did not come up.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-S", "-c", LOADER),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    talking = Conversation(line := ChildStream(process), "head")
    try:
        async with asyncio.timeout(START_S):
            if await _begin(line, program, request, magic):
                return talking
    except BaseException:
        line.close()
        await talking.close()
        raise
    await talking.close()
    said = line.stderr.decode("utf-8", "replace").strip().splitlines()
    raise TransferFailed("the program did not come up", where="head", hint=said[-1] if said else "it said nothing")


async def _begin(line: Line, program: bytes, request: Mapping[str, Any], magic: str) -> bool:
    with suppress(BrokenPipeError):  # it has ended already; its output tells why
        line.write(b"%d\n" % len(program) + program + json.dumps(request).encode() + b"\n")
        await line.drain()
    noise = 0
    while (said := await line.readline()).strip() != magic.encode():
        noise += len(said)
        if not said or noise > NOISE_BYTES:
            return False
    return True
