"""Find and run: the help lists every action with its key, the palette adds every object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import events
from textual.widget import Widget
from textual.widgets import Input

from ringrift_console.actions import ACTIONS, Action
from ringrift_console.keymap import SCREENS, key_text
from ringrift_console.widgets.line import Span
from ringrift_console.widgets.prompt import LineInput
from ringrift_console.widgets.table import Column, Table
from screens.base import BaseScreen
from screens.dialogs import Dialog

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp


@dataclass(frozen=True, slots=True)
class Entry:
    """A line to pick: an action, or an object with the screen that shows it."""

    key: str
    what: str
    text: str
    action: Action | None = None
    screen: str = ""
    subject: str = ""
    reason: str | None = None


class PickerDialog(Dialog):
    """A search line over a table. The result is the picked entry, or None."""

    def __init__(self, title: str, entries: Sequence[Entry]) -> None:
        super().__init__()
        self.heading = title
        self.entries = tuple(entries)

    def body(self) -> Iterable[Widget]:
        yield LineInput(id="search")
        yield Table(
            [
                Column("KEY", lambda entry: (entry.key, "info" if entry.reason is None else "dim"), 11),
                Column("WHAT", self._what, 16, find=lambda entry: entry.what),
                Column("", self._text, 20, flex=1, find=lambda entry: entry.text),
            ],
            lambda entry: f"{entry.what} {entry.subject} {entry.text}",
            heading=False,
            id="entries",
        )

    def _what(self, entry: Entry) -> Span:
        return entry.what, "strong" if entry.reason is None else "dim"

    def _text(self, entry: Entry) -> Span:
        if entry.reason is None:
            return entry.text, "text"
        return f"({entry.reason}) {entry.text}", "dim"

    def on_mount(self) -> None:
        self.title_line(self.heading)
        table = self.query_one(Table)
        table.can_focus = False
        table.styles.height = max(3, self.app.size.height - 8)
        table.show(self.entries)
        self.query_one("#search", LineInput).placeholder = self.app.look.glyphs.clean("type to search")
        self.query_one("#search", LineInput).focus()
        self.keys_line(("enter", "do it"), ("↑↓", "choose"), ("esc", "close"))

    def on_input_changed(self, event: Input.Changed) -> None:
        table = self.query_one(Table)
        table.set_filter(event.value)
        table.move_to(0)

    def on_input_submitted(self) -> None:
        self._pick()

    async def on_key(self, event: events.Key) -> None:
        table = self.query_one(Table)
        moves = {"down": 1, "up": -1, "pagedown": table.page, "pageup": -table.page, "ctrl+d": 10, "ctrl+u": -10}
        if event.key in ("escape", "ctrl+c"):
            event.stop()
            self.dismiss(None)
        elif event.key in moves:
            event.stop()
            event.prevent_default()
            table.move(moves[event.key])
        elif event.key in ("tab", "shift+tab"):
            event.stop()
        elif event.key == "enter":
            event.stop()
            self._pick()

    def on_table_moved(self) -> None:
        entry = self.query_one(Table).current
        if entry is not None:
            self.say(entry.reason or entry.text, "warn" if entry.reason else "dim")

    def on_table_opened(self) -> None:
        self._pick()

    def _pick(self) -> None:
        entry = self.query_one(Table).current
        if entry is None:
            return
        if entry.reason is not None:
            self.say(f"{entry.what}: {entry.reason}", "warn")
            return
        self.dismiss(entry)


_PLACES = {
    "pulse": "on Pulse", "hosts": "on Hosts", "jobs": "on Jobs", "models": "on Models", "elo": "on Elo",
    "transfers": "on Transfers", "policies": "on Policies", "log": "in a log", "list": "on tables",
}  # fmt: skip


def action_entries(app: ConsoleApp) -> list[Entry]:
    """Every action: those of this screen first, then those that hold elsewhere, then those without a key."""
    screen = app.screen
    kind = screen.KIND if isinstance(screen, BaseScreen) else "text"
    subject = screen.subject if isinstance(screen, BaseScreen) else None
    here = app.keymap.actions(SCREENS[kind])
    entries = []
    for action in here:
        key = " ".join(key_text(key) for key in app.keymap.keys(action))
        entries.append(Entry(key, _name(action), action.help, action, reason=action.available(app.snapshot, subject)))
    for action in ACTIONS:
        if action in here:
            continue
        key = key_text(app.keymap.key(action))
        if key:
            where = _PLACES.get(action.scope, "")
            entries.append(Entry(key, _name(action), action.help, action, reason=where or None))
        elif action.verb:
            entries.append(Entry("", _name(action), f"{action.help} (: {' '.join(action.verb)})", action))
    return entries


def _name(action: Action) -> str:
    return " ".join(action.verb) if action.verb else action.label or action.name


def object_entries(app: ConsoleApp) -> list[Entry]:
    """Every config, host, job, model and transfer."""
    snapshot = app.snapshot
    configs = [Entry("", "config", row.config, screen="pulse", subject=row.config) for row in snapshot.configs]
    hosts = [
        Entry("", "host", f"{host.name} {host.state} {host.role}", screen="hosts", subject=host.name)
        for host in snapshot.hosts
    ]
    jobs = [
        Entry("", "job", f"{job.id} {job.kind} {job.config} {job.state}", screen="jobs", subject=job.id)
        for job in snapshot.jobs
    ]
    models = [
        Entry("", "model", f"{model.label} {model.stage} {model.sha256[:8]}", screen="models", subject=model.sha256)
        for model in snapshot.models
    ]
    transfers = [
        Entry("", "transfer", f"{row.id} {row.name} {row.state}", screen="transfers", subject=row.id)
        for row in snapshot.transfers
    ]
    return configs + hosts + jobs + models + transfers


async def help_dialog(app: ConsoleApp) -> None:
    """What every key does, searchable; runs what is picked."""
    await _run(app, PickerDialog("Keys and actions", action_entries(app)))


async def palette_dialog(app: ConsoleApp) -> None:
    """Actions and objects, searchable; runs or shows what is picked."""
    await _run(app, PickerDialog("Actions and objects", object_entries(app) + action_entries(app)))


async def _run(app: ConsoleApp, dialog: PickerDialog) -> None:
    screen = app.screen
    subject = screen.subject if isinstance(screen, BaseScreen) else None
    entry: Entry | None = await app.push_screen_wait(dialog)
    if entry is None:
        return
    if entry.action is None:
        await app.go_to(entry.screen, entry.subject)
    elif entry.key or not entry.action.verb:
        await app.act(entry.action, subject)
    else:
        from screens.command import command_line

        command_line(app, " ".join(entry.action.verb) + " ")
