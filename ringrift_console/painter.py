"""The shortest text that turns what stands on the terminal into what is to stand there.

Textual sends, for each place of a line that changed, all that stands before it in its widget as well, with the colours
set and reset around every piece. This keeps what was sent, cell by cell, and sends the cells that differ; colours only
where they change. With 64 hosts on the Transfers screen that is a sixth of the bytes at 160x50, a thirtieth at 80x24
(``benchmarks/transfers_screen.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

BRIDGE = 4
"""Unchanged cells between two that changed are sent again up to this many: a move of the cursor takes as much."""

Look = tuple[str, str, str]
"""Attributes, foreground and background as parameters of SGR (ECMA-48, 8.3.117); empty is the terminal's own."""
PLAIN: Look = ("", "", "")
_ATTRIBUTES = (("bold", "1"), ("dim", "2"), ("italic", "3"), ("underline", "4"), ("reverse", "7"), ("strike", "9"))


@dataclass(slots=True)
class _Line:
    """Cells of one line: a character and a look each. A wide character is followed by an empty one."""

    texts: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    def widen(self, width: int) -> None:
        """Cells of which nothing is known, up to ``width``; they differ from everything."""
        more = width - len(self.texts)
        if more > 0:
            self.texts += ["\0"] * more
            self.looks += [PLAIN] * more


class Painter:
    """What stands on one terminal. Everything that is drawn there has to come from here."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}
        self._looks: dict[Style | None, Look] = {None: PLAIN}

    def forget(self) -> None:
        """Something else was drawn, or all of it was wiped out."""
        self._lines.clear()

    def paint(self, update: CompositorUpdate, colours: ColorSystem) -> str:
        """What has to be sent for an update. One of the whole screen is sent whole, and so mends what others spoilt."""
        pen = _Pen()
        if isinstance(update, LayoutUpdate):
            self.forget()
        for y, x, strip in _strips(update):
            self._put(pen, y, x, strip, colours)
        return pen.end()

    def _put(self, pen: _Pen, y: int, x: int, strip: Strip, colours: ColorSystem) -> None:
        texts, looks = self._cells(strip, colours)
        end = x + len(texts)
        line = self._lines.setdefault(y, _Line())
        line.widen(end)
        old_texts, old_looks = line.texts[x:end], line.looks[x:end]
        if old_texts == texts and old_looks == looks:
            return
        differ = [
            n
            for n, (text, look, before, looked) in enumerate(zip(texts, looks, old_texts, old_looks, strict=True))
            if text != before or look != looked
        ]
        for first, last in _runs(differ, looks):
            while first and not texts[first]:  # never half of a wide character
                first -= 1
            while last + 1 < len(texts) and not texts[last + 1]:
                last += 1
            pen.write(y, x + first, texts[first : last + 1], looks[first : last + 1])
        line.texts[x:end], line.looks[x:end] = texts, looks

    def _cells(self, strip: Strip, colours: ColorSystem) -> tuple[list[str], list[Look]]:
        texts: list[str] = []
        looks: list[Look] = []
        for text, style, control in strip:
            if control:
                continue
            look = self._looks.get(style)
            if look is None:
                assert style is not None
                look = self._looks[style] = look_of(style, colours)
            if text.isascii() or cell_len(text) == len(text):
                texts.extend(text)
            else:
                for character in text:
                    width = cell_len(character)
                    if width == 0 and texts:
                        texts[-1] += character
                    elif width:
                        texts += [character, *[""] * (width - 1)]
            looks += [look] * (len(texts) - len(looks))
        return texts, looks


def _strips(update: CompositorUpdate) -> Iterator[tuple[int, int, Strip]]:
    """Row, column and content of every piece of an update."""
    if isinstance(update, LayoutUpdate):
        for y, line in enumerate(update.strips, update.region.y):
            x = update.region.x
            for strip in line:
                yield y, x, strip
                x += strip.cell_length
    elif isinstance(update, ChopsUpdate):
        dirty: dict[int, list[tuple[int, int]]] = {}
        for y, first, end in update.spans:
            dirty.setdefault(y, []).append((first, end))
        for y, spans in dirty.items():
            for chop_end, (x, piece) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
                # whole, since a span may end within a wide character
                if piece is not None and any(x < end and chop_end > first for first, end in spans):
                    yield y, x, piece


def _runs(differ: Iterable[int], looks: list[Look]) -> Iterator[tuple[int, int]]:
    """First and last cell of stretches that are sent in one piece."""
    first = last = -1
    for n in differ:
        if first >= 0:
            if n == last + 1 or (n - last <= BRIDGE + 1 and all(look == looks[last] for look in looks[last + 1 : n])):
                last = n
                continue
            yield first, last
        first = last = n
    if first >= 0:
        yield first, last


def look_of(style: Style, colours: ColorSystem) -> Look:
    """A style as parameters of SGR for a terminal with so many colours."""
    fore, back = style.color, style.bgcolor
    return (
        ";".join(code for name, code in _ATTRIBUTES if getattr(style, name)),
        "" if fore is None or fore.is_default else ";".join(fore.downgrade(colours).get_ansi_codes()),
        "" if back is None or back.is_default else ";".join(back.downgrade(colours).get_ansi_codes(foreground=False)),
    )


class _Pen:
    """Writes cells; knows where the terminal's cursor is and with which look it draws."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._look = PLAIN
        self._at = (-1, -1)

    def write(self, y: int, x: int, texts: list[str], looks: list[Look]) -> None:
        row, column = self._at
        if row == y and column < x:
            self._out.append(f"\x1b[{x - column}C")
        elif (row, column) != (y, x):
            self._out.append(f"\x1b[{y + 1};{x + 1}H")
        for text, look in zip(texts, looks, strict=True):
            if look is not self._look and look != self._look:
                self._turn(look)
            self._out.append(text)
        self._at = (y, x + len(texts))

    def _turn(self, look: Look) -> None:
        old, self._look = self._look, look
        if look[0] != old[0]:  # attributes add up, so they begin anew
            self._out.append(f"\x1b[{';'.join(('0', *filter(None, look)))}m")
            return
        changed = []
        for before, now, none in zip(old[1:], look[1:], ("39", "49"), strict=True):
            if now != before:
                changed.append(now or none)
        self._out.append(f"\x1b[{';'.join(changed)}m")

    def end(self) -> str:
        if self._look != PLAIN:
            self._out.append("\x1b[0m")
        return "".join(self._out)


class Painted(CompositorUpdate):
    """An update of Textual's compositor that is drawn by a painter."""

    def __init__(self, painter: Painter, update: CompositorUpdate) -> None:
        self._painter, self._update = painter, update

    def render_segments(self, console: Console) -> str:
        return self._painter.paint(self._update, console._color_system or ColorSystem.TRUECOLOR)
