"""Metalink 4 (RFC 5854): one file, where to get it, and the hash of every piece; pure.

With piece hashes aria2 tells a bad source from a good one while it loads; with the hash of the whole alone it notices
at the end, and cannot tell which of several sources lied.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

MIME = "application/metalink4+xml"
_NAMESPACE = "urn:ietf:params:xml:ns:metalink"


def metalink(name: str, size: int, sha256: str, piece_size: int, pieces: Sequence[bytes], urls: Sequence[str]) -> str:
    """The document for one file.

    Args:
        name: a plain file name; it is what the file is called in aria2's folder.
        pieces: SHA-256 of each piece, 32 bytes each.
        urls: the best first; all are asked, the first ones before the others.

    Raises:
        ValueError: the name is a path, or the pieces do not make up the size.
    """
    if not name or "/" in name or name in (".", "..") or any(ord(letter) < 32 for letter in name):
        raise ValueError(f"not a plain file name: {name!r}")
    if piece_size <= 0 or len(pieces) != -(-size // piece_size):
        raise ValueError(f"{len(pieces)} pieces of {piece_size} bytes do not make up {size}")
    quoted = escape(name, {'"': "&quot;"})
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<metalink xmlns="{_NAMESPACE}">',
        f'<file name="{quoted}">',
        f"<size>{size}</size>",
        f'<hash type="sha-256">{escape(sha256)}</hash>',
    ]
    if pieces:
        lines.append(f'<pieces type="sha-256" length="{piece_size}">')
        lines += [f"<hash>{piece.hex()}</hash>" for piece in pieces]
        lines.append("</pieces>")
    lines += [f'<url priority="{min(place, 999999)}">{escape(url)}</url>' for place, url in enumerate(urls, 1)]
    lines += ["</file>", "</metalink>", ""]
    return "\n".join(lines)
