"""Wald's sequential probability ratio test of a win rate, for independent games."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Decision(StrEnum):
    """What a sequential test says after a look."""

    PASS = "PASS"
    FAIL = "FAIL"
    CONTINUE = "CONTINUE"


@dataclass(frozen=True, slots=True)
class Look:
    """A sequential test at one look.

    Attributes:
        llr: log of the evidence for the better rate; negative speaks for the lower one.
        lower: the test fails at or below.
        upper: the test passes at or above.
        games: games the look is made of.
        more: about how many games a decision still takes; 0 once there is one or the cap is reached.
        capped: no further look fits under the cap; CONTINUE then means not passed for want of evidence.
    """

    decision: Decision
    llr: float
    lower: float
    upper: float
    games: int
    more: int = 0
    capped: bool = False


@dataclass(frozen=True, slots=True)
class Sprt:
    """Test of ``p0`` against ``p1`` > ``p0`` (Wald 1945): the LLR stops at ln((1-beta)/alpha) or ln(beta/(1-alpha)).

    The bounds hold up to Wald's approximation: P(pass at p0) <= alpha / (1 - beta) always, and below ``alpha`` at our
    thresholds because the LLR overshoots. A seat edge is safe: a block of all seats then varies less than equal games.
    Results that go together within a block are not: with blocks won or lost whole, P(pass at p0) is 16 to 35 % (exact,
    all thresholds, 2 to 4 players). Where blocks are known use :class:`~backend.evaluation.stats.blocks.BlockTest`.

    Args:
        p0: rate that must pass with probability ``alpha`` at most.
        p1: rate that must fail with probability ``beta`` at most.
        max_games: cap; undecided there is not passed.
        look: games between looks (the seats of a block).

    Raises:
        ValueError: not 0 < p0 < p1 < 1, or errors outside (0, 0.5).
    """

    p0: float
    p1: float
    alpha: float = 0.05
    beta: float = 0.05
    max_games: int = 400
    look: int = 1

    def __post_init__(self) -> None:
        check_rates(self.p0, self.p1, self.alpha, self.beta)

    @property
    def upper(self) -> float:
        return math.log((1 - self.beta) / self.alpha)

    @property
    def lower(self) -> float:
        return math.log(self.beta / (1 - self.alpha))

    def llr(self, wins: float, games: float) -> float:
        """ln(likelihood at p1 / likelihood at p0); linear, so a share of the games has that share of it."""
        return wins * math.log(self.p1 / self.p0) + (games - wins) * math.log((1 - self.p1) / (1 - self.p0))

    def at(self, wins: float, games: int) -> Look:
        """The test after ``games`` of which ``wins`` are won.

        Raises:
            ValueError: ``wins`` is not within 0..``games``.
        """
        if not 0 <= wins <= games:
            raise ValueError(f"{wins} wins of {games} games")
        llr = self.llr(wins, games)
        decision = decide(llr, self.lower, self.upper)
        left = self.max_games - games
        capped = left < self.look
        more = 0
        if decision is Decision.CONTINUE and not capped:
            rate = (wins + 0.5) / (games + 1) if games else self.p1
            more = min(left, max(1, round(self.expected_more(rate, llr))))
        return Look(decision, llr, self.lower, self.upper, games, more, capped)

    def expected_more(self, rate: float, llr: float = 0.0) -> float:
        """Mean games until a bound is reached from ``llr`` when the true rate is ``rate``, the cap ignored.

        Wald's equation with the exit probability of a Brownian motion of the same drift and variance, each bound
        moved out by half a step for the overshoot.
        """
        win, loss = math.log(self.p1 / self.p0), math.log((1 - self.p1) / (1 - self.p0))
        drift = rate * win + (1 - rate) * loss
        variance = rate * (1 - rate) * (win - loss) ** 2
        return exit_time(self.upper - llr + win / 2, llr - self.lower - loss / 2, drift, variance)


def decide(llr: float, lower: float, upper: float) -> Decision:
    if llr >= upper:
        return Decision.PASS
    return Decision.FAIL if llr <= lower else Decision.CONTINUE


def exit_time(above: float, below: float, drift: float, variance: float) -> float:
    """Mean time a Brownian motion takes to leave (-below, above), both > 0."""
    if variance <= 0:
        return above / drift if drift > 0 else below / -drift
    bend = 2 * drift / variance
    if abs(bend) * (above + below) < 1e-6:
        return above * below / variance
    if bend > 0:
        rise = -math.expm1(-bend * below) / -math.expm1(-bend * (above + below))
    else:
        rise = math.exp(bend * above) * math.expm1(bend * below) / math.expm1(bend * (above + below))
    return (above * rise - below * (1 - rise)) / drift


def check_rates(p0: float, p1: float, alpha: float, beta: float) -> None:
    if not 0 < p0 < p1 < 1:
        raise ValueError(f"rates must be 0 < p0 < p1 < 1, got {p0} and {p1}")
    if not (0 < alpha < 0.5 and 0 < beta < 0.5):
        raise ValueError(f"errors must be within (0, 0.5), got {alpha} and {beta}")
