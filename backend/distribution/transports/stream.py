"""Plain bytes over the SSH connection that is there anyway: needs nothing on the host, and goes on where it stopped."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from backend.distribution.reasons import Failure, Reason
from backend.distribution.receiving import ReceiverError, Receivers, checked
from backend.distribution.transports.base import Group, Means, Target
from backend.distribution.transports.each import EachHost
from backend.distribution.transports.meter import cells
from backend.fleet.hosts import Host

BLOCK = 256 * 1024


def ranges(good: bytes, piece: int, size: int) -> list[tuple[int, int]]:
    """The byte ranges of a file whose pieces are not good yet; all of it when nothing is known."""
    count = -(-size // piece)
    known = good if len(good) == count else bytes(count)
    found = []
    for right, run in groupby(range(count), key=lambda n: bool(known[n])):
        numbers = list(run)
        if not right:
            found.append((numbers[0] * piece, min(size, (numbers[-1] + 1) * piece)))
    return found


class StreamTransport:
    """See :class:`~backend.distribution.transports.base.Transport`."""

    name = "stream"
    many = False

    def here(self, means: Means) -> Failure | None:
        return None

    def there(self, means: Means, host: Host, facts: Mapping[str, Any]) -> Failure | None:
        return None

    async def start(self, means: Means, group: Group) -> StreamDelivery:
        delivery = StreamDelivery(means, group)
        await delivery.join(group.targets)
        return delivery


class StreamDelivery(EachHost):
    """See :class:`~backend.distribution.transports.base.Delivery`."""

    NAME = "stream"

    def __init__(self, means: Means, group: Group) -> None:
        super().__init__(group)
        self._receivers = Receivers(means.pool, means.owner)

    async def serve(self, target: Target) -> None:
        payload, name = self.payload, target.name
        wanted = ranges(target.good, payload.piece_size, payload.size)
        there = payload.size - sum(end - start for start, end in wanted)
        self._note(name, have=there, pieces=cells(target.good), waits=True)
        try:
            async with self.room:
                self._note(name, waits=False)
                await self._write(target, wanted, there)
        except ReceiverError as error:
            self._note(name, failure=error.failure)
        except OSError as error:
            self._note(name, failure=Failure(Reason.LINK_LOST, str(error) or "the connection broke"))
        else:
            self._note(name, have=payload.size, complete=True, pieces="9" * 64)

    async def _write(self, target: Target, wanted: list[tuple[int, int]], there: int) -> None:
        payload = self.payload
        stream = await self._receivers.open(
            target.host, "write", sha256=payload.sha256, size=payload.size, ranges=wanted
        )
        try:
            await self._answer(stream.readline)
            sending = asyncio.create_task(self._feed(stream, target.name, wanted))
            try:
                while True:
                    answer = await self._answer(stream.readline)
                    self._note(target.name, have=there + int(answer["got"]), received=int(answer["got"]))
                    if "cut" in answer:
                        break
                await sending
                if answer["cut"]:
                    raise ConnectionResetError("the host did not get everything")
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            stream.close()

    async def _answer(self, readline: Any) -> dict[str, Any]:
        line = await readline()
        try:
            return checked(dict(json.loads(line)))
        except ValueError:
            raise ConnectionResetError("the connection broke") from None

    async def _feed(self, stream: Any, name: str, wanted: list[tuple[int, int]]) -> None:
        """Sends the ranges, each piece compared with its hash first: a file that has changed here goes nowhere."""
        payload = self.payload
        source = await asyncio.to_thread(_open, payload.path)
        try:
            for start, end in wanted:
                for at in range(start, end, payload.piece_size):
                    piece = await asyncio.to_thread(_read, source, at, min(payload.piece_size, end - at))
                    if hashlib.sha256(piece).digest() != payload.pieces[at // payload.piece_size]:
                        what = f"{payload.path} is not the file any more that was planned"
                        raise ReceiverError(Failure(Reason.SOURCE_CHANGED, what, "plan it again"))
                    for offset in range(0, len(piece), BLOCK):
                        block = piece[offset : offset + BLOCK]
                        stream.write(block)
                        await stream.drain()
                        self.meters[name].add(len(block), time.monotonic())
                        await asyncio.sleep(self._pause(name, len(block)))
        except ReceiverError as error:
            self._note(name, failure=error.failure)
            raise
        finally:
            source.close()
            stream.write_eof()

    def _pause(self, name: str, count: int) -> float:
        """Seconds to wait after a block."""
        most = self.most(name)
        return count / most if most else 0.0

    def _note(self, name: str, **values: Any) -> None:
        seen = self.seen[name]
        if seen.failure is None:  # the first trouble is the cause of the others
            self.seen[name] = replace(seen, **values)


def _open(path: Path) -> Any:
    return path.open("rb")


def _read(source: Any, at: int, count: int) -> bytes:
    source.seek(at)
    return bytes(source.read(count))
