"""The base of everything drawn here: lines of (text, role) spans, repainted only where they changed.

Data is never markup: a span's text is cleaned and measured, and its role picks the style.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual._styles_cache import StylesCache
from textual.filter import ANSIToTruecolor
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from ringrift_console.look import Look

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp

Span = tuple[str, str]
"""Text and the role that styles it."""
Line = tuple[Span, ...]


def to_strip(spans: Iterable[Span], width: int, look: Look, overlay: str = "", base: str = "text") -> Strip:
    """Spans as one strip of exactly ``width`` cells; what does not fit is cut with an ellipsis."""
    segments, left = [], width
    glyphs = look.glyphs
    for text, role in spans:
        if left <= 0:
            break
        text = glyphs.clean(text)
        length = len(text) if text.isascii() else cell_len(text)
        if length > left:
            text, length = glyphs.fit(text, left), left
        if length:
            segments.append(Segment(text, look.style(role, overlay)))
            left -= length
    if left > 0:
        segments.append(Segment(" " * left, look.style(base, overlay)))
    return Strip(segments, width)


class _Drawn(StylesCache):
    """The lines that a widget drew, as they are: it has no border, padding or background that would go around them.

    Textual's own lays these around every line that is drawn again, which is as much work as the lines are.
    """

    def render_widget(self, widget: Widget, crop: Region) -> list[Strip]:
        width = widget.outer_size.width
        if width != self._width:
            self.clear()
            self._width = width
        lines, dirty = self._cache, self._dirty_lines
        for y in crop.line_range:
            if y in dirty or y not in lines:
                lines[y] = widget.render_line(y)
        dirty.difference_update(crop.line_range)
        strips = [lines[y] for y in crop.line_range]
        # A look has colours of the terminal's own only where they are to stay.
        for filter in (one for one in widget.get_line_filters() if not isinstance(one, ANSIToTruecolor)):
            strips = [strip.apply_filter(filter, widget.background_colors[1]) for strip in strips]
        if crop.column_span != (0, width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips


class LineWidget(Widget):
    """A widget that draws lines; a subclass gives :meth:`line`. It has neither border nor padding nor scroll bars."""

    DEFAULT_CSS = "LineWidget { height: 1; width: 1fr; }"
    BASE: ClassVar[str] = "text"
    app: ConsoleApp

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._styles_cache = _Drawn()

    @property
    def size(self) -> Size:
        return self.outer_size  # Textual's own is found by way of the layout, and it is asked for with every line

    @property
    def look(self) -> Look:
        return self.app.look

    def line(self, y: int) -> Sequence[Span]:
        """Spans of row ``y``."""
        raise NotImplementedError

    def overlay(self, y: int) -> str:
        """What is laid over row ``y``: ``cursor``, ``cursor_idle`` or nothing."""
        return ""

    def render_line(self, y: int) -> Strip:
        return to_strip(self.line(y), self.size.width, self.look, self.overlay(y), self.BASE)

    def render(self) -> str:  # Textual asks for it when it measures; the lines are drawn by render_line
        return ""


class Lines(LineWidget):
    """Fixed lines that can be replaced; only those that differ are repainted. Scrolls when they do not fit."""

    DEFAULT_CSS = "Lines { height: 1fr; }"

    def __init__(self, lines: Sequence[Line] = (), *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.lines: tuple[Line, ...] = tuple(lines)
        self.top = 0

    def show(self, lines: Sequence[Line]) -> None:
        """Replaces the lines."""
        before, self.lines = self.lines, tuple(lines)
        top = min(self.top, self.max_top)
        if top != self.top:
            self.top = top
            self.refresh()
            return
        for y in range(self.size.height):
            i = y + top
            old = before[i] if i < len(before) else ()
            new = self.lines[i] if i < len(self.lines) else ()
            if old != new or (y == self.size.height - 1 and len(before) != len(self.lines)):
                self.refresh(Region(0, y, self.size.width, 1))

    @property
    def max_top(self) -> int:
        return max(0, len(self.lines) - self.size.height)

    @property
    def page(self) -> int:
        return max(1, self.size.height - 1)

    def move(self, rows: int) -> None:
        """Scrolls by ``rows``, down when positive."""
        top = max(0, min(self.max_top, self.top + rows))
        if top != self.top:
            self.top = top
            self.refresh()

    def line(self, y: int) -> Sequence[Span]:
        i = y + self.top
        below = len(self.lines) - i
        if below > 1 and y == self.size.height - 1:
            return ((f" {self.look.glyphs.down} {below} more lines", "dim"),)
        return self.lines[i] if i < len(self.lines) else ()

    def on_mouse_scroll_down(self) -> None:
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        self.move(-3)


class Bar(LineWidget):
    """One line that is repainted when its spans change: header, footer, notice, title of a pane."""

    def __init__(self, *, id: str | None = None, base: str = "text", classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.base = base
        self.spans: tuple[Span, ...] = ()
        self.right: tuple[Span, ...] = ()
        self.rule = False

    def show(self, spans: Sequence[Span], right: Sequence[Span] = (), *, rule: bool = False) -> None:
        """Replaces the text; ``right`` stands at the right edge and wins over the left where both do not fit.

        With ``rule`` a line is drawn between the two.
        """
        new, new_right = tuple(spans), tuple(right)
        if (new, new_right, rule) != (self.spans, self.right, self.rule):
            before = self.render_line(0) if self.is_mounted else None
            self.spans, self.right, self.rule = new, new_right, rule
            self._repaint(before)

    def _repaint(self, before: Strip | None) -> None:
        """Repaints from the first cell that differs to the last."""
        if before is None or not self.size.width:
            self.refresh()
            return
        old, new = _cells(before), _cells(self.render_line(0))
        if len(old) != len(new):
            self.refresh()
            return
        differ = [x for x, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        if differ:
            self.refresh(Region(differ[0], 0, differ[-1] - differ[0] + 1, 1))

    def line(self, y: int) -> Sequence[Span]:
        return self.spans

    def render_line(self, y: int) -> Strip:
        glyphs, look = self.look.glyphs, self.look
        right_width = min(self.size.width, sum(cell_len(glyphs.clean(text)) for text, _ in self.right))
        spans, room = self.spans, self.size.width - right_width
        if self.rule:
            gap = room - sum(cell_len(glyphs.clean(text)) for text, _ in spans)
            spans = (*spans, (glyphs.line * max(0, gap), "border"))
        left = to_strip(spans, room, look, base=self.base)
        return Strip.join([left, to_strip(self.right, right_width, look, base=self.base)])


def _cells(strip: Strip) -> list[tuple[str, object]]:
    """One entry a cell; a wide character counts for its first cell and leaves an empty one behind it."""
    cells: list[tuple[str, object]] = []
    for segment in strip:
        for character in segment.text:
            cells.append((character, segment.style))
            cells.extend([("", segment.style)] * (cell_len(character) - 1))
    return cells
