"""The terminal driver: Textual's for Linux and macOS, with a writer that cannot block and a watch for hang-ups."""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING, Any

from textual.drivers.linux_driver import LinuxDriver

from ringrift_console.writer import CoalescingWriter

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp


class ConsoleDriver(LinuxDriver):
    """Draws through a :class:`CoalescingWriter`; tells the app when the terminal has drained or gone away."""

    _app: ConsoleApp

    def __init__(self, app: ConsoleApp, **options: Any) -> None:
        self._output: CoalescingWriter | None = None
        super().__init__(app, **options)

    @property
    def output(self) -> CoalescingWriter | None:
        return self._output

    @property
    def _writer_thread(self) -> CoalescingWriter | None:
        return self._output

    @_writer_thread.setter
    def _writer_thread(self, thread: object) -> None:
        # The base class makes its own blocking writer here; ours takes its place before that one is started.
        if thread is None:
            self._output = None
            return
        call = self._app.call_on_loop
        self._output = CoalescingWriter(
            self._file,
            on_drained=lambda: call(self._app.redraw),
            on_lost=lambda: call(self._app.terminal_lost),
        )

    def start_application_mode(self) -> None:
        super().start_application_mode()
        threading.Thread(target=self._watch_hang_up, daemon=True, name="terminal-watch").start()

    def _watch_hang_up(self) -> None:
        """Waits until the input side hangs up; without this the input thread would spin on end-of-file for ever."""
        watch = select.poll()
        watch.register(self.fileno, 0)  # hang-up and errors are always reported
        while True:
            events = watch.poll()
            if any(mask & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, mask in events):
                self.exit_event.set()
                self._app.call_on_loop(self._app.terminal_lost)
                return

    def _enable_mouse_support(self) -> None:
        # Clicks and drags only: reports of every motion (1003) are traffic up a slow link for nothing.
        if self._mouse:
            self.write("\x1b[?1000h\x1b[?1002h\x1b[?1006h")

    def _disable_mouse_support(self) -> None:
        if self._mouse:
            self.write("\x1b[?1000l\x1b[?1002l\x1b[?1006l")

    def _enable_mouse_pixels(self) -> None:
        """Positions in cells are enough."""

    def close(self) -> None:
        if self._output is not None:
            self._output.stop()
