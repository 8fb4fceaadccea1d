"""Elo: ratings over time with their error bands, all configs at once, and who beats whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from backend.configs import CONFIGS, parse_config
from backend.snapshot import Snapshot
from ringrift_console.actions import models_by_name
from ringrift_console.widgets.canvas import Canvas
from ringrift_console.widgets.line import Bar, Line, Lines, Span
from ringrift_console.widgets.table import Column, Table
from screens.cells import count, state_span
from screens.elo_charts import Picture
from screens.elo_data import EloData, Entrant, entrants, player_of
from screens.elo_history import chart, grid, legend, small_charts
from screens.elo_matrix import Window, matrix, told, window
from screens.elo_reading import EloReading, best_names, first_config
from screens.elo_words import against_champion, at_point, title

View = Literal["chart", "configs", "matrix", "list"]
VIEWS: tuple[View, ...] = ("chart", "configs", "matrix", "list")
_LIST_FROM = 120  # a screen this wide shows the list beside the chart


class EloScreen(EloReading):
    """One config at a time, a model of it in front; ``v`` goes through the views."""

    KIND = "elo"
    TITLE = "Elo"

    def __init__(self) -> None:
        super().__init__()
        self.view: View = "chart"
        self.listed: list[Entrant] = []
        self.point: int | None = None  # of the history; None is the newest
        self.column = 0
        self.near = False
        self._window: Window | None = None
        self._listed_of: Any = None
        self._drawn: Any = None
        self._picture: Picture | None = None

    def body(self) -> Iterable[Widget]:
        with Horizontal(classes="body"):
            with Vertical(id="chart-pane"):
                yield Bar(id="elo-title", classes="title")
                yield Canvas(id="canvas")
                yield Lines(id="told")
            with Vertical(id="ratings-pane"):
                yield Bar(id="ratings-title", classes="title")
                yield Table(self._columns(), lambda one: one.player, id="ratings", empty="nobody is rated")

    def _columns(self) -> list[Column[Entrant]]:
        look = self.app.look
        return [
            Column("MODEL", self._called, 10, flex=1, find=lambda one: one.name, sort=lambda one: one.name),
            Column("ELO", lambda one: f"{one.band.elo:.0f}", 5, align="right", sort=lambda one: one.band.elo),
            Column("95 %", lambda one: (one.band.words("–"), "dim"), 11, sort=lambda one: one.band.low),
            Column("GAMES", lambda one: count(one.band.games), 6, align="right", sort=lambda one: one.band.games),
            Column(
                "STAGE", lambda one: state_span(look, one.stage) if one.stage else ("", "dim"), 13,
                find=lambda one: one.stage, sort=lambda one: one.stage,
            ),
        ]  # fmt: skip

    def _called(self, one: Entrant) -> Span:
        return one.name, "text" if one.label else "dim"

    # What it is about

    @property
    def main_table(self) -> Table[Entrant]:
        return self.query_one("#ratings", Table)

    @property
    def table(self) -> Table[Any] | None:
        return self.main_table if self.is_mounted else None

    @property
    def chosen(self) -> Entrant | None:
        return self.main_table.current

    @property
    def champion(self) -> Entrant | None:
        row = next((row for row in self.app.snapshot.configs if row.config == self.config), None)
        return player_of(self.listed, row.production.label) if row is not None and row.production else None

    @property
    def subject(self) -> str | None:
        chosen = self.chosen if self.is_mounted else None
        return chosen.label or None if chosen is not None else None

    @property
    def crumb(self) -> str:
        words = {"chart": self.config, "configs": "all configs", "list": f"{self.config} list"}
        return f"Elo › {words.get(self.view, f'{self.config} head to head')}"

    # Reading

    def show_snapshot(self, snapshot: Snapshot) -> None:
        if not self.config:
            self.config = first_config(snapshot)
        self.read_what_changed(everything=self.view == "configs")
        self._list()
        self._draw()

    def _list(self) -> None:
        models = self.app.snapshot.models
        of = (self.config, id(self.data), id(models))
        if of == self._listed_of:
            return
        self._listed_of = of
        data = self.data
        self.listed = entrants(data.view, models_by_name(models)) if data is not None else []
        self.main_table.show(self.listed)

    # Drawing

    @property
    def beside(self) -> bool:
        """Whether there is room for the list beside the chart."""
        return self.app.size.width >= _LIST_FROM

    def _draw(self) -> None:
        pane, side = self.query_one("#chart-pane"), self.query_one("#ratings-pane")
        pane.display = self.view != "list"
        side.display = self.view == "list" or (self.beside and self.view != "configs")
        side.styles.width = 56 if self.view != "list" else "1fr"
        told_lines = self._told()
        self.query_one("#told", Lines).styles.height = len(told_lines)
        self.query_one("#told", Lines).show(told_lines)
        self._show_title()
        canvas = self.query_one("#canvas", Canvas)
        size = (canvas.size.width, canvas.size.height)
        if self.view != "list" and size[0] > 20 and size[1] > 4:
            self._draw_canvas(canvas, size)

    def _draw_canvas(self, canvas: Canvas, size: tuple[int, int]) -> None:
        data, chosen, champion = self.data, self.chosen, self.champion
        if self.view == "configs":
            what: Any = (*(id(one) for one in self.known.values()), self.config, id(self.app.snapshot.models))
        else:
            what = (id(data), chosen, champion, self.near, id(self.met), self.column, self.trouble)
        if self._drawn != (self.view, size, what):
            self._drawn = (self.view, size, what)
            self._picture = None
            canvas.show(self._lines(data, chosen, champion, size))
        picture = self._picture
        if picture is None or data is None or not data.view.points:
            canvas.point(None)
        else:
            games = data.view.points[self._at(data)].games
            canvas.point(picture.column(float(games)), range(picture.top, picture.bottom + 1))

    def _lines(
        self, data: EloData | None, chosen: Entrant | None, champion: Entrant | None, size: tuple[int, int]
    ) -> list[Line]:
        look = self.app.look
        if self.view == "configs":
            names = best_names(self.known, models_by_name(self.app.snapshot.models))
            return small_charts(self.known, names, self.config, size, look)
        if data is None:
            return [((f" {self.trouble}", "notice_bad"),)] if self.trouble else [((" reading…", "dim"),)]
        if not data.view.points:
            return [((f" no rated games of {self.config} yet; ] is the next config", "dim"),)]
        if self.view == "matrix":
            return self._matrix(size)
        self._picture = chart(data, self.config, chosen, champion, size, look, near=self.near)
        return list(self._picture.lines)

    def _matrix(self, size: tuple[int, int]) -> list[Line]:
        shown = self._window = window(self.main_table.shown, self.main_table.cursor, self.champion, size)
        self.column = min(self.column, max(0, len(shown.columns) - 1))
        self.read_meetings(shown.players)
        players = parse_config(self.config).players
        return matrix(shown, self.met, self.chosen, self.column, players, self.app.look)

    def _show_title(self) -> None:
        spans = title(self.view == "configs", self.config, self.data, len(self.listed))
        self.query_one("#elo-title", Bar).show(spans, rule=True)
        self.query_one("#ratings-title", Bar).show([(f" {self.config} ratings ", "title")], rule=True)

    def _at(self, data: EloData) -> int:
        last = len(data.view.points) - 1
        return last if self.point is None else max(0, min(self.point, last))

    def _told(self) -> list[Line]:
        """What stands at the cursor, in words."""
        data, chosen, look = self.data, self.chosen, self.app.look
        if self.view == "configs":
            if self.troubles:
                config, why = next(iter(self.troubles.items()))
                return [((f" {config} cannot be read now: {why}", "notice_bad"),)]
            return [((" enter opens a config; the lines are production, Heuristic and reject", "dim"),)]
        if data is None or chosen is None:
            return [()]
        if self.trouble:  # what was read before stays on screen
            return [((f" cannot be read again: {self.trouble}", "notice_bad"),)]
        width = max(20, self.query_one("#told").size.width - 2)
        if self.view == "matrix":
            shown = self._window
            other = shown.columns[self.column] if shown and self.column < len(shown.columns) else None
            meeting = (self.met or {}).get((chosen.player, other.player)) if other else None
            text = told(data.view, chosen, other, meeting, parse_config(self.config).players)
            return [((" " + row, "text"),) for row in look.glyphs.wrap(text, width)]
        return [
            *legend(data, self.config, chosen, self.champion, look, width),
            at_point(data.view.points[self._at(data)], chosen, self.app.clock),
            against_champion(data.view, chosen, self.champion),
        ]

    # Keys

    def _move(self, rows: int) -> None:
        if self.view == "configs":
            columns = grid((self.query_one("#canvas").size.width, 20))[0]
            self._turn(max(-len(CONFIGS), min(len(CONFIGS), rows * columns)), wrap=False)
        else:
            self.main_table.move(rows)

    def on_table_moved(self, message: Table.Moved) -> None:
        self.update()

    def _turn(self, step: int, *, wrap: bool = True) -> None:
        keys = [config.key for config in CONFIGS]
        at = keys.index(self.config) + step
        at = at % len(keys) if wrap else max(0, min(len(keys) - 1, at))
        if keys[at] != self.config:
            self.config, self.point, self.met = keys[at], None, None
            self.update()

    def _step(self, step: int) -> None:
        data = self.data
        if self.view == "configs":
            self._turn(step)
        elif self.view == "matrix":
            self.column = max(0, self.column + step)
        elif data is not None and data.view.points:
            self.point = max(0, min(len(data.view.points) - 1, self._at(data) + step))
        self.update()

    def do_elo_left(self) -> None:
        self._step(-1)

    def do_elo_right(self) -> None:
        self._step(1)

    def do_elo_next(self) -> None:
        self._turn(1)

    def do_elo_previous(self) -> None:
        self._turn(-1)

    def do_elo_view(self) -> None:
        self._show_view(VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)])

    def _show_view(self, view: View) -> None:
        self.view = view
        self.update()
        self.call_after_refresh(self.update)  # once the panes have their new sizes

    def do_elo_zoom(self) -> None:
        self.near = not self.near
        self.update()

    def do_elo_champion(self) -> None:
        champion = self.champion
        if champion is None:
            self.say(f"nothing is in production of {self.config}", "warn")
        elif not self.main_table.go_to(champion.player):
            self.main_table.set_filter("")
            self.main_table.go_to(champion.player)

    async def do_open(self) -> None:
        if self.view == "configs":
            self._show_view("chart")
        else:
            self.do_registry_info()

    def do_back(self) -> None:
        if not self.notice and self.view != "chart" and not self.main_table.filter.active:
            self._show_view("chart")
        else:
            super().do_back()
