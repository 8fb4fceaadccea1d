"""The bottom line: the keys that hold here now; those that cannot be used stand in parentheses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from ringrift_console.actions import BY_NAME
from ringrift_console.keymap import SCREENS, key_text
from ringrift_console.widgets.line import Span

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp


def footer_spans(app: ConsoleApp, kind: str, subject: str | None, width: int) -> list[Span]:
    """Keys and labels, the screen's own first; what does not fit is left out from the end but for help and quit."""
    keymap, clean = app.keymap, app.look.glyphs.clean
    pushed = f"go.{kind}" not in BY_NAME
    chosen = [
        action
        for action in keymap.actions(SCREENS[kind])
        if action.label and (action.footer or (pushed and action.name == "back"))
    ]
    own = [action for action in chosen if action.scope != "global"]
    screens = [action for action in chosen if action.name.startswith("go.") and action.name != f"go.{kind}"]
    rest = [action for action in chosen if action.scope == "global" and not action.name.startswith("go.")]
    pieces: list[tuple[list[Span], bool]] = []
    for action in own + screens + rest:
        key, label = key_text(keymap.key(action)), clean(action.label)
        if action.available(app.snapshot, subject) is not None:
            spans: list[Span] = [(f" ({key} {label})", "footer_off")]
        else:
            spans = [(f" {key}", "footer_key"), (f" {label} ", "footer")]
        pieces.append((spans, action.name in ("help", "quit", "back")))
    room = width - sum(_width(spans) for spans, keep in pieces if keep)
    shown: list[Span] = []
    for spans, keep in pieces:
        if not keep:
            if _width(spans) > room:
                continue
            room -= _width(spans)
        shown += spans
    return shown


def _width(spans: list[Span]) -> int:
    return sum(cell_len(text) for text, _ in spans)
