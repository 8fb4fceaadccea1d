"""Random: uniform over all legal moves, bookkeeping moves included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.players.base import Moves, States
from backend.rules.engine import Rules

VERSION = 1


class RandomPlayer:
    """Picks every legal move with the same chance; one draw of the game's generator a move."""

    def __init__(self, rules: Rules) -> None:
        self.name = "random"
        self.identity = f"random:{VERSION}"
        self._rules = rules

    def choose(self, states: States, rngs: Sequence[np.random.Generator]) -> Moves:
        """One legal move per game; see :meth:`backend.players.base.Player.choose`."""
        moves, counts = self._rules.legal_batch(states)
        draws = np.array([rng.random() for rng in rngs])
        picks = np.minimum((draws * counts).astype(np.int64), counts - 1)
        return np.asarray(moves[np.arange(len(picks)), picks])
