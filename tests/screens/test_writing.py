"""What is sent to a terminal: never waiting, never more than the backlog, never a character that steers it."""

from __future__ import annotations

import os
import pty
import threading
from typing import IO

import pytest
from rich.cells import cell_len

from ringrift_console.glyphs import ASCII, UTF8, strip_escapes
from ringrift_console.look import choose_theme
from ringrift_console.writer import BACKLOG_BYTES, CoalescingWriter


class Pipe:
    """A terminal nobody reads until told to."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.file: IO[str] = os.fdopen(slave, "w", encoding="utf-8")

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(self.master, 65536)
        return data

    def close(self) -> None:
        self.file.close()
        os.close(self.master)


def test_writes_never_wait_and_frames_are_left_out_until_drained() -> None:
    pipe, drained = Pipe(), threading.Event()
    writer = CoalescingWriter(pipe.file, on_drained=drained.set)
    writer.start()
    frame, sent = "x" * 10_000, 0
    for _ in range(1000):
        if not writer.congested:
            writer.write(frame)
            sent += 1
    assert writer.left_out > 900
    assert sent * len(frame) <= BACKLOG_BYTES + 5 * len(frame)
    assert writer.congested
    assert pipe.read(sent * len(frame)) == frame.encode() * sent
    assert drained.wait(30)
    assert not writer.congested
    assert writer.backlog == 0
    writer.write("end")
    writer.stop(30)
    assert pipe.read(3) == b"end"
    pipe.close()


def test_stopping_gives_up_on_a_terminal_that_does_not_read() -> None:
    pipe = Pipe()
    writer = CoalescingWriter(pipe.file)
    writer.start()
    writer.write("x" * 1_000_000)
    writer.stop(0.1)
    assert writer.backlog > 0
    pipe.read(1_000_000)
    writer.join(30)
    assert not writer.is_alive()
    pipe.close()


def test_a_terminal_that_is_gone_is_told_and_nothing_is_kept() -> None:
    pipe, lost = Pipe(), threading.Event()
    writer = CoalescingWriter(pipe.file, on_lost=lost.set)
    writer.start()
    os.close(pipe.master)
    writer.write("x")
    assert lost.wait(30)
    assert writer.congested
    writer.write("y" * 1000)
    writer.join(30)
    assert writer.backlog <= 1
    pipe.file.close()


HOSTILE = [
    "[/x] [b",
    "\x1b[2J",
    "\x1b]52;c;aGk=\x07",
    "\u202etxt",
    "a\x00b",
    "\x9b31m",
    "e\u0301",
    "\u2028",
    "日本",
    "\t",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("glyphs", [UTF8, ASCII], ids=["utf8", "ascii"])
@pytest.mark.parametrize("width", [0, 1, 2, 5, 20])
def test_any_text_fits_its_width_and_holds_no_control(text: str, width: int, glyphs: object) -> None:
    fitted = glyphs.fit(text, width)  # type: ignore[attr-defined]
    assert cell_len(fitted) == width
    assert fitted.isprintable()
    assert glyphs is UTF8 or fitted.isascii()


def test_cleaning_keeps_what_is_plain() -> None:
    assert UTF8.clean("[/x] [b") == "[/x] [b"
    assert UTF8.clean("é → 日本") == "é → 日本"
    assert ASCII.clean("a → b…") == "a -> b.."
    assert strip_escapes("\x1b[1;31mx\x1b[0m\x1b(B") == "x"


def test_words_are_wrapped_within_the_width() -> None:
    lines = UTF8.wrap("one two three " + "x" * 25, 10)
    assert lines[:2] == ["one two", "three"]
    assert all(cell_len(line) <= 10 for line in lines)
    assert "".join(lines).count("x") == 25


@pytest.mark.parametrize(
    ("wanted", "environment", "theme"),
    [
        ("auto", {"NO_COLOR": "1", "COLORTERM": "truecolor"}, "mono"),
        ("auto", {"COLORTERM": "truecolor", "TERM": "xterm"}, "dark"),
        ("auto", {"TERM": "screen-256color"}, "dark"),
        ("auto", {"TERM": "linux"}, "ansi"),
        ("auto", {"TERM": "dumb"}, "mono"),
        ("ansi", {"COLORTERM": "truecolor"}, "ansi"),
    ],
)
def test_the_theme_follows_the_terminal(
    wanted: str, environment: dict[str, str], theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "COLORTERM", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert choose_theme(wanted) == theme
