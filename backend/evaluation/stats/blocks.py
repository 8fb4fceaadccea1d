"""Sequential tests on seat blocks: one opening, the candidate once in every seat.

A block's score is its share of games won. Games of one block need not be independent, so a test that looks at blocks
must not take its variance from theory alone (then games that go together fool it) nor from few blocks alone (then luck
does). :func:`gsprt` takes it from the blocks, :class:`BlockTest` needs none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from backend.evaluation.stats.sprt import Decision, Look, Sprt, check_rates

GSPRT_BLOCKS = 8
"""Blocks from which the normal form is used."""
_VARIANCE_FLOOR = 1e-3
_TOGETHER = 0.2  # share of the stake that assumes blocks won or lost whole; the rest assumes independent games
_MOST = 0.95  # of the largest stake that cannot lose everything


def gsprt(scores: Sequence[float], size: int, p0: float, p1: float) -> float:
    """LLR of the generalised SPRT in its normal form, N (s1-s0) (2 mean - s0 - s1) / (2 var); Bernoulli below 8 blocks.

    Do not decide by it alone. The variance comes from the same few blocks and is smallest when luck was greatest: with
    *independent* games, looks after each block, bounds of 5 % and a cap of 400 games, a model at the threshold passes
    (exact enumeration, 2/3/4 players) .60: 10/7/6 %, .85: 20/10/7 %, .90: 28/12/8 %. Beginning at 20 blocks leaves
    15 % at .90 for two players; a variance no smaller than that of independent games leaves 13 % at .90 and 8.6 % at
    .60 with blocks won or lost whole. :class:`BlockTest` is the remedy.

    Args:
        scores: score of each block, in [0, 1].
        size: games of a block.
    """
    count = len(scores)
    if count < GSPRT_BLOCKS:
        return Sprt(p0, p1).llr(size * math.fsum(scores), size * count)
    mean = math.fsum(scores) / count
    variance = max(_VARIANCE_FLOOR, math.fsum((score - mean) ** 2 for score in scores) / count)
    return count * (p1 - p0) * (2 * mean - p0 - p1) / (2 * variance)


@dataclass(frozen=True, slots=True)
class BlockTest:
    """Test of the mean block score by betting: exact error bounds however the games of one block hang together.

    Starting with 1, a share of the wealth is staked on each block so that the bet is fair at ``p0``: the wealth is the
    product of 1 + stake (score - p0). By Ville's inequality it reaches 1/alpha with probability ``alpha`` at most when
    the mean score is ``p0`` or less; so does a second bet against ``p1`` reach 1/beta when the mean is ``p1`` or more
    (Waudby-Smith and Ramdas 2024). Blocks must be independent of one another, nothing else is assumed: no variance is
    estimated, and there is no smallest number of blocks. Two stakes are held side by side, the best one for
    independent games (80 %) and the one for blocks won or lost whole (20 %); their sum does not depend on the order.

    Cost against :class:`Sprt` when games are independent, two players: 8 % more games at 60 %, 6 % at Elo [0, +50],
    30 % at 90 %, where blocks that are all won say little about how they vary.

    Args:
        p0, p1, alpha, beta, max_games: as in :class:`Sprt`.
        size: games of a block, the number of players.
    """

    p0: float
    p1: float
    size: int
    alpha: float = 0.05
    beta: float = 0.05
    max_games: int = 400

    def __post_init__(self) -> None:
        check_rates(self.p0, self.p1, self.alpha, self.beta)
        if self.size < 1:
            raise ValueError(f"a block of {self.size} games")

    @property
    def upper(self) -> float:
        return -math.log(self.alpha)

    @property
    def lower(self) -> float:
        return math.log(self.beta)

    def replay(self, scores: Sequence[float], weight: float = 1.0) -> Look:
        """The test after each block in turn; the first decision stands, and blocks beyond the cap are not looked at.

        Args:
            scores: score of each block in the order of the blocks, in [0, 1].
            weight: share of the games that count, for games played twice; a power of the wealth at most 1 keeps the
                error bounds.

        Returns:
            The deciding look, else the last. Its ``llr`` is the log wealth of the bet that is ahead, negative for the
            bet against ``p1``, and 0 while both have lost; the cap counts all games, the repeated ones too.

        Raises:
            ValueError: a score or the weight is not within [0, 1].
        """
        if not 0 <= weight <= 1:
            raise ValueError(f"weight {weight}")
        better = _Bet(self.p0, self.p1 - self.p0, self.size)
        worse = _Bet(1 - self.p1, self.p1 - self.p0, self.size)
        most = self.max_games // self.size
        decision, llr, count = Decision.CONTINUE, 0.0, 0
        for score in scores[:most]:
            if not 0 <= score <= 1:
                raise ValueError(f"block score {score}")
            better.add(score)
            worse.add(1 - score)
            count += 1
            up, down = weight * better.log_wealth, weight * worse.log_wealth
            llr = up if up >= max(down, 0.0) else min(-down, 0.0)
            if up >= self.upper or down >= -self.lower:
                decision = Decision.PASS if up >= self.upper else Decision.FAIL
                break
        capped = count >= most
        more = 0
        if decision is Decision.CONTINUE and not capped:
            more = self._more(count, weight * better.log_wealth, weight * worse.log_wealth, most - count)
        return Look(decision, llr, self.lower, self.upper, count * self.size, more, capped)

    def _more(self, count: int, up: float, down: float, left: int) -> int:
        """Games to a decision if the wealth goes on growing as it did so far; up to the cap where neither grows."""
        if not count:
            look = Sprt(self.p0, self.p1, self.alpha, self.beta, self.max_games, self.size).at(0, 0)
            return -(-look.more // self.size) * self.size
        rests = [
            (bound - wealth) * count / wealth for bound, wealth in ((self.upper, up), (-self.lower, down)) if wealth > 0
        ]
        return max(1, math.ceil(min([*rests, left]))) * self.size


class _Bet:
    """Log wealth of two stakes that a mean in [0, 1] is above ``fair``, the best ones if it is above by ``gain``."""

    def __init__(self, fair: float, gain: float, size: int) -> None:
        whole = gain / (fair * (1 - fair))
        self._fair = fair
        self._stakes = tuple(min(stake, _MOST / fair) for stake in (whole, size * whole))
        self._logs = [math.log(_TOGETHER), math.log(1 - _TOGETHER)]

    def add(self, score: float) -> None:
        for n, stake in enumerate(self._stakes):
            self._logs[n] += math.log1p(stake * (score - self._fair))

    @property
    def log_wealth(self) -> float:
        top = max(self._logs)
        return top + math.log(math.fsum(math.exp(value - top) for value in self._logs))
