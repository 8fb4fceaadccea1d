"""Games as choices: the form in which the likelihood of Bradley-Terry and Plackett-Luce is one and the same.

A game with a ranking is a row of choices: the winner among all, the second among the rest, and so on (Plackett 1975,
Luce 1959); with two players it is the one choice of Bradley and Terry (1952). Games of the same players in the same
seats are one row of counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise, permutations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_DENSE = 1 << 23
"""Up to so many possible rows they are counted in a table, which is faster than sorting."""


@dataclass(frozen=True, slots=True)
class Choices:
    """M choices among at most n alternatives.

    Attributes:
        players: int64[M, n], index of the player of each alternative.
        seats: int64[M, n], 0-based seat; n where the seat has no say.
        inside: bool[M, n], whether the alternative is there at all.
        counts: float64[M, n], how often it was chosen.
    """

    players: Ints
    seats: Ints
    inside: NDArray[np.bool_]
    counts: Floats

    def take(self, rows: NDArray[np.bool_]) -> Choices:
        """The rows that are marked."""
        return Choices(self.players[rows], self.seats[rows], self.inside[rows], self.counts[rows])


def join(one: Choices, other: Choices) -> Choices:
    """Both after each other; they are of the same width."""
    return Choices(
        np.concatenate([one.players, other.players]),
        np.concatenate([one.seats, other.seats]),
        np.concatenate([one.inside, other.inside]),
        np.concatenate([one.counts, other.counts]),
    )


def count_lineups(seats: Ints, ranks: Ints, weights: Ints | None = None) -> tuple[Ints, Ints, Ints]:
    """Distinct rows of line-up and ranking, in order, with their number.

    Args:
        seats: int64[G, n], player by seat.
        ranks: int64[G, n], rank by seat, any increasing numbers, equal for a tie.
        weights: int64[G]; how often each row counts; once by default.

    Returns:
        seats int64[L, n], ranks int64[L, n] (dense, from 0), counts int64[L]; whatever the order of the rows was.
    """
    games, players = seats.shape
    if not games:
        return seats, ranks, np.zeros(0, dtype=np.int64)
    base = int(seats.max()) + 1
    size = base**players * players**players
    if size >= 2**62:
        raise OverflowError(f"{base} players in one fit are too many")
    code = np.zeros(games, dtype=np.int64)
    for seat in range(players):
        code = code * base + seats[:, seat]
    for seat in range(players):
        better = np.zeros(games, dtype=np.int64)
        for other in range(players):
            better += ranks[:, seat] > ranks[:, other]
        code = code * players + better
    if size <= _DENSE and weights is None:
        table = np.bincount(code, minlength=size)
        codes = np.flatnonzero(table)
        totals = table[codes]
    elif weights is None:
        codes, totals = np.unique(code, return_counts=True)
    else:
        codes, inverse = np.unique(code, return_inverse=True)
        totals = np.zeros(len(codes), dtype=np.int64)
        np.add.at(totals, inverse, weights)
    columns = []
    rest = codes
    for radix in [players] * players + [base] * players:
        rest, digit = np.divmod(rest, radix)
        columns.append(digit)
    whole = np.stack(columns[::-1], axis=1)
    return whole[:, :players], whole[:, players:], totals.astype(np.int64)


def game_choices(seats: Ints, ranks: Ints, counts: Ints, *, only_winner: bool) -> Choices:
    """The choices of games, as :func:`count_lineups` gives them.

    A tie stands for all its orders, each with the same weight: a draw of two is half a win of each.

    Args:
        only_winner: leave out what comes after the first choice.
    """
    lineups, players = seats.shape
    if not lineups:
        empty = np.zeros((0, players), dtype=np.int64)
        return Choices(empty, empty, empty.astype(bool), empty.astype(np.float64))
    fresh = np.ones(lineups, dtype=bool)
    fresh[1:] = (seats[1:] != seats[:-1]).any(1)  # rows come sorted by line-up
    unique, lineup = seats[fresh], np.cumsum(fresh) - 1
    pattern = ranks @ (players ** np.arange(players))
    chosen = np.zeros((len(unique), 1 << players, players))
    for number in np.flatnonzero(np.bincount(pattern)):
        rows = np.flatnonzero(pattern == number)
        ranking = ranks[rows[0]]
        weight = np.zeros(len(unique))
        weight[lineup[rows]] = counts[rows]  # a line-up has each ranking once
        for mask, seat, share in _stages(tuple(int(rank) for rank in ranking), only_winner):
            chosen[:, mask, seat] += share * weight
    members = (np.arange(1 << players)[:, None] >> np.arange(players)) & 1 == 1
    which, masks = np.nonzero((chosen > 0).any(2))
    return Choices(
        unique[which], np.broadcast_to(np.arange(players), (len(which), players)).copy(), members[masks],
        chosen[which, masks],
    )  # fmt: skip


@cache
def _stages(ranking: tuple[int, ...], only_winner: bool) -> list[tuple[int, int, float]]:
    """The choices that a ranking stands for: (set of seats as bits, chosen seat, weight)."""
    players = len(ranking)
    orders = [order for order in permutations(range(players)) if _agrees(order, ranking)]
    share = 1.0 / len(orders)
    found: dict[tuple[int, int], float] = {}
    for order in orders:
        left = (1 << players) - 1
        for seat in order[:1] if only_winner else order[:-1]:
            found[left, seat] = found.get((left, seat), 0.0) + share
            left &= ~(1 << seat)
    return [(mask, seat, weight) for (mask, seat), weight in sorted(found.items())]


def _agrees(order: tuple[int, ...], ranking: tuple[int, ...]) -> bool:
    return all(ranking[a] <= ranking[b] for a, b in pairwise(order))


def meetings(seats: Ints, counts: Ints, players: int) -> Floats:
    """float64[P, P]: how often each two players met, once for every pair of their seats; the diagonal is 0."""
    met = np.zeros(players * players)
    width = seats.shape[1]
    for a in range(width):
        for b in range(width):
            if a != b:
                met += np.bincount(seats[:, a] * players + seats[:, b], weights=counts, minlength=players * players)
    table = met.reshape(players, players)
    np.fill_diagonal(table, 0.0)
    return table


def prior_choices(met: Floats, free: NDArray[np.bool_], draws: float, width: int) -> Choices:
    """The virtual draws: ``draws`` in all for every free player, against those it met, in proportion.

    Args:
        met: float64[P, P], see :func:`meetings`.
        free: bool[P], the players that get them; a player whose rating is fixed needs none.
        width: of the choices that are made.
    """
    totals = met.sum(1)
    share = np.divide(met, totals[:, None], out=np.zeros_like(met), where=totals[:, None] > 0) * free[:, None] * draws
    share = share + share.T
    one, other = np.nonzero(np.triu(share))
    rows = len(one)
    players = np.zeros((rows, width), dtype=np.int64)
    inside = np.zeros((rows, width), dtype=bool)
    counts = np.zeros((rows, width))
    players[:, 0], players[:, 1] = one, other
    inside[:, :2] = True
    counts[:, :2] = 0.5 * share[one, other][:, None]
    return Choices(players, np.full((rows, width), width, dtype=np.int64), inside, counts)
