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


def checkpoints(paths: Paths) -> Iterator[Checkpoint]:
    """All checkpoints under ``models/`` but those in ``archive/`` and ``candidates/``, by path."""
    for folder, folders, names in os.walk(paths.models):
        here = Path(folder)
        if here == paths.models:
            folders[:] = [name for name in folders if name not in _SKIPPED]
        folders.sort()
        for name in sorted(names):
            if name.endswith(SUFFIXES) and not name.startswith("."):
                found = _checkpoint(paths, here / name)
                if found is not None:
                    yield found


def _checkpoint(paths: Paths, path: Path) -> Checkpoint | None:
    try:
        status = path.stat()
    except OSError:  # a link to nothing, or a file that went while we looked
        return None
    try:
        stated = read_sidecar(path) or ""
    except (OSError, UnverifiedError):
        stated = ""
    stored = path.relative_to(paths.root).as_posix()
    return Checkpoint(
        stored, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), config_of_name(stored), _noted(path),
        stated, os.readlink(path) if path.is_symlink() else None,
    )  # fmt: skip


def _noted(path: Path) -> str | None:
    """The config that the ai-service's ``<file>.json`` states."""
    try:
        told = json.loads(path.with_name(path.name + ".json").read_text())
        return config_key(told.get("board_type"), told.get("num_players"))
    except (OSError, ValueError, AttributeError):
        return None
