"""The way from an action to an operation: a form where there is something to choose, then the plan, then yes or no."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget

from backend.plans import Plan
from backend.snapshot import Snapshot
from ringrift_console.actions import Action, Tier
from ringrift_console.intents import make_plan, same, submit
from ringrift_console.keymap import ACCEPT
from ringrift_console.troubles import TROUBLES, trouble_line
from ringrift_console.widgets.line import Bar, Line, Lines, Span
from ringrift_console.widgets.prompt import LineInput
from screens.plan_ground import given, hosts_line

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp
    from ringrift_console.look import Look

GUARD_S = 0.25
"""Keys this soon after a dialog opened were meant for what was there before it."""


class Dialog(ModalScreen[Any]):
    """A box over the screen: title, body, and a line of keys."""

    app: ConsoleApp
    HEADING: ClassVar[str] = ""
    said: tuple[str, str] | None = None
    """What was said last, maybe before there was anything to show it on."""

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Bar(id="dialog-title")
            yield from self.body()
            yield Bar(id="dialog-note")
            yield Bar(id="dialog-keys")

    def body(self) -> Iterable[Widget]:
        raise NotImplementedError

    def title_line(self, text: str) -> None:
        self.query_one("#dialog-title", Bar).show([(text, "title")])

    def keys_line(self, *keys: tuple[str, str]) -> None:
        """The last line: keys with what they do."""
        spans = [span for key, does in keys for span in ((f" {key} ", "footer_key"), (f"{does}  ", "text"))]
        self.query_one("#dialog-keys", Bar).show(spans)

    def on_mount(self) -> None:
        if self.said is not None:
            self.say(*self.said)

    def say(self, text: str, role: str = "notice") -> None:
        self.said = (text, role)
        for bar in self.query("#dialog-note").results(Bar):
            bar.show([(text, role)] if text else [])


class PlanDialog(Dialog):
    """Shows a plan. Enter and Escape cancel; only the accept key (or the typed name, for the gravest) goes on.

    The result is the plan to submit, or None.
    """

    def __init__(self, action: Action, plan: Plan, params: dict[str, Any], subject: str | None) -> None:
        super().__init__()
        self.action = action
        self.plan = plan
        self.params = params
        self.name_to_type = plan.typed or (subject if action.tier is Tier.NAMED else None)
        self.moved = ""
        self._opened = 0.0
        self._checking = False
        self._seen: Snapshot | None = None

    def body(self) -> Iterable[Widget]:
        yield Lines(id="plan")
        if self.name_to_type is not None:
            yield LineInput(id="name")

    def on_mount(self) -> None:
        self._opened = self.app.monotonic()
        self._seen = self.app.snapshot
        self._show()
        if self.name_to_type is not None:
            self.query_one("#name", LineInput).focus()

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        width = min(self.app.size.width, 100 if self.app.size.width >= 120 else 80) - 4
        look = self.app.look
        lines = plan_lines(self.plan, look, width, hosts_line(self.plan, self.app.snapshot, look, width))
        body = self.query_one("#plan", Lines)
        body.styles.height = max(1, min(len(lines), self.app.size.height - 6 - (self.name_to_type is not None)))
        body.show(lines)
        self.title_line(self.plan.title)
        self.query_one("#dialog-keys", Bar).show(self._keys())

    def _keys(self) -> list[Span]:
        cancel: list[Span] = [(" Cancel ", "button"), (" enter or esc   ", "dim")]
        if self.moved:
            return [*cancel, (" r ", "footer_key"), ("look at it again", "text")]
        if self.name_to_type is not None:
            return [*cancel, (f"type {self.name_to_type} and enter to go on", "text")]
        return [*cancel, (f" {ACCEPT} ", "footer_key"), ("yes, do it", "text")]

    def update(self) -> None:
        """A new snapshot was read: is the plan still what would be done?"""
        if self.app.snapshot is not self._seen and not self._checking and not self.moved:
            self._seen = self.app.snapshot
            self.run_worker(self._check, group="check", exclusive=True)

    async def _check(self) -> Plan | None:
        """Plans again; None when that plan differs from the one shown, which is then said."""
        self._checking = True
        try:
            plan = await make_plan(self.action, self.app.paths, self.params)
        except TROUBLES as error:
            self._set_moved(trouble_line(error, str(self.app.paths.root)))
            return None
        finally:
            self._checking = False
        if not same(plan, self.plan):
            self._set_moved("the state has moved since this plan was made: nothing was done")
            return None
        if plan.changes != self.plan.changes:
            self.plan = plan
            self._show()
        return plan

    def _set_moved(self, text: str) -> None:
        self.moved = text
        for entry in self.query("#name").results(LineInput):
            entry.disabled = True  # it would take the key to look again
            self.set_focus(None)
        self.say(text, "notice_bad")
        self.query_one("#dialog-keys", Bar).show(self._keys())

    async def on_key(self, event: events.Key) -> None:
        typing = self.name_to_type is not None and not self.moved
        if typing and event.key not in ("escape", "enter", "ctrl+c", "up", "down"):
            return
        event.stop()
        event.prevent_default()
        fresh = self.app.monotonic() - self._opened < GUARD_S
        if event.key in ("escape", "ctrl+c", "n"):
            self.dismiss(None)
        elif event.key == "enter":
            typed = self.query_one("#name", LineInput).value if self.name_to_type is not None else None
            if typed is not None and typed == self.name_to_type and not self.moved:
                await self._accept()
            elif not fresh:
                self.dismiss(None)
        elif event.key == "r" and self.moved:
            await self._again()
        elif event.key == ACCEPT and not fresh and not self.moved:
            await self._accept()
        elif event.key in ("j", "down"):
            self.query_one("#plan", Lines).move(1)
        elif event.key in ("k", "up"):
            self.query_one("#plan", Lines).move(-1)

    async def _accept(self) -> None:
        if await self._check() is not None:
            self.dismiss(self.plan)

    async def _again(self) -> None:
        """Plans afresh and shows that plan."""
        try:
            self.plan = await make_plan(self.action, self.app.paths, self.params)
        except TROUBLES as error:
            self._set_moved(trouble_line(error, str(self.app.paths.root)))
            return
        self.moved, self._opened = "", self.app.monotonic()
        for entry in self.query("#name").results(LineInput):
            entry.value, entry.disabled = "", False
            self.set_focus(entry)
        self.say("")
        self._show()


def plan_lines(plan: Plan, look: Look, width: int, hosts: Sequence[Line] = ()) -> list[Line]:
    """A plan as lines: warnings, before -> after, hosts, criteria, steps, undo, the same on the command line."""
    glyphs = look.glyphs
    lines: list[Line] = [((row, "warn"),) for text in plan.warnings for row in glyphs.wrap(f"! {text}", width)]
    if plan.changes:
        subject = min(max(len(change.subject) for change in plan.changes), width // 3)
        before = min(max(len(change.before) for change in plan.changes), width // 3)
        for change in plan.changes:
            lines.append(
                (
                    (glyphs.fit(change.subject, subject), "strong"),
                    ("  " + glyphs.fit(change.before, before), "dim"),
                    (" → ", "dim"),
                    (change.after, "info"),
                )
            )
    lines += hosts
    if plan.table:
        from screens.model_criteria import table_lines

        lines += table_lines(plan.table, look, width)
    for n, step in enumerate(plan.steps, 1):
        rows = glyphs.wrap(step, width - 4)
        lines += [((f"{n:2}. " if i == 0 else "    ", "dim"), (row, "text")) for i, row in enumerate(rows)]
    for label, text, role in (("undo", plan.undo, "text"), ("same as", plan.command, "accent")):
        for i, row in enumerate(glyphs.wrap(text, width - 9) if text else []):
            lines.append(((f"{label if i == 0 else '':<9}", "dim"), (row, role)))
    return lines


async def ask_plan(app: ConsoleApp, action: Action, subject: str | None, params: dict[str, Any] | None) -> None:
    """The whole way of one action; says at its end what became of it."""
    if params is None:
        from screens.form import FormDialog, choices

        fields = choices(action)
        known = given(action, fields, app.snapshot, subject)
        if len(fields) > 1:
            params = await app.push_screen_wait(FormDialog(action, fields, known))
            if params is None:
                app.say("cancelled, nothing was done", "dim")
                return
        else:
            params = known
    try:
        plan = await make_plan(action, app.paths, params)
    except TROUBLES as error:
        app.say(trouble_line(error, str(app.paths.root)), "notice_bad")
        return
    accepted = await app.push_screen_wait(PlanDialog(action, plan, params, subject))
    if accepted is None:
        app.say("cancelled, nothing was done", "dim")
        return
    try:
        operation = await submit(accepted, app.paths)
    except TROUBLES as error:
        app.say(trouble_line(error, str(app.paths.root)), "notice_bad")
        return
    app.say(f"{accepted.title}: asked for (operation {operation})", "good")
    await app.look_again()
