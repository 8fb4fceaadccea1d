"""The one way a file is written: beside its place, flushed, then renamed over it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from backend.errors import resource_error


def fsync_dir(folder: Path) -> None:
    """Makes a rename or unlink in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A binary file that appears at ``path`` only when the block ends without an error.

    The temporary file lies in the same folder (its name starts with a dot and ends in ``.tmp``) and is removed on any
    error, so a full disk leaves the old file as it was.

    Raises:
        ResourceError: the disk or quota is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        fsync_dir(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (full := resource_error(error, str(path))):
            raise full from error
        raise


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replaces the content of ``path`` atomically."""
    with atomic_file(path, mode=mode) as stream:
        stream.write(data)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Replaces ``path`` atomically by ``value`` as indented JSON."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode(), mode=mode)
