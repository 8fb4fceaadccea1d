"""Compiling a group of kernels once a machine, in one process, and saying so."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from backend.rules.jit import CACHE


def compile_once(name: str, sources: tuple[Path, ...], line: str, run: Callable[[], None]) -> None:
    """Calls ``run``, which has to call the kernels, unless a process did so before with these sources.

    Processes that come at the same time compile once: the others wait for the first.

    Args:
        name: of the group; part of a file name.
        sources: files of the kernels.
        line: what to say on standard error while it lasts; ``RINGRIFT_QUIET=1`` leaves it out.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = CACHE / f"{name}-{digest[:16]}"
    if stamp.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists():
            return
        if os.environ.get("RINGRIFT_QUIET") != "1":
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        run()
        stamp.touch()
