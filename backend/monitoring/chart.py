"""Whether a champion plays worse than it was certified to: a CUSUM over blocks of background games. Pure.

The rate in control is the lower bound of what was known when the model came into production, as an interval that holds
whenever somebody looked (:func:`confidence_sequence`); the rate out of control lies ten points below. The threshold is
the lowest that rings by mistake once in :data:`FALSE_ALARM_GAMES` games of a model exactly at that bound, computed
exactly (:func:`backend.evaluation.stats.cusum.tuned`); a model at what was measured rings far less often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.evaluation.stats.cusum import Cusum, tuned
from backend.evaluation.stats.sequences import confidence_sequence

FALSE_ALARM_GAMES = 10_000.0
"""Games of a healthy champion between two false alarms, at the worst (ours)."""
FALL = 0.10
"""Fall of the win rate that the chart is made for (``.65 -> .55`` and ``.90 -> .80`` of the research; ours)."""
BASELINE_GAMES = 50
"""Games that have to be known before the chart can start: the contract's floor for staging."""
CRASHES = 3
"""Crashes of the champion's player that raise an alarm, when they are more than the share that verdicts allow."""
_EDGE = 0.02


@dataclass(frozen=True, slots=True)
class Game:
    """One game of the champion against the reference; ``seq`` orders the games as they were stored."""

    seq: int
    opening: str
    seat: int
    won: bool
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was known of the champion against the reference: wins of games; the interval is at 95 %, at every look."""

    wins: int
    games: int

    @property
    def interval(self) -> tuple[float, float]:
        return confidence_sequence(self.wins, self.games)

    @property
    def enough(self) -> bool:
        return self.games >= BASELINE_GAMES


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as it stands.

    Attributes:
        baseline: what the rates come from.
        p0, p1, h: rate in control, rate out of control, threshold; None while the baseline is too small.
        total: the sum; the alarm rings at ``h``.
        wins, games: of the complete blocks looked at.
        since: games since the sum left 0 the last time, ``fallen`` of them won: where the fall began, as far as told.
        fallen: see ``since``.
        crashes: of the champion's player, not among the games.
        seq: the last game looked at; when an alarm rang, the last of the block that rang it.
        rings: the sum has reached the threshold.
    """

    baseline: Baseline
    p0: float | None
    p1: float | None
    h: float | None
    total: float = 0.0
    wins: int = 0
    games: int = 0
    since: int = 0
    fallen: int = 0
    crashes: int = 0
    seq: int = 0
    rings: bool = False


def rates(baseline: Baseline) -> tuple[float, float]:
    """The rates in and out of control; the fall is ten points, half of the rate where that is less."""
    p0 = min(max(baseline.interval[0], _EDGE), 1 - _EDGE)
    return p0, p0 - min(FALL, p0 / 2)


def chart_for(baseline: Baseline, players: int) -> Cusum:
    """The chart of a baseline, read after blocks of as many games as there are seats."""
    p0, p1 = (round(rate, 3) for rate in rates(baseline))
    return tuned(p0, p1, players, FALSE_ALARM_GAMES)


def blocks_of(games: Sequence[Game], players: int) -> list[tuple[int, int]]:
    """Complete blocks in the order in which they were completed: (seq of the last game, games won).

    A block is one opening with the champion in each seat once; one in which a player crashed is never complete.
    """
    found: dict[str, dict[int, Game]] = {}
    for game in sorted(games, key=lambda game: game.seq):
        if not game.crashed:
            found.setdefault(game.opening, {}).setdefault(game.seat, game)
    whole = [list(seats.values()) for seats in found.values() if len(seats) == players]
    return sorted((max(game.seq for game in block), sum(game.won for game in block)) for block in whole)


def read_chart(baseline: Baseline, games: Sequence[Game], players: int) -> Chart:
    """The chart after all games; it stops at the block that rings.

    While nothing is known of the champion, its first games are the baseline and are not charted.
    """
    blocks = blocks_of(games, players)
    while blocks and not baseline.enough:
        _, won = blocks.pop(0)
        baseline = Baseline(baseline.wins + won, baseline.games + players)
    crashes = sum(game.crashed for game in games)
    last = max((game.seq for game in games), default=0)
    if not baseline.enough:
        return Chart(baseline, None, None, None, crashes=crashes, seq=last)
    cusum = chart_for(baseline, players)
    total, wins, count, since, fallen = 0.0, 0, 0, 0, 0
    for seq, won in blocks:
        total = cusum.after_block(total, won, players)
        wins, count = wins + won, count + players
        since, fallen = (since + players, fallen + won) if total > 0 else (0, 0)
        if cusum.alarm(total):
            last = seq
            break
    return Chart(
        baseline, cusum.p0, cusum.p1, cusum.h, total, wins, count, since, fallen, crashes, last, cusum.alarm(total)
    )


def fell(chart: Chart, reference: str) -> str:
    """The alarm in words: from what to what, with intervals."""
    low, high = confidence_sequence(chart.wins, chart.games)
    before, top = chart.baseline.interval
    known = chart.baseline.wins / chart.baseline.games
    return (
        f"win rate against {reference} fell from {known:.1%} ({before:.1%}..{top:.1%}, {chart.baseline.games} games)"
        f" to {chart.wins / chart.games:.1%} ({low:.1%}..{high:.1%}, {chart.games} games),"
        f" {chart.fallen} of the last {chart.since} won"
    )
