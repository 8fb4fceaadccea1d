"""A drawn chart with an upright cursor over it; moving the cursor repaints two columns."""

from __future__ import annotations

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip

from ringrift_console.widgets.line import Lines


class Canvas(Lines):
    """Lines, with a cursor in one column of some rows."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.column: int | None = None
        self.rows = range(0)

    def point(self, column: int | None, rows: range = range(0)) -> None:
        """Puts the cursor into a column, or takes it away."""
        if (column, rows) == (self.column, self.rows):
            return
        for old in {self.column, column} - {None}:
            self.refresh(Region(old, 0, 1, self.size.height))  # type: ignore[arg-type]
        self.column, self.rows = column, rows

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        at = self.column
        if at is None or y not in self.rows or not 0 <= at < strip.cell_length:
            return strip
        here = strip.crop(at, at + 1)
        text = here.text if here.text.strip() else ("|" if self.look.glyphs.ascii else "│")
        cursor = Strip([Segment(text, self.look.style("accent", "cursor"))], 1)
        return Strip.join([strip.crop(0, at), cursor, strip.crop(at + 1, strip.cell_length)])
