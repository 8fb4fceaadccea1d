"""SHA-256 of files, and the sidecar that keeps it beside them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from backend.atomic import write_bytes
from backend.errors import NotFoundError, UnverifiedError

_SIDECAR = re.compile(r"^([0-9a-f]{64})\b")


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file as 64 hex digits, read in fixed-size pieces.

    Raises:
        NotFoundError: there is no such file.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFoundError("no such file", where=str(path)) from None


def sidecar_path(path: Path) -> Path:
    """Where the digest of ``path`` is kept: ``<path>.sha256``."""
    return path.with_name(path.name + ".sha256")


def write_sidecar(path: Path, sha256: str) -> None:
    """Writes ``<hex>  <basename>`` beside ``path``, the format that ``sha256sum -c`` reads."""
    write_bytes(sidecar_path(path), f"{sha256}  {path.name}\n".encode())


def read_sidecar(path: Path) -> str | None:
    """The digest that the sidecar of ``path`` states; None when there is no sidecar.

    Raises:
        UnverifiedError: the sidecar holds no digest.
    """
    try:
        text = sidecar_path(path).read_text(errors="replace")
    except FileNotFoundError:
        return None
    match = _SIDECAR.match(text)
    if match is None:
        raise UnverifiedError(
            "the checksum file holds no SHA-256", where=str(sidecar_path(path)), hint="remove it or write it anew"
        )
    return match.group(1)


def verified_sha256(path: Path) -> str:
    """The SHA-256 of ``path``, compared with its sidecar where there is one.

    Raises:
        NotFoundError: there is no such file.
        UnverifiedError: the sidecar states another digest.
    """
    actual = sha256_file(path)
    stated = read_sidecar(path)
    if stated is not None and stated != actual:
        raise UnverifiedError(
            f"the file is not the one its checksum was made of (SHA-256 {actual[:12]}, stated {stated[:12]})",
            where=str(path),
            hint="fetch or write it again",
        )
    return actual
