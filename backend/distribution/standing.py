"""What our programs on a host have in common: a place of their own, and whom they obey, who may be gone.

Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import stat
import threading
import time
from collections.abc import Sequence
from typing import Any, BinaryIO


class Refusal(Exception):
    """Why a program does nothing; ``kind`` is one of a few words that the head knows."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Claim:
    """A file that says who may go on; the newest to write it, and of no older supervisor than the one before."""

    def __init__(self, path: str, epoch: int) -> None:
        self.path, self.text = path, f"{epoch} {secrets.token_hex(8)}\n"
        if path:
            before = _read(path)
            if before[:1].isdigit() and int(before.split()[0]) > epoch:
                raise Refusal("stale", "a newer supervisor has taken over")
            temporary = f"{path}.{os.getpid()}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o600), "w") as stream:
                stream.write(self.text)
            os.replace(temporary, path)

    def held(self) -> bool:
        return not self.path or _read(self.path) == self.text


def _read(path: str) -> str:
    try:
        with open(path) as stream:
            return stream.read(100)
    except OSError:
        return ""


def lease_over(path: str, lease_s: float) -> bool:
    """Whether a lease file is gone, or older than that by this machine's clock."""
    try:
        return time.time() - os.stat(path).st_mtime > lease_s
    except OSError:
        return True


class Channel:
    """The way back to whoever started this; it may be gone at any time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock, self.lost = stream, threading.Lock(), 0.0

    def say(self, value: dict[str, Any]) -> None:
        with self._lock:
            if not self.lost:
                try:
                    self._stream.write(json.dumps(value).encode() + b"\n")
                    self._stream.flush()
                except (OSError, ValueError):
                    self.lost = time.monotonic()
                    self._drop_the_rest()

    def hang_up(self) -> None:
        self.lost = self.lost or time.monotonic()

    def _drop_the_rest(self) -> None:
        """Lets what is still buffered go nowhere: flushed at exit to nobody, it would make the exit code 120."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def check_place(folder: str, names: Sequence[str]) -> None:
    """Refuses a folder that others may write to, and anything but a plain file under the names that we write."""
    try:
        about = os.lstat(folder)
    except OSError as error:
        raise Refusal("unsafe", f"{folder}: {error.strerror}") from None
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise Refusal("unsafe", f"{folder}: not a private folder of ours")
    for name in names:
        try:
            if not stat.S_ISREG(os.lstat(os.path.join(folder, name)).st_mode):
                raise Refusal("unsafe", f"{folder}/{name}: not a plain file")
        except FileNotFoundError:
            pass


def take_lock(path: str, wait_s: float) -> int:
    """Waits for the one before to end; returns a descriptor that holds the lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                raise Refusal("busy", "an earlier attempt does not end") from None
            time.sleep(0.05)


def file_sha256(path: str) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1024 * 1024):
            digest.update(block)
    return digest.hexdigest()
