"""Charts as lines: their size, what is drawn where, and which role colours it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from backend.evaluation.rating_view import RatingPoint, RatingView
from backend.registry.pointers import Move
from ringrift_console.glyphs import ASCII, UTF8, Glyphs
from screens.elo_charts import Curve, Dots, Level, Picture, Upright, draw
from screens.elo_data import Entrant, Mark, marks_of
from screens.elo_history import legend


def chart(glyphs: Glyphs, size: tuple[int, int] = (80, 18), **changes: object) -> Picture:
    xs = [float(100 * n) for n in range(11)]
    ys = [1450.0 + 20 * n for n in range(11)]
    values: dict[str, object] = {
        "curves": [Curve(xs, ys, "info", [y - 40 for y in ys], [y + 40 for y in ys])],
        "levels": [Level(1650, "good"), Level(1400, "bad")],
        "uprights": [Upright(500, "warn")],
        "dots": [Dots([500], [1750], "good", "P")],
        "x": (0.0, 1000.0),
        "y": (1350.0, 1750.0),
    }
    return draw(*size, glyphs, **(values | changes))  # type: ignore[arg-type]


def text(picture: Picture) -> list[str]:
    return ["".join(part for part, _ in line) for line in picture.lines]


@pytest.mark.parametrize("size", [(80, 18), (103, 41), (40, 8)])
@pytest.mark.parametrize("glyphs", [UTF8, ASCII], ids=["utf8", "ascii"])
def test_a_chart_fits_its_place(glyphs: Glyphs, size: tuple[int, int]) -> None:
    picture = chart(glyphs, size)
    assert len(picture.lines) == size[1]
    assert all(len(line) <= size[0] for line in text(picture))
    assert "\n".join(text(picture)).isascii() == glyphs.ascii


def test_thresholds_stand_at_the_axis_and_carry_their_role() -> None:
    picture = chart(UTF8)
    rows = {line.split("┤")[0].strip(): n for n, line in enumerate(text(picture)) if "┤" in line}
    for name, role in (("1650", "good"), ("1400", "bad")):
        assert any(role == found and "╌" in part for part, found in picture.lines[rows[name]])


def test_a_mark_is_in_the_column_that_the_cursor_would_be_in() -> None:
    picture = chart(UTF8)
    column = picture.column(500)
    assert text(picture)[picture.top][column] == "P"
    assert text(picture)[picture.bottom][column] == "┆"
    assert picture.column(-5) == picture.left and picture.column(5000) == picture.right


def test_the_band_lies_around_the_curve() -> None:
    shaded = {n for n, line in enumerate(text(chart(UTF8))) if "░" in line}
    assert len(shaded) > len({n for n, line in enumerate(text(chart(UTF8, curves=[]))) if "░" in line}) == 0


def test_one_point_alone_is_drawn() -> None:
    page = "\n".join(text(chart(UTF8, curves=[Curve([0.0], [1500.0], "info", [1450.0], [1550.0])], x=(0.0, 0.0))))
    assert "●" in page


def view(*times: str) -> RatingView:
    points = [RatingPoint(n, at, 100 * n, True, (), [], [], [], [], [], [], {}) for n, at in enumerate(times, 1)]
    return RatingView("hex8_2p", tuple(points))


def move(at: datetime, action: str = "promote") -> Move:
    return Move("hex8_2p", 1, action, None, "hex8_2p:v1", "0" * 64, "", "me", at, "o1")


def test_moves_fall_between_the_matches_before_and_after_them() -> None:
    seen = view("2026-01-01T00:00:00+00:00", "2026-01-01T02:00:00+00:00")
    hours = [datetime(2025, 12, 31, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)]
    marks = marks_of(seen, [move(hours[0]), move(hours[1], "rollback"), move(hours[2])])
    assert [mark.games for mark in marks] == [100, 150, 200]
    assert [mark.rollback for mark in marks] == [False, True, False]


def test_without_times_no_move_is_placed() -> None:
    assert marks_of(view(""), [move(datetime(2026, 1, 1, tzinfo=UTC))]) == ()
    assert marks_of(view(), [move(datetime(2026, 1, 1, tzinfo=UTC))]) == ()


@pytest.mark.parametrize("width", [78, 110, 160])
def test_the_legend_has_room_for_every_letter(width: int) -> None:
    def point(games: int, current: bool) -> Any:
        return SimpleNamespace(games=games, current=current)

    at = datetime(2026, 11, 1, tzinfo=UTC)
    data: Any = SimpleNamespace(
        view=SimpleNamespace(points=[point(10, False), point(20, True)]),
        marks=(Mark(10, False, "v1", at), Mark(20, True, "v1", at)),
    )
    one, two = (Entrant(f"p{n}", "a-rather-long-name-v" + str(n), "", "", None) for n in (1, 2))
    for ascii_only in (False, True):
        look: Any = SimpleNamespace(glyphs=ASCII if ascii_only else UTF8)
        lines = ["".join(text for text, _ in line) for line in legend(data, "hex8_2p", one, two, look, width)]
        assert all(len(line) <= width for line in lines), lines
        whole = " ".join(lines)
        for word in ("champion", "each model", "1400 reject", "P promoted", "R rolled back", "S rated anew"):
            assert word in whole
        assert ("." if ascii_only else "·") + " each model" in whole
