"""Head to head: what the rated players of a config scored against one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.evaluation.rating_view import Meeting, RatingView, model_of
from backend.evaluation.statistics import chance, wilson
from ringrift_console.look import Look
from ringrift_console.widgets.line import Line, Span
from screens.elo_data import Entrant

CELL = 10
_NAME = 14


@dataclass(frozen=True, slots=True)
class Window:
    """The rows and columns of the matrix that fit."""

    rows: tuple[Entrant, ...]
    columns: tuple[Entrant, ...]

    @property
    def players(self) -> list[str]:
        """Everybody in it, once."""
        return list(dict.fromkeys(one.player for one in (*self.rows, *self.columns)))


def window(listed: Sequence[Entrant], at: int, champion: Entrant | None, size: tuple[int, int]) -> Window:
    """Rows around the chosen place of the list; columns: the baselines and the champion, then the best."""
    height, across = max(1, size[1] - 1), max(1, (size[0] - _NAME - 1) // CELL)
    first = max(0, min(at - height // 2, len(listed) - height))
    anchors = [one for one in listed if model_of(one.player) is None][: max(1, across // 2)]
    order = [*anchors, *([champion] if champion else []), *listed]
    columns = list({one.player: one for one in order}.values())[:across]
    return Window(tuple(listed[first : first + height]), tuple(columns))


def matrix(
    shown: Window, met: Mapping[tuple[str, str], Meeting] | None, chosen: Entrant | None, column: int, players: int,
    look: Look,
) -> list[Line]:  # fmt: skip
    """Lines of the matrix: share of games that the row won against the column, and how many they were."""
    fit = look.glyphs.fit
    heading: list[Span] = [(fit("", _NAME + 1), "head")]
    for n, one in enumerate(shown.columns):
        heading.append((fit(heading_of(one), CELL - 1, "right") + " ", "title" if n == column else "head"))
    lines: list[Line] = [tuple(heading)]
    for row in shown.rows:
        here = chosen is not None and row.player == chosen.player
        mark = look.glyphs.cursor if here else " "
        spans: list[Span] = [(mark, "info"), (fit(row.name, _NAME), "title" if here else "text")]
        for n, other in enumerate(shown.columns):
            text, role = cell(None if met is None else met.get((row.player, other.player)), players)
            if row.player == other.player:
                text, role = "\\", "rail"
            marked = here and n == column
            spans.append((fit(text, CELL - 1, "right"), "match" if marked else role))
            spans.append((" ", "text"))
        lines.append(tuple(spans))
    return lines


def heading_of(one: Entrant) -> str:
    """A name short enough for a column: of a baseline without its version, of a ladder its rung."""
    if model_of(one.player) is not None:
        return one.name
    head, *rest = one.player.split(":")
    return f"{head} {rest[-1]}" if head == "ladder" and rest else head


def cell(meeting: Meeting | None, players: int) -> Span:
    """One meeting; coloured where 95 % of the interval lie above or below chance."""
    if meeting is None or not meeting.games:
        return "-", "dim"
    low, high = wilson(meeting.won, meeting.games)
    even = chance(players)
    role = "good" if low > even else "bad" if high < even else "text"
    return f"{100 * meeting.won / meeting.games:.0f}%/{meeting.games}", role


def told(view: RatingView, row: Entrant | None, other: Entrant | None, meeting: Meeting | None, players: int) -> str:
    """The meeting under the cursor in words."""
    if row is None or other is None:
        return ""
    if row.player == other.player:
        return f"{row.name} against itself"
    better = view.superiority(row.player, other.player)
    surely = "" if better is None else f"; P({row.name} better) {better:.2f}"
    share = 1 / (1 + (players - 1) * 10 ** ((other.band.elo - row.band.elo) / 400))
    rated = f"the ratings say {100 * share:.0f} %"
    if meeting is None or not meeting.games:
        return f"{row.name} has not met {other.name}; {rated}{surely}"
    low, high = wilson(meeting.won, meeting.games)
    return (
        f"{row.name} won {meeting.won} of {meeting.games} against {other.name}: {100 * meeting.won / meeting.games:.0f}"
        f" % ({100 * low:.0f}–{100 * high:.0f}); {rated}{surely}"
    )
