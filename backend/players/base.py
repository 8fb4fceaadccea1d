"""What a player is: anything that picks legal moves for a batch of games."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.int64]  # (G, S), one row a game
Moves = NDArray[np.int64]


class Player(Protocol):
    """Picks moves for many games at once.

    A choice depends only on the game's own state and generator, never on which games share the batch.

    Attributes:
        name: for people, e.g. ``heuristic``.
        identity: what match records and games store: the name with everything that changes how it plays, e.g.
            ``heuristic:1:e0.05`` or ``neural:<first 16 digits of the SHA-256>:s32``.
    """

    name: str
    identity: str

    def choose(self, states: States, rngs: Sequence[np.random.Generator]) -> Moves:
        """One legal move per game.

        Args:
            states: int64[G, S]; the games are running, may be at different plies, and are not changed.
            rngs: one generator per game, the only source of chance.

        Returns:
            int64[G] move codes.
        """
        ...


@runtime_checkable
class ScoringPlayer(Protocol):
    """A player that can also say how much it likes each legal move, for training targets."""

    name: str
    identity: str

    def choose(self, states: States, rngs: Sequence[np.random.Generator]) -> Moves:
        """See :meth:`Player.choose`."""
        ...

    def choose_with_policy(
        self, states: States, rngs: Sequence[np.random.Generator]
    ) -> tuple[Moves, list[NDArray[np.float32]]]:
        """The moves, and per game float32 probabilities over the legal list in the order of ``Rules.legal``."""
        ...
