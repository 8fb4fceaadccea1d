"""Colours by role: truecolour dark and light, the terminal's own 16 colours, and none at all.

A state is never told by colour alone: a glyph and a word stand with it. Good and bad are teal and orange-red, which
stay apart under the common forms of colour blindness.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rich.style import Style

from ringrift_console.glyphs import Glyphs

ThemeName = Literal["dark", "light", "ansi", "mono"]
THEMES: tuple[ThemeName, ...] = ("dark", "light", "ansi", "mono")

Role = Literal[
    "text", "dim", "strong", "head", "title", "good", "warn", "bad", "info", "accent", "bar", "rail", "match",
    "header", "header_dim", "header_warn", "header_bad", "footer", "footer_key", "footer_off", "notice", "notice_bad",
    "chip", "button", "border",
]  # fmt: skip

_DARK = {
    "back": "#10151b", "text": "#d6dce3", "dim": "#8b96a2", "good": "#5fc9a8", "warn": "#e6b450", "bad": "#ff8066",
    "info": "#74b8ff", "accent": "#b9a7ff", "raised": "#1f2833", "cursor": "#2d3e52", "rail": "#39444f",
}  # fmt: skip
_LIGHT = {
    "back": "#fbfbf9", "text": "#1d232a", "dim": "#59636e", "good": "#006b57", "warn": "#7d5200", "bad": "#b3261e",
    "info": "#0b5cad", "accent": "#5b3ea8", "raised": "#e2e7ee", "cursor": "#cadcf3", "rail": "#c3cad2",
}  # fmt: skip


def _truecolour(c: Mapping[str, str]) -> dict[str, Style]:
    def on(colour: str, back: str = "back", **extra: Any) -> Style:
        return Style(color=c[colour], bgcolor=c[back], **extra)

    return {
        "text": on("text"), "dim": on("dim"), "strong": on("text", bold=True), "head": on("dim", bold=True),
        "title": on("info", bold=True), "good": on("good"), "warn": on("warn"), "bad": on("bad", bold=True),
        "info": on("info"), "accent": on("accent"), "bar": on("info"), "rail": on("rail"),
        "match": Style(color=c["back"], bgcolor=c["warn"]), "header": on("text", "raised"),
        "header_dim": on("dim", "raised"), "header_warn": on("warn", "raised", bold=True),
        "header_bad": on("bad", "raised", bold=True), "footer": on("text", "raised"),
        "footer_key": on("info", "raised", bold=True), "footer_off": on("dim", "raised"), "notice": on("info"),
        "notice_bad": on("bad", bold=True), "chip": on("warn", bold=True),
        "button": Style(color=c["back"], bgcolor=c["info"], bold=True), "border": on("rail"),
        "cursor": Style(bgcolor=c["cursor"]), "cursor_idle": Style(bgcolor=c["raised"]),
    }  # fmt: skip


def _sixteen() -> dict[str, Style]:
    raised = Style(reverse=True)
    return {
        "text": Style(), "dim": Style(dim=True), "strong": Style(bold=True), "head": Style(bold=True, dim=True),
        "title": Style(color="blue", bold=True), "good": Style(color="green"), "warn": Style(color="yellow"),
        "bad": Style(color="red", bold=True), "info": Style(color="cyan"), "accent": Style(color="magenta"),
        "bar": Style(color="cyan"), "rail": Style(dim=True), "match": Style(color="yellow", reverse=True),
        "header": raised, "header_dim": raised, "header_warn": raised + Style(bold=True),
        "header_bad": raised + Style(bold=True, underline=True), "footer": Style(),
        "footer_key": Style(color="cyan", bold=True), "footer_off": Style(dim=True), "notice": Style(color="cyan"),
        "notice_bad": Style(color="red", bold=True), "chip": Style(color="yellow", bold=True),
        "button": Style(reverse=True, bold=True), "border": Style(dim=True),
        "cursor": Style(reverse=True), "cursor_idle": Style(underline=True),
    }  # fmt: skip


def _without_colour(style: Style) -> Style:
    return Style(bold=style.bold, dim=style.dim, underline=style.underline, reverse=style.reverse, italic=style.italic)


@dataclass(frozen=True)
class Look:
    """The theme and the glyphs of one console."""

    theme: ThemeName
    glyphs: Glyphs

    @property
    def native(self) -> bool:
        """True when colours are the terminal's own, or none."""
        return self.theme in ("ansi", "mono")

    @cached_property
    def _styles(self) -> dict[str, Style]:
        if self.theme in ("dark", "light"):
            return _truecolour(_DARK if self.theme == "dark" else _LIGHT)
        styles = _sixteen()
        return styles if self.theme == "ansi" else {role: _without_colour(style) for role, style in styles.items()}

    @cached_property
    def _overlaid(self) -> dict[tuple[str, str], Style]:
        return {}

    def style(self, role: str, overlay: str = "") -> Style:
        """The style of a role; ``overlay`` lays ``cursor`` or ``cursor_idle`` over it."""
        if not overlay:
            return self._styles[role]
        key = (role, overlay)
        if key not in self._overlaid:
            self._overlaid[key] = self._styles[role] + self._styles[overlay]
        return self._overlaid[key]

    @property
    def colours(self) -> Mapping[str, str]:
        """Colours of the truecolour themes by name, for style sheets."""
        return _LIGHT if self.theme == "light" else _DARK


STATE_ROLES: dict[str, Role] = {
    "waiting": "dim", "placing": "info", "running": "info", "collecting": "info", "cancelling": "warn",
    "done": "good", "failed": "bad", "cancelled": "dim", "skipped": "dim",
    "blocked": "warn", "unknown": "warn", "empty": "dim", "scaling": "warn",
    "ready": "good", "development": "text", "staging": "info", "production": "good", "archived": "dim",
    "rejected": "bad", "error": "bad", "warning": "warn", "info": "info", "pending": "dim", "refused": "bad",
    "up": "good", "down": "bad", "new": "info", "off": "dim", "drained": "warn",
    "planned": "dim", "queued": "dim", "preflight": "info", "fetching": "info", "fetched": "info",
    "verifying": "info", "published": "good", "paused": "warn",
    "starting": "info", "orphaned": "warn", "lost": "warn", "given up": "dim",
}  # fmt: skip


def choose_theme(wanted: str) -> ThemeName:
    """The theme to use: the wanted one, or for ``auto`` what NO_COLOR, COLORTERM and TERM say."""
    if wanted in THEMES and wanted != "auto":
        return wanted  # type: ignore[return-value]
    if os.environ.get("NO_COLOR"):  # https://no-color.org: present and not empty
        return "mono"
    term = os.environ.get("TERM", "")
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") or term.endswith(("256color", "direct")):
        return "dark"
    return "mono" if term in ("", "dumb", "vt100", "vt220") else "ansi"
