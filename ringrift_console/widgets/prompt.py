"""One line of text asked for above the footer: a filter, a search, a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.suggester import Suggester
from textual.widgets import Input

from ringrift_console.widgets.line import Bar

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp


class Completion(Suggester):
    """Shows the first completion behind the cursor."""

    def __init__(self, complete: Callable[[str], Sequence[str]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        found = self.complete(value)
        return found[0] if found and found[0].startswith(value) else None


class LineInput(Input):
    """A one-line input without frame and without a blinking cursor (which would cost 3 KB/s)."""

    DEFAULT_CSS = """
    LineInput, LineInput:focus {
        border: none; height: 1; padding: 0; width: 1fr; background: $background; color: $foreground;
    }
    """

    def __init__(self, value: str = "", *, suggester: Suggester | None = None, id: str | None = None) -> None:
        super().__init__(value, select_on_focus=False, suggester=suggester, id=id)
        self.cursor_blink = False


class Prompt(Horizontal):
    """A label, an input, and for commands the other completions at the right."""

    DEFAULT_CSS = """
    Prompt { height: 1; }
    Prompt > #label { width: 2; }
    Prompt > #others { width: auto; max-width: 50%; display: none; }
    """
    app: ConsoleApp

    def __init__(
        self,
        label: str,
        finish: Callable[[str | None], None],
        *,
        change: Callable[[str], None] | None = None,
        value: str = "",
        complete: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        super().__init__(id="prompt")
        self.label = label
        self.finish = finish
        self.change = change
        self.value = value
        self.complete = complete

    def compose(self) -> ComposeResult:
        yield Bar(id="label")
        yield LineInput(self.value, suggester=Completion(self.complete) if self.complete else None)

    def on_mount(self) -> None:
        self.query_one("#label", Bar).show([(" " + self.label, "footer_key" if self.app.look.native else "info")])
        entry = self.query_one(LineInput)
        entry.cursor_position = len(self.value)
        entry.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.change is not None:
            self.change(event.value)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        await self.close(event.value)

    async def on_key(self, event: events.Key) -> None:
        """Keys that mean the prompt; what the input itself understands goes on to its bindings."""
        if event.key in ("escape", "ctrl+c"):
            event.stop()
            await self.close(None)
        elif event.key in ("tab", "shift+tab", "up", "down", "ctrl+p"):
            event.stop()
            if event.key == "tab":
                self._complete()

    def _complete(self) -> None:
        """Takes what all completions have in common; says what there is when that is no more than was typed."""
        entry = self.query_one(LineInput)
        found = list(self.complete(entry.value)) if self.complete else []
        if not found:
            return
        common = found[0]
        for text in found[1:]:
            while not text.startswith(common):
                common = common[:-1]
        if len(common) > len(entry.value):
            entry.value = common + (" " if len(found) == 1 else "")
            entry.cursor_position = len(entry.value)

    async def close(self, text: str | None) -> None:
        screen = self.screen
        await self.remove()
        screen.close_prompt()  # type: ignore[attr-defined]
        self.finish(text)
