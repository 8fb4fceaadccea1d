"""rsync over ssh, one process a host: for hosts that have it, with what is there as the basis.

To a folder that this machine shares with others, the pool of a scheduler here, it copies without ssh.

rsync calls the real ssh with a configuration of ours, which holds it to the enrolled host key. It writes in place: the
file lies in a private folder and is published by the receiver, so nothing is gained by a second copy, and what has come
stays usable for whoever goes on with it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.atomic import write_bytes
from backend.distribution.reasons import Failure, Reason
from backend.distribution.transports.base import Budget, Group, Means, Target
from backend.distribution.transports.each import EachHost
from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.shell import ssh_configuration

SILENCE_S = 60
TAIL = 2000
_PROGRESS = re.compile(rb"\s*([\d,]+)\s+\d+%\s")
_TIMEOUTS = frozenset({30, 35})
_CUT = re.compile(
    r"client_loop|closed by|reset by|Broken pipe|Timeout, server|timed out|lost connection|No route to host"
)
"""What ssh says when its connection broke; rsync alone cannot tell that from the end of the rsync there."""


def progress(text: bytes) -> int | None:
    """The most bytes that rsync's ``progress2`` lines tell of; its lines end in CR."""
    found = [
        int(match[1].replace(b",", b"")) for line in re.split(rb"[\r\n]", text) if (match := _PROGRESS.match(line))
    ]
    return max(found) if found else None


def explain(code: int, text: str, moved: int) -> Failure:
    """What the end of rsync means; ``moved`` is how many bytes had been sent."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = next((line for line in lines if not line.startswith("rsync error")), f"rsync ended with code {code}")
    if "No space left" in text or "Disk quota exceeded" in text:
        return Failure(Reason.DISK_FULL, last, "free some space there")
    if code == 127 or (code == 12 and "not found" in text):
        return Failure(Reason.NOT_THERE, "the host has no rsync", "install rsync there")
    if "Host key verification failed" in text:
        return Failure(Reason.TRUST, last, "ringrift hosts enrol compares its key")
    if code in (23, 24) and ("link_stat" in text or "vanished" in text):
        return Failure(Reason.SOURCE_CHANGED, last, "bring the file back, then retry")
    if moved and (code in _TIMEOUTS or _CUT.search(text)):
        return Failure(Reason.LINK_LOST, last)
    return Failure(Reason.ENGINE, last)


class RsyncTransport:
    """See :class:`~backend.distribution.transports.base.Transport`."""

    name = "rsync"
    many = False

    def here(self, means: Means) -> Failure | None:
        for tool in ("rsync", "ssh"):
            if shutil.which(tool) is None:
                return Failure(Reason.NOT_HERE, f"this machine has no {tool}", f"install {tool}")
        return None

    def there(self, means: Means, host: Host, facts: Mapping[str, Any]) -> Failure | None:
        tools = facts.get("tools")
        if tools is not None and not tools.get("rsync"):
            return Failure(Reason.NOT_THERE, "the host has no rsync", "install rsync there")
        return None

    async def start(self, means: Means, group: Group) -> RsyncDelivery:
        delivery = RsyncDelivery(means, group)
        await delivery.join(group.targets)
        return delivery


class RsyncDelivery(EachHost):
    """See :class:`~backend.distribution.transports.base.Delivery`."""

    NAME = "rsync"

    def __init__(self, means: Means, group: Group) -> None:
        super().__init__(group)
        self._means, self._id = means, group.id
        self._running: dict[str, tuple[asyncio.subprocess.Process, int]] = {}

    async def limit(self, budget: Budget) -> None:
        """rsync knows no way to be told: those that have another limit now are ended, and go on with what is there."""
        await super().limit(budget)
        for name, (process, limit) in list(self._running.items()):
            if self._limit(name) != limit:
                del self._running[name]
                _signal(process, signal.SIGTERM)

    async def serve(self, target: Target) -> None:
        name = target.name
        try:
            async with self.room:
                failure = await self._send(target)
        except (OSError, RingRiftError) as error:
            failure = Failure(Reason.ENGINE, str(error))
        if failure is None:
            self.seen[name] = replace(self.seen[name], have=self.payload.size, complete=True, waits=False)
        else:
            self.seen[name] = replace(self.seen[name], failure=failure)

    async def _send(self, target: Target) -> Failure | None:
        config = self._means.private / f"rsync-{self._id}-{target.name}.conf"
        if not target.host.is_here:
            text = ssh_configuration(target.host, self._means.paths)
            await asyncio.to_thread(write_bytes, config, text.encode(), mode=0o600)
        try:
            while True:
                code, errors, again = await self._once(target, config)
                if not again or code == 0:
                    break
        finally:
            config.unlink(missing_ok=True)
        return None if code == 0 else explain(code, errors[:TAIL], self.seen[target.name].have)

    async def _once(self, target: Target, config: Path) -> tuple[int, str, bool]:
        """One process: its code, what it complained of, and whether :meth:`limit` has ended it."""
        limit = self._limit(target.name)
        process = await asyncio.create_subprocess_exec(
            *self._argv(target, config, limit),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"LC_ALL": "C"},
            start_new_session=True,
        )
        self._running[target.name] = process, limit
        try:
            assert process.stdout is not None and process.stderr is not None
            _, errors = await asyncio.gather(self._follow(target, process.stdout), process.stderr.read())
            code = await process.wait()
            again = self._running.get(target.name, (None, 0))[0] is not process
        finally:
            self._running.pop(target.name, None)
            await _end(process)
        return code, errors.decode("utf-8", "replace"), again

    def _argv(self, target: Target, config: Path, limit: int) -> list[str]:
        bound = [f"--bwlimit={limit}"] if limit else []
        return [
            "rsync", "--checksum", "--partial", "--inplace", "--no-whole-file", "--no-links", "--chmod=F0600",
            "--no-times", "--info=progress2", "--outbuf=L", f"--timeout={SILENCE_S}", *bound, "--protect-args",
            *(() if target.host.is_here else ("-e", _shell(config))), "--", str(self.payload.path),
            target.data if target.host.is_here else f"{target.name}:{target.data}",
        ]  # fmt: skip

    def _limit(self, name: str) -> int:
        """KiB a second for one process; 0 is none."""
        most = self.most(name)
        return max(1, int(most / 1024)) if most else 0

    async def _follow(self, target: Target, output: asyncio.StreamReader) -> None:
        name = target.name
        while block := await output.read(65536):
            have = progress(block)
            seen = self.seen[name]
            if have is not None and have > seen.have:
                self.meters[name].add(have - seen.have, time.monotonic())
                self.seen[name] = replace(seen, have=min(have, self.payload.size), received=have, waits=False)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends rsync and its ssh; waits for it."""
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(5.0):
                await process.wait()
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _shell(config: Path) -> str:
    """What rsync reaches a host by."""
    options = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=10", "ServerAliveCountMax=2",
               "Compression=no", "ControlMaster=no")  # fmt: skip
    return " ".join(["ssh", "-F", _word(str(config)), *(f"-o {option}" for option in options)])


def _word(text: str) -> str:
    """A word of rsync's ``-e``, which it splits at blanks and quotes by itself.

    Raises:
        RingRiftError: it cannot be told.
    """
    if '"' in text:
        raise RingRiftError("rsync cannot be told of this path", where=text, hint="use a root without quotes")
    return f'"{text}"'
