"""Checkpoints of an ai-service as they lie under ``models/``, with what is written beside them; nothing is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from backend.errors import UnverifiedError
from backend.paths import Paths
from backend.reference.names import config_key, config_of_name
from backend.registry.hashing import read_sidecar

SUFFIXES = (".pth", ".pt", ".ckpt")
_SKIPPED = {"archive", "candidates"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One file.

    Attributes:
        path: relative to the root, as the registry stores it.
        config: by its ``.json``, else by its name; None when neither says.
        named, noted: the config in its name, and in its ``.json``.
        stated: SHA-256 by its ``.sha256``; the file itself was not hashed. ``""`` when there is none that can be read.
        link: what it points to, for a symbolic link.
    """

    path: str
    size: int
    modified: datetime
    named: str | None
    noted: str | None
    stated: str
    link: str | None

    @property
    def config(self) -> str | None:
        return self.noted or self.named

    @property
    def stage(self) -> str:
        """What the ai-service takes it for, by its name: ``canonical_<config>`` is what it plays with."""
        name = Path(self.path).stem
        if name.endswith(".backup"):
            return "archived"
        return "production" if name.startswith("canonical_") else "development"


def checkpoints(paths: Paths, *, checksums: bool = True) -> Iterator[Checkpoint]:
    """All checkpoints under ``models/`` but those in ``archive/`` and ``candidates/``, by path.

    Args:
        checksums: read the ``.sha256`` files too; a list that is made every few seconds does without.
    """
    for folder, folders, names in os.walk(paths.models):
        if folder == str(paths.models):
            folders[:] = [name for name in folders if name not in _SKIPPED]
        folders.sort()
        there = set(names)
        for name in sorted(names):
            if name.endswith(SUFFIXES) and not name.startswith("."):
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                    link = os.readlink(path) if os.path.islink(path) else None
                    noted = _noted(f"{path}.json") if f"{name}.json" in there else None
                except OSError:  # a link to nothing, or a file that went while we looked
                    continue
                stated = _stated(path) if checksums and f"{name}.sha256" in there else ""
                stored = os.path.relpath(path, paths.root)
                changed = datetime.fromtimestamp(status.st_mtime, UTC)
                yield Checkpoint(stored, status.st_size, changed, config_of_name(stored), noted, stated, link)


def _stated(path: str) -> str:
    try:
        return read_sidecar(Path(path)) or ""
    except (OSError, UnverifiedError):
        return ""


_known: dict[tuple[str, int], str | None] = {}


def _noted(path: str) -> str | None:
    """The config that the ai-service's ``<file>.json`` states, read again when it has changed."""
    key = (path, os.stat(path).st_mtime_ns)
    if key not in _known:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                told = json.load(stream)
            _known[key] = config_key(told.get("board_type"), told.get("num_players"))
        except (ValueError, AttributeError):
            _known[key] = None
    return _known[key]
