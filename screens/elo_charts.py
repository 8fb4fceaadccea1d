"""Charts of ratings, drawn by plotext: curves with error bands, thresholds as lines, promotions and rollbacks as marks.

plotext draws with numbers for colours; here each number stands for a role of the look, so that a chart follows the
theme like everything else. It keeps one figure for the process, so it is only used from the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringrift_console.glyphs import Glyphs
from ringrift_console.widgets.line import Line, Span

_ROLES = ("", "text", "dim", "good", "warn", "bad", "info", "accent", "rail", "strong")
_COLOUR = re.compile(r"\x1b\[([0-9;]*)m")
_FRAME = str.maketrans("│┃─┤├┼┬┴└┘┌┐", "||-++++++++-"[:11] + "+")


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points; ``low`` and ``high`` are the ends of its error band, empty for none."""

    xs: Sequence[float]
    ys: Sequence[float]
    role: str
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Dots:
    """Single points, each drawn as ``glyph``."""

    xs: Sequence[float]
    ys: Sequence[float]
    role: str
    glyph: str


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line with its name at the axis."""

    y: float
    role: str


@dataclass(frozen=True, slots=True)
class Upright:
    """A vertical line at a moment."""

    x: float
    role: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn chart: its lines, and where its plot area lies in them.

    Attributes:
        left, right: first and last column of the plot area. top, bottom: its first and last line.
        x0, x1: what the first and the last column stand for.
    """

    lines: tuple[Line, ...]
    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0
    x0: float = 0.0
    x1: float = 1.0

    def column(self, x: float) -> int:
        """The column of a value on the x axis."""
        share = (x - self.x0) / (self.x1 - self.x0) if self.x1 > self.x0 else 0.0
        return self.left + round(max(0.0, min(1.0, share)) * (self.right - self.left))


def draw(
    width: int,
    height: int,
    glyphs: Glyphs,
    *,
    curves: Sequence[Curve] = (),
    dots: Sequence[Dots] = (),
    levels: Sequence[Level] = (),
    uprights: Sequence[Upright] = (),
    x: tuple[float, float],
    y: tuple[float, float],
    names: Sequence[tuple[float, str]] = (),
    axes: bool = True,
) -> Picture:
    """A chart of exactly ``width`` x ``height`` cells.

    Args:
        x, y: ends of the axes.
        names: what to write along the x axis.
        axes: draw a frame with numbers; without it all cells belong to the plot.
    """
    import plotext

    x = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limitsize(False, False)
    plotext.plotsize(width, height)
    plotext.xlim(*x)
    plotext.ylim(*y)
    ticks = _ticks(*y, max(2, height // 4), [level.y for level in levels]) if axes else []
    if axes:
        plotext.yticks(ticks, [f"{tick:5.0f}" for tick in ticks])
        plotext.xticks([at for at, _ in names], [name for _, name in names])
    else:
        plotext.frame(False)
        plotext.xticks([])
        plotext.yticks([])
    _bands(plotext, curves, x, y, (width, height), glyphs)
    line = "*" if glyphs.ascii else "braille"
    # Something has to be there for an empty figure to have its axes.
    plotext.scatter([x[0]], [y[0]], marker=" ")
    for level in levels:
        if y[0] <= level.y <= y[1]:
            row = [x[0] + (x[1] - x[0]) * i / (2 * width) for i in range(2 * width + 1)]
            plotext.scatter(row, [level.y] * len(row), marker="-" if glyphs.ascii else "╌", color=_number(level.role))
    for upright in uprights:
        column = [y[0] + (y[1] - y[0]) * i / (2 * height) for i in range(2 * height + 1)]
        mark = "|" if glyphs.ascii else "┆"
        plotext.scatter([upright.x] * len(column), column, marker=mark, color=_number(upright.role))
    for group in dots:
        inside = [(a, b) for a, b in zip(group.xs, group.ys, strict=True) if y[0] <= b <= y[1]]
        if inside:
            plotext.scatter(*map(list, zip(*inside, strict=True)), marker=group.glyph, color=_number(group.role))
    for curve in curves:
        if len(curve.xs) > 1:
            plotext.plot(list(curve.xs), list(curve.ys), marker=line, color=_number(curve.role))
        elif curve.xs:
            mark = "*" if glyphs.ascii else "●"
            plotext.scatter(list(curve.xs), list(curve.ys), marker=mark, color=_number(curve.role))
    return _picture(plotext.build(), width, height, glyphs, x, axes)


def _bands(plotext: Any, curves: Sequence[Curve], x: tuple[float, float], y: tuple[float, float],
           size: tuple[int, int], glyphs: Glyphs) -> None:  # fmt: skip
    """Fills the cells between the ends of the error bands."""
    columns, rows = 2 * size[0], max(2, size[1])
    for curve in curves:
        if not curve.low:
            continue
        xs: list[float] = []
        ys: list[float] = []
        for i in range(columns + 1):
            at = x[0] + (x[1] - x[0]) * i / columns
            if not curve.xs[0] <= at <= curve.xs[-1] and len(curve.xs) > 1:
                continue
            if len(curve.xs) == 1 and abs(at - curve.xs[0]) > (x[1] - x[0]) / columns:
                continue
            low, high = max(y[0], _between(curve.xs, curve.low, at)), min(y[1], _between(curve.xs, curve.high, at))
            step = (y[1] - y[0]) / rows
            count = 2 * int((high - low) / step) + 2 if high >= low else 0
            ys += [low + (high - low) * k / max(1, count - 1) for k in range(count)]
            xs += [at] * count
        if xs:
            plotext.scatter(xs, ys, marker=":" if glyphs.ascii else "░", color=_number("rail"))


def _between(xs: Sequence[float], ys: Sequence[float], at: float) -> float:
    """A value between points, by the straight line."""
    for n in range(1, len(xs)):
        if at <= xs[n]:
            share = (at - xs[n - 1]) / (xs[n] - xs[n - 1]) if xs[n] > xs[n - 1] else 1.0
            return ys[n - 1] + (ys[n] - ys[n - 1]) * max(0.0, min(1.0, share))
    return ys[-1]


def _number(role: str) -> int:
    return _ROLES.index(role)


def _ticks(low: float, high: float, count: int, fixed: Sequence[float]) -> list[float]:
    """Round numbers for an axis; those that must be there push out what would stand beside them."""
    rough = (high - low) / count
    step = next((s for s in (10, 20, 25, 50, 100, 200, 250, 500, 1000) if s >= rough), 2000)
    kept = [value for value in fixed if low <= value <= high]
    first = int(-(-low // step)) * step
    found = [float(tick) for tick in range(first, int(high) + 1, step)]
    return sorted(kept + [tick for tick in found if all(abs(tick - value) >= step * 0.45 for value in kept)])


def _picture(text: str, width: int, height: int, glyphs: Glyphs, x: tuple[float, float], axes: bool) -> Picture:
    lines = [_spans(row, glyphs) for row in text.splitlines()[:height]]
    lines += [()] * (height - len(lines))
    if not axes:
        return Picture(tuple(lines), 0, width - 1, 0, height - 1, *x)
    plain = "".join(part for part, _ in lines[0])
    left = len(plain) - len(plain.lstrip()) + 1
    return Picture(tuple(lines), left, len(plain.rstrip()) - 2, 1, height - 3, *x)


def _spans(row: str, glyphs: Glyphs) -> Line:
    """One line of plotext's output as spans: its colour numbers are our roles."""
    spans: list[Span] = []
    role = "dim"
    for n, part in enumerate(_COLOUR.split(row)):
        if n % 2:
            code = part.split(";")
            role = _ROLES[int(code[2])] if len(code) == 3 and int(code[2]) < len(_ROLES) else "dim"
        elif part:
            spans.append((part.translate(_FRAME) if glyphs.ascii else part, role))
    return tuple(spans)
