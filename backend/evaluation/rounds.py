"""Whom a gauntlet that decides plays next: from the criteria as they stand to one opponent and its games. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.evaluation.criteria import Row
from backend.evaluation.verdict import Outcome

FIRST_GAMES = 20
"""Games against an opponent before its criterion is looked at first, and at least between two looks (ours)."""
_LOST = (Outcome.FAIL, Outcome.INVALID)


def next_round(rows: Sequence[Row], played: Mapping[str, int], most: int) -> tuple[str, int] | None:
    """The opponent of the next round, and how many games against it there are to be then.

    A criterion that holds is not played for any more, and one that does not hold ends it all. Of those that are
    undecided the one comes first that takes the fewest games; what is about all games (their number, Elo) comes last,
    since the others' games count for it, and takes the first opponent that still has games.

    Args:
        rows: the criteria of a stage.
        played: games of this run by opponent; those first whose games tell most of a rating.
        most: games against an opponent at most.

    Returns:
        None when nothing is left to play for, or nobody to play.
    """
    if any(row.verdict in _LOST for row in rows):
        return None
    free = [name for name, games in played.items() if games < most]
    undecided = [row for row in rows if row.verdict in (Outcome.CONTINUE, Outcome.NO_EVIDENCE)]
    own = sorted((row for row in undecided if row.opponent in free), key=lambda row: row.more or FIRST_GAMES)
    general = [row for row in undecided if not row.opponent] if free else []
    if not own and not general:
        return None
    row = own[0] if own else general[0]
    name = row.opponent or free[0]
    games = played[name]
    return name, min(most, games + max(FIRST_GAMES, min(row.more or FIRST_GAMES, games)))
