"""File systems of a test's own: too small, or read-only. What is mounted is gone again when the block ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def _mounted(folder: Path) -> bool:
    return any(line.split()[1] == str(folder) for line in Path("/proc/self/mounts").read_text().splitlines())


def _open_files() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists this folder
            yield os.readlink(link)


def _unmount(folder: Path) -> None:
    """Takes a file system away, and fails when this process still holds something open on it."""
    busy = [path for path in _open_files() if path.startswith(f"{folder}/")]
    subprocess.run(["umount", *(["-l"] if busy else []), str(folder)], check=True)
    assert not _mounted(folder)
    assert not busy, f"still open: {busy}"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own at ``folder``, of so many bytes (as tmpfs takes them: ``200k``, ``1m``)."""
    folder.mkdir(exist_ok=True)
    _mount(["-t", "tmpfs", "-o", f"size={size}", "none", str(folder)])
    try:
        yield folder
    finally:
        _unmount(folder)


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """``folder`` as a file system that nobody can write to, not even root."""
    _mount(["--bind", str(folder), str(folder)])
    try:
        _mount(["-o", "remount,bind,ro", str(folder)])
        yield folder
    finally:
        _unmount(folder)


def _mount(words: list[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
