"""Our programs for hosts as processes of their own, spoken to line by line, and the file that they move."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.distribution.shipping import program

WAIT_S = 90.0
LOADER = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
RANGES = ("http_ranges", "standing", "ranges")
FETCH = ("standing", "metalink", "http_source", "aria2_engine", "aria2_host")


def no_aria2() -> str:
    """Why aria2 cannot be tested here; empty when it can."""
    return "" if shutil.which("aria2c") else "there is no aria2c on this machine (apt-get install aria2)"


@dataclass(frozen=True, slots=True)
class Sample:
    """A file of random bytes, the same for the same seed."""

    path: Path
    data: bytes
    piece_size: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pieces(self) -> tuple[bytes, ...]:
        step = self.piece_size
        return tuple(hashlib.sha256(self.data[at : at + step]).digest() for at in range(0, len(self.data), step))

    def copy(self, path: Path, *, wrong: tuple[int, ...] = ()) -> Path:
        """The file once more, with these bytes changed."""
        data = bytearray(self.data)
        for at in wrong:
            data[at] ^= 1
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


def sample(path: Path, size: int, piece_size: int = 256 * 1024) -> Sample:
    data = random.Random(size).randbytes(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Sample(path, data, piece_size)


class Program:
    """A running program; ``said`` are the JSON lines so far."""

    def __init__(self, modules: tuple[str, ...], request: dict[str, Any], *, python: str = sys.executable) -> None:
        text = program(*(f"backend.distribution.{name}" for name in modules))
        self.process = subprocess.Popen(
            [python, "-I", "-S", "-c", LOADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.said: list[dict[str, Any]] = []
        self._rest = b""
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % len(text) + text)
        self.tell(request)

    def tell(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Reads on to a line that is meant; fails when the program ends before, or nothing comes for too long."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + WAIT_S
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if found:
                self._rest = rest
                if line.startswith(b"{"):
                    self.said.append(json.loads(line))
                    if condition(self.said[-1]):
                        return self.said[-1]
                continue
            assert select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0], self.said[
                -5:
            ]
            block = os.read(self.process.stdout.fileno(), 65536)
            if not block:
                assert self.process.stderr is not None
                raise AssertionError(f"it has ended: {self.said[-5:]} {self.process.stderr.read().decode()}")
            self._rest += block

    def until_key(self, *keys: str) -> dict[str, Any]:
        return self.until(lambda line: set(keys) & set(line))

    def hang_up(self) -> None:
        """Closes the channel, as a head that is gone would."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Served(Program):
    """A range server for one file; every keyword overrides a setting."""

    def __init__(self, given: Sample, path: Path | None = None, *, python: str = sys.executable, **more: Any) -> None:
        self.token, self.sha256 = secrets.token_urlsafe(32), given.sha256
        request = {"path": str(path or given.path), "size": len(given.data), "sha256": given.sha256}
        super().__init__(RANGES, {**request, "tokens": {self.token: "host"}, **more}, python=python)

    @property
    def port(self) -> int:
        if not any("listening" in line for line in self.said):
            self.until_key("listening", "error")
        (port,) = next(line["listening"] for line in self.said if "listening" in line).values()
        return int(port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.token}/{self.sha256}"
