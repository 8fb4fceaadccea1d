"""``python -m backend.jobs.check ROOT``: are the outputs of some jobs there and valid?

A process of its own, because the answer may need NumPy and seconds of hashing, and the supervisor's loop has neither.
A JSON list of ``[kind, config, params]`` comes on standard input; a line ``[place in the list, reason or null]`` goes
out as soon as each is known.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.jobs.recipes import environment, satisfied
from backend.paths import Paths

AT_ONCE = 2
"""Processes at a time, however many jobs come at once: beside them the machine has its own work."""
BATCH = 64
"""Checks that one process does: starting it takes longer than most checks."""

log = logging.getLogger("ringrift.supervisor")


@dataclass(frozen=True, slots=True)
class Check:
    """Whether the output of attempt ``n`` of a job is there before it is made."""

    job: str
    n: int
    kind: str
    config: str
    params: Mapping[str, Any]


class Checks:
    """The checks of one supervisor: a queue, and few processes that work it off.

    Args:
        tell: gets job, number and what was found; None too when a process failed, as what cannot be checked has to run.
    """

    def __init__(self, paths: Paths, tell: Callable[[str, int, str | None], None]) -> None:
        self.paths, self.tell = paths, tell
        self._known: set[tuple[str, int]] = set()
        self._queue: deque[Check] = deque()
        self._workers = 0

    def ask(self, check: Check, spawn: Callable[..., asyncio.Task[Any]]) -> None:
        """Has a check done, unless it is waiting or under way."""
        if (check.job, check.n) in self._known:
            return
        self._known.add((check.job, check.n))
        self._queue.append(check)
        if self._workers < AT_ONCE:
            self._workers += 1
            spawn(self._work(), name="work checks")

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._some([self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))])
        finally:
            self._workers -= 1

    async def _some(self, checks: list[Check]) -> None:
        left = dict(enumerate(checks))
        try:
            async for place, found in check_outputs(self.paths, [(one.kind, one.config, one.params) for one in checks]):
                self._told(left.pop(place), found)
        except Exception:
            log.exception("checks of %s", " ".join(one.job for one in left.values()))
        if left:  # the process broke off at the first of these
            self._told(left.pop(min(left)), None)
            self._queue.extendleft(reversed(left.values()))

    def _told(self, check: Check, found: str | None) -> None:
        self._known.discard((check.job, check.n))
        self.tell(check.job, check.n, found)


async def check_outputs(
    paths: Paths, asked: Sequence[tuple[str, str, Mapping[str, Any]]]
) -> AsyncIterator[tuple[int, str | None]]:
    """:func:`backend.jobs.recipes.satisfied` of several in a process of their own; ends early when that fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "backend.jobs.check",
        str(paths.root),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ) | environment(),
        limit=1 << 20,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps([[kind, config, dict(params)] for kind, config, params in asked]).encode())
        process.stdin.close()
        async for line in process.stdout:
            place, found = json.loads(line)
            yield int(place), None if found is None else str(found)
        if await process.wait() != 0:
            log.error("a check of outputs ended with %s", process.returncode)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def main(argv: list[str]) -> int:
    (root,) = argv
    for place, (kind, config, params) in enumerate(json.load(sys.stdin)):
        try:
            found = satisfied(Paths(Path(root)), kind, config, params)
        except Exception:  # what cannot be checked has to run; the others are none the worse
            traceback.print_exc()
            found = None
        sys.stdout.write(json.dumps([place, found]) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
