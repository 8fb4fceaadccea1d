"""The golden positions of a config: random play by the rules from fixed seeds, so that they need no file.

What the rules make of them is held by :data:`DIGESTS`: rules that give other positions are not the rules that the
fingerprints were taken with, and that is told instead of being blamed on a model.
"""

from __future__ import annotations

import hashlib
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from backend.configs import CONFIGS, Config, parse_config
from backend.errors import UnverifiedError
from backend.players.live import LiveGame, move_cap
from backend.rules import load

VERSION = 1
"""Changes when the same seeds are to give other positions."""
COUNT = 64
"""Positions a config: enough for every phase of a game, and a second of work for a network of ours."""

_STREAM = 0x474F4C44  # keeps these generators apart from those of other uses
_DRAWS = 4096

DIGESTS = MappingProxyType({
    "square8_2p": "4aa8d51a106e539d", "square8_3p": "09e9f5412296516c", "square8_4p": "d9110c73b254cda4",
    "square19_2p": "db077d2b7c369d19", "square19_3p": "a7392def7aa12351", "square19_4p": "ec52d01925d24fc0",
    "hex8_2p": "7d67013754e7be6f", "hex8_3p": "00cc37f71f78e5ba", "hex8_4p": "7b521f07fbeaa0cf",
    "hexagonal_2p": "3978c3aafe0d189f", "hexagonal_3p": "71d7a4a6a73545af", "hexagonal_4p": "f46046a944e38ee1",
})  # fmt: skip
"""SHA-256 over the positions of each config, its first 16 digits."""


def golden_states(key: str) -> NDArray[np.int64]:
    """The positions of a config: int64[COUNT, S], each with at least two legal moves."""
    return _states(key).copy()  # for a kernel, an array that it may not write is another type, compiled for a minute


@cache
def _states(key: str) -> NDArray[np.int64]:
    config = parse_config(key)
    rules = load(config)
    found = np.stack([_position(config, index) for index in range(COUNT)])
    assert all(len(rules.legal(state)) > 1 for state in found)
    return found


def _position(config: Config, index: int) -> NDArray[np.int64]:
    """Position ``index``: the later ones come from deeper in a game."""
    rules = load(config)
    turns = 1 + index * (1 + rules.cells // 16) // 4
    attempt = 0
    while True:
        entropy = [_STREAM, VERSION, CONFIGS.index(config), index, attempt]
        draws = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy))).random(_DRAWS)
        game = LiveGame(rules, move_cap(config))
        game.play_at_random(draws, turns)
        if not game.settle():
            return game.state.copy()
        attempt, turns = attempt + 1, max(1, turns * 3 // 4)  # it was over by then


def digest(states: NDArray[np.int64]) -> str:
    """The first 16 digits of the SHA-256 over positions."""
    return hashlib.sha256(states.astype("<i8").tobytes()).hexdigest()[:16]


def suite(config: Config) -> str:
    """The name of a config's positions, under which fingerprints are kept.

    Raises:
        UnverifiedError: the rules of this installation give other positions than they should.
    """
    made = digest(golden_states(config.key))
    if made != DIGESTS[config.key]:
        raise UnverifiedError(
            f"the rules give other golden positions ({made}, should be {DIGESTS[config.key]})",
            where=config.key,
            hint="this installation's rules are damaged or changed; install it again",
        )
    return made
