"""A form for the parameters of an action, made from the action itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from textual import events
from textual.containers import Horizontal
from textual.widget import Widget

from backend.configs import CONFIGS
from ringrift_console.actions import HOSTS_FILE, Action, Param
from ringrift_console.widgets.line import Bar
from ringrift_console.widgets.prompt import LineInput
from screens.dialogs import Dialog

_NOT_ASKED = {"--wait", "--dry-run", "--json", "--fingerprint", "--apply", "--all"}
_LABEL = 18


@dataclass(frozen=True, slots=True)
class Choice:
    """One field: where its value goes, and what may stand in it."""

    param: Param
    dest: str
    options: tuple[str, ...] = ()


def choices(action: Action) -> list[Choice]:
    """The fields of an action's form; none for what only the command line needs."""
    found = []
    for param in action.params:
        if param.name not in _NOT_ASKED and param != HOSTS_FILE:
            dest = param.name.lstrip("-").replace("-", "_")
            options = param.choices or (tuple(c.key for c in CONFIGS) if dest == "config" else ())
            found.append(Choice(param, dest, options))
    return found


def passed_over(action: Action) -> list[str]:
    """Options that a plan dialog neither takes nor makes needless, so that giving one must not be passed over."""
    carried = {choice.param.name for choice in choices(action)}
    needless = {"--wait", "--dry-run", "--apply", "--all"}  # a dialog shows the plan and asks
    return [
        param.name for param in action.params if param.name.startswith("-") and param.name not in carried | needless
    ]


class FormDialog(Dialog):
    """Asks for the parameters. The result is a dict of those that were given, or None."""

    def __init__(self, action: Action, fields: list[Choice], given: dict[str, Any]) -> None:
        super().__init__()
        self.action = action
        self.fields = fields
        self.given = given

    def body(self) -> Iterable[Widget]:
        for choice in self.fields:
            value = self.given.get(choice.dest)
            with Horizontal(classes="field"):
                yield Bar(id=f"label-{choice.dest}", classes="label")
                yield LineInput("" if value is None else str(value), id=f"field-{choice.dest}")

    def on_mount(self) -> None:
        self.title_line(self.action.help)
        self.keys_line(("enter", "show the plan"), ("tab", "next"), ("↑↓", "change"), ("esc", "cancel"))
        for choice in self.fields:
            text = choice.dest.replace("_", " ")
            self.query_one(f"#label-{choice.dest}", Bar).show([(text, "dim")])
            entry = self.query_one(f"#field-{choice.dest}", LineInput)
            entry.placeholder = "default" if choice.param.name.startswith("-") and not choice.param.required else ""
        empty = [c for c in self.fields if self.given.get(c.dest) is None]
        first = self.fields[0] if self.fields[0].options or not empty else empty[0]
        self.query_one(f"#field-{first.dest}", LineInput).focus()
        self._say_help()

    def _current(self) -> Choice | None:
        focused = self.focused
        return next((c for c in self.fields if focused is not None and focused.id == f"field-{c.dest}"), None)

    def _say_help(self) -> None:
        choice = self._current()
        if choice is not None:
            self.say(choice.param.help, "dim")

    def on_descendant_focus(self) -> None:
        self._say_help()

    async def on_key(self, event: events.Key) -> None:
        if event.key in ("escape", "ctrl+c"):
            event.stop()
            self.dismiss(None)
        elif event.key == "enter":
            event.stop()
            self._finish()
        elif event.key in ("up", "down"):
            event.stop()
            self._turn(1 if event.key == "down" else -1)

    def on_input_submitted(self) -> None:
        self._finish()

    def _turn(self, step: int) -> None:
        """Up and down go through the options of a field, or to the next field."""
        choice = self._current()
        if choice is None or not choice.options:
            self.focus_next() if step > 0 else self.focus_previous()
            return
        entry = self.query_one(f"#field-{choice.dest}", LineInput)
        at = choice.options.index(entry.value) if entry.value in choice.options else -1 if step > 0 else 0
        entry.value = choice.options[(at + step) % len(choice.options)]
        entry.cursor_position = len(entry.value)

    def _finish(self) -> None:
        values: dict[str, Any] = {}
        for choice in self.fields:
            entry = self.query_one(f"#field-{choice.dest}", LineInput)
            text = entry.value.strip()
            problem = ""
            if not text:
                needed = choice.param.required or not choice.param.name.startswith("-")
                problem = "is needed" if needed else ""
            elif choice.options and text not in choice.options:
                problem = "is not one of " + " ".join(choice.options)
            elif choice.param.type in ("int", "float"):
                try:
                    values[choice.dest] = int(text) if choice.param.type == "int" else float(text)
                except ValueError:
                    problem = "must be a whole number" if choice.param.type == "int" else "must be a number"
            else:
                values[choice.dest] = text
            if problem:
                entry.focus()
                self.say(f"{choice.dest.replace('_', ' ')} {problem}", "notice_bad")
                return
        self.dismiss(values)
