"""What the Elo screen knows of a config: its ratings over time, who is who, and when production moved."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backend.evaluation.rating_view import Band, RatingReader, RatingView, model_of
from backend.snapshot import ModelRow

if TYPE_CHECKING:
    from backend.paths import Paths
    from backend.registry.pointers import Move


@dataclass(frozen=True, slots=True)
class Mark:
    """A promotion or a rollback: what production became, and after how many games."""

    games: float
    rollback: bool
    label: str
    at: datetime


@dataclass(frozen=True, slots=True)
class EloData:
    """The ratings of a config and the moves of its production pointer."""

    view: RatingView
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Entrant:
    """A rated player as it is listed; ``name`` is short, ``label`` is what actions act on (empty for a baseline)."""

    player: str
    name: str
    label: str
    stage: str
    band: Band


def read(reader: RatingReader, config: str) -> EloData:
    """Reads a config; belongs on a thread.

    Raises:
        RingRiftError: the records or the registry cannot be read.
    """
    view = reader.view(config)
    return EloData(view, marks_of(view, moves_of(reader.paths, config)))


def moves_of(paths: Paths, config: str) -> Sequence[Move]:
    """The moves of the production pointer of a config, oldest first."""
    from backend.registry import pointers
    from backend.registry.schema import reading

    with reading(paths.registry_db) as db:
        return () if db is None else pointers.moves(db, config)


def marks_of(view: RatingView, moves: Sequence[Move]) -> tuple[Mark, ...]:
    """Where the moves stand on an axis of games: between the matches played before and after them."""
    times = [time_of(point.at) for point in view.points]
    known = [(at.timestamp(), point.games) for at, point in zip(times, view.points, strict=True) if at is not None]
    if not known:
        return ()
    made = []
    for move in moves:
        now = move.at.timestamp()
        n = bisect_right(known, (now, 1 << 62))
        if n == 0:
            games: float = known[0][1]
        elif n == len(known):
            games = known[-1][1]
        else:
            (t0, g0), (t1, g1) = known[n - 1], known[n]
            games = g0 + (g1 - g0) * (now - t0) / (t1 - t0) if t1 > t0 else g1
        made.append(Mark(games, move.action == "rollback", move.after, move.at))
    return tuple(made)


def time_of(text: str) -> datetime | None:
    """A stored time, which is UTC where it names no zone; None for what is none."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def entrants(view: RatingView, models: Mapping[str, ModelRow]) -> list[Entrant]:
    """Everybody who is rated now, the highest lower end first."""
    newest = view.newest
    if newest is None:
        return []
    settings = Counter(sha256 for player in newest.players if (sha256 := model_of(player)))
    found = []
    for n, player in enumerate(newest.players):
        sha256 = model_of(player)
        model = models.get(sha256 or "")
        name = player
        if sha256 is not None:
            own = f"v{model.version}" if model and model.model_id == view.config else model.label if model else ""
            name = (own or sha256[:12]) + (player[64:] if settings[sha256] > 1 else "")
        found.append(
            Entrant(player, name, model.label if model else "", model.stage if model else "", newest.at_index(n))
        )
    return sorted(found, key=lambda one: (-one.band.low, one.name))


def player_of(listed: Sequence[Entrant], label: str | None) -> Entrant | None:
    """A model's entry by its label; with several search settings that of the setting with the most games."""
    own = [one for one in listed if label and one.label == label]
    return max(own, key=lambda one: one.band.games) if own else None
