"""Jobs on screen: the host of each, the history of attempts, and what to do where nobody knows how one ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from backend.snapshot import Snapshot
from ringrift_console.glyphs import ASCII, UTF8
from screens.cells import state_span
from tests.screens.conftest import ago, make_attempt, make_job, make_unknown, press

SIZES = [(80, 24), (160, 50)]


async def page_of(build: Callable[..., Any], text_of: Any, source: Snapshot, size: tuple[int, int], *keys: str) -> str:
    """What stands on the screen, from the first line to the last that can be scrolled to."""
    app = build(source=source)
    async with app.run_test(size=size) as pilot:
        await press(pilot, "3", *keys)
        first = text_of(app)
        await press(pilot, "G")
        return "\n".join([*first, *text_of(app)])


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "160x50"])
@pytest.mark.parametrize("ascii", [False, True], ids=["utf8", "ascii"])
async def test_a_job_has_its_host_beside_it_and_a_silent_one_is_marked(
    size: tuple[int, int], ascii: bool, build: Callable[..., Any], text_of: Any, snapshot: Snapshot
) -> None:
    silent = make_attempt("t14.1", host="lambda-gh200-b", unreachable_since=ago(minutes=3))
    jobs = (
        make_job("t14", host="lambda-gh200-b", attempts=(silent,)),
        make_job("t15", host="lambda-gh200-a", attempts=(make_attempt("t15.1", host="lambda-gh200-a"),)),
    )
    app = build("mono", ascii, source=replace(snapshot, jobs=jobs))
    async with app.run_test(size=size) as pilot:
        await press(pilot, "3")
        rows = {line.split()[2]: line for line in text_of(app) if "running" in line}
    mark = ASCII.attention if ascii else UTF8.attention
    assert f"200-b{mark}" in rows["t14"], "names are cut at their start, for they differ at their end"
    assert "200-a " in rows["t15"] and mark not in rows["t15"]
    assert "square8_2p" in rows["t15"]


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "160x50"])
async def test_an_unknown_outcome_is_derived_and_has_three_ways_out(
    size: tuple[int, int], build: Callable[..., Any], text_of: Any, snapshot: Snapshot
) -> None:
    page = await page_of(build, text_of, replace(snapshot, jobs=(make_unknown(),)), size, "d")
    words = " ".join(page.split())
    for text in (
        "exit record none: nobody wrote how it ended",
        "runner's lock free",
        "`executed` is there",
        "pid 4242, start 81234: gone, and the host was not booted since",
        "no process carries its mark",
        "said by cedar-1, 2026-03-04 13:48:30 UTC (19m ago); it has not answered since 2026-03-04 14:05:30 UTC",
        "wait until cedar-1 answers",
        "x: closes c8.2 on cedar-1 for good",
        "(ringrift jobs cancel c8)",
        "r: not known to be safe: c8.2 may have done its work",
        "(ringrift jobs retry c8)",
    ):
        assert text in words, text


async def test_attempts_stand_newest_first_with_what_became_of_them(
    build: Callable[..., Any], text_of: Any, snapshot: Snapshot
) -> None:
    page = await page_of(build, text_of, replace(snapshot, jobs=(make_unknown(),)), (80, 60), "d")
    lines = [line.rstrip() for line in page.splitlines()]
    at = {key: next(n for n, line in enumerate(lines) if line.startswith(f" {key} ")) for key in ("c8.2", "c8.1")}
    assert at["c8.2"] < at["c8.1"]
    assert lines[at["c8.2"]].split() == ["c8.2", "cedar-1", "?", "unknown", "13:47", "-", "-"]
    assert lines[at["c8.1"]].split() == ["c8.1", "local", "✗", "failed", "13:47", "12:07", "3"]
    assert lines[at["c8.1"] + 1].strip() == "exit code 3: no such file"


async def test_a_running_job_on_a_silent_host_says_since_when_and_what_was_known_last(
    build: Callable[..., Any], text_of: Any, snapshot: Snapshot
) -> None:
    attempt = make_attempt("t12.1", host="alder-1", unreachable_since=ago(minutes=7))
    job = make_job("t12", host="alder-1", attempts=(attempt,))
    page = await page_of(build, text_of, replace(snapshot, jobs=(job,)), (80, 24), "d")
    words = " ".join(page.split())
    assert "alder-1 has not answered since 2026-03-04 14:00:30 UTC" in words
    assert "the last that is known is shown: running, told 2026-03-04 13:48:30 UTC" in words
    assert "Ways out" not in page


async def test_an_unknown_outcome_can_be_given_up_or_run_again(
    build: Callable[..., Any], text_of: Any, snapshot: Snapshot
) -> None:
    app = build(source=replace(snapshot, jobs=(make_unknown(),)))
    async with app.run_test(size=(120, 24)) as pilot:
        await press(pilot, "3", "d")
        footer = text_of(app)[-1]
        assert "x cancel" in footer and "r retry" in footer
        assert "(r" not in footer and "(x" not in footer


def test_every_outcome_has_a_glyph_and_a_colour_of_its_own(build: Callable[..., Any]) -> None:
    look = build().look
    for word in ("starting", "orphaned", "lost", "given up"):
        assert state_span(look, word)[1] in ("info", "warn", "dim")
        assert word == "lost" or UTF8.state(word) != "?"
        assert ASCII.state(word).isascii()


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("lambda-gh200-b", 8, "…gh200-b"),
        ("alder-1", 8, "alder-1 "),
        ("日本語", 4, "… 語"),
        ("日本語", 5, "…本語"),
    ],
)
def test_a_name_is_cut_at_its_start_to_exactly_its_width(text: str, width: int, shown: str) -> None:
    assert UTF8.fit(text, width, cut="start") == shown
    assert cell_len(shown) == width
