"""Heuristic: looks one action ahead, scores where every legal move leads, takes the best, breaks ties at random.

"Where a move leads" is the position after the move and all that it entails for the same player (forced moves, chain
captures, lines, territory, payments), since those come before anybody else can answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backend.players.base import Moves, States
from backend.players.features import FEATURES, WEIGHTS, build_places
from backend.players.heuristic_kernels import SCRATCH_SIZE, choose_batch, features_into, score_moves
from backend.rules.engine import Rules
from backend.rules.layout import PLAYER

VERSION = 1
"""Changes with every change of behaviour: results against another version are results against another player."""

POLICY_TEMPERATURE = 0.25
"""Of the probabilities given as training targets, in standard deviations of the scores."""


class HeuristicPlayer:
    """The baseline without look-ahead beyond its own action.

    Args:
        rules: the config's rules.
        epsilon: chance of a uniformly random move instead, for self-play; part of the identity.

    Raises:
        ValueError: ``epsilon`` is not within 0..1.
    """

    def __init__(self, rules: Rules, epsilon: float = 0.0) -> None:
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon {epsilon} is not within 0..1")
        self.name = "heuristic"
        self.identity = f"heuristic:{VERSION}" + (f":e{epsilon:.2f}" if epsilon else "")
        self.epsilon = epsilon
        self._rules = rules
        self._places = build_places(rules.board)
        self._buffer = np.empty(rules.max_moves, dtype=np.int64)

    def choose(self, states: States, rngs: Sequence[np.random.Generator]) -> Moves:
        """One legal move per game; see :meth:`backend.players.base.Player.choose`."""
        return self._choose(states, rngs, 0.0)[0]

    def choose_with_policy(
        self, states: States, rngs: Sequence[np.random.Generator]
    ) -> tuple[Moves, list[NDArray[np.float32]]]:
        """The moves, and per game how good each legal move looks: a softmax over standardised scores."""
        picks, policy, lengths = self._choose(states, rngs, POLICY_TEMPERATURE)
        return picks, [policy[game, :length].copy() for game, length in enumerate(lengths)]

    def _choose(
        self, states: States, rngs: Sequence[np.random.Generator], temperature: float
    ) -> tuple[Moves, NDArray[np.float32], NDArray[np.int64]]:
        games = len(rngs)
        draws = np.array([rng.random(2) for rng in rngs]).reshape(games, 2)
        picks, lengths = np.empty(games, dtype=np.int64), np.empty(games, dtype=np.int64)
        while True:
            policy = np.empty((games, self._buffer.size if temperature else 1), dtype=np.float32)
            longest = choose_batch(
                states,
                self._rules.tables,
                self._places,
                WEIGHTS,
                draws,
                self.epsilon,
                temperature,
                self._buffer,
                picks,
                policy,
                lengths,
            )
            if longest <= self._buffer.size:
                break
            self._buffer = np.empty(longest, dtype=np.int64)
        return picks, policy, lengths

    def scores(self, state: NDArray[np.int64]) -> tuple[Moves, NDArray[np.float64]]:
        """The legal moves of one running game and the score of each."""
        moves = self._rules.legal(state)
        scores = np.empty(moves.size)
        score_moves(state, self._rules.tables, self._places, WEIGHTS, moves, scores)
        return moves, scores

    def features(self, state: NDArray[np.int64], player: int | None = None) -> dict[str, float]:
        """Every feature of a position by name, unweighted, as ``player`` (default: who is to act) sees it."""
        out = np.empty(len(FEATURES))
        me = int(state[PLAYER]) if player is None else player
        features_into(state, self._rules.tables, self._places, me, np.empty(SCRATCH_SIZE), out)
        return {feature.name: float(value) for feature, value in zip(FEATURES, out, strict=True)}
