"""What the games say about one criterion: pure, from counts to a verdict.

A criterion holds when both of two rules hold. The *contract minimum* is the project's own rule: enough games, and a
measured rate at the threshold. The *evidence* is a sequential test, without which an equal model would pass more often
than not. Unique games are the sample: a deterministic game played again says nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from backend.evaluation.statistics import chance
from backend.evaluation.stats.blocks import BlockTest
from backend.evaluation.stats.luce import expected_score, same_odds
from backend.evaluation.stats.sequences import confidence_sequence
from backend.evaluation.stats.sprt import Decision, Look, Sprt
from backend.thresholds import Thresholds

_SAME = 1e-12  # rates nearer than this are equal


class Outcome(StrEnum):
    """The verdict on a criterion."""

    PASS = "PASS"
    FAIL = "FAIL"
    CONTINUE = "CONTINUE"
    INVALID = "INVALID"
    NO_EVIDENCE = "NO EVIDENCE"


@dataclass(frozen=True, slots=True)
class Criterion:
    """A win rate that a model must reach against one opponent.

    Attributes:
        name: e.g. ``Heuristic``.
        players: seats of a game; the opponent holds all but one.
        required: rate the contract asks for, for this many players.
        clear: rate that the sequential test sets against ``required``.
        floor: unique games before which nothing passes.
        strict: the rate must be above ``required``, not only at it.
        stated: the contract's own words for games of two, e.g. ``60 %``.
        max_games: cap of the sequential test.
        error: both error probabilities of the sequential test.
        crash_share: share of crashed games above which the verdict is INVALID.
    """

    name: str
    players: int
    required: float
    clear: float
    floor: int = 0
    strict: bool = False
    stated: str = ""
    max_games: int = 400
    error: float = 0.05
    crash_share: float = 0.01

    @property
    def requirement(self) -> str:
        """The requirement in words, e.g. ``>= 42.9 % (same odds as 60 % of two)``."""
        text = f"{'>' if self.strict else '>='} {self.required * 100:.1f} %"
        return f"{text} (same odds as {self.stated} of two)" if self.players > 2 and self.stated else text


@dataclass(frozen=True, slots=True)
class Games:
    """The games that bear on a criterion.

    Attributes:
        wins: of ``games``; a game stopped at the cap is not won.
        games: finished games.
        unique: different ones among them.
        crashes: games in which a player failed, counted nowhere else.
        blocks: games won of each *complete* seat block, in the order of the blocks; None when only totals are known.
        counted: unique games for the floor, where it is about more than this opponent; None: these.
    """

    wins: int
    games: int
    unique: int
    crashes: int = 0
    blocks: tuple[int, ...] | None = None
    counted: int | None = None


@dataclass(frozen=True, slots=True)
class SequentialEvidence:
    """The sequential test: log-likelihood ratio or log wealth, its bounds, games looked at, and its unit."""

    llr: float
    lower: float
    upper: float
    games: int
    unit: Literal["blocks", "games"]
    decision: Decision


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the promote view.

    Attributes:
        required: rate, as ``requirement`` says in words.
        measured: rate; None without games.
        interval: always-valid 95 % interval of the unique games; None without games.
        minimum: the contract's rule alone holds: floor and rate.
        more: about how many further games a decision takes; 0 where none are needed or none would help.
    """

    criterion: str
    required: float
    requirement: str
    measured: float | None
    interval: tuple[float, float] | None
    games: int
    unique: int
    crashes: int
    evidence: SequentialEvidence | None
    minimum: bool
    verdict: Outcome
    reason: str
    more: int = 0


def gauntlet_criteria(limits: Thresholds, players: int) -> tuple[Criterion, ...]:
    """The gauntlet's targets; the opponent that tells most for the fewest games first."""
    return (
        _against("Heuristic", limits, players, limits.gauntlet_heuristic, limits.gauntlet_heuristic_clear, 0),
        _against("Random", limits, players, limits.gauntlet_random, limits.gauntlet_random_clear, 0),
    )


def gauntlet_criterion(limits: Thresholds, players: int, opponent: str) -> Criterion | None:
    """What the gauntlet asks for against a baseline by its name; None where there is no target."""
    return next((one for one in gauntlet_criteria(limits, players) if one.name.lower() == opponent), None)


def staging_criterion(limits: Thresholds, players: int) -> Criterion:
    """DEVELOPMENT -> STAGING: better than the champion (Elo delta > 0), from games against it."""
    clear = expected_score(limits.staging_elo_clear, players)
    return _criterion(
        "Champion", limits, players, chance(players), clear, limits.staging_games, strict=True, stated="50 %"
    )


def production_criteria(limits: Thresholds, players: int) -> tuple[Criterion, ...]:
    """STAGING -> PRODUCTION: the win rates. The Elo of a model is judged from its rating, not here."""
    games = limits.production_games
    return (
        _against("Heuristic", limits, players, limits.production_heuristic, limits.production_heuristic_clear, games),
        _against("Random", limits, players, limits.production_random, limits.production_random_clear, games),
    )


def judge(criterion: Criterion, games: Games) -> Verdict:
    """The verdict on a criterion.

    PASS needs the contract minimum and the evidence. FAIL does not wait for the floor: evidence against a model is
    evidence at any number of games. At the cap of the sequential test, undecided is FAIL ("insufficient evidence").

    With blocks the test is replayed look by look and its first decision stands. With totals alone it is one look at
    their end, and games are taken as independent.

    Raises:
        ValueError: counts that contradict one another.
    """
    _check(criterion, games)
    if games.games == 0:
        crashed = f", {games.crashes} crashed" if games.crashes else ""
        return _verdict(criterion, games, None, False, Outcome.NO_EVIDENCE, f"no finished games{crashed}")
    look, evidence = _evidence(criterion, games)
    counted = games.unique if games.counted is None else games.counted
    rate = games.wins / games.games
    reached = rate > criterion.required + _SAME if criterion.strict else rate >= criterion.required - _SAME
    missing = max(0, criterion.floor - counted)
    minimum = reached and not missing
    outcome, reason, more = _decide(criterion, games, look, reached, missing)
    if games.unique < games.games and outcome is not Outcome.INVALID:
        reason += f"; {games.games - games.unique} of {games.games} games are repeats and count for nothing"
    return _verdict(criterion, games, evidence, minimum, outcome, reason, more)


def _decide(c: Criterion, games: Games, look: Look, reached: bool, missing: int) -> tuple[Outcome, str, int]:
    crashed = games.crashes / (games.games + games.crashes)
    if crashed > c.crash_share:
        reason = f"{games.crashes} of {games.games + games.crashes} games crashed, more than {c.crash_share:.0%}"
        return Outcome.INVALID, reason, 0
    if look.decision is Decision.FAIL:
        return Outcome.FAIL, f"evidence against, after {look.games} games", 0
    if look.decision is Decision.CONTINUE:
        if look.capped:
            return Outcome.FAIL, f"insufficient evidence after {look.games} games", 0
        more = max(look.more, missing)
        return Outcome.CONTINUE, f"undecided, about {more} more games", more
    if missing:
        return Outcome.CONTINUE, f"evidence holds, {missing} more unique games to the contract's {c.floor}", missing
    if not reached:
        return Outcome.FAIL, f"evidence held after {look.games} games, the rate of all games does not", 0
    return Outcome.PASS, f"evidence and contract minimum hold, after {look.games} games", 0


def _evidence(c: Criterion, games: Games) -> tuple[Look, SequentialEvidence]:
    weight = games.unique / games.games
    unit: Literal["blocks", "games"] = "games" if games.blocks is None else "blocks"
    if games.blocks is None:
        # The LLR is linear in the counts, so repeats are left out by scaling both.
        test = Sprt(c.required, c.clear, c.error, c.error, c.max_games, c.players)
        look = test.at(games.wins * games.unique / games.games, games.unique)
        look = replace(look, capped=look.capped or c.max_games - games.games < c.players)
    else:
        blocks = BlockTest(c.required, c.clear, c.players, c.error, c.error, c.max_games)
        look = blocks.replay([wins / c.players for wins in games.blocks], weight)
    return look, SequentialEvidence(look.llr, look.lower, look.upper, look.games, unit, look.decision)


def _check(criterion: Criterion, games: Games) -> None:
    if not (0 <= games.wins <= games.games and 0 <= games.unique <= games.games and games.crashes >= 0):
        raise ValueError(f"{games.wins} wins, {games.games} games, {games.unique} unique, {games.crashes} crashes")
    if games.games and not games.unique:
        raise ValueError(f"{games.games} games, none of them unique")
    if games.blocks is None:
        return
    won, played = sum(games.blocks), len(games.blocks) * criterion.players
    if any(not 0 <= wins <= criterion.players for wins in games.blocks) or won > games.wins or played > games.games:
        raise ValueError(f"{len(games.blocks)} blocks of {criterion.players} with {won} wins in {games.games} games")


def _verdict(
    c: Criterion,
    games: Games,
    evidence: SequentialEvidence | None,
    minimum: bool,
    outcome: Outcome,
    reason: str,
    more: int = 0,
) -> Verdict:
    rate = games.wins / games.games if games.games else None
    interval = None if rate is None else confidence_sequence(games.wins * games.unique / games.games, games.unique)
    return Verdict(
        c.name, c.required, c.requirement, rate, interval, games.games, games.unique, games.crashes,
        evidence, minimum, outcome, reason, more,
    )  # fmt: skip


def _against(name: str, limits: Thresholds, players: int, rate: float, clear: float, floor: int) -> Criterion:
    stated = f"{rate * 100:g} %"
    return _criterion(name, limits, players, same_odds(rate, players), same_odds(clear, players), floor, stated=stated)


def _criterion(
    name: str,
    limits: Thresholds,
    players: int,
    required: float,
    clear: float,
    floor: int,
    *,
    strict: bool = False,
    stated: str,
) -> Criterion:
    return Criterion(
        name, players, required, clear, floor, strict, stated,
        limits.sequential_games, limits.sequential_error, limits.crash_share,
    )  # fmt: skip
