"""A growing log file seen through a window of lines: bounded reads by byte offset, bounded memory.

Progress bars that end in ``\\r`` collapse to what would stand on the screen, escape sequences are dropped, and a line
of any length costs a few kilobytes at most.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ringrift_console.glyphs import strip_escapes

CHUNK = 256 * 1024
"""Bytes of one read."""
LINE_BYTES = 8192
"""Of a longer line only the beginning is kept, with the number of bytes left out."""
WINDOW_BYTES = 4 * 1024 * 1024
"""Text held at most; the far end is let go first."""

_STAMP = re.compile(r"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)\]?\s+")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: the byte offset where it starts, its text, and the time stamp that it begins with, if any."""

    offset: int
    text: str
    stamp: str = ""
    size: int = 0  # bytes in the file, newline included


def make_line(offset: int, raw: bytes, size: int) -> LogLine:
    """The line of ``raw`` bytes without their newline."""
    kept = raw.rstrip(b"\r")
    if b"\r" in kept:
        kept = kept[kept.rfind(b"\r") + 1 :]
    cut = len(kept) - LINE_BYTES
    text = strip_escapes(kept[:LINE_BYTES].decode("utf-8", "replace")).expandtabs(8)
    if cut > 0:
        text += f" [{cut} bytes more]"
    match = _STAMP.match(text)
    return LogLine(offset, text[match.end() :], match.group(1), size) if match else LogLine(offset, text, "", size)


@dataclass(frozen=True, slots=True)
class Read:
    """What one look at the file gave; ``data`` stands at byte ``offset``."""

    kind: Literal["tail", "more", "before"]
    exists: bool
    identity: tuple[int, int] = (0, 0)
    size: int = 0
    offset: int = 0
    data: bytes = b""


class LogFile:
    """A window onto one log file.

    ``fetch`` does one short, bounded read and changes nothing, so that it may run on a thread; ``take`` puts what it
    gave into the window.

    Attributes:
        lines: the lines held, oldest first; the last may still be growing.
        start: byte offset of the first line held.
        end: byte offset up to which the file was read.
        size: of the file when it was last looked at.
        restarts: how often the file was found replaced or cut; then the window starts again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[LogLine] = []
        self.start = 0
        self.end = 0
        self.size = 0
        self.exists = False
        self.restarts = 0
        self._identity: tuple[int, int] | None = None
        self._partial = b""
        self._partial_start = 0
        self._partial_cut = 0  # bytes of the unfinished line that were let go
        self._held = 0

    @property
    def at_end(self) -> bool:
        return self.end >= self.size

    @property
    def full(self) -> bool:
        """Whether one more chunk pushes the far end of the window out."""
        return self._held + CHUNK > WINDOW_BYTES

    def look(self) -> None:
        """Notes how large the file is now, without reading it."""
        with contextlib.suppress(OSError):  # the next read tells
            self.size = self.path.stat().st_size

    def fetch(self, kind: Literal["tail", "more", "before"]) -> Read:
        """Reads the end of the file, what follows the window, or what stands before it; at most one chunk.

        Raises:
            OSError: the file is there and cannot be read.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return Read(kind, exists=False)
        try:
            status = os.fstat(descriptor)
            size = status.st_size
            begin, count = self.end, CHUNK
            if kind == "tail":
                begin = max(0, size - CHUNK)
            elif kind == "before":
                begin = max(0, self.start - CHUNK)
                count = self.start - begin
            # One byte early tells whether a line starts at `begin`.
            lead = 1 if kind == "tail" and begin else 0
            data = os.pread(descriptor, count + lead, begin - lead)
        finally:
            os.close(descriptor)
        if lead:
            newline = data.find(b"\n")
            data, begin = (data[newline + 1 :], begin + newline) if newline >= 0 else (data[1:], begin)
        return Read(kind, True, (status.st_dev, status.st_ino), size, begin, data)

    def take(self, read: Read) -> int:
        """Puts a read into the window; returns how many lines were added in front (0 for reads of the end)."""
        self.exists = read.exists
        if not read.exists:
            return 0
        replaced = self._identity not in (None, read.identity) or read.size < self.end
        self._identity, self.size = read.identity, read.size
        if read.kind == "tail":
            self._clear(read.offset)
        elif replaced:
            self.restarts += 1
            self._clear(0)
            return 0
        if read.kind == "before":
            return self._prepend(read) if read.offset + len(read.data) == self.start else 0
        if read.data and read.offset == self.end:
            self._append(read.data)
        return 0

    def _clear(self, start: int) -> None:
        self.lines = []
        self.start = self.end = self._partial_start = start
        self._partial, self._partial_cut, self._held = b"", 0, 0

    def _prepend(self, read: Read) -> int:
        data, offset = read.data, read.offset
        if offset > 0:
            newline = data.find(b"\n")
            # In a line longer than the chunk there is no start to be found: its part becomes a line of its own.
            skip = newline + 1 if 0 <= newline < len(data) - 1 else 0
            data, offset = data[skip:], offset + skip
        added = []
        self.start = offset
        for raw in _split(data):
            added.append(make_line(offset, raw.rstrip(b"\n"), len(raw)))
            offset += len(raw)
        self.lines[:0] = added
        self._held += sum(len(line.text) for line in added)
        while self._held > WINDOW_BYTES and len(self.lines) > len(added):
            gone = self.lines.pop()
            self._held -= len(gone.text)
            self.end = self._partial_start = gone.offset
            self._partial, self._partial_cut = b"", 0
        return len(added)

    def _append(self, data: bytes) -> None:
        if self.lines and (self._partial or self._partial_cut):
            self._held -= len(self.lines.pop().text)
        self.end += len(data)
        data = self._partial + data
        offset, cut = self._partial_start, self._partial_cut
        for raw in _split(data):
            if not raw.endswith(b"\n"):
                break
            size = len(raw) + cut
            self._push(make_line(offset, raw[:-1], size))
            offset += size
            cut = 0
        rest = data[data.rfind(b"\n") + 1 :]
        # An unfinished line is bounded too: what a carriage return has overwritten goes, then all but its beginning.
        keep = rest[max(0, rest.rstrip(b"\r").rfind(b"\r")) :] if b"\r" in rest else rest
        keep = keep if len(keep) <= 2 * LINE_BYTES else keep[:LINE_BYTES]
        self._partial, self._partial_start, self._partial_cut = keep, offset, cut + len(rest) - len(keep)
        if keep:
            self._push(make_line(offset, keep, 0))
        gone = 0
        while self._held > WINDOW_BYTES and gone < len(self.lines) - 1:
            self._held -= len(self.lines[gone].text)
            gone += 1
        if gone:
            del self.lines[:gone]
            self.start = self.lines[0].offset

    def _push(self, line: LogLine) -> None:
        self.lines.append(line)
        self._held += len(line.text)


def _split(data: bytes) -> list[bytes]:
    """Lines with their newline; unlike ``bytes.splitlines`` a carriage return ends none."""
    parts = data.split(b"\n")
    last = parts.pop()
    return [part + b"\n" for part in parts] + ([last] if last else [])
