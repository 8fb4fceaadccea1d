"""Reads the root for the console, and does not read again what cannot have changed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from backend.paths import Paths
from backend.snapshot import Snapshot
from ringrift_console.actions import load

READ_ANYWAY_S = 3.0
"""Some things change without a trace in these files (a supervisor that was killed, a model file that is gone)."""

Trace = tuple[tuple[str, int, int], ...]


def trace(paths: Paths) -> Trace:
    """Name, size and time of change of every database and dataset; any write to the root's state alters it."""
    folders = {paths.state_db.parent, paths.registry_db.parent, paths.elo_db.parent, paths.games, paths.training}
    found = []
    for folder in folders:
        found += _files(folder)
    return tuple(sorted(found))


def _files(folder: Path) -> list[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.path, entry.stat()) for entry in entries if entry.is_file()]
    except FileNotFoundError:  # nothing there yet, or a journal that was taken away while we looked
        return []
    return [(path, status.st_size, status.st_mtime_ns) for path, status in stats]


class Reader:
    """Calls ``backend.overview.read_snapshot`` when a file has changed, and every few seconds in any case."""

    def __init__(self, paths: Paths, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.paths = paths
        self._monotonic = monotonic
        self._trace: Trace = ()
        self._snapshot: Snapshot | None = None
        self._read_at = 0.0

    async def __call__(self) -> Snapshot:
        """The root as it is now.

        Raises:
            RingRiftError: a part of the state cannot be read at all.
        """
        now = self._monotonic()
        seen = trace(self.paths)
        if self._snapshot is not None and seen == self._trace and now - self._read_at < READ_ANYWAY_S:
            return self._snapshot
        read = await asyncio.to_thread(load, "backend.overview:read_snapshot")
        self._snapshot = await read(self.paths)
        # Of before the read: what is written while it runs is read again next time.
        self._trace, self._read_at = seen, now
        return self._snapshot
