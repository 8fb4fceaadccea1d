"""``models_essential/``: the production model of every config, the one before it, and a manifest that says which.

What lies there follows from the production pointers alone, so deploying is making the folder agree with them: it may
be killed at any point and repeated, and a folder that somebody has emptied is filled again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.atomic import write_json
from backend.crash import crash_point
from backend.errors import NotFoundError, RingRiftError, UnverifiedError, resource_error
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.changes import row_of
from backend.registry.files import full_path, place
from backend.registry.hashing import read_sidecar, sha256_file, sidecar_path
from backend.registry.schema import reading
from backend.snapshot import ModelRow

MANIFEST = "manifest.json"
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Essential:
    """One file that belongs into ``models_essential/``."""

    name: str
    model: ModelRow
    role: str  # production or previous


def production_file(config: str) -> str:
    """The name of a config's production model, as the ai-service looks for it."""
    return f"canonical_{config}.pth"


def previous_file(config: str) -> str:
    """The name of the model that a rollback goes to."""
    return f"previous_{config}.pth"


def wanted(paths: Paths) -> tuple[tuple[pointers.Pointer, tuple[Essential, ...]], ...]:
    """What belongs there, by the pointers."""
    found = []
    with reading(paths.registry_db) as db:
        if db is None:
            return ()
        for pointer in pointers.all_pointers(db):
            assert pointer.label is not None
            files = [Essential(production_file(pointer.config), row_of(db, pointer.label), "production")]
            if pointer.previous is not None:
                files.append(Essential(previous_file(pointer.config), row_of(db, pointer.previous), "previous"))
            found.append((pointer, tuple(files)))
    return tuple(found)


def check_source(paths: Paths, row: ModelRow) -> Path:
    """The registered file of a model, hashed.

    Raises:
        NotFoundError: it is not there.
        UnverifiedError: it is not the file that was registered.
    """
    path = full_path(paths, row.path)
    if not path.is_file():
        raise NotFoundError("the model's file is missing", where=str(path), hint="restore it, then plan again")
    actual = sha256_file(path)
    if actual != row.sha256:
        raise UnverifiedError(
            f"the file is not the one that was registered (SHA-256 {actual[:12]}, registered {row.sha256[:12]})",
            where=str(path),
            hint="nothing was changed; bring the right file back",
        )
    return path


def deploy(paths: Paths) -> dict[str, RingRiftError]:
    """Makes ``models_essential/`` agree with the pointers; returns what it could not place, by name with the error.

    One file that cannot be placed keeps no other from its place.

    Raises:
        ResourceError: the manifest cannot be written.
    """
    with _ONE_AT_A_TIME:  # what was read of the pointers must not be older than what lies there
        manifest: dict[str, Any] = {}
        failed: dict[str, RingRiftError] = {}
        keep = {MANIFEST}
        for pointer, files in wanted(paths):
            entry: dict[str, Any] = {"revision": pointer.revision}
            for one in files:
                target = paths.essential / one.name
                try:
                    _put(paths, one, target)
                except RingRiftError as error:
                    failed[one.name] = error
                    continue
                keep |= {one.name, sidecar_path(target).name}
                entry[one.role] = {
                    "file": one.name, "model": one.model.label, "sha256": one.model.sha256, "size": one.model.size,
                }  # fmt: skip
            manifest[pointer.config] = entry
        if manifest:
            write_json(paths.essential / MANIFEST, {"schema": 1, "configs": manifest})
            crash_point("deploy.manifest")
            _tidy(paths, keep)
        return failed


def _put(paths: Paths, one: Essential, target: Path) -> None:
    """Places a file unless it is there, with its checksum.

    Raises:
        NotFoundError, UnverifiedError: the registered file is missing or another one.
        ResourceError: the disk is full, or nothing may be written there.
    """
    try:
        if not _is_placed(target, one.model.sha256):
            place(check_source(paths, one.model), target, one.model.sha256)
            crash_point("deploy.placed")
    except OSError as error:
        raise resource_error(error, str(error.filename or target)) or error from error


def _is_placed(target: Path, sha256: str) -> bool:
    try:
        return target.is_file() and read_sidecar(target) == sha256 == sha256_file(target)
    except UnverifiedError:  # the checksum beside it is none
        return False


def _tidy(paths: Paths, keep: set[str]) -> None:
    """Removes our own files that no pointer wants any more; what others have put there stays."""
    for path in paths.essential.iterdir():
        ours = path.name.startswith("previous_") and path.name.endswith((".pth", ".pth.sha256"))
        left = path.name.startswith((".canonical_", ".previous_")) and path.name.endswith(".tmp")
        if left or (ours and path.name not in keep):
            path.unlink()
