"""Positions as planes for the network.

An encoded position is *packed* into nine bytes a cell, which is what datasets keep, and *unpacked* into float planes
when a network reads it. Cells lie in a box ``H x W``: ``(x, y)`` at row x, column y on square boards, ``(q, r)`` at
row q + radius, column r + radius on hexagonal ones, with the corners off the board. Seats are counted from the player
to act, who is seat 0, so that one network serves every seat.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from backend.rules.geometry import BOARDS, symmetries
from backend.training.packing import GLOBALS, PACKED, PLANES, pack_states, unpack_batch


@dataclass(frozen=True, slots=True)
class Box:
    """Where the cells of a board lie in its box.

    Attributes:
        side: rows and columns of the box.
        places: int32[N], box index ``row * side + column`` of each cell.
        sources: int32[K, side*side], for each exact symmetry the box index whose content goes to this place.
        targets: int32[K, side*side + 1], the inverse, with the place "nowhere" (``side*side``) kept.
    """

    side: int
    places: NDArray[np.int32]
    sources: NDArray[np.int32]
    targets: NDArray[np.int32]


@cache
def box_of(board_name: str) -> Box:
    """The box of a board: 8 x 8, 19 x 19, 9 x 9 for hex8, 25 x 25 for hexagonal."""
    board = BOARDS[board_name]
    shift = board.extent if board.hexagonal else 0
    side = 2 * board.extent + 1 if board.hexagonal else board.extent
    places = np.array([(x + shift) * side + y + shift for x, y in board.coordinates], dtype=np.int32)
    moves = symmetries(board_name)
    area = side * side
    sources = np.tile(np.arange(area, dtype=np.int32), (len(moves), 1))
    targets = np.tile(np.arange(area + 1, dtype=np.int32), (len(moves), 1))
    for k, move in enumerate(moves):
        sources[k, places[move]] = places
        targets[k, places] = places[move]
    for array in (places, sources, targets):
        array.setflags(write=False)
    return Box(side, places, sources, targets)


def encode(
    states: NDArray[np.int64], tables: NDArray[np.int16], board: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Planes float32 ``(G, PLANES, H, W)`` and globals float32 ``(G, GLOBALS)`` of states ``(G, S)``."""
    box = box_of(board)
    count, area = len(states), box.side * box.side
    packed = np.empty((count, PACKED, area), dtype=np.uint8)
    scalars = np.empty((count, GLOBALS), dtype=np.float32)
    every = np.arange(count, dtype=np.int64)
    pack_states(states, every, tables, box.places, packed, scalars)
    planes = np.empty((count, PLANES, area), dtype=np.float32)
    unpack_batch(packed, every, np.zeros(count, dtype=np.int64), box.sources, planes)
    return planes.reshape(count, PLANES, box.side, box.side), scalars
