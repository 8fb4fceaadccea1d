"""New rows, and rows from their parts."""

from __future__ import annotations

import numpy as np

from backend.configs import Config
from backend.errors import UsageError
from backend.rules.geometry import BOARDS, ring_goal
from backend.rules.layout import (
    CELL,
    CHAIN,
    HAND,
    HEADER,
    LPS_ROUNDS,
    MUST,
    PLAYER,
    RING_GOAL,
    SUPPLY,
    SWAP_OPEN,
    TURN,
    WALL,
    State,
)


def row_size(config: Config) -> int:
    """Words of a row: header, cells, sentinel."""
    return HEADER + BOARDS[config.board].cells + 1


def new_state(config: Config, swap: bool = False, ring_supply: int | None = None, lps_rounds: int = 3) -> State:
    """The start of a game: bare board, full hands, player 1 to place.

    Raises:
        UsageError: the ring supply or the number of rounds is not positive, or sides are to be swapped among more
            than two players.
    """
    supply = BOARDS[config.board].supply if ring_supply is None else ring_supply
    if not 1 <= supply <= 10_000:
        raise UsageError("the ring supply must be 1 to 10000", where=str(supply))
    if not 1 <= lps_rounds <= 1_000_000:
        raise UsageError("the rounds of last player standing must be positive", where=str(lps_rounds))
    if swap and config.players != 2:
        raise UsageError("sides can be swapped between two players only", where=config.key)
    state = np.zeros(row_size(config), dtype=np.int64)
    state[PLAYER] = 1
    state[MUST] = -1
    state[CHAIN] = -1
    state[TURN] = 1
    state[SUPPLY] = supply
    state[RING_GOAL] = ring_goal(config.players, supply)
    state[LPS_ROUNDS] = lps_rounds
    state[SWAP_OPEN] = int(swap)
    state[HAND + 1 : HAND + 1 + config.players] = supply
    state[CELL + BOARDS[config.board].cells] = WALL
    return state
