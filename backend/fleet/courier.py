"""Runs on a host, read from standard input by ``python3``: takes one file in, or gives one out.

Standard library only, Python 3.9 or newer. The request is one line of JSON, ``{"op": "put", "path", "size", "sha256",
"mode"}`` followed by the bytes, or ``{"op": "get", "path"}``. Everything that a login shell prints comes before the
line ``RINGRIFT-COURIER``; after it stands one line of JSON, for ``get`` followed by the bytes and another line of JSON.

A file appears at its path whole, flushed and with the right hash, or not at all. Input that ends early (a cut link, a
controller that was killed) removes what had come.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from typing import Any, BinaryIO, Dict, Tuple

MAGIC = "RINGRIFT-COURIER"
BLOCK = 256 * 1024


def say(value: Dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


def put(request: Dict[str, Any], source: BinaryIO) -> Dict[str, Any]:
    path = os.path.abspath(os.path.expanduser(request["path"]))
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    staging = os.path.join(folder, f".{os.path.basename(path)}.{os.getpid()}.part")
    digest, left = hashlib.sha256(), request["size"]
    try:
        descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            while left:
                block = source.read(min(BLOCK, left))
                if not block:
                    return {"error": "cut", "message": f"the input ended {left} bytes early"}
                target.write(block)
                digest.update(block)
                left -= len(block)
            if digest.hexdigest() != request["sha256"]:
                return {"error": "hash", "message": "received " + digest.hexdigest()}
            target.flush()
            os.fchmod(target.fileno(), request["mode"])
            os.fsync(target.fileno())
        os.rename(staging, path)
        entry = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)
    finally:
        if os.path.exists(staging):
            os.unlink(staging)
    return {"path": path, "sha256": digest.hexdigest()}


def opened(request: Dict[str, Any]) -> Tuple[str, BinaryIO, int]:
    path = os.path.abspath(os.path.expanduser(request["path"]))
    source = open(path, "rb")  # noqa: SIM115
    return path, source, os.fstat(source.fileno()).st_size


def send(source: BinaryIO, left: int) -> None:
    digest = hashlib.sha256()
    while left:
        block = source.read(min(BLOCK, left))
        if not block:
            sys.exit("the file became shorter while it was read")
        sys.stdout.buffer.write(block)
        digest.update(block)
        left -= len(block)
    say({"sha256": digest.hexdigest()})


def main() -> None:
    incoming = sys.stdin.buffer
    request = json.loads(incoming.readline().decode())
    sys.stdout.write(MAGIC + "\n")
    sys.stdout.flush()
    try:
        if request["op"] == "put":
            say(put(request, incoming))
            return
        path, source, size = opened(request)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = "full" if full else "missing" if error.errno == errno.ENOENT else "failed"
        say({"error": kind, "message": str(error)})
        return
    say({"path": path, "size": size})
    with source:
        send(source, size)


if __name__ == "__main__":
    main()
