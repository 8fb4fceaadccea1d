"""How a running job tells its progress: numbered JSON lines appended to a file.

The file is named by ``RINGRIFT_PROGRESS`` (the agent sets it to ``progress.jsonl`` in the job's folder). A reader
takes complete lines only and drops repeated ``seq`` numbers, so a torn last line is harmless.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROGRESS_VARIABLE = "RINGRIFT_PROGRESS"


class Progress:
    """Writes progress lines, at most ``per_second`` a second, and the job's result at the end.

    Args:
        total: units of work in all, or None when unknown.
        unit: what is counted, plural: ``games``, ``samples``, ``epochs``.
        path: the file; by default the one that ``RINGRIFT_PROGRESS`` names. None writes no file.
        echo: also print a human line to standard output (the job's log) at most every ``echo_s`` seconds.
    """

    def __init__(
        self,
        total: float | None,
        unit: str,
        *,
        path: Path | None = None,
        per_second: float = 2.0,
        echo: bool = True,
        echo_s: float = 5.0,
    ) -> None:
        named = os.environ.get(PROGRESS_VARIABLE)
        self.path = path if path is not None else Path(named) if named else None
        self.total = total
        self.unit = unit
        self._pause = 1.0 / per_second
        self._echo_s = echo_s if echo else float("inf")
        self._began = time.monotonic()
        self._start_done: float | None = None
        self._last_write = float("-inf")
        self._last_echo = float("-inf")
        self._seq = _last_seq(self.path) if self.path else 0

    def update(self, done: float, message: str = "", *, force: bool = False, **metrics: float | int | str) -> None:
        """Reports ``done`` units out of the total; extra numbers go into ``metrics``."""
        now = time.monotonic()
        if self._start_done is None:
            self._start_done, self._began = done, now
        if not force and now - self._last_write < self._pause:
            return
        self._last_write = now
        elapsed = now - self._began
        rate = (done - self._start_done) / elapsed if elapsed > 0 and done > self._start_done else None
        eta = (self.total - done) / rate if rate and self.total is not None else None
        line = {"done": done, "total": self.total, "unit": self.unit, "rate": rate, "eta_s": eta, "message": message}
        self._append(line | ({"metrics": metrics} if metrics else {}))
        if force or now - self._last_echo >= self._echo_s:
            self._last_echo = now
            self._echo(done, rate, eta, message)

    def result(self, value: dict[str, Any]) -> None:
        """Writes what the job produced; the last line of a job that ended well."""
        self._append({"result": value})

    def _append(self, fields: dict[str, Any]) -> None:
        if self.path is None:
            return
        self._seq += 1
        row = {"seq": self._seq, "at": datetime.now(UTC).isoformat(timespec="milliseconds")} | fields
        with self.path.open("ab") as stream:
            stream.write((json.dumps(row) + "\n").encode())

    def _echo(self, done: float, rate: float | None, eta: float | None, message: str) -> None:
        if self._echo_s == float("inf"):
            return
        of = f"/{self.total:g}" if self.total is not None else ""
        speed = f"  {rate:.3g} {self.unit}/s" if rate else ""
        left = f"  {eta:.0f} s left" if eta is not None else ""
        sys.stdout.write(f"{done:g}{of} {self.unit}{speed}{left}{'  ' + message if message else ''}\n")
        sys.stdout.flush()


def _last_seq(path: Path) -> int:
    rows = read_progress(path)
    return int(rows[-1]["seq"]) if rows else 0


def read_progress(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a progress file, in order; an absent file is an empty list."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return parse_lines(data[: data.rfind(b"\n") + 1])


def parse_lines(data: bytes) -> list[dict[str, Any]]:
    """The rows among complete lines ``data``; lines that are no JSON objects with a ``seq`` are passed over."""
    rows = []
    for line in data.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("seq"), int):
            rows.append(row)
    return rows
