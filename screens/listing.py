"""The frame of a screen that lists objects: a table, and on a wide screen all about the one under the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from backend.snapshot import Snapshot
from ringrift_console.widgets.line import Bar, Lines
from ringrift_console.widgets.table import Column, Table
from screens.base import BaseScreen
from screens.facts import Fact, to_lines

T = TypeVar("T")


class ListScreen(BaseScreen, Generic[T]):
    """A subclass gives :meth:`columns`, :meth:`items`, :meth:`called`, :meth:`facts`, and what Enter does.

    Attributes:
        NOUN: one of the objects, as in "no host".
        EMPTY: what stands in an empty table.
    """

    NOUN: ClassVar[str] = ""
    EMPTY: ClassVar[str] = "nothing here"

    def columns(self) -> list[Column[T]]:
        raise NotImplementedError

    def items(self, snapshot: Snapshot) -> Sequence[T]:
        """The rows, the same sequence as long as they have not changed."""
        raise NotImplementedError

    def called(self, item: T) -> str:
        """What an object is called, and what its actions act on."""
        raise NotImplementedError

    def identity(self, item: T) -> str:
        """What the cursor stays with; by default the name."""
        return self.called(item)

    def facts(self, item: T) -> list[Fact]:
        raise NotImplementedError

    def body(self) -> Iterable[Widget]:
        with Horizontal(classes="body"):
            with Vertical(id="list-pane"):
                yield Table(self.columns(), self.identity, id=self.KIND, empty=self.EMPTY)
            with Vertical(id="side-pane", classes="wide-only"):
                yield Bar(id="facts-title", classes="title")
                yield Lines(id="facts")

    def on_mount(self) -> None:
        self.main_table.focus()

    @property
    def main_table(self) -> Table[T]:
        return self.query_one(f"#{self.KIND}", Table)

    @property
    def subject(self) -> str | None:
        current = self.main_table.current if self.is_mounted else None
        return self.called(current) if current is not None else None

    def show_snapshot(self, snapshot: Snapshot) -> None:
        self.main_table.show(self.items(snapshot))
        self._show_facts()

    def update_chrome(self) -> None:
        super().update_chrome()
        if self.stands:
            self._show_facts()

    def _show_facts(self) -> None:
        if not self.wide:
            return
        item = self.main_table.current
        lines = self.query_one("#facts", Lines)
        text = f" No {self.NOUN} " if item is None else f" {self.called(item)} "
        self.query_one("#facts-title", Bar).show([(text, "title")], rule=True)
        lines.show(() if item is None else to_lines(self.facts(item), self.app.look, max(20, lines.size.width)))
