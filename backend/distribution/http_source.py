"""Asks a source about the file, without aria2; standard library only, Python 3.9 or newer, no proxies."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

PROBE_S = 5.0


def ask_source(url: str, sha256: str, size: int) -> str:
    """What a source says of the file: ``ok``, ``token``, ``changed``, ``unreachable`` or ``other``."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PROBE_S)
    try:
        connection.request("HEAD", parts.path)
        answer = connection.getresponse()
        if answer.status == 200:
            right = answer.headers.get("ETag") == f'"{sha256}"' and answer.headers.get("Content-Length") == str(size)
            return "ok" if right else "other"
        return {401: "token", 410: "changed"}.get(answer.status, "other")
    except (OSError, http.client.HTTPException):
        return "unreachable"
    finally:
        connection.close()


def piece_of(url: str, first: int, length: int) -> bytes:
    """One piece, straight from a source; raises OSError or HTTPException when it does not come."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PROBE_S)
    try:
        connection.request("GET", parts.path, headers={"Range": f"bytes={first}-{first + length - 1}"})
        answer = connection.getresponse()
        if answer.status != 206:
            raise OSError(f"status {answer.status}")
        return answer.read(length)
    finally:
        connection.close()
