"""Files to and from a host, verified by their SHA-256 where they arrive.

They go through a small program on the host (:mod:`backend.fleet.courier`) and not through SFTP: it hashes what it has
received in the same breath, removes what a cut link left half done, and does not mind a login shell that prints.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from backend.atomic import atomic_file
from backend.errors import ResourceError, UnverifiedError
from backend.fleet import courier
from backend.fleet.errors import ExecTimeout, LinkLost, NoPython, TransferFailed
from backend.fleet.hosts import Host
from backend.fleet.remote import Stream

BLOCK = 256 * 1024
NOISE_BYTES = 1024 * 1024
LOADER = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"


class Opener(Protocol):
    async def open_stream(self, host: Host, argv: list[str], *, inside: bool = False) -> Stream: ...


def python_of(host: Host) -> str:
    """The Python that runs our small programs on a host; any from 3.9 on will do.

    Of a pool whose login host this machine is, that of this installation: its nodes run the same.
    """
    return str(host.settings.get("python_path") or (sys.executable if host.is_here else "python3"))


async def put(pool: Opener, host: Host, local: Path, remote: str, *, sha256: str, timeout_s: float) -> str:
    """Copies ``local`` to ``remote`` (``~`` is the host's home); returns the absolute path there.

    The file appears whole and with this hash, or not at all.

    Raises:
        UnverifiedError: the file here has another hash, or another one arrived.
        ResourceError: the host's disk is full.
        TransferFailed: it cannot be written there.
        SshError: the host cannot be talked to.
    """
    size = (await asyncio.to_thread(local.stat)).st_size
    request = {"op": "put", "path": remote, "size": size, "sha256": sha256, "mode": 0o644}
    try:
        async with asyncio.timeout(timeout_s):
            stream = await _ask(pool, host, request)
            try:
                sending = asyncio.create_task(_send(stream, local, size))
                try:
                    answer = await _line(stream, host)
                    await asyncio.gather(sending, return_exceptions=True)
                finally:
                    sending.cancel()
            finally:
                stream.close()
    except TimeoutError:
        raise ExecTimeout(f"{local.name} was not copied within {timeout_s:g} s", where=host.name) from None
    except OSError as error:
        raise LinkLost("the connection broke", where=host.name, hint=str(error)) from error
    _check(answer, host, remote)
    return str(answer["path"])


async def get(pool: Opener, host: Host, remote: str, local: Path, *, sha256: str | None, timeout_s: float) -> str:
    """Copies ``remote`` to ``local``; returns its SHA-256, which is ``sha256`` if that is given.

    Raises:
        UnverifiedError: another hash arrived.
        ResourceError: the disk here is full.
        TransferFailed: it cannot be read there.
        SshError: the host cannot be talked to.
    """
    try:
        async with asyncio.timeout(timeout_s):
            stream = await _ask(pool, host, {"op": "get", "path": remote})
            try:
                stream.write_eof()
                head = await _line(stream, host)
                _check(head, host, remote)
                return await _receive(stream, host, int(head["size"]), local, sha256)
            finally:
                stream.close()
    except TimeoutError:
        raise ExecTimeout(f"{remote} was not copied within {timeout_s:g} s", where=host.name) from None
    except OSError as error:
        raise LinkLost("the connection broke", where=host.name, hint=str(error)) from error


async def _ask(pool: Opener, host: Host, request: dict[str, Any]) -> Stream:
    """Brings the courier up and hands it the request."""
    program = await asyncio.to_thread(Path(courier.__file__).read_bytes)
    stream = await pool.open_stream(host, [python_of(host), "-I", "-S", "-c", LOADER], inside=True)
    try:
        with suppress(BrokenPipeError):  # it has ended already; how is told below
            stream.write(b"%d\n" % len(program) + program + json.dumps(request).encode() + b"\n")
        noise = 0
        while not (line := await stream.readline()).strip().endswith(courier.MAGIC.encode()):
            noise += len(line)
            if not line or noise > NOISE_BYTES:
                raise await no_program(stream, host)
    except BaseException:
        stream.close()
        raise
    return stream


async def no_program(stream: Stream, host: Host) -> LinkLost | NoPython | TransferFailed:
    """Why a program of ours did not come up on a host, from how it ended."""
    try:
        async with asyncio.timeout(5.0):
            code, _, stderr = await stream.end()
    except (OSError, TimeoutError) as error:
        return LinkLost("the connection broke", where=host.name, hint=str(error))
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1] if lines else f"exit code {code}"
    if code in (126, 127):
        return NoPython("no python3 that can be run", where=host.name, hint=f"install it or set python_path; {last}")
    return TransferFailed("the program did not come up", where=host.name, hint=last)


async def _send(stream: Stream, local: Path, size: int) -> None:
    with local.open("rb") as source:
        while block := await asyncio.to_thread(source.read, BLOCK):
            stream.write(block)
            await stream.drain()
    stream.write_eof()


async def _receive(stream: Stream, host: Host, size: int, local: Path, sha256: str | None) -> str:
    digest, left = hashlib.sha256(), size
    with atomic_file(local) as target:
        while left:
            block = await stream.read(min(BLOCK, left))
            if not block:
                raise ConnectionResetError(f"{left} bytes are missing")
            digest.update(block)
            left -= len(block)
            await asyncio.to_thread(target.write, block)
        told = (await _line(stream, host)).get("sha256")
        found = digest.hexdigest()
        if found != told or sha256 not in (None, found):
            raise UnverifiedError("another file arrived", where=f"{host.name}: {local.name}", hint=f"sha256 {found}")
    return found


async def _line(stream: Stream, host: Host) -> dict[str, Any]:
    line = await stream.readline()
    try:
        value = json.loads(line)
    except ValueError:
        raise await no_program(stream, host) from None
    return dict(value)


def _check(answer: dict[str, Any], host: Host, remote: str) -> None:
    kind, where = answer.get("error"), f"{host.name}: {remote}"
    if kind == "full":
        raise ResourceError("the disk is full", where=where, hint="free some space there")
    if kind == "hash":
        raise UnverifiedError("another file arrived", where=where, hint=str(answer["message"]))
    if kind is not None:
        raise TransferFailed(str(answer.get("message")), where=where)
