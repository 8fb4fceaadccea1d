"""A log that grows: follows its end, or holds still and says how much is new."""

from __future__ import annotations

import asyncio
import bisect
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from rich.cells import cell_len, chop_cells
from textual import events
from textual.geometry import Region
from textual.message import Message

from ringrift_console.logfile import CHUNK, LogFile, LogLine
from ringrift_console.widgets.line import LineWidget, Span

_BAD = re.compile(r"\b(ERROR|CRITICAL|FATAL|Traceback|[A-Z]\w*Error\b|Killed|FAILED)")
_WARN = re.compile(r"\b(WARN|WARNING)\b")
_SEARCH_CHUNKS = 256  # a search back through a file goes this many chunks at most: 64 MB
_STEP = 20  # columns of a sideways step

Stamps = Literal["written", "clock", "hidden"]


class LogView(LineWidget, can_focus=True):
    """One log file. The file is looked at ``log_hz`` times a second while the widget is on the screen."""

    DEFAULT_CSS = "LogView { height: 1fr; }"

    class Changed(Message):
        """What the title line says has changed."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.file: LogFile | None = None
        self.reason = "no log"
        self.follow = True
        self.wrap = False
        self.stamps: Stamps = "written"
        self.pattern: re.Pattern[str] | None = None
        self.found: int | None = None  # byte offset of the line that the search stands on
        self.note = ""
        self.top = 0  # line at the top, and how many of its folded rows are above the edge
        self.sub = 0
        self.left = 0
        self._held_end = 0  # size of the file when following stopped
        self._busy = False
        self._shown: list[tuple[tuple[Span, ...], str]] = []

    def on_mount(self) -> None:
        self.set_interval(1 / self.app.settings.log_hz, self.tick)

    # The file

    def open(self, path: Path | None, reason: str = "no log yet") -> None:
        """Shows another file; None shows the reason."""
        self.reason = reason
        if path is not None and self.file is not None and self.file.path == path:
            return
        self.file = LogFile(path) if path is not None else None
        self.follow, self.top, self.sub, self.left, self.found, self.note = True, 0, 0, 0, None, ""
        self.refresh_rows()
        if self.file is not None:
            self.run_worker(partial(self._load, "tail"), group="log", exclusive=True)

    async def tick(self) -> None:
        """Takes in what was written since the last look, unless that would push out what is being read."""
        file = self.file
        if file is None or self._busy or not self.screen.is_current:
            return
        if self.follow or not file.full or len(file.lines) - self.top <= 2 * self.size.height:
            await self._load("more")
        else:
            await asyncio.to_thread(file.look)

    async def _load(self, kind: Literal["tail", "more", "before"]) -> int:
        """One bounded read off the loop; returns lines added in front."""
        file = self.file
        if file is None:
            return 0
        self._busy = True
        try:
            if kind == "more" and self.follow and file.size - file.end > 1024 * 1024:
                kind = "tail"  # far behind: the end is what is followed
            read = await asyncio.to_thread(file.fetch, kind)
        except OSError as error:
            self.note = f"cannot read: {error.strerror}"
            self.post_message(self.Changed())
            return 0
        finally:
            self._busy = False
        if file is not self.file:
            return 0
        anchor = file.lines[self.top].offset if self.top < len(file.lines) else None
        restarts = file.restarts
        added = file.take(read)
        if file.restarts != restarts:
            self.note, self.follow = "the log was replaced", True
        if anchor is not None and not self.follow:
            self.top = bisect.bisect_left(file.lines, anchor, key=lambda line: line.offset)
        self.refresh_rows()
        return added

    @property
    def status(self) -> str:
        """Where the view stands, for the title line."""
        file = self.file
        if file is None or not file.exists:
            return self.note
        parts = [self.note] if self.note else []
        if self.follow:
            parts.append("following")
        else:
            fresh = max(0, file.size - self._held_end)
            lines = sum(1 for line in file.lines[-2000:] if line.offset >= self._held_end)
            parts.append(f"{lines}{'+' if lines >= 2000 else ''} new lines below" if fresh and lines else "holding")
            if file.size:
                at = file.lines[self.top].offset if self.top < len(file.lines) else file.end
                parts.append(f"{100 * at // file.size}%")
        if self.wrap:
            parts.append("wrapped")
        elif self.left:
            parts.append(f"column {self.left + 1}")
        if self.pattern is not None:
            parts.append(f"/{self.pattern.pattern}")
        return " · ".join(parts)

    # Moving

    def move(self, rows: int) -> None:
        """Scrolls; upwards it stops following, and loads what stands before the window."""
        if self.file is None or not rows:
            return
        if rows < 0 and self.follow:
            self._hold()
        while rows < 0 and (self.top > 0 or self.sub > 0):
            if self.sub > 0:
                self.sub -= 1
            else:
                self.top -= 1
                self.sub = self._height(self.top) - 1
            rows += 1
        while rows > 0 and not self.follow:
            if self._last_page(self.top, self.sub):
                if self.file.at_end:
                    self.follow = True
                break
            self.sub += 1
            if self.sub >= self._height(self.top):
                self.top, self.sub = self.top + 1, 0
            rows -= 1
        self.refresh_rows()
        if rows < 0 and self.file.start > 0 and not self._busy:
            self.run_worker(partial(self._earlier, rows), group="log", exclusive=True)

    async def _earlier(self, rows: int) -> None:
        if await self._load("before"):
            self.move(rows)

    @property
    def page(self) -> int:
        return max(1, self.size.height - 1)

    async def first(self) -> None:
        """To the beginning of the file."""
        if self.file is None:
            return
        if self.follow:
            self._hold()
        for _ in range(_SEARCH_CHUNKS):
            if not await self._load("before"):
                break
        self.top = self.sub = 0
        self.refresh_rows()

    def last(self) -> None:
        """To the end, following it."""
        self.follow, self.note = True, ""
        if self.file is not None and not self.file.at_end:
            self.run_worker(partial(self._load, "tail"), group="log", exclusive=True)
        self.refresh_rows()

    def toggle_follow(self) -> None:
        if self.follow:
            self._hold()
            self.refresh_rows()
        else:
            self.last()

    def sideways(self, steps: int) -> None:
        if not self.wrap:
            self.left = max(0, self.left + steps * _STEP)
            self.refresh_rows()

    def toggle_wrap(self) -> None:
        self.wrap, self.left, self.sub = not self.wrap, 0, 0
        self.refresh_rows()

    def next_stamps(self) -> None:
        order: tuple[Stamps, ...] = ("written", "clock", "hidden")
        self.stamps = order[(order.index(self.stamps) + 1) % 3]
        self.sub = 0
        self.refresh_rows()

    def _hold(self) -> None:
        """Stops following where the view stands now."""
        self.top, self.sub = self._bottom_top()
        self.follow = False
        self._held_end = self.file.end if self.file else 0

    # Searching

    async def search(self, text: str) -> None:
        """Goes to the last match; an empty text ends the search."""
        self.found, self.note = None, ""
        if not text:
            self.pattern = None
            self.refresh_rows()
            return
        case = re.IGNORECASE if text == text.lower() else 0
        self.pattern = re.compile(re.escape(text), case)
        await self.next_match(-1)

    async def next_match(self, direction: int) -> None:
        """To the next match towards the end (1) or the start (-1) of the file."""
        file, pattern = self.file, self.pattern
        if file is None or pattern is None:
            self.note = "no search yet"
            self.post_message(self.Changed())
            return
        self.note = ""
        lines = file.lines
        if self.found is None:
            i = len(lines) - 1 if direction < 0 else 0
        else:
            i = bisect.bisect_left(lines, self.found, key=lambda line: line.offset) + direction
        way = "down" if direction > 0 else "up"
        self.note = f"no match within {_SEARCH_CHUNKS * CHUNK >> 20} MB further {way}"
        for _ in range(_SEARCH_CHUNKS):
            while 0 <= i < len(file.lines):
                if pattern.search(file.lines[i].text):
                    self.note = ""
                    self._show_match(i)
                    return
                i += direction
            at = await self._read_on(file, direction)
            if at is None:
                self.note = f"no match further {way}"
                break
            i = at
        self.refresh_rows()

    async def _read_on(self, file: LogFile, direction: int) -> int | None:
        """Brings the next chunk into the window for a search; the index of its first line to look at, or None."""
        if direction < 0:
            added = await self._load("before")
            return added - 1 if added else None
        if file.at_end or not file.lines:
            return None
        last, end = file.lines[-1].offset, file.end
        await self._load("more")
        if file.end == end:
            return None
        return bisect.bisect_left(file.lines, last, key=lambda line: line.offset)  # it may have been half a line

    def _show_match(self, i: int) -> None:
        assert self.file is not None
        if self.follow:
            self._hold()
        self.found = self.file.lines[i].offset
        self.top, self.sub = max(0, i - self.size.height // 3), 0
        self.refresh_rows()

    # Drawing

    def _text(self, line: LogLine) -> str:
        text = self.look.glyphs.clean(line.text)
        if not line.stamp or self.stamps == "hidden":
            return text
        return f"{self._stamp(line.stamp)} {text}"

    def _stamp(self, stamp: str) -> str:
        if self.stamps == "written":
            return stamp
        try:
            at = datetime.fromisoformat(stamp.replace(",", "."))
        except ValueError:
            return stamp
        clock = self.app.clock
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return clock.age(at).rjust(4) if clock.mode == "age" else f"{clock.zoned(at):%H:%M:%S}"

    def _rows_of(self, i: int) -> list[str]:
        """The rows that line ``i`` takes."""
        assert self.file is not None
        text = self._text(self.file.lines[i])
        width = max(1, self.size.width)
        if not self.wrap or len(text) <= width // 2:
            return [text]
        return chop_cells(text, width) or [""]

    def _height(self, i: int) -> int:
        return len(self._rows_of(i)) if self.wrap else 1

    def _bottom_top(self) -> tuple[int, int]:
        """The top that puts the last line on the last row."""
        count = len(self.file.lines) if self.file else 0
        left, i = self.size.height, count
        while i > 0 and left > 0:
            i -= 1
            left -= self._height(i)
        return i, max(0, -left)

    def _last_page(self, top: int, sub: int) -> bool:
        return (top, sub) >= self._bottom_top()

    def _role(self, line: LogLine) -> str:
        if _BAD.search(line.text):
            return "bad"
        return "warn" if _WARN.search(line.text) else "text"

    def _visible(self) -> list[tuple[tuple[Span, ...], str]]:
        height, width = self.size.height, self.size.width
        if self.file is None or not self.file.lines:
            said = self.reason if self.file is None or not self.file.exists else "the log is empty"
            return [(((f" {said}", "dim"),), "")]
        top, sub = self._bottom_top() if self.follow else (min(self.top, len(self.file.lines) - 1), self.sub)
        rows: list[tuple[tuple[Span, ...], str]] = []
        for i in range(top, len(self.file.lines)):
            line = self.file.lines[i]
            role = self._role(line)
            for text in self._rows_of(i)[sub if i == top else 0 :]:
                if self.left:
                    text = text[self.left :]
                mark = "cursor_idle" if line.offset == self.found else ""
                rows.append((self._highlight(_clip(text, width), role), mark))
            if len(rows) >= height:
                break
        return rows[:height]

    def _highlight(self, text: str, role: str) -> tuple[Span, ...]:
        if self.pattern is None:
            return ((text, role),)
        spans: list[Span] = []
        at = 0
        for match in self.pattern.finditer(text):
            spans += [(text[at : match.start()], role), (match.group(), "match")]
            at = match.end()
        return (*spans, (text[at:], role))

    def refresh_rows(self) -> None:
        """Repaints the rows that differ from what stands on the screen."""
        if not self.size.width:
            return
        before, self._shown = self._shown, self._visible()
        for y in range(self.size.height):
            old = before[y] if y < len(before) else None
            new = self._shown[y] if y < len(self._shown) else None
            if old != new:
                self.refresh(Region(0, y, self.size.width, 1))
        self.post_message(self.Changed())

    def line(self, y: int) -> Sequence[Span]:
        return self._shown[y][0] if y < len(self._shown) else ()

    def overlay(self, y: int) -> str:
        return self._shown[y][1] if y < len(self._shown) else ""

    def on_resize(self, event: events.Resize) -> None:
        self.sub = 0
        self._shown = self._visible()
        self.refresh()

    def on_mouse_scroll_down(self) -> None:
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        self.move(-3)


def _clip(text: str, width: int) -> str:
    """The beginning of a long text: more than any screen shows is not worth measuring."""
    return text[: width + 1] if cell_len(text[:width]) >= width else text[: 2 * width]
