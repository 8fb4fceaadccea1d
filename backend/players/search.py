"""Gumbel search over many games at once (Danihelka et al., "Policy improvement by planning with Gumbel", ICLR 2022).

The root's edges are narrowed by sequential halving; inside the tree the choice is deterministic. One network call a
simulation serves all games.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.players.tree import Tree, back_up, descend, expand, finish, list_edges, new_tree, widen
from backend.rules.engine import Rules

CONSIDERED = 16
"""Root moves that the search looks at (the paper's m)."""


class Evaluator(Protocol):
    """Says what it thinks of positions."""

    def __call__(
        self, states: NDArray[np.int64], moves: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Logits float32[M] of the legal moves (``counts[i]`` of them for position i, one after the other) and win
        probabilities float64[G, n] by seat, of running games ``states[G, S]``. A position's answer may not depend on
        the others."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search of G games: moves int64[G], and per game the improved policy over its legal list."""

    moves: NDArray[np.int64]
    policies: list[NDArray[np.float32]]


@cache
def halving(considered: int, simulations: int) -> tuple[int, ...]:
    """For each simulation, how often the root edge to try next has been taken.

    Rounds of equal visits to the best half of the edges still considered, two at least, until the simulations are
    used up.
    """
    if considered <= 1:
        return tuple(range(simulations))
    rounds = math.ceil(math.log2(considered))
    sequence: list[int] = []
    level, left = 0, considered
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (rounds * left))):
            sequence += [level] * left
            level += 1
        left = max(2, left // 2)
    return tuple(sequence[:simulations])


def search(
    rules: Rules,
    evaluate: Evaluator,
    roots: NDArray[np.int64],
    rngs: Sequence[np.random.Generator],
    *,
    simulations: int,
    noise: float = 0.0,
) -> Found:
    """Searches running games that have a choice.

    Args:
        roots: int64[G, S].
        rngs: one generator a game; used only when ``noise`` is not 0.
        simulations: network evaluations a game besides the root's own; 0 takes the best move of the prior.
        noise: scale of the Gumbel noise at the root: 0 plays the best move found, 1 draws from the improved policy.
    """
    games = len(roots)
    tree = new_tree(roots, rules.players, simulations, edges=rules.max_moves + simulations * 48)
    scratch = np.empty(rules.max_moves, dtype=np.int64)
    for game in range(games):
        while needed := list_edges(tree, game, 0, rules.tables, scratch):
            tree = widen(tree, needed + simulations * 48)
    counts = tree.widths[:, 0].astype(np.int64)
    gumbel = np.zeros((games, int(counts.max())))
    if noise:
        for game, rng in enumerate(rngs):
            gumbel[game, : counts[game]] = noise * rng.gumbel(size=counts[game])
    leaves = np.zeros(games, dtype=np.int32)
    tree.length[:] = 1
    every = np.arange(games, dtype=np.int64)
    _evaluate_leaves(tree, evaluate, every, leaves)
    back_up(tree, leaves)
    plans = [halving(min(CONSIDERED, int(count)), simulations) for count in counts]
    plan = np.ascontiguousarray(np.array(plans, dtype=np.int64).T)  # for a kernel, a strided row is another type
    for simulation in range(simulations):
        wanted = plan[simulation]
        begin = 0
        while (done := descend(tree, rules.tables, begin, gumbel, wanted, leaves)) < 0:
            begin = int(np.flatnonzero(leaves == -(2**31))[0])
            tree = widen(tree, max(-done, 2 * tree.move.shape[1]))
        _evaluate_leaves(tree, evaluate, np.flatnonzero(leaves >= 0), leaves)
        back_up(tree, leaves)
    moves = np.empty(games, dtype=np.int64)
    policy = np.empty(gumbel.shape)
    finish(tree, gumbel, moves, policy)
    return Found(moves, [policy[game, : counts[game]].astype(np.float32) for game in range(games)])


def _evaluate_leaves(tree: Tree, evaluate: Evaluator, which: NDArray[np.int64], leaves: NDArray[np.int32]) -> None:
    if not len(which):
        return
    nodes = leaves[which]
    counts = tree.widths[which, nodes].astype(np.int64)
    first = tree.first[which, nodes]
    moves = np.concatenate([tree.move[game, a : a + n] for game, a, n in zip(which, first, counts, strict=True)])
    logits, values = evaluate(tree.states[which, nodes], moves, counts)
    expand(tree, which, leaves, logits, values)
