"""What a file on this machine is: size, SHA-256 and the hashes of its pieces, read in one pass."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from backend.distribution.transports.base import Payload
from backend.errors import NotFoundError, UnverifiedError

PIECES = 1500
SMALLEST, LARGEST = 64 * 1024, 8 * 1024 * 1024
KINDS = {".pth": "checkpoint", ".pt": "checkpoint", ".npz": "npz"}


def piece_size(size: int) -> int:
    """Bytes of a piece: about :data:`PIECES` of them, a power of two, 64 KiB to 8 MiB (research 3.2)."""
    wanted = max(1, -(-size // PIECES))
    return min(LARGEST, max(SMALLEST, 1 << (wanted - 1).bit_length()))


def kind_of(path: Path) -> str:
    return KINDS.get(path.suffix.lower(), "other")


def make_payload(path: Path, kind: str | None = None) -> Payload:
    """Reads a file from its first byte to its last.

    Raises:
        NotFoundError: there is no such file.
        UnverifiedError: it changed while it was read, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            before = os.fstat(stream.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise NotFoundError("not a regular file", where=str(path))
            size = piece_size(before.st_size)
            whole, pieces, read = hashlib.sha256(), [], 0
            while block := stream.read(size):
                whole.update(block)
                pieces.append(hashlib.sha256(block).digest())
                read += len(block)
            after = os.fstat(stream.fileno())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFoundError("no such file", where=str(path)) from None
    except OSError as error:
        raise UnverifiedError(
            f"the file cannot be read: {error.strerror}", where=str(path), hint="mend that, then try again"
        ) from error
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, read):
        raise UnverifiedError("the file changed while it was read", where=str(path), hint="wait until it is written")
    return Payload(path, read, whole.hexdigest(), kind or kind_of(path), size, tuple(pieces))
