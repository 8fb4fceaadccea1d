"""A torrent of one file: version 2 (SHA-256), private, with no tracker, named by the content it has."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import UnverifiedError

PIECES = 1500
SMALLEST, LARGEST = 32 << 10, 8 << 20
NAME_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Torrent:
    """What peers need to take part; whoever has ``data`` and no more can join unless it names a certificate authority.

    Attributes:
        data: the bencoded torrent.
        name: what its certificates are made out to.
        size: bytes of the file.
        piece: bytes of a piece.
    """

    data: bytes
    name: str
    size: int
    piece: int

    @property
    def pieces(self) -> int:
        return -(-self.size // self.piece)


def piece_size(size: int) -> int:
    """Bytes of a piece, a power of two: about 1000 pieces a file, so that every host soon has something to pass on.

    Fewer pieces leave hosts idle at the beginning and the end (16 pieces took 3.0 times the bound, 256 took 1.9); more
    cost processor time.
    """
    wanted = max(1, -(-size // PIECES))
    return min(LARGEST, max(SMALLEST, 1 << (wanted - 1).bit_length()))


def torrent_name(sha256: str) -> str:
    return f"{sha256[:NAME_DIGITS]}.bin"


async def make_torrent(path: Path, sha256: str, *, authority: str | None = None) -> Torrent:
    """Hashes a file into a torrent, in a thread; libtorrent leaves the interpreter alone while it reads.

    Args:
        sha256: of the file, hexadecimal; names the torrent, and is not checked here.
        authority: PEM of the certificate authority that every peer must show a certificate of.

    Raises:
        UnverifiedError: the file changed while it was read.
        OSError: it cannot be read.
    """
    return await asyncio.to_thread(_make, path, sha256, authority)


def _make(path: Path, sha256: str, authority: str | None) -> Torrent:
    import libtorrent as lt

    path = path.resolve(strict=True)
    before = os.stat(path)
    entries = lt.list_files(str(path))
    size = piece_size(before.st_size)
    maker = lt.create_torrent(entries, size, lt.create_torrent.v2_only)
    maker.set_priv(True)
    maker.set_creator("")
    maker.set_creation_date(0)
    if authority is not None:
        maker.set_root_cert(authority)
    lt.set_piece_hashes(maker, str(path.parent))
    made = maker.generate()
    after = os.stat(path)
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
        raise UnverifiedError("it changed while its hashes were taken", where=str(path), hint="try again")
    return Torrent(lt.bencode(_named(made, torrent_name(sha256))), torrent_name(sha256), before.st_size, size)


def _named(made: dict[bytes, Any], name: str) -> dict[bytes, Any]:
    """The torrent under another name: in version 2 a single file's name stands twice, and in no hash of a piece."""
    info = made[b"info"]
    (entry,) = info[b"file tree"].values()
    info[b"file tree"], info[b"name"] = {name.encode(): entry}, name.encode()
    return made
