"""Pulse: the twelve configs, what needs the operator, what runs, what happened."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from backend.configs import CONFIGS
from backend.snapshot import ConfigRow, EventRow, JobRow, Need, Snapshot
from ringrift_console.actions import BY_NAME, find_alarm
from ringrift_console.widgets.line import Bar, Span
from ringrift_console.widgets.table import Column, Table
from screens.base import BaseScreen
from screens.cells import (
    UNKNOWN,
    against,
    count,
    eta,
    event_text,
    fraction,
    gauntlet_target,
    model_name,
    progress_text,
    state_span,
    win_span,
)
from screens.text import TextScreen

EVENTS = 60
_KEYS = frozenset(config.key for config in CONFIGS)
_LIVE = ("running", "collecting", "placing", "cancelling", "waiting", "unknown")


class PulseScreen(BaseScreen):
    """The first screen."""

    KIND = "pulse"
    TITLE = "Pulse"

    def __init__(self) -> None:
        super().__init__()
        self._snapshot: Snapshot | None = None
        self._live: tuple[JobRow, ...] = ()
        self._events: tuple[EventRow, ...] = ()

    def body(self) -> Iterable[Widget]:
        with Vertical(classes="body"):
            yield Table(self._config_columns(), lambda row: row.config, id="configs")
            with Horizontal(classes="lower"):
                with Vertical(classes="left"):
                    yield Bar(id="needs-title", classes="title")
                    yield Table(
                        self._need_columns(), lambda need: f"{need.screen} {need.subject} {need.text}",
                        empty="nothing needs you", heading=False, idle_cursor=False, id="needs",
                    )  # fmt: skip
                    yield Bar(id="running-title", classes="title")
                    yield Table(
                        self._running_columns(), lambda job: job.id, heading=False, idle_cursor=False, id="running",
                        empty="nothing runs; p starts a pipeline for the config under the cursor",
                    )  # fmt: skip
                with Vertical(id="events-pane", classes="wide-only"):
                    yield Bar(id="events-title", classes="title")
                    yield Table(
                        self._event_columns(), lambda event: str(event.id),
                        empty="nothing happened yet", heading=False, idle_cursor=False, id="events",
                    )  # fmt: skip

    def on_mount(self) -> None:
        self.configs.focus()

    @property
    def main_table(self) -> Table[ConfigRow]:
        return self.configs

    @property
    def configs(self) -> Table[ConfigRow]:
        return self.query_one("#configs", Table)

    @property
    def subject(self) -> str | None:
        """The config under the cursor, or the one that the need under the cursor is about."""
        if not self.is_mounted:
            return None
        need = self.table.current if self.table is not None and self.table.id == "needs" else None
        if isinstance(need, Need) and need.screen == "pulse" and need.subject in _KEYS:
            return need.subject
        current = self.configs.current
        return current.config if current else None

    # Columns

    def _config_columns(self) -> list[Column[ConfigRow]]:
        return [
            Column("CONFIG", lambda row: row.config, 12, find=lambda row: row.config, sort=lambda row: row.config),
            Column("DATA", self._data, 9, find=lambda row: row.data, sort=lambda row: row.data),
            Column("GAMES", self._games, 7, align="right", sort=lambda row: row.games),
            Column("SAMPLES", lambda row: count(row.samples), 7, align="right", sort=lambda row: row.samples),
            Column("DATASET", self._dataset_at, 7, from_width=120),
            Column("MODELS", lambda row: str(row.models) if row.models else UNKNOWN, 6, align="right", from_width=120),
            Column("BEST", self._best, 5, flex=1, find=lambda row: row.best.label if row.best else ""),
            Column("PRODUCTION", lambda row: model_name(row.production, row.config), 10, from_width=120),
            Column("RANDOM", self._random, 6, from_width=0),
            Column("HEURIST", self._heuristic, 7),
            Column("RUNNING", self._running_cell, 12, flex=1, find=self._running_text),
        ]

    def _need_columns(self) -> list[Column[Need]]:
        return [
            Column("", lambda need: state_span(self.app.look, need.severity), 9),
            Column("", lambda need: need.text, 20, flex=1, find=lambda need: need.text),
        ]

    def _running_columns(self) -> list[Column[JobRow]]:
        look = self.app.look
        return [
            Column("", lambda job: state_span(look, job.state), 12),
            Column("", lambda job: f"{job.kind} {job.config}", 21, find=lambda job: f"{job.kind} {job.config}"),
            Column("", lambda job: progress_text(look, job, 8), 22, flex=1),
            Column("", lambda job: (f"{eta(job)} left" if eta(job) != UNKNOWN else "", "dim"), 11, align="right"),
        ]

    def _event_columns(self) -> list[Column[EventRow]]:
        return [
            Column("", lambda event: (self.app.clock.short(event.at), "dim"), 6),
            Column("", event_text, 20, flex=1, find=event_text),
        ]

    def _data(self, row: ConfigRow) -> Span:
        return state_span(self.app.look, row.data)

    def _games(self, row: ConfigRow) -> str:
        if row.games is None:
            return UNKNOWN
        return f"{row.games}/{row.ready_games}" if row.data in ("scaling", "empty") else count(row.games)

    def _dataset_at(self, row: ConfigRow) -> str:
        return self.app.clock.short(row.dataset_at)

    def _best(self, row: ConfigRow) -> Span:
        if row.best is None:
            return UNKNOWN, "dim"
        name = model_name(row.best, row.config)
        return (f"{name} {row.best.stage}", "text") if self.wide else (name, "text")

    def _random(self, row: ConfigRow) -> Span:
        return win_span(against(row.best, "random"), gauntlet_target(row.best, "random"))

    def _heuristic(self, row: ConfigRow) -> Span:
        return win_span(against(row.best, "heuristic"), gauntlet_target(row.best, "heuristic"))

    def _running_text(self, row: ConfigRow) -> str:
        live = [job for job in self._live if job.config == row.config]
        if not live:
            return row.note
        job = next((job for job in live if job.state == "running"), live[0])
        part = fraction(job) if job.state == "running" else None
        how = job.state if job.state != "running" else "" if part is None else f"{round(100 * part)}%"
        more = f" +{len(live) - 1}" if len(live) > 1 and self.wide else ""
        return f"{job.kind} {how}{more}"

    def _running_cell(self, row: ConfigRow) -> Span:
        live = any(job.config == row.config for job in self._live)
        return self._running_text(row), "info" if live else "warn"

    # Showing

    def show_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            live = [job for job in snapshot.jobs if job.state in _LIVE]
            self._live = tuple(sorted(live, key=lambda job: (_LIVE.index(job.state), job.created_at)))
            self._events = tuple(reversed(snapshot.events[-EVENTS:]))
        self.configs.show(snapshot.configs)
        self.query_one("#needs", Table).show(snapshot.needs)
        self.query_one("#running", Table).show(self._live)
        self.query_one("#events", Table).show(self._events)
        titles: dict[str, tuple[str, Any]] = {
            "needs": ("Needs you", len(snapshot.needs)),
            "running": ("Jobs", len(self._live)),
            "events": ("Events, newest first", None),
        }
        for name, (title, number) in titles.items():
            text = f" {title}" + (f" ({number})" if number else "") + " "
            self.query_one(f"#{name}-title", Bar).show([(text, "title")], rule=True)

    # Doing

    def do_policies_list(self) -> None:
        from screens.policies import PoliciesScreen

        self.app.push_screen(PoliciesScreen())

    def do_monitor_rollback(self) -> None:
        self._answer_alarm("monitor.rollback")

    def do_monitor_ack(self) -> None:
        self._answer_alarm("monitor.ack")

    def _answer_alarm(self, name: str) -> None:
        """Plans for the alarm of the config under the cursor, or for the only one that is open."""
        alarm = find_alarm(self.app.snapshot, self.subject)
        if alarm is not None:
            self.app.ask(BY_NAME[name], alarm.config, {"alarm": str(alarm.id)})

    async def do_open(self) -> None:
        """Enter: a config filters the jobs, a need or a job leads to its row."""
        table = self.table
        item = table.current if table is not None else None
        if isinstance(item, JobRow):
            await self.app.go_to("jobs", item.id)
        elif isinstance(item, Need):
            if item.screen != "pulse":
                await self.app.go_to(item.screen, item.subject)
            elif item.subject in _KEYS:
                self.configs.go_to(item.subject)
                self.configs.focus()
            else:  # an operation, or what only an event tells of: there is no row to go to
                width = max(20, self.app.size.width - 3)
                text = "\n".join(self.app.look.glyphs.wrap(item.text, width))
                await self.app.push_screen(TextScreen(item.subject, text))
        elif isinstance(item, ConfigRow):
            await self.app.go("models" if item.models and not item.running else "jobs")
            screen = self.app.screen
            if isinstance(screen, BaseScreen) and screen.main_table is not None:
                screen.main_table.set_filter(f"config={item.config}")
                screen.update()
