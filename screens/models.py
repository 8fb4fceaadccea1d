"""Models: what the registry holds, with the results that speak for each model."""

from __future__ import annotations

from collections.abc import Iterable

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from backend.snapshot import ModelRow, Snapshot
from backend.text import size_text
from ringrift_console.widgets.line import Bar, Lines, Span
from ringrift_console.widgets.table import Column, Table
from screens.base import BaseScreen
from screens.cells import against, count, gauntlet_target, state_span, win_span
from screens.facts import model_facts, to_lines


class ModelsScreen(BaseScreen):
    """The table of models; on a wide screen all about the one under the cursor beside it."""

    KIND = "models"
    TITLE = "Models"

    def body(self) -> Iterable[Widget]:
        with Horizontal(classes="body"):
            with Vertical(id="list-pane"):
                yield Table(
                    self._columns(), lambda model: model.sha256, id="models",
                    empty="no models yet; a pipeline registers the first (1, then p)",
                )  # fmt: skip
            with Vertical(id="side-pane", classes="wide-only"):
                yield Bar(id="facts-title", classes="title")
                yield Lines(id="facts")

    def on_mount(self) -> None:
        self.main_table.focus()

    def _columns(self) -> list[Column[ModelRow]]:
        look = self.app.look
        return [
            Column(
                "MODEL", lambda model: model.label, 13, flex=1,
                find=lambda model: model.label, sort=lambda model: (model.model_id, model.version),
            ),
            Column(
                "STAGE", lambda model: state_span(look, model.stage), 13,
                find=lambda model: model.stage, sort=lambda model: model.stage,
            ),
            Column("GAMES", lambda model: count(model.games), 5, align="right", sort=lambda model: model.games),
            Column("RANDOM", lambda model: self._win(model, "random"), 12, sort=lambda model: _rate(model, "random")),
            Column(
                "HEURISTIC", lambda model: self._win(model, "heuristic"), 12,
                sort=lambda model: _rate(model, "heuristic"),
            ),
            Column("CONFIG", _config, 12, from_width=999, find=_config),  # for the filter
            Column("SIZE", lambda model: size_text(model.size), 8, from_width=96, align="right"),
            Column("MADE", self._made, 6, align="right", sort=lambda model: model.created_at),
            Column("SHA-256", self._sha, 8, find=lambda model: model.sha256, from_width=90),
        ]  # fmt: skip

    def _win(self, model: ModelRow, opponent: str) -> Span:
        return win_span(against(model, opponent), gauntlet_target(model, opponent), interval=True)

    def _made(self, model: ModelRow) -> Span:
        return self.app.clock.short(model.created_at), "dim"

    def _sha(self, model: ModelRow) -> Span:
        return (model.sha256[:8], "dim") if model.present else ("missing", "bad")

    @property
    def main_table(self) -> Table[ModelRow]:
        return self.query_one("#models", Table)

    @property
    def subject(self) -> str | None:
        current = self.main_table.current if self.is_mounted else None
        return current.label if current else None

    def show_snapshot(self, snapshot: Snapshot) -> None:
        self.main_table.show(snapshot.models)
        self._show_facts()

    def update_chrome(self) -> None:
        super().update_chrome()
        if self.is_mounted:
            self._show_facts()

    def _show_facts(self) -> None:
        if not self.wide:
            return
        model = self.main_table.current
        lines = self.query_one("#facts", Lines)
        width = max(20, lines.size.width)
        text = f" {model.label} " if model else " No model "
        self.query_one("#facts-title", Bar).show([(text, "title")], rule=True)
        lines.show(to_lines(model_facts(self.app, model), self.app.look, width) if model else ())

    async def do_open(self) -> None:
        self.do_registry_info()

    def do_registry_info(self) -> None:
        from screens.detail import ModelDetail

        if self.subject is not None:
            self.app.push_screen(ModelDetail(self.subject))


def _config(model: ModelRow) -> str:
    return model.config or "-"


def _rate(model: ModelRow, opponent: str) -> float | None:
    result = against(model, opponent)
    return result.rate if result else None
