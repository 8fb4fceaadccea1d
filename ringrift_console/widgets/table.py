"""A table of any length: rows are drawn when they are seen, and only cells that changed are sent.

The built-in DataTable repaints itself whole at every update (15.6 KB/s for one changing cell at 160x50); this one
compares what it draws with what stands on the screen and refreshes a row from the first cell that differs to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Generic, TypeVar

from rich.segment import Segment
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from ringrift_console.widgets.filters import Filter
from ringrift_console.widgets.line import LineWidget, Span, to_strip

T = TypeVar("T")
GAP = 2


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column.

    Attributes:
        name: its heading, and its name in a filter ``name=word``.
        cell: text and role of an item.
        width: cells; a column with ``flex`` takes a share of what is left over too.
        sort: sort key of an item; None leaves the column out of sorting. Unknown values sort last.
        find: what a filter looks at; None leaves the column out of filtering.
        from_width: width of the table from which the column is shown.
        cut: which end of a text gives way; the start for names that differ at their end.
    """

    name: str
    cell: Callable[[T], Span | str]
    width: int
    flex: int = 0
    align: str = "left"
    sort: Callable[[T], Any] | None = None
    find: Callable[[T], str] | None = None
    from_width: int = 0
    cut: str = "end"

    def span(self, item: T) -> Span:
        value = self.cell(item)
        return (value, "text") if isinstance(value, str) else value


class Table(LineWidget, Generic[T], can_focus=True):
    """Rows of items under one heading, with a cursor that stays with its row's key.

    Args:
        columns: from left to right.
        key: identity of an item.
        empty: what to say when there is nothing to show; may use what the screen knows.
        heading: draw the headings.
        idle_cursor: mark the row of the cursor while another pane has the focus.
    """

    DEFAULT_CSS = "Table { height: 1fr; }"

    @dataclass
    class Moved(Message):
        """The cursor is on another row."""

        table: Table[Any]

    @dataclass
    class Opened(Message):
        """The row under the cursor was opened."""

        table: Table[Any]

    def __init__(
        self,
        columns: Sequence[Column[T]],
        key: Callable[[T], str],
        *,
        empty: str = "nothing here",
        heading: bool = True,
        idle_cursor: bool = True,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.columns = tuple(columns)
        self.item_key = key
        self.empty = empty
        self.heading = int(heading)
        self.idle_cursor = idle_cursor
        self.items: Sequence[T] = ()
        self.shown: list[T] = []
        self.cursor_key: str | None = None
        self.cursor = 0
        self.top = 0
        self.filter = Filter("")
        self.sort_by: int | None = None
        self.reverse = False
        self._fields: list[dict[str, str]] | None = None  # of the items, for the filter; made when one is to be typed
        self._matching: tuple[Filter, list[int]] = (Filter(""), [])  # places of the items that the last filter let pass
        self._painted: dict[int, Any] = {}
        self._ready: dict[int, Any] = {}  # rows as they were found to differ, until they are drawn
        self._placed: list[tuple[int, Column[T], int, int]] = []

    # What is shown

    @property
    def current(self) -> T | None:
        """The item under the cursor."""
        return self.shown[self.cursor] if 0 <= self.cursor < len(self.shown) else None

    def show(self, items: Sequence[T]) -> None:
        """Replaces the items; the cursor stays on its key, else on its place."""
        if items is self.items:
            self._repaint()  # ages and the like may still have moved on
            return
        self.items = items
        self._fields = None
        self._reorder()

    def prepare_filter(self) -> None:
        """Reads what a filter looks at, so that its first letter is answered as fast as the others."""
        if self._fields is None:
            self._fields = [self._fields_of(item) for item in self.items]
            self._matching = (Filter(""), [])

    def set_filter(self, text: str) -> None:
        self.filter = Filter(text)
        self._reorder()

    def next_sort(self) -> None:
        """Sorts by the next column that can be sorted by, and after the last one not at all."""
        sortable: list[int | None] = [i for i, column in enumerate(self.columns) if column.sort]
        sortable.append(None)
        self.sort_by = sortable[(sortable.index(self.sort_by) + 1) % len(sortable)]
        self._reorder()
        self.refresh()

    def turn_round(self) -> None:
        self.reverse = not self.reverse
        self._reorder()
        self.refresh()

    def _reorder(self) -> None:
        shown = list(self.items)
        if self.filter.active:
            shown = [shown[place] for place in self._select()]
        if self.sort_by is not None and (sort := self.columns[self.sort_by].sort):
            known = [item for item in shown if sort(item) is not None]
            known.sort(key=sort, reverse=self.reverse)
            shown = known + [item for item in shown if sort(item) is None]
        elif self.reverse:
            shown.reverse()
        self.shown = shown
        self._place_cursor()
        self._repaint()

    def _select(self) -> list[int]:
        """Places of the items that the filter lets pass."""
        self.prepare_filter()
        assert self._fields is not None
        last, places = self._matching
        if not self.filter.narrows(last):
            places = list(range(len(self._fields)))
        passed = self.filter.select([self._fields[place] for place in places])
        self._matching = (self.filter, list(compress(places, passed)))
        return self._matching[1]

    def _fields_of(self, item: T) -> dict[str, str]:
        return {column.name.lower(): column.find(item).lower() for column in self.columns if column.find}

    def _place_cursor(self) -> None:
        before = self.cursor_key
        if self.cursor_key is not None:
            for i, item in enumerate(self.shown):
                if self.item_key(item) == self.cursor_key:
                    self.cursor = i
                    break
        self.cursor = max(0, min(self.cursor, len(self.shown) - 1))
        self.cursor_key = self.item_key(self.shown[self.cursor]) if self.shown else None
        self._scroll_to_cursor()
        if self.cursor_key != before:
            self.post_message(self.Moved(self))

    # Moving

    @property
    def page(self) -> int:
        return max(1, self.size.height - self.heading)

    def move(self, rows: int) -> None:
        self.move_to(self.cursor + rows)

    def move_to(self, row: int) -> None:
        """Puts the cursor on a row by number, as near as there is one."""
        row = max(0, min(row, len(self.shown) - 1))
        if not self.shown or row == self.cursor:
            return
        self.cursor = row
        self.cursor_key = self.item_key(self.shown[row])
        self._scroll_to_cursor()
        self._repaint()
        self.post_message(self.Moved(self))

    def go_to(self, key: str) -> bool:
        """Puts the cursor on the row of ``key``; False when it is not shown."""
        for i, item in enumerate(self.shown):
            if self.item_key(item) == key:
                self.move_to(i)
                return True
        return False

    def _scroll_to_cursor(self) -> None:
        height = self.page
        top = min(self.top, self.cursor)
        if self.cursor >= top + height:
            top = self.cursor - height + 1
        self.top = max(0, min(top, max(0, len(self.shown) - height)))

    # Drawing

    def _columns_now(self) -> list[tuple[int, Column[T], int, int]]:
        """Shown columns as (index, column, x, width)."""
        width = self.size.width
        chosen = [(i, column) for i, column in enumerate(self.columns) if width >= column.from_width]
        spare = width - 1 - sum(column.width + GAP for _, column in chosen) + GAP
        shares = sum(column.flex for _, column in chosen)
        placed, x = [], 1
        for i, column in chosen:
            extra = spare * column.flex // shares if shares and spare > 0 else 0
            cells = min(column.width + extra, max(0, width - x))
            if cells > 0:
                placed.append((i, column, x, cells))
            x += cells + GAP
        return placed

    def _row(self, y: int) -> Any:
        """All that decides how line ``y`` looks, for comparison."""
        if y < self.heading:
            return ("heading", self.sort_by, self.reverse)
        i = y - self.heading + self.top
        if i >= len(self.shown):
            return ("empty", self.empty_text if not self.shown and y == self.heading else "")
        item = self.shown[i]
        return (self.overlay(y), *(column.span(item) for _, column, _, _ in self._placed))

    @property
    def empty_text(self) -> str:
        return f"nothing matches {self.filter.text}" if self.filter.active and self.items else self.empty

    def _repaint(self) -> None:
        """Refreshes the cells that differ from what stands on the screen."""
        self._ready.clear()
        if not self.size.width:
            return
        for y in range(self.size.height):
            old, new = self._painted.get(y), self._row(y)
            self._ready[y] = new
            if old == new:
                continue
            if old is None or len(old) != len(new) or old[0] != new[0] or new[0] in ("heading", "empty"):
                self.refresh(Region(0, y, self.size.width, 1))
                continue
            cells = zip(self._placed, old[1:], new[1:], strict=True)
            changed = [(x, x + width) for (_, _, x, width), before, after in cells if before != after]
            if changed:  # what lies between is compared again before it is sent
                self.refresh(Region(changed[0][0], y, changed[-1][1] - changed[0][0], 1))

    def overlay(self, y: int) -> str:
        if y < self.heading or y - self.heading + self.top != self.cursor or not self.shown:
            return ""
        if self.has_focus:
            return "cursor"
        return "cursor_idle" if self.idle_cursor else ""

    def render_line(self, y: int) -> Strip:
        look = self.look
        glyphs, full = look.glyphs, self.size.width
        row = self._painted[y] = self._ready.pop(y, None) or self._row(y)
        if row[0] == "empty":
            return to_strip([(" " + row[1], "dim")], full, look)
        segments = [Segment(" ", look.style("text"))]
        if row[0] != "heading" and row[0]:
            segments = [Segment(glyphs.cursor if row[0] == "cursor" else " ", look.style("info", row[0]))]
        overlay = "" if row[0] == "heading" else row[0]
        x = 1
        for n, (i, column, start, width) in enumerate(self._placed):
            if start > x:
                segments.append(Segment(" " * (start - x), look.style("text", overlay)))
            if row[0] == "heading":
                text, role = column.name, "head"
                if i == self.sort_by:
                    text += glyphs.up if self.reverse else glyphs.down
            else:
                text, role = row[1 + n]
            segments.append(Segment(glyphs.fit(text, width, column.align, column.cut), look.style(role, overlay)))
            x = start + width
        if full > x:
            segments.append(Segment(" " * (full - x), look.style("text", overlay)))
        return Strip(segments).adjust_cell_length(full)

    def on_resize(self, event: events.Resize) -> None:
        self._placed = self._columns_now()
        self._painted.clear()
        self._ready.clear()
        self._scroll_to_cursor()
        self.refresh()

    def on_focus(self) -> None:
        self._repaint()

    def on_blur(self) -> None:
        self._repaint()

    def on_click(self, event: events.Click) -> None:
        row = event.y - self.heading + self.top
        if event.y >= self.heading and row < len(self.shown):
            again = row == self.cursor
            self.move_to(row)
            if again:
                self.post_message(self.Opened(self))

    def on_mouse_scroll_down(self) -> None:
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        self.move(-3)
