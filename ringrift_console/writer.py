"""Output to a terminal that may stop reading at any moment, without ever holding up the event loop.

Textual's own writer queues 30 writes and then blocks the loop. This one takes every write at once and tells how much
is waiting; whoever draws leaves frames out while too much waits, and draws the whole screen again when it has drained.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import IO

BACKLOG_BYTES = 64 * 1024
"""Unread output from which frames are left out: about one full screen of 160x50 in colour."""
_PIECE = 2048  # bytes of one write to the terminal


class CoalescingWriter(threading.Thread):
    """A thread that writes to a terminal in small pieces.

    Args:
        file: the terminal; its encoding and descriptor are used, its buffer is not.
        on_drained: called on this thread when everything was written after frames had been left out.
        on_lost: called on this thread when the terminal has gone away.
    """

    def __init__(
        self,
        file: IO[str],
        on_drained: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(daemon=True, name="terminal-output")
        self._descriptor = file.fileno()
        self._encoding = file.encoding or "ascii"
        self._on_drained = on_drained
        self._on_lost = on_lost
        self._waiting: deque[bytes] = deque()
        self._backlog = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._starved = False
        self.lost = False
        self.written = 0
        self.left_out = 0

    @property
    def backlog(self) -> int:
        """Bytes that wait to be written."""
        return self._backlog

    @property
    def congested(self) -> bool:
        """True when a frame should be left out now; remembers that one was."""
        if self.lost:
            return True
        with self._changed:
            if self._backlog < BACKLOG_BYTES and not (self._starved and self._backlog):
                return False
            self._starved = True
            self.left_out += 1
            return True

    def write(self, text: str) -> None:
        """Takes ``text`` without waiting."""
        if self.lost:
            return
        data = text.encode(self._encoding, "replace")
        with self._changed:
            self._waiting.append(data)
            self._backlog += len(data)
            self._changed.notify()

    def flush(self) -> None:
        """Nothing to do: the thread writes as soon as the terminal takes it."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._stopping:
                        return
                    self._changed.wait()
                data = b"".join(self._waiting)
                self._waiting.clear()
            try:
                self._send(data)
            except OSError:
                self.lost = True
                self._on_lost()
                return
            with self._changed:
                drained = self._starved and not self._backlog
                self._starved = self._starved and not drained
            if drained:
                self._on_drained()

    def _send(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            select.select([], [self._descriptor], [])
            try:
                count = os.write(self._descriptor, data[at : at + _PIECE])
            except BlockingIOError:
                continue
            at += count
            self.written += count
            with self._changed:
                self._backlog -= count

    def stop(self, timeout: float = 0.5) -> None:
        """Writes what waits and ends; gives up after ``timeout`` seconds on a terminal that does not read."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self.is_alive():
            self.join(timeout)


RESET = (
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1004l\x1b[?2004l\x1b[?2026l\x1b[?2048l"
    "\x1b[?7h\x1b[<u\x1b[?1049l\x1b[?25h\x1b[0m"
)
"""Switches off every mode that the console may have switched on (DEC private modes, kitty keyboard protocol)."""


def reset_terminal(descriptor: int) -> None:
    """Sends :data:`RESET` if the terminal takes it at once; never waits."""
    with contextlib.suppress(OSError):
        if select.select([], [descriptor], [], 0.1)[1]:
            os.write(descriptor, RESET.encode())
