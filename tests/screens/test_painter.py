"""What is sent to the terminal: the cells that differ, and nothing that would make it show something else."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from ringrift_console.painter import PLAIN, Painter, look_of

TRUE = ColorSystem.TRUECOLOR
WIDTH, HEIGHT = 40, 6
_SEQUENCE = re.compile(r"\x1b\[([0-9;]*)([HCm])|([^\x1b])")
STYLES = [
    Style(color="#d6dce3", bgcolor="#10151b"), Style(color="#5fc9a8", bgcolor="#10151b"), Style(bold=True), Style(),
    Style(color="red", reverse=True), Style(color="#ff8066", bgcolor="#2d3e52", bold=True), Style(color="default"),
]  # fmt: skip


class Screen:
    """A terminal of a few sequences: cells of a character and the parameters of SGR in force."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], tuple[str, tuple[str, ...]]] = {}

    def feed(self, text: str) -> None:
        y = x = 0
        attributes, fore, back = [], "", ""
        at = 0
        while at < len(text):
            match = _SEQUENCE.match(text, at)
            assert match, f"a sequence that no terminal was told of: {text[at : at + 20]!r}"
            at = match.end()
            given, kind, character = match.groups()
            if kind == "H":
                y, x = (int(word) - 1 for word in given.split(";"))
            elif kind == "C":
                x += int(given)
            elif kind == "m":
                words = given.split(";")
                while words:
                    word = words.pop(0)
                    if word == "0":
                        attributes, fore, back = [], "", ""
                    elif word in ("38", "48"):
                        more = [words.pop(0) for _ in range(4 if words[0] == "2" else 2)]
                        fore, back = (
                            (";".join([word, *more]), back) if word == "38" else (fore, ";".join([word, *more]))
                        )
                    elif word in ("39", "49"):
                        fore, back = ("", back) if word == "39" else (fore, "")
                    elif int(word) < 10:
                        attributes.append(word)
                    else:
                        fore, back = (word, back) if int(word) < 40 or 90 <= int(word) < 100 else (fore, word)
            else:
                look = (";".join(attributes), fore, back)
                wide = cell_len(character)
                assert x + wide <= WIDTH, "never beyond the edge"
                for n in range(wide):
                    self.cells[y, x + n] = (character if n == 0 else "", look)
                x += wide
        assert (attributes, fore, back) == ([], "", ""), "whoever writes next begins plain"


def wanted(strip: Strip) -> list[tuple[str, Any]]:
    cells: list[tuple[str, Any]] = []
    for text, style, _ in strip:
        look = PLAIN if style is None else look_of(style, ColorSystem.TRUECOLOR)
        for character in text:
            cells.append((character, look))
            cells += [("", look)] * (cell_len(character) - 1)
    return cells


def some_line(chance: random.Random, width: int) -> Strip:
    """Words in many colours, some of them twice as wide."""
    segments, left = [], width
    while left > 0:
        text = "".join(chance.choice("ab 漢字│█ 0123") for _ in range(chance.randint(1, 9)))
        while cell_len(text) > left:
            text = text[:-1]
        text = text or " " * left
        segments.append(Segment(text, chance.choice(STYLES)))
        left -= cell_len(text)
    return Strip(segments)


def changed(strip: Strip, chance: random.Random) -> Strip:
    """The same piece with one segment another, of the same width."""
    segments = list(strip)
    n = chance.randrange(len(segments))
    segments[n : n + 1] = some_line(chance, cell_len(segments[n].text))
    return Strip(segments)


@pytest.mark.parametrize("seed", range(40))
def test_after_every_update_the_terminal_shows_what_was_meant(seed: int) -> None:
    chance, painter, screen = random.Random(seed), Painter(), Screen()
    ends = [10, 25, WIDTH]
    widths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    lines = [[some_line(chance, width) for width in widths] for _ in range(HEIGHT)]
    screen.feed(painter.paint(LayoutUpdate([*lines], Region(0, 0, WIDTH, HEIGHT)), TRUE))
    for _ in range(30):
        chops: list[dict[int, Strip | None]] = [dict.fromkeys([0, 10, 25]) for _ in lines]
        spans = []
        for y in sorted(chance.sample(range(HEIGHT), chance.randint(1, HEIGHT))):
            lines[y] = [changed(piece, chance) for piece in lines[y]]
            chops[y] = dict(zip((0, 10, 25), lines[y], strict=True))
            spans += [(y, 0, 8), (y, 9, WIDTH)] if chance.random() < 0.5 else [(y, 0, WIDTH)]
        screen.feed(painter.paint(ChopsUpdate(chops, spans, [ends for _ in lines]), TRUE))
        for y, line in enumerate(lines):
            assert [screen.cells[y, x] for x in range(WIDTH)] == wanted(Strip.join(line)), f"line {y}"


def whole(*lines: Strip) -> LayoutUpdate:
    return LayoutUpdate([[line] for line in lines], Region(0, 0, WIDTH, len(lines)))


def part(line: Strip, first: int, end: int) -> ChopsUpdate:
    return ChopsUpdate([{0: line}], [(0, first, end)], [[WIDTH]])


def plain(text: str) -> Strip:
    return Strip([Segment(text, STYLES[0])]).adjust_cell_length(WIDTH, STYLES[0])


def test_only_what_differs_is_sent() -> None:
    painter = Painter()
    painter.paint(whole(plain("node-001  12%  1.25 MB/s")), TRUE)
    assert painter.paint(part(plain("node-001  12%  1.25 MB/s"), 0, WIDTH), TRUE) == ""
    sent = painter.paint(part(plain("node-001  13%  1.31 MB/s"), 0, WIDTH), TRUE)
    assert sent == "\x1b[1;12H\x1b[38;2;214;220;227;48;2;16;21;27m3\x1b[5C31\x1b[0m"


def test_a_span_that_ends_within_a_wide_character_draws_all_of_it() -> None:
    painter, screen = Painter(), Screen()
    screen.feed(painter.paint(whole(plain("漢字")), TRUE))
    screen.feed(painter.paint(part(plain("語字"), 0, 1), TRUE))
    assert [screen.cells[0, x][0] for x in range(4)] == ["語", "", "字", ""]


def test_a_whole_screen_is_sent_whole_again() -> None:
    painter = Painter()
    first = painter.paint(whole(plain("abc")), TRUE)
    assert painter.paint(whole(plain("abc")), TRUE) == first, "it mends what another program wrote there"
    painter.forget()
    assert "abc" in painter.paint(part(plain("abc"), 0, WIDTH), TRUE)


def test_colours_are_those_that_the_terminal_has() -> None:
    style = Style(color="#ff8066", bold=True)
    assert look_of(style, ColorSystem.TRUECOLOR) == ("1", "38;2;255;128;102", "")
    assert look_of(style, ColorSystem.STANDARD)[1] in {str(n) for n in (*range(30, 38), *range(90, 98))}
    assert look_of(Style(color="default", bgcolor="default", reverse=True), ColorSystem.STANDARD) == ("7", "", "")
