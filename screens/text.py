"""A page of text: what a verb printed."""

from __future__ import annotations

from collections.abc import Iterable

from textual.widget import Widget

from backend.snapshot import Snapshot
from ringrift_console.widgets.line import Lines
from screens.base import BaseScreen


class TextScreen(BaseScreen):
    """Lines of text under a title."""

    KIND = "text"

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self.heading = title
        self.text = text

    @property
    def crumb(self) -> str:
        return self.heading

    def body(self) -> Iterable[Widget]:
        rows = self.text.expandtabs(8).splitlines() or ["nothing was printed"]
        yield Lines([((f" {row}", "text"),) for row in rows], id="text", classes="body")

    def _scrollable(self) -> Widget | None:
        return self.query_one("#text", Lines)

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Fixed text."""
