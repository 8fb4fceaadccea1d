"""Where registered files lie, and how they get there."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from pathlib import Path

from backend.atomic import atomic_file, fsync_dir
from backend.crash import crash_point
from backend.errors import UnverifiedError
from backend.paths import Paths
from backend.registry.hashing import sha256_file, sidecar_path, write_sidecar

_REGISTERED = re.compile(r"^v(\d+)_[0-9a-f]{8}\.pth$")


def registered_path(paths: Paths, model_id: str, version: int, sha256: str) -> Path:
    """``models/<model_id>/v<N>_<sha8>.pth``: a model's place for as long as it is not archived."""
    return paths.models / model_id / f"v{version}_{sha256[:8]}.pth"


def stored_path(paths: Paths, path: Path) -> str:
    """A path as the registry keeps it: relative to the root where possible, so that a root can be moved."""
    try:
        return path.absolute().relative_to(paths.root).as_posix()
    except ValueError:
        return str(path.absolute())


def full_path(paths: Paths, stored: str) -> Path:
    """The file that a stored path means."""
    return paths.root / stored


def remove_leftovers(folder: Path, version: int, keep: Path) -> None:
    """Removes what a registration left that was killed before its row was written.

    Only called for a version number that no row has, so nothing registered can be meant.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        match = _REGISTERED.match(path.name)
        if match and int(match[1]) == version and path != keep:
            sidecar_path(path).unlink(missing_ok=True)
            path.unlink()


def place(source: Path, target: Path, sha256: str) -> None:
    """Makes ``target`` a read-only hard link of ``source``, or a copy where links cannot be made; with its sidecar.

    Safe to repeat after a kill at any point.

    Raises:
        UnverifiedError: the bytes at the target are not those of ``sha256`` (``source`` changed meanwhile).
        ResourceError: the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or not (target.exists() and sha256_file(target) == sha256):
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            os.link(source.resolve(), temporary)  # a link to a symbolic link would be one itself
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            _copy(source, target)
        crash_point("place.renamed")
        if sha256_file(target) != sha256:
            target.unlink()
            raise UnverifiedError("the checkpoint changed while it was registered", where=str(source), hint="try again")
    target.chmod(0o444)
    write_sidecar(target, sha256)
    fsync_dir(target.parent)


def move(source: Path, target: Path, sha256: str) -> None:
    """Moves a file, also to another file system. Of a symbolic link the content is moved to ``target`` as a file of
    its own and the link is removed; what it points to stays.

    Safe to repeat after a kill at any point.

    Raises:
        UnverifiedError: the bytes that arrived are not those of ``sha256``; the source is still there.
        ResourceError: the disk is full; the source is still there.
    """
    renamed = not source.is_symlink()
    if renamed:
        try:
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            renamed = False
    if not renamed:
        copy_verified(source, target, sha256)
        target.chmod(0o444)
        source.unlink()
    fsync_dir(target.parent)
    fsync_dir(source.parent)


def copy_verified(source: Path, target: Path, sha256: str) -> None:
    """Copies a file with its checksum beside it.

    Raises:
        UnverifiedError: the bytes that arrived are not those of ``sha256``; nothing is left.
        ResourceError: the disk is full.
    """
    _copy(source, target)
    if sha256_file(target) != sha256:
        target.unlink()
        raise UnverifiedError("the file changed while it was copied", where=str(source), hint="try again")
    write_sidecar(target, sha256)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, atomic_file(target) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
