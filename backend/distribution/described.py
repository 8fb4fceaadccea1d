"""The hosts in use, parsed again only when their file has changed: with hundreds of hosts that takes a second."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path

from backend.fleet.hosts import Hosts, load_hosts
from backend.fleet.reading import hosts_in_use
from backend.paths import Paths


async def hosts_described(paths: Paths) -> Hosts:
    """The hosts that the supervisor goes by.

    Raises:
        SettingsError: their file cannot be understood.
    """
    return await asyncio.to_thread(_described, paths)


def _described(paths: Paths) -> Hosts:
    path = hosts_in_use(paths)
    try:
        about = path.stat()
    except OSError:
        return load_hosts(path)
    return _parsed(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=2)
def _parsed(path: Path, mtime_ns: int, size: int) -> Hosts:
    return load_hosts(path)
