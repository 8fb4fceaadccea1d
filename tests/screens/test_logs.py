"""Logs: bounded reads and memory, odd bytes made harmless, following, holding still, searching."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringrift_console import logfile
from ringrift_console.logfile import CHUNK, LINE_BYTES, WINDOW_BYTES, LogFile, make_line


def read_all(log: LogFile) -> list[str]:
    log.take(log.fetch("tail"))
    while not log.at_end:
        log.take(log.fetch("more"))
    return [line.text for line in log.lines]


def test_a_log_that_is_not_there_yet_appears(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    assert read_all(log) == []
    assert not log.exists
    log.path.write_text("one\ntwo\nthr")
    log.take(log.fetch("more"))
    assert [line.text for line in log.lines] == ["one", "two", "thr"]
    with log.path.open("a") as stream:
        stream.write("ee\nfour\n")
    log.take(log.fetch("more"))
    assert [line.text for line in log.lines] == ["one", "two", "three", "four"]
    assert [line.offset for line in log.lines] == [0, 4, 8, 14]


def test_reads_in_random_pieces_give_what_one_read_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    monkeypatch.setattr(logfile, "CHUNK", 64)
    text = b"".join(bytes(rng.choices(b"ab\r\x1b[3m\xc3\xa9 ", k=rng.randrange(0, 150))) + b"\n" for _ in range(60))
    whole = [make_line(0, raw, 0).text for raw in text.split(b"\n")[:-1]]
    log = LogFile(tmp_path / "log")
    log.path.write_bytes(b"")
    log.take(log.fetch("tail"))
    at = 0
    while at < len(text):
        step = rng.randrange(1, 100)
        with log.path.open("ab") as stream:
            stream.write(text[at : at + step])
        at += step
        while True:
            log.take(log.fetch("more"))
            if log.at_end:
                break
    assert [line.text for line in log.lines] == whole


def test_the_tail_comes_first_and_the_rest_on_demand(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    lines = [f"line {n} " + "x" * (n % 90) for n in range(20_000)]
    log.path.write_text("\n".join(lines) + "\n")
    assert log.path.stat().st_size > 2 * CHUNK
    log.take(log.fetch("tail"))
    assert log.lines[-1].text == lines[-1]
    assert len(log.lines) < len(lines)
    while log.start > 0:
        assert log.take(log.fetch("before")) > 0
    assert [line.text for line in log.lines] == lines


def test_memory_is_bounded_forwards_and_backwards(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    with log.path.open("w") as stream:
        for n in range(120_000):
            stream.write(f"{n:08} {'x' * 91}\n")
    assert log.path.stat().st_size > 2 * WINDOW_BYTES
    log.take(log.fetch("tail"))
    while log.start > 0:
        log.take(log.fetch("before"))
    assert log.lines[0].text.startswith("00000000")
    assert sum(len(line.text) for line in log.lines) <= WINDOW_BYTES
    while not log.at_end:
        log.take(log.fetch("more"))
    assert log.lines[-1].text.startswith("00119999")
    assert sum(len(line.text) for line in log.lines) <= WINDOW_BYTES
    numbers = [int(line.text[:8]) for line in log.lines]
    assert numbers == list(range(numbers[0], 120_000))


def test_one_line_of_a_hundred_megabytes_costs_kilobytes(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    with log.path.open("wb") as stream:
        stream.write(b"start\n")
        stream.truncate(100_000_000)
    log.take(log.fetch("more"))
    for _ in range(20):
        log.take(log.fetch("more"))
    assert len(log.lines) == 2
    assert len(log.lines[1].text) < 2 * LINE_BYTES
    assert len(log._partial) <= 2 * LINE_BYTES


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"  0%\r 50%\r100%", "100%"),
        (b"done\r", "done"),
        (b"\x1b[31mred\x1b[0m plain", "red plain"),
        (b"\x1b]0;title\x07after", "after"),
        (b"a\tb", "a       b"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_what_a_terminal_would_have_shown_is_kept(raw: bytes, text: str) -> None:
    assert make_line(0, raw, len(raw)).text == text


def test_a_time_stamp_is_taken_off_the_line() -> None:
    line = make_line(0, b"2026-03-04T14:07:30.123Z epoch 3", 0)
    assert (line.stamp, line.text) == ("2026-03-04T14:07:30.123Z", "epoch 3")
    assert make_line(0, b"epoch 3", 0).stamp == ""


@pytest.mark.parametrize("how", ["cut", "replaced"])
def test_a_log_that_is_cut_or_replaced_starts_again(how: str, tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    log.path.write_text("old line\n" * 10)
    read_all(log)
    if how == "replaced":
        other = tmp_path / "other"
        other.write_text("new line\n" * 50)
        os.replace(other, log.path)
    else:
        log.path.write_text("new line\n")
    log.take(log.fetch("more"))
    log.take(log.fetch("more"))
    assert log.restarts == 1
    assert {line.text for line in log.lines} == {"new line"}


@pytest.fixture
def with_log(build: Callable[..., Any], snapshot: Any, log_file: Path) -> Callable[..., Any]:
    """Runs a check on the pushed log of a job."""

    async def run(check: Callable[..., Any]) -> None:
        jobs = (replace(snapshot.jobs[0], log_path=str(log_file)), *snapshot.jobs[1:])
        app = build(source=replace(snapshot, jobs=jobs))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            for key in ("3", "l"):
                await pilot.press(key)
                await pilot.pause()
            await settle(pilot)
            await check(app, pilot, app.screen.view)

    return run


async def settle(pilot: Any) -> None:
    """Until the view has read what there is."""
    view = pilot.app.screen.view
    for _ in range(50):
        await view.tick()
        await pilot.pause(0.02)
        if view.file is not None and view.file.exists and view.file.at_end:
            break
    await pilot.pause()


async def test_a_log_follows_its_end(with_log: Callable[..., Any], log_file: Path, text_of: Any) -> None:
    async def check(app: Any, pilot: Any, view: Any) -> None:
        assert text_of(app)[-3].strip() == "line 99"
        with log_file.open("a") as stream:
            stream.write("the newest\n")
        await settle(pilot)
        assert text_of(app)[-3].strip() == "the newest"
        assert "following" in text_of(app)[1]

    await with_log(check)


async def test_scrolled_away_it_holds_still_and_counts(
    with_log: Callable[..., Any], log_file: Path, text_of: Any
) -> None:
    async def check(app: Any, pilot: Any, view: Any) -> None:
        await pilot.press("k", "k")
        before = text_of(app)[2:-2]
        with log_file.open("a") as stream:
            stream.write("new a\nnew b\n")
        await settle(pilot)
        assert text_of(app)[2:-2] == before
        assert "2 new lines below" in text_of(app)[1]
        await pilot.press("f")
        await settle(pilot)
        assert text_of(app)[-3].strip() == "new b"
        await pilot.press("g")
        await settle(pilot)
        assert text_of(app)[2].strip() == "line 0"
        await pilot.press("G")
        await settle(pilot)
        assert text_of(app)[-3].strip() == "new b"

    await with_log(check)


async def test_search_goes_up_down_and_ends(with_log: Callable[..., Any], text_of: Any) -> None:
    async def check(app: Any, pilot: Any, view: Any) -> None:
        await pilot.press("slash", *"line 7", "enter")
        await pilot.pause(0.1)
        assert view.found == next(line.offset for line in view.file.lines if line.text == "line 79")
        assert "line 79" in "\n".join(text_of(app)[2:-2])
        await pilot.press("N")
        await pilot.pause(0.1)
        assert view.found == next(line.offset for line in view.file.lines if line.text == "line 78")
        await pilot.press("n", "n")
        await pilot.pause(0.1)
        assert "no match further down" in text_of(app)[1]
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert view.pattern is None
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert len(app.screen_stack) == 1

    await with_log(check)


async def test_the_start_of_a_long_log_stays_in_view_and_a_search_goes_on_below(
    with_log: Callable[..., Any], log_file: Path, text_of: Any
) -> None:
    """The window holds 4 MB; nobody scrolls."""

    async def check(app: Any, pilot: Any, view: Any) -> None:
        with log_file.open("a") as stream:
            stream.writelines(f"filler {n:>100}\n" for n in range(90_000))
            stream.write("the needle\n")
        await settle(pilot)
        await pilot.press("g")
        await settle(pilot)
        assert text_of(app)[2].strip() == "line 0" and view.file.start == 0
        for _ in range(6):
            await view.tick()
        assert text_of(app)[2].strip() == "line 0" and view.file.start == 0 and not view.file.at_end
        with log_file.open("a") as stream:
            stream.write("one more\n")
        await view.tick()
        assert view.file.size == os.path.getsize(log_file)  # noqa: ASYNC240
        view.pattern = re.compile("needle")
        await view.next_match(1)
        await pilot.pause()
        assert "the needle" in "\n".join(text_of(app)[2:-2]) and view.note == ""
        await view.next_match(1)
        assert view.note == "no match further down"

    await with_log(check)


async def test_long_lines_wrap_or_move_sideways(with_log: Callable[..., Any], log_file: Path, text_of: Any) -> None:
    async def check(app: Any, pilot: Any, view: Any) -> None:
        with log_file.open("a") as stream:
            stream.write("".join(f"{n:04}" for n in range(50)) + "\n")
        await settle(pilot)
        assert text_of(app)[-3].startswith("0000")
        await pilot.press("right")
        assert text_of(app)[-3].startswith("0005")
        await pilot.press("w")
        assert [line[:4] for line in text_of(app)[-5:-2]] == ["0000", "0020", "0040"]

    await with_log(check)


async def test_times_of_lines_are_shown_on_the_chosen_clock(
    with_log: Callable[..., Any], log_file: Path, text_of: Any
) -> None:
    async def check(app: Any, pilot: Any, view: Any) -> None:
        with log_file.open("a") as stream:
            stream.write("2026-03-04T12:00:00+02:00 epoch 1\n")
        await settle(pilot)
        assert text_of(app)[-3].startswith("2026-03-04T12:00:00+02:00 epoch 1")
        await pilot.press("t")
        assert text_of(app)[-3].startswith("10:00:00 epoch 1")
        await pilot.press("t")
        assert text_of(app)[-3].startswith("epoch 1")

    await with_log(check)
