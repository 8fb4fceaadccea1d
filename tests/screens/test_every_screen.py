"""Every screen at both sizes in every look: content, no overflow, no colour where there should be none."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.color import ColorType
from textual._styles_cache import StylesCache

from backend.paths import Paths
from ringrift_console.widgets.line import LineWidget
from tests.screens.evidence import play, register

SIZES = [(80, 24), (160, 50)]
LOOKS = {"truecolour": ("dark", False), "ansi16": ("ansi", False), "mono": ("mono", False), "ascii": ("mono", True)}
CASES = [pytest.param(*look, size, id=f"{name}-{size[0]}x{size[1]}") for name, look in LOOKS.items() for size in SIZES]
CASES.append(pytest.param("light", False, (80, 24), id="light-80x24"))
SCREENS = {
    "pulse": (
        [],
        "Pulse",
        ["square8_2p", "ready", "312", "scaling", "120/200", "93%", "train 71%", "waits for t12", "Needs you (1)"],
    ),
    "hosts": (["2"], "Hosts", ["alder-1", "drained", "cedar-1", "down", "dogwood-1", "new", "1 87%", "900 GB"]),
    "host": (["2", "G", "k", "d"], "cedar-1", ["ssh_port", "22.00 of 64 CPUs", "NVIDIA GH200", "rsync missing"]),
    "jobs": (["3"], "Jobs", ["t12", "71%", "waits for t12", "killed (SIG", "alder-1"]),
    "log": (["3", "l"], "t12", ["train square8_2p", "it has not written anything yet"]),
    "job": (["3", "d"], "t12", ["12.5 steps/s", "t12.1", "loss"]),
    "models": (["4"], "Models", ["square8_2p:v2", "development", "production", "93% 86"]),
    "model": (["4", "d"], "square8_2p:v2", ["41% 32", "1 crashed", "sha256"]),
    "criteria": (["4", "c"], "criteria", ["To staging", "against square8_2p:v1", "To production", "NO EVIDENCE"]),
    "lineage": (["4", "L"], "lineage", ["content", "square8_2p:v1", "run2", "never in production"]),
    "history": (["4", "j", "H"], "history", ["OVERRIDE", "the hosts need it today", "55.0 %", "as the test has it"]),
    "compare": (["4", "m", "j", "equals_sign"], "compare square8_2p:v1", ["square8_2p:v2", "P(v1 better)", "12 of 30"]),
    "elo": (["5"], "Elo", ["1650", "1400", "v2 ", "P(v2 better than champion v1)"]),
    "configs": (["5", "v"], "Elo", ["square8_2p   v2 1", "hexagonal_4p", "no games yet"]),
    "matrix": (["5", "v", "v"], "Elo", ["60%/30", "v2 won 24 of 30 against heuristic:1"]),
    "ratings": (["5", "v", "v", "v"], "Elo", ["heuristic:1", "pinned", "v2"]),
    "transfers": (
        ["6"],
        "Transfers",
        ["x2", "square8_2p:v2", "1/4", "31%", "rsync", "disk full", "alder-1", "30s"],
    ),
    "swarm": (["6", "w"], "Transfers", ["x2", "birch-1", "1.50"]),
    "transfer": (["6", "d"], "x2", ["1/4 hosts", "1.50 copies", "Troubles", "dogwood-1"]),
    "delivery": (["6", "w", "tab", "j", "enter"], "birch-1", ["a GPU host", "20.0 MB of 80.0 MB"]),
    "help": (["question_mark"], "Pulse", ["Keys and actions", "pipeline"]),
    "palette": (["ctrl+p"], "Pulse", ["Actions and objects", "hex8_2p"]),
    "policies": (["A"], "Policies", ["archival", "dry-run", "all configs", "hex8_2p", "bob@pts/1", "try it"]),
    "form": (["p"], "Pulse", ["gauntlet games", "show the plan"]),
}
HOSTILE = "[/x] [b [red]\x1b]0;evil\x07\x1b[2J\u202eabc\r\n\x00\ud800"


READ_ON_A_THREAD = {"criteria", "lineage", "history", "compare", "elo", "configs", "matrix", "ratings"}
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine writes its lag into the header, where it takes the place of what is looked for."""
    monkeypatch.setattr("ringrift_console.widgets.header.LAG_MS", float("inf"))


@pytest.fixture(autouse=True)
def evidence(paths: Paths, snapshot: Any) -> None:
    """The registry and the match records behind the models of the snapshot; v2 comes from v1."""
    first, second = snapshot.models[1], replace(snapshot.models[0], parent=snapshot.models[1].sha256)
    register(paths, (first, second))
    play(paths, (first, second), HOSTILE.replace("\ud800", ""))


async def press(pilot: Any, keys: list[str]) -> None:
    await pilot.pause()
    await pilot.press(*keys)
    await pilot.pause()


async def filled(pilot: Any, text_of: Any, wanted: list[str]) -> None:
    """Waits until a thread has read what a screen shows; the caller says what is missing."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        page = "\n".join(text_of(pilot.app))
        if "reading" not in page and all(text in page for text in wanted):
            return
        await pilot.pause(0.02)


def check(app: Any, lines: list[str], size: tuple[int, int], theme: str) -> None:
    """What holds of every frame: its size, and colours of the theme's kind only."""
    assert len(lines) == size[1]
    assert all(cell_len(line) == size[0] for line in lines)
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            colours = [c for c in (segment.style.color, segment.style.bgcolor) if c] if segment.style else []
            if theme == "mono":
                assert all(colour.type is ColorType.DEFAULT for colour in colours)
            if theme == "ansi":
                assert all(colour.type is not ColorType.TRUECOLOR for colour in colours)


def check_lines(app: Any) -> None:
    """Lines are drawn past Textual's frame of styles, and look as they would within it."""
    for widget in app.screen.query(LineWidget):
        if widget.region and (region := widget.size.region):  # else it is not on the screen
            assert widget.content_region.size == widget.size, "neither border nor padding"
            widget._styles_cache.clear()  # both as they are now
            own, framed = widget.render_lines(region), StylesCache().render_widget(widget, region)
            for mine, theirs in zip(own, framed, strict=True):
                assert mine.simplify() == theirs.simplify(), widget


async def tour(app: Any, size: tuple[int, int], text_of: Any, *, known: bool = True) -> AsyncIterator[str]:
    """Goes through every screen of one running app and names it; ``known``: as the evidence has it."""
    async with app.run_test(size=size) as pilot:
        for name, (keys, _, wanted) in SCREENS.items():
            await press(pilot, keys)
            if name in READ_ON_A_THREAD:
                await filled(pilot, text_of, wanted if known else [])
            yield name
            while len(app.screen_stack) > 1 or getattr(app.screen, "view", "chart") != "chart":
                await press(pilot, ["escape"])
            app.marked = None
            await press(pilot, ["g", "1"])


@pytest.mark.parametrize(("theme", "plain", "size"), CASES)
async def test_every_screen_shows_its_content_and_stays_inside(
    theme: str, plain: bool, size: tuple[int, int], build: Callable[..., Any], text_of: Any
) -> None:
    app = build(theme, plain)
    async for name in tour(app, size, text_of):
        _, crumb, wanted = SCREENS[name]
        lines = text_of(app)
        page = "\n".join(lines)
        check(app, lines, size, theme)
        check_lines(app)
        assert page.isascii() or not plain
        for text in wanted:
            assert text in page
        if name not in ("help", "palette"):
            assert crumb in lines[0]
            assert "help" in lines[-1]
            assert "quit" in lines[-1]


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "160x50"])
async def test_hostile_text_is_drawn_and_never_obeyed(
    size: tuple[int, int], build: Callable[..., Any], text_of: Any, snapshot: Any, tmp_path: Any
) -> None:
    log = tmp_path / "log"
    log.write_bytes((HOSTILE.replace("\ud800", "") + "\n").encode() * 5 + b"\xff\xfe\x1b[31mred\n")
    bad: dict[str, Any] = {"title": HOSTILE, "host": HOSTILE, "why": HOSTILE, "log_path": str(log)}
    source = replace(
        snapshot,
        jobs=tuple(replace(job, **bad) for job in snapshot.jobs),
        models=tuple(
            replace(model, model_id=model.model_id + HOSTILE, path=HOSTILE, metadata={HOSTILE: HOSTILE})
            for model in snapshot.models
        ),
        needs=tuple(replace(need, text=HOSTILE) for need in snapshot.needs),
        events=tuple(replace(event, subject=HOSTILE, type=HOSTILE) for event in snapshot.events),
        configs=tuple(replace(row, note=HOSTILE) for row in snapshot.configs),
        transfers=tuple(
            replace(
                row,
                title=HOSTILE,
                name=HOSTILE,
                path=HOSTILE,
                cause=HOSTILE,
                hosts=tuple(
                    replace(host, failure=HOSTILE, fault=HOSTILE, receipt={HOSTILE: HOSTILE}) for host in row.hosts
                ),
            )
            for row in snapshot.transfers
        ),
        hosts=tuple(
            replace(host, role=HOSTILE, why=HOSTILE, facts=host.facts | {"kernel": HOSTILE}) for host in snapshot.hosts
        ),
    )
    app = build(source=source)
    seen = ""
    async for name in tour(app, size, text_of, known=False):
        lines = text_of(app)
        seen += "\n".join(lines)
        check(app, lines, size, "dark")
        assert not any(character in line for line in lines for character in "\x1b\x07\r\x00\u202e\x9b"), name
    assert "[/x] [b [red]" in seen


async def test_a_terminal_that_is_too_small_is_told_so(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(50, 12)) as pilot:
        await pilot.pause()
        assert "60x15" in "\n".join(text_of(app))


async def test_the_key_of_an_action_that_cannot_be_done_says_why(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, ["3"])
        assert "(r retry" in text_of(app)[-1]
        await press(pilot, ["r"])
        assert "only an ended job runs again" in text_of(app)[-2]


async def test_screens_keep_their_place_and_their_filter(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, ["3", "slash", "h", "e", "x", "enter", "1", "3"])
        page = "\n".join(text_of(app))
        assert "1 of 4 shown" in page
        assert "s09" in page
        assert "t12" not in page
        await press(pilot, ["escape"])
        assert "t12" in "\n".join(text_of(app))


async def test_a_need_leads_to_the_job_that_it_is_about(build: Callable[..., Any]) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, ["tab", "enter"])
        assert app.current_mode == "jobs"
        assert app.screen.subject == "s09"


async def test_a_reader_that_fails_is_said_and_what_was_known_stays(build: Callable[..., Any], text_of: Any) -> None:
    from backend.errors import UnverifiedError

    app = build()
    async with app.run_test(size=(160, 50)) as pilot:
        await press(pilot, [])

        async def broken() -> Any:
            raise UnverifiedError("not a database", where="state.db")

        app.reader = broken
        await app.look_again()
        lines = text_of(app)
        assert "not a database" in lines[0]
        assert "312" in "\n".join(lines)


async def test_times_turn_between_utc_age_and_local(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, ["4"])
        assert "04:07" in text_of(app)[2]
        await press(pilot, ["T"])
        assert "10h" in text_of(app)[2]


async def test_only_what_changed_is_drawn_again(build: Callable[..., Any], snapshot: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, ["3"])
        table, regions = app.screen.main_table, []
        whole = table.refresh
        table.refresh = lambda *given, **options: (regions.extend(given), whole(*given, **options))[1]
        await app.look_again()
        assert regions == []
        job = snapshot.jobs[0]
        progress = replace(job.progress, done=800)
        app.source = replace(snapshot, revision=42, jobs=(replace(job, progress=progress), *snapshot.jobs[1:]))
        await app.look_again()
        assert len(regions) == 1
        assert regions[0].height == 1
        assert regions[0].width < 30
