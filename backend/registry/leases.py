"""What is in use now and must stay where it is: asked of every area that uses models, each by a function of its own.

A function of :data:`LEASES` is async ``(paths, store) -> {reference: why}``. A reference is what that area knows of a
model: its label, its SHA-256 or the start of one, or the path of its file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from backend.paths import Paths
from backend.snapshot import ENDED
from backend.state.store import StateStore

LEASES: tuple[str, ...] = ("backend.registry.leases:of_jobs", "backend.distribution.leases:of_transfers")
"""Who is asked, as ``module:function``."""


async def leases(paths: Paths, store: StateStore | None = None) -> dict[str, str]:
    """All that is in use, by reference, with the first reason; nothing in a root that has no state yet.

    Args:
        store: where the caller has the state open; else it is opened for this.

    Raises:
        LockedError, ResourceError, UnverifiedError, SchemaError: the state cannot be read, so nothing is known to be
            free.
    """
    if store is None:
        if not paths.state_db.exists():
            return {}
        async with await StateStore.open(paths) as opened:
            return await leases(paths, opened)
    found: dict[str, str] = {}
    for reference in LEASES:
        module, _, name = reference.partition(":")
        for what, why in (await getattr(import_module(module), name)(paths, store)).items():
            found.setdefault(what, why)
    return found


async def of_jobs(paths: Paths, store: StateStore) -> dict[str, str]:
    """What jobs that have not ended name in their parameters: labels, hashes, files. Most of it is no model at all."""
    marks = ", ".join("?" * len(ENDED))
    async with store.database.read() as db:
        rows = await db.all(f"SELECT id, kind, params FROM jobs WHERE state NOT IN ({marks})", sorted(ENDED))
    found: dict[str, str] = {}
    for row in rows:
        for word in _words(json.loads(row["params"])):
            found.setdefault(word, f"job {row['id']} ({row['kind']}) uses it")
    return found


def _words(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
