"""The two charts of the Elo screen: one config with a model in front, and all twelve small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.configs import CONFIGS, parse_config
from backend.evaluation.rating_view import RatingView, model_of
from backend.thresholds import Thresholds, thresholds
from ringrift_console.glyphs import Glyphs
from ringrift_console.look import Look
from ringrift_console.widgets.line import Line, Span
from screens.cells import count
from screens.elo_charts import Curve, Dots, Level, Picture, Upright, draw
from screens.elo_data import EloData, Entrant

ZOOM_ELO = 30.0
"""Elo above and below the band in the near view."""
_DOTS = 400


def limits_of(config: str) -> Thresholds:
    """The numbers of a config."""
    return thresholds(parse_config(config))


def levels(numbers: Thresholds) -> list[Level]:
    """The thresholds as lines: production, Heuristic, rejection."""
    return [
        Level(numbers.production_elo, "good"), Level(numbers.anchor_elo, "dim"), Level(numbers.reject_elo, "bad"),
    ]  # fmt: skip


def chart(
    data: EloData,
    config: str,
    chosen: Entrant | None,
    champion: Entrant | None,
    size: tuple[int, int],
    look: Look,
    *,
    near: bool = False,
) -> Picture:
    """The history of a config: all its models as dots, the chosen one with its band, the champion, what happened."""
    view, numbers = data.view, limits_of(config)
    newest = view.newest
    assert newest is not None
    x = (float(view.points[0].games), float(newest.games))
    own = curve(view, chosen, "info", band=True) if chosen else None
    best = curve(view, champion, "good") if champion and champion is not chosen else None
    dots = everybody(view)
    lines = levels(numbers)
    y = _range([own, best], dots, lines, near=near)
    lettered = [(mark, "R" if mark.rollback else "P", "bad" if mark.rollback else "good") for mark in data.marks]
    changed = _changed(view)
    return draw(
        *size,
        look.glyphs,
        curves=[one for one in (best, own) if one is not None],
        dots=[
            Dots(*dots, "dim", _dot(look)),
            *(Dots([mark.games], [y[1]], role, letter) for mark, letter, role in lettered),
            *(Dots([float(games)], [y[1]], "warn", "S") for games in changed),
        ],
        levels=lines,
        uprights=[Upright(mark.games, role) for mark, _, role in lettered]
        + [Upright(float(games), "warn") for games in changed],
        x=x,
        y=y,
        names=_names(x, size[0]),
    )


def curve(view: RatingView, one: Entrant, role: str, *, band: bool = False) -> Curve:
    """A player's ratings over the games of its config."""
    found = view.series(one.player)
    return Curve(
        [float(view.points[n].games) for n, _ in found],
        [known.elo for _, known in found],
        role,
        [known.low for _, known in found] if band else (),
        [known.high for _, known in found] if band else (),
    )


def everybody(view: RatingView) -> tuple[list[float], list[float]]:
    """Each model where it was first rated, with its rating now: what training has made of the config."""
    newest = view.newest
    if newest is None:
        return [], []
    first: dict[str, int] = {}
    for point in reversed(view.points):
        first |= dict.fromkeys(point.players, point.games)
    found = [
        (float(first[player]), newest.elo[n]) for n, player in enumerate(newest.players) if model_of(player) is not None
    ]
    step = max(1, len(found) // _DOTS)
    return [x for x, _ in found[::step]], [y for _, y in found[::step]]


def _range(
    curves: Sequence[Curve | None], dots: tuple[list[float], list[float]], lines: Sequence[Level], *, near: bool
) -> tuple[float, float]:
    """The ends of the Elo axis: all that is drawn, or the chosen model's band alone."""
    own = curves[0]
    values = [*own.ys, *own.low, *own.high] if own else []
    if not (near and values):
        for one in curves[1:]:
            values += one.ys if one else []
        ordered = sorted(dots[1])
        values += ordered[len(ordered) // 50 : len(ordered) - len(ordered) // 50]  # a few strays do not flatten it all
        values += [line.y for line in lines]
    margin = ZOOM_ELO if near else 20.0
    return min(values) - margin, max(values) + margin


def _names(x: tuple[float, float], width: int) -> list[tuple[float, str]]:
    parts = 2 if width < 60 else 4
    return [(x[0] + (x[1] - x[0]) * i / parts, count(x[0] + (x[1] - x[0]) * i / parts)) for i in range(parts + 1)]


def legend(
    data: EloData, config: str, chosen: Entrant | None, champion: Entrant | None, look: Look, width: int
) -> list[Line]:
    """What the lines and letters of the chart mean, in one line where there is room, else in two or three."""
    numbers, line = limits_of(config), look.glyphs.line
    who: list[Span] = [(" ", "text")]
    if chosen:
        who += [(f"{line}{line} ", "info"), (f"{chosen.name[:20]}  ", "text")]
    if champion and champion is not chosen:
        who += [(f"{line}{line} ", "good"), (f"{champion.name[:20]} champion  ", "text")]
    who += [(_dot(look), "dim"), (" each model  ", "dim")]
    what: list[Span] = [
        (f"{numbers.production_elo:.0f} production  ", "good"), (f"{numbers.anchor_elo:.0f} Heuristic  ", "dim"),
        (f"{numbers.reject_elo:.0f} reject  ", "bad"),
    ]  # fmt: skip
    letters: list[Span] = []
    if data.marks:
        letters += [("P", "good"), (" promoted  ", "dim")]
    if any(mark.rollback for mark in data.marks):
        letters += [("R", "bad"), (" rolled back  ", "dim")]
    if _changed(data.view):
        letters += [("S", "warn"), (" rated anew", "dim")]
    lines: list[list[Span]] = [who]
    for part in (what, letters):
        if sum(len(text) for text, _ in (*lines[-1], *part)) <= width:
            lines[-1] += part
        else:
            lines.append([(" ", "text"), *part])
    return [tuple(line) for line in lines]


def _dot(look: Look) -> str:
    return "." if look.glyphs.ascii else "·"


def _changed(view: RatingView) -> list[int]:
    """Games at which the rating spec has changed."""
    return [b.games for a, b in zip(view.points, view.points[1:], strict=False) if a.current != b.current]


def grid(size: tuple[int, int]) -> tuple[int, int]:
    """Columns of the small charts, and the height of each with its title."""
    columns = 4 if size[0] >= 100 else 3
    return columns, max(3, size[1] // (len(CONFIGS) // columns))


def small_charts(
    known: Mapping[str, EloData], names: Mapping[str, str], chosen: str, size: tuple[int, int], look: Look
) -> list[Line]:
    """All configs at once on one scale: the best model of each over time, with its production threshold."""
    columns, height = grid(size)
    width = (size[0] - (columns - 1)) // columns
    best = {key: best_curve(data.view) for key, data in known.items() if data.view.points}
    values = [v for one in best.values() for v in (*one.low, *one.ys)]
    y = (min([1380.0, *values]) // 50 * 50.0, max([1670.0, *values]) // 50 * 50.0 + 50)  # steady while others are read
    lines: list[Line] = []
    for row in range(0, len(CONFIGS), columns):
        cells = [
            _small(config.key, known.get(config.key), best.get(config.key), names.get(config.key, ""),
                   config.key == chosen, (width, height), y, look)
            for config in CONFIGS[row : row + columns]
        ]  # fmt: skip
        for n in range(height):
            spans: list[Span] = []
            for cell in cells:
                spans += [*cell[n], (" ", "text")]
            lines.append(tuple(spans))
    return lines


def best_curve(view: RatingView) -> Curve:
    """Over time, the rating of whoever had the highest lower end then, with that end as its band."""
    xs, ys, low, high = [], [], [], []
    for point in view.points:
        best = point.best()
        band = point.band(best) if best else None
        if band is not None:
            xs.append(float(point.games))
            ys.append(band.elo)
            low.append(band.low)
            high.append(band.elo)
    return Curve(xs, ys, "info", low, high)


def _small(
    key: str, data: EloData | None, best: Curve | None, name: str, chosen: bool, size: tuple[int, int],
    y: tuple[float, float], look: Look,
) -> list[Line]:  # fmt: skip
    width, height = size
    fit = look.glyphs.fit
    if data is None:
        said = "reading…"
    elif best is None or not best.xs:
        said = "no games yet"
    else:
        said = f"{name} {best.ys[-1]:.0f}".strip()
    mark = look.glyphs.cursor if chosen else " "
    title: Line = ((mark, "info"), (fit(key, 13), "title" if chosen else "strong"), (fit(said, width - 14), "dim"))
    if best is None or not best.xs:
        return [title] + [((" " * width, "text"),)] * (height - 1)
    assert data is not None
    return [title, *_drawn(key, data, best, (width, height - 1), y, look.glyphs)]


_small_drawn: dict[str, tuple[tuple[object, ...], list[Line]]] = {}


def _drawn(
    key: str, data: EloData, best: Curve, size: tuple[int, int], y: tuple[float, float], glyphs: Glyphs
) -> list[Line]:
    """The lines of a small chart; kept while nothing of it changes."""
    what = (data, size, y, glyphs.name)
    known = _small_drawn.get(key)
    if known is None or known[0][0] is not data or known[0][1:] != what[1:]:
        drawn = draw(
            *size, glyphs, curves=[best], levels=levels(limits_of(key)),
            uprights=[Upright(mark.games, "bad" if mark.rollback else "good") for mark in data.marks],
            x=(best.xs[0], best.xs[-1]), y=y, axes=False,
        )  # fmt: skip
        known = _small_drawn[key] = (what, [_padded(line, size[0]) for line in drawn.lines])
    return known[1]


def _padded(line: Line, width: int) -> Line:
    missing = width - sum(len(text) for text, _ in line)
    return (*line, (" " * missing, "text")) if missing > 0 else line
