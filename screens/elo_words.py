"""The Elo screen in words: its title, and what stands at the cursor."""

from __future__ import annotations

from backend.evaluation.rating_view import RatingPoint, RatingView
from ringrift_console.clock import Clock
from ringrift_console.widgets.line import Line, Span
from screens.cells import UNKNOWN, count
from screens.elo_data import EloData, Entrant, time_of


def title(all_configs: bool, config: str, data: EloData | None, listed: int) -> list[Span]:
    """The line over the chart: how much there is, and what is to be known about it."""
    if all_configs:
        return [(" all configs ", "title"), ("best model over time, one scale ", "dim")]
    spans: list[Span] = [(f" {config} ", "title")]
    if data is None:
        return [*spans, ("reading… ", "dim")]
    view, newest = data.view, data.view.newest
    if newest is not None:
        spans.append((f"{listed} rated, {count(newest.games)} games ", "dim"))
        spans += [(f"{len(newest.unrated)} without a way to Heuristic ", "warn")] if newest.unrated else []
        spans += [("of an earlier rating spec ", "warn")] if not newest.current else []
    spans += [(f"{view.behind} games since ", "warn")] if view.behind else []
    spans += [("computed now, nothing is stored ", "warn")] if view.computed else []
    return spans


def at_point(point: RatingPoint, chosen: Entrant, clock: Clock) -> Line:
    """The chosen model's rating at the cursor."""
    band, at = point.band(chosen.player), time_of(point.at)
    when = clock.minute(at) if at else UNKNOWN
    where: Span = (f"  after {count(point.games)} games, {when}", "dim")
    name: Span = (f" {chosen.name}", "strong")
    if band is None:
        return (name, (" has no rating yet", "dim"), where)
    rating: Span = (f" {band.elo:.0f}", "info")
    return (name, rating, (f" ({band.words('–')})", "text"), (f"  {band.games} games", "text"), where)


def against_champion(view: RatingView, chosen: Entrant, champion: Entrant | None) -> Line:
    """How surely the chosen model is better than the one in production."""
    if champion is None:
        return ((" nothing is in production", "dim"),)
    if champion.player == chosen.player:
        return ((" it is the champion", "good"),)
    better = view.superiority(chosen.player, champion.player)
    said = "unknown" if better is None else f"{better:.2f}"
    gap = chosen.band.elo - champion.band.elo
    return (
        (f" P({chosen.name} better than champion {champion.name}) {said}", "accent"),
        (f"  {gap:+.0f} Elo, by all games so far", "dim"),
    )
