"""Openings: random but reproducible first turns, so that players without chance of their own play different games."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.configs import CONFIGS, Config

if TYPE_CHECKING:
    from backend.players.live import LiveGame

VERSION = 1
"""Changes when an index gives another opening."""

_STREAM = 0x4F50454E  # keeps these generators apart from those of other uses of the same seed
_MOST_CHOICES = 256  # far more than the choices of one turn each


def opening_id(seed: int, index: int) -> str:
    """The name of an opening in match records."""
    return f"random:{VERSION}:{seed}:{index}"


def opening_draws(config: Config, seed: int, index: int) -> NDArray[np.float64]:
    """The draws that decide an opening's choices, float64 in [0, 1)."""
    entropy = [_STREAM, VERSION, CONFIGS.index(config), seed, index]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy))).random(_MOST_CHOICES)


def play_opening(game: LiveGame, config: Config, seed: int, index: int) -> None:
    """Plays opening ``index`` into a new game: the first turn, of seat 1, is uniformly random."""
    game.play_at_random(opening_draws(config, seed, index), turns=1)
