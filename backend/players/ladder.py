"""The ladder: frozen players of graded strength, a search over Heuristic with a fixed number of simulations.

A rating is known best near players of about the same strength. Random and Heuristic lie far below what a trained model
should reach; the rungs of the ladder lie above Heuristic, and play the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.errors import UsageError
from backend.players import heuristic, heuristic_kernels, ladder_kernels, tree
from backend.players.base import Moves, States
from backend.players.features import WEIGHTS, build_places
from backend.players.heuristic import POLICY_TEMPERATURE
from backend.players.ladder_kernels import evaluate_positions
from backend.players.once import compile_once
from backend.players.search import search
from backend.rules.engine import Rules

VERSION = 1
"""Changes with every change of behaviour: of this file, its kernels, or the search. Heuristic has its own."""

RUNGS = (32, 128, 512)
"""Simulations a decision of the rungs that are usually played."""
MOST = 4096
SCALE, WEIGHT = 200.0, 0.15
"""Of the win chances, see :func:`backend.players.ladder_kernels.evaluate_positions`: about the best description of the
results of 300 games of Heuristic against itself in square8_2p, hex8_2p, square8_3p and hex8_4p."""
GAMES = 64
"""Games searched together; bounds the memory of the trees."""


class HeuristicEvaluator:
    """Heuristic asked about positions of one config; see :class:`backend.players.search.Evaluator`."""

    def __init__(self, rules: Rules, scale: float = SCALE, weight: float = WEIGHT) -> None:
        self._rules = rules
        self._places = build_places(rules.board)
        self._scale, self._weight = scale, weight

    def __call__(
        self, states: NDArray[np.int64], moves: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Logits float32[M] of the moves and win chances float64[G, n] by seat."""
        logits = np.empty(len(moves), dtype=np.float32)
        values = np.empty((len(states), self._rules.players))
        evaluate_positions(
            states, self._rules.tables, self._places, WEIGHTS, moves, counts, POLICY_TEMPERATURE, self._scale,
            self._weight, logits, values,
        )  # fmt: skip
        return logits, values


class LadderPlayer:
    """One rung: plays the best move of a search over Heuristic, without chance.

    Args:
        simulations: positions looked at a decision, 1 to ``MOST``.

    Raises:
        UsageError: ``simulations`` is out of range.
    """

    def __init__(self, rules: Rules, simulations: int) -> None:
        if not 1 <= simulations <= MOST:
            raise UsageError("no such rung of the ladder", where=str(simulations), hint=f"1 to {MOST}, e.g. ladder:32")
        self.name = f"ladder:{simulations}"
        self.identity = f"ladder:{VERSION}:heuristic:{heuristic.VERSION}:n{simulations}"
        self.simulations = simulations
        self._rules = rules
        self._evaluate = HeuristicEvaluator(rules)

    def choose(self, states: States, rngs: Sequence[np.random.Generator]) -> Moves:
        """One legal move per game; see :meth:`backend.players.base.Player.choose`."""
        legal = [self._rules.legal(state) for state in states]
        moves = np.array([listed[0] for listed in legal], dtype=np.int64)
        open_games = [game for game, listed in enumerate(legal) if len(listed) > 1]
        for start in range(0, len(open_games), GAMES):
            group = open_games[start : start + GAMES]
            roots = np.ascontiguousarray(states[group])
            found = search(
                self._rules, self._evaluate, roots, [rngs[game] for game in group], simulations=self.simulations
            )
            moves[group] = found.moves
        return moves


def make_rung(rules: Rules, simulations: int) -> LadderPlayer:
    """A rung of the ladder, its kernels compiled."""
    player = LadderPlayer(rules, simulations)
    sources = tuple(Path(str(module.__file__)) for module in (ladder_kernels, heuristic_kernels, tree))

    def run() -> None:
        LadderPlayer(rules, 1).choose(rules.new()[None], [np.random.default_rng(0)])

    compile_once("ladder", sources, "compiling the ladder, once (about half a minute)...", run)
    return player
