"""Which characters may be drawn, and how any text becomes safe to draw.

Texts of our own may use a small set of typographic characters; data may hold anything. Both pass through
:meth:`Glyphs.clean`, so that no control character, escape sequence or direction override ever reaches the terminal,
and a terminal without UTF-8 gets plain ASCII of the same meaning.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from rich.cells import cell_len, chop_cells, set_cell_size

# CSI, OSC (ended by BEL or ST), DCS/PM/APC strings, and two-character escapes: ECMA-48, 5.4 and 5.6.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_PLAIN = re.compile(r"[ -~]*\Z")
_DRAWN = re.compile(r"[ -~▁-█░─│▌←→…●○◌✓✗■▲▼·]*\Z")
"""What screens draw most: every character of it is one cell wide and steers nothing."""

_ASCII = {
    "…": "..", "–": "-", "—": "-", "→": "->", "←": "<-", "↑": "^", "↓": "v", "±": "+-", "·": "|", "›": ">", "‹": "<",
    "×": "x", "≥": ">=", "≤": "<=", "“": '"', "”": '"', "’": "'", "│": "|", "─": "-", "µ": "u",
}  # fmt: skip


def strip_escapes(text: str) -> str:
    """``text`` without terminal escape sequences; what they would have drawn stays."""
    return _ESCAPES.sub("", text) if "\x1b" in text or "\x9b" in text else text


@lru_cache(maxsize=4096)
def _printable(text: str) -> str:
    """Every character of ``text`` that takes no cell or steers the terminal replaced or dropped."""
    out = []
    for character in text:
        category = unicodedata.category(character)
        if character in "\t\n\r\v\f":
            out.append(" ")
        elif category in ("Cc", "Cs", "Co", "Cn"):
            out.append("\ufffd")
        elif category in ("Cf", "Zl", "Zp", "Mn", "Me"):
            continue  # direction overrides, joiners, stacked accents: no cell of their own
        else:
            out.append(character)
    return "".join(out)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of drawing characters; every state also has its word, the glyph is only the quick look."""

    name: str
    states: dict[str, str] = field(default_factory=dict)
    bar_full: str = "█"
    bar_empty: str = "░"
    cursor: str = "▌"
    ellipsis: str = "…"
    separator: str = "│"
    line: str = "─"
    down: str = "▼"
    up: str = "▲"
    attention: str = "▲"
    levels: str = "▁▂▃▄▅▆▇█"

    @property
    def ascii(self) -> bool:
        return self.name == "ascii"

    def state(self, state: str) -> str:
        return self.states.get(state, "?")

    def clean(self, text: str) -> str:
        """``text`` on one line, free of anything that is not a visible character of this set."""
        if _PLAIN.match(text) or (not self.ascii and _DRAWN.match(text)):
            return text
        text = _printable(strip_escapes(text))
        if self.ascii and not text.isascii():
            text = "".join(c if c.isascii() else _ASCII.get(c, "?") for c in text)
        return text

    def fit(self, text: str, width: int, align: str = "left", cut: str = "end") -> str:
        """``text`` cleaned and cut or padded to exactly ``width`` cells; a cut, at ``cut``, shows the ellipsis."""
        if width <= 0:
            return ""
        text = self.clean(text)
        length = len(text) if text.isascii() else cell_len(text)
        if length > width and cut == "start":
            return self.ellipsis + set_cell_size(text[::-1], width - 1)[::-1]
        if length > width:
            return set_cell_size(text, width - 1) + self.ellipsis
        pad = " " * (width - length)
        return pad + text if align == "right" else text + pad

    def wrap(self, text: str, width: int) -> list[str]:
        """``text`` cleaned and folded at words into lines of at most ``width`` cells; at least one line."""
        lines, line = [], ""
        for word in self.clean(text).split(" "):
            joined = f"{line} {word}" if line else word
            if cell_len(joined) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
            pieces = chop_cells(word, max(1, width)) or [""]
            lines += pieces[:-1]
            line = pieces[-1]
        return [*lines, line]

    def spark(self, values: Sequence[float | None], width: int, top: float | None = None) -> str:
        """The newest ``width`` values as one character each, from 0 to ``top`` (by default their greatest).

        What is unknown stays blank.
        """
        shown = values[-width:]
        most = top or max((value for value in shown if value is not None), default=0.0) or 1.0
        steps = len(self.levels) - 1
        return "".join(
            " " if value is None else self.levels[round(max(0.0, min(1.0, value / most)) * steps)] for value in shown
        )

    def bar(self, fraction: float | None, width: int) -> tuple[str, str]:
        """The full and the empty part of a progress bar of ``width`` cells."""
        full = 0 if fraction is None else round(max(0.0, min(1.0, fraction)) * width)
        return self.bar_full * full, self.bar_empty * (width - full)


UTF8 = Glyphs(
    "utf8",
    {
        "waiting": "○", "placing": "◌", "running": "●", "collecting": "◌", "cancelling": "◌",
        "done": "✓", "failed": "✗", "cancelled": "–",
        "skipped": "=", "blocked": "■", "unknown": "?", "empty": "○", "scaling": "◌", "ready": "●", "development": "○",
        "staging": "◌", "production": "●", "archived": "–", "rejected": "✗", "up": "●", "down": "✗", "error": "✗",
        "warning": "▲", "info": "·", "pending": "○", "refused": "✗",
        "new": "◌", "off": "–", "drained": "■",
        "planned": "○", "queued": "○", "preflight": "◌", "fetching": "●", "fetched": "◌", "verifying": "◌",
        "published": "✓", "paused": "■",
        "starting": "◌", "orphaned": "▲", "lost": "?", "given up": "–",
    },
)  # fmt: skip
ASCII = Glyphs(
    "ascii",
    {
        "waiting": ".", "placing": ":", "running": ">", "collecting": ":", "cancelling": ":",
        "done": "+", "failed": "x", "cancelled": "-",
        "skipped": "=", "blocked": "#", "unknown": "?", "empty": ".", "scaling": ":", "ready": "+", "development": ".",
        "staging": ":", "production": "*", "archived": "-", "rejected": "x", "up": "+", "down": "x", "error": "x",
        "warning": "!", "info": "|", "pending": ".", "refused": "x",
        "new": ":", "off": "-", "drained": "#",
        "planned": ".", "queued": ".", "preflight": ":", "fetching": ">", "fetched": ":", "verifying": ":",
        "published": "+", "paused": "#",
        "starting": ":", "orphaned": "!", "lost": "?", "given up": "-",
    },
    bar_full="#", bar_empty="-", cursor=">", ellipsis="~", separator="|", line="-", down="v", up="^", attention="!",
    levels="_.:-=+*#",
)  # fmt: skip


def choose_glyphs(*, force_ascii: bool = False) -> Glyphs:
    """ASCII when asked for, on the Linux console without UTF-8, or when the terminal's encoding is not UTF-8."""
    # Textual draws on the real standard error, so its encoding decides.
    encoding = (getattr(sys.__stderr__, "encoding", None) or "ascii").lower().replace("-", "")
    return ASCII if force_ascii or encoding != "utf8" or os.environ.get("TERM") == "linux" else UTF8
