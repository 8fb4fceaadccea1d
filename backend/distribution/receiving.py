"""Talks to the receivers of hosts; what goes wrong there or on the way is a :class:`Failure`."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.distribution import loadable, receiver
from backend.distribution.reasons import Failure, Reason
from backend.distribution.ship import base_of, ship
from backend.distribution.transports.base import Payload
from backend.errors import ResourceError, RingRiftError
from backend.fleet.errors import SshError
from backend.fleet.hosts import Host
from backend.fleet.remote import Stream, ThisMachine, Way
from backend.fleet.shared_root import RootMissing, check_shared_root
from backend.fleet.ssh import SshPool
from backend.fleet.transfers import NOISE_BYTES, no_program, python_of

ASK_S = 120.0
READ_BYTES_S = 20 << 20
"""Bytes a second at which a busy host reads and hashes a file at least."""
BUSY = "busy"


class ReceiverError(Exception):
    """A host did not do what it was asked to."""

    def __init__(self, failure: Failure, *, busy: bool = False) -> None:
        super().__init__(failure.line())
        self.failure, self.busy = failure, busy


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a host says before anything is sent.

    Attributes:
        folder, lease, store: absolute paths: the stage, the lease file, and the file among those that are kept.
        have: bytes of the staged file that are there.
        stored: the host keeps the file, proved; nothing need be sent.
        free: bytes free on its disk.
        live: SHA-256 of what lies under the name now; empty when nothing of ours does.
    """

    folder: str
    lease: str
    store: str
    have: int
    stored: bool
    free: int
    live: str


class Receivers:
    """The receivers of all hosts, under one owner's name.

    That of a pool runs on its login host, which may be this machine; its base is the root that the nodes share.
    """

    def __init__(self, pool: SshPool, owner: str) -> None:
        self.pool, self.owner = pool, owner
        self._here = ThisMachine()
        self._places: dict[tuple[str, str], tuple[str, str]] = {}

    async def prepare(self, host: Host, payload: Payload, name: str, number: int) -> Prepared:
        """Makes the stage of a file and looks at what is there.

        Args:
            name: where it will be published, relative to the host's base.
            number: of the transfer; a host refuses older ones than it has seen for the name.
        """
        answer = await self.ask(host, "prepare", sha256=payload.sha256, size=payload.size, name=name, number=number)
        return Prepared(**{key: answer[key] for key in Prepared.__slots__})

    async def pieces(self, host: Host, payload: Payload) -> bytes:
        """One byte a piece: 1 where the staged file has the right bytes; empty when there is none."""
        hashes = base64.b64encode(b"".join(payload.pieces)).decode()
        asked = {"sha256": payload.sha256, "piece_size": payload.piece_size, "pieces": hashes}
        answer = await self.ask(host, "pieces", timeout_s=_patience(payload.size), **asked)
        return base64.b64decode(answer["good"])

    async def finish(
        self, host: Host, payload: Payload, name: str, number: int, transfer: str, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Has the file proved and published; returns the receipt."""
        _, program = await self._programs(host)
        python = host.settings.get("python_path") or facts.get("python") or python_of(host)
        answer = await self.ask(
            host, "finish", timeout_s=_patience(payload.size), sha256=payload.sha256, size=payload.size, name=name,
            number=number, transfer=transfer, kind=payload.kind, loadable=program, python=str(python),
        )  # fmt: skip
        receipt = dict(answer["receipt"])
        if receipt["verify"]["sha256"] != payload.sha256 or receipt["file"]["size"] != payload.size:
            raise ReceiverError(Failure(Reason.CORRUPT, "the receipt is for another file"))
        return receipt

    async def audit(self, host: Host, *, deep: bool = False) -> dict[str, Any]:
        return await self.ask(host, "audit", timeout_s=3600.0, deep=deep)

    async def renew(self, host: Host) -> None:
        await self.ask(host, "renew")

    async def drop(self, host: Host, stages: Collection[str], keep: Collection[str]) -> dict[str, Any]:
        """Removes stages there, and those that are a day old unless they are to be kept."""
        return await self.ask(host, "drop", stages=sorted(stages), keep=sorted(keep))

    async def ask(self, host: Host, op: str, *, timeout_s: float = ASK_S, **values: Any) -> dict[str, Any]:
        """One operation.

        Raises:
            ReceiverError: with the reason, in our words.
        """
        program, _ = await self._programs(host)
        request = _request(self.owner, host, op, values)
        argv = [python_of(host), "-I", "-S", program]
        try:
            done = await self._way(host).exec(host, argv, stdin=request, timeout_s=timeout_s)
        except RingRiftError as error:
            raise ReceiverError(failure_of(error)) from error
        lines = done.stdout.splitlines()
        if receiver.MAGIC.encode() not in lines:
            self.forget(host.name)
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit code {done.code}"]
            raise ReceiverError(Failure(Reason.REFUSED, f"the receiver did not come up: {last[0]}"))
        return _answer(lines[-1], done.stderr)

    async def open(self, host: Host, op: str, **values: Any) -> Stream:
        """An operation that is talked to; the next line is its first answer.

        Raises:
            ReceiverError: it did not come up.
        """
        program, _ = await self._programs(host)
        try:
            stream = await self._way(host).open_stream(host, [python_of(host), "-I", "-S", program])
            try:
                stream.write(_request(self.owner, host, op, values))
                noise = 0
                while (line := await stream.readline()).strip() != receiver.MAGIC.encode():
                    noise += len(line)
                    if not line or noise > NOISE_BYTES:
                        self.forget(host.name)
                        raise ReceiverError(failure_of(await no_program(stream, host)))
            except BaseException:
                stream.close()
                raise
        except RingRiftError as error:
            raise ReceiverError(failure_of(error)) from error
        except OSError as error:
            raise ReceiverError(Failure(Reason.LINK_LOST, str(error))) from error
        return stream

    def forget(self, name: str) -> None:
        """Sends the programs again before the next use, e.g. because somebody removed them."""
        self._places = {key: value for key, value in self._places.items() if key[0] != name}

    def _way(self, host: Host) -> Way:
        return self._here if host.is_here else self.pool

    async def _programs(self, host: Host) -> tuple[str, str]:
        key = (host.name, base_of(host))
        if key not in self._places:
            way = self._way(host)
            try:
                await check_shared_root(way, host)
                ours = await ship(way, host, Path(receiver.__file__))
                self._places[key] = (ours, await ship(way, host, Path(loadable.__file__)))
            except RingRiftError as error:
                raise ReceiverError(failure_of(error)) from error
        return self._places[key]


def _request(owner: str, host: Host, op: str, values: Mapping[str, Any]) -> bytes:
    body = json.dumps({"op": op, "owner": owner, "base": base_of(host), **values}).encode()
    return b"%d\n" % len(body) + body


def _answer(line: bytes, stderr: bytes = b"") -> dict[str, Any]:
    try:
        answer = dict(json.loads(line))
    except (ValueError, TypeError):
        last = stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no answer"]
        raise ReceiverError(Failure(Reason.ENGINE, f"the receiver broke off: {last[0]}")) from None
    return checked(answer)


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer itself.

    Raises:
        ReceiverError: it says that something went wrong.
    """
    if "error" not in answer:
        return answer
    kind, message, hint = (str(answer.get(key, "")) for key in ("error", "message", "hint"))
    if kind == BUSY:
        raise ReceiverError(Failure(Reason.ENGINE, message, hint), busy=True)
    reason = Reason(kind) if kind in set(Reason) else Reason.ENGINE
    raise ReceiverError(Failure(reason, message, hint))


def failure_of(error: RingRiftError) -> Failure:
    """What an error of the way to a host means for a delivery."""
    hint = error.hint
    if isinstance(error, ResourceError):
        return Failure(Reason.DISK_FULL, error.what, hint)
    if isinstance(error, RootMissing) or (isinstance(error, SshError) and error.permanent):
        return Failure(Reason.REFUSED, error.what, hint)
    return Failure(Reason.LINK_LOST, error.what, hint)


def _patience(size: int) -> float:
    return ASK_S + size / READ_BYTES_S * 2
