"""Locks between processes that name their owner.

The kernel drops a ``flock`` when its holder dies, so a lock can never be stale; the text in the file only says who
holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backend.errors import LockedError, resource_error


class FileLock:
    """An exclusive lock on ``path``, held from :meth:`acquire` (or ``with``) until :meth:`release`.

    Args:
        path: the lock file; made when missing, never removed (removing a lock file would let two holders in).
        purpose: what the holder does, in words, shown to whoever is refused.
        patience_s: how long to wait, blocking, for a holder whose work takes milliseconds.
    """

    def __init__(self, path: Path, purpose: str, patience_s: float = 0.0) -> None:
        self.path = path
        self.purpose = purpose
        self.patience_s = patience_s
        self._descriptor: int | None = None

    def acquire(self) -> Self:
        """Takes the lock.

        Raises:
            LockedError: somebody else has it, and does not give it back in time; the message names them.
        ResourceError: there is no room to write down who holds it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise LockedError(
                f"in use by {describe_owner(self.path)}", where=str(self.path), hint="wait for it or stop it"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "purpose": self.purpose,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise resource_error(error, str(self.path)) or error from error
        self._descriptor = descriptor
        return self

    def _lock(self, descriptor: int) -> None:
        end = time.monotonic() + self.patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
            time.sleep(0.01)

    def release(self) -> None:
        """Gives the lock back; does nothing when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def read_owner(path: Path) -> dict[str, Any] | None:
    """What the last holder wrote into the lock file, or None when there is nothing readable."""
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def is_held(path: Path) -> bool:
    """Whether some process holds the lock now; those who look at the same moment do not see each other."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def describe_owner(path: Path) -> str:
    """The holder in words, e.g. ``self-play of hex8_2p (pid 4711 on head, since 2026-11-22T09:00:00+00:00)``."""
    owner = read_owner(path)
    if owner is None:
        return "another process"
    return (
        f"{owner.get('purpose', 'another process')} "
        f"(pid {owner.get('pid', '?')} on {owner.get('host', '?')}, since {owner.get('since', '?')})"
    )
