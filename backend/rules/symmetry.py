"""Positions and moves under the board's symmetries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.rules.jit import kernel
from backend.rules.layout import (
    CELL,
    CHAIN,
    M_CAPTURE,
    M_CHAIN,
    M_FORCED,
    M_L1,
    M_L2,
    M_LINE_ELIM,
    M_MOVE,
    M_PLACE,
    M_R1,
    M_R2,
    M_RECOVERY_ELIM,
    M_REGION,
    M_RF,
    M_RS,
    M_TERR_ELIM,
    MUST,
    PLAYER,
    T_CELLS,
    T_LINE,
    State,
    Tables,
    direction_between,
    encode,
    move_a,
    move_b,
    move_c,
    move_type,
    neighbour,
)
from backend.rules.recovery import slide_run
from backend.rules.regions import flood

Permutation = NDArray[np.int16]


@kernel
def transform_state_into(state: State, tables: Tables, permutation: Permutation, image: State) -> None:
    """Writes the image of a state into ``image``, another row."""
    for word in range(CELL):
        image[word] = state[word]
    if state[MUST] >= 0:
        image[MUST] = permutation[state[MUST]]
    if state[CHAIN] >= 0:
        image[CHAIN] = permutation[state[CHAIN]]
    cells = tables[T_CELLS]
    for cell in range(cells):
        image[CELL + permutation[cell]] = state[CELL + cell]
    image[CELL + cells] = state[CELL + cells]


@kernel
def transform_window(tables: Tables, permutation: Permutation, start: int, direction: int) -> int:
    """First cell of the image of the line-length window from ``start`` on."""
    end = start
    for _ in range(tables[T_LINE] - 1):
        end = neighbour(tables, end, direction)
    return int(min(permutation[start], permutation[end]))


@kernel
def transform_region(state: State, tables: Tables, permutation: Permutation, start: int, border: int) -> int:
    """Smallest cell of the image of a region."""
    marks = np.zeros(tables[T_CELLS] + 1, np.int64)
    queue = np.empty(tables[T_CELLS] + 1, np.int64)
    size = flood(state, tables, start, border, 1, marks, queue)
    least = int(tables[T_CELLS])
    for at in range(size):
        least = min(least, int(permutation[queue[at]]))
    return least


@kernel
def operands(kind: int) -> int:
    """How many operands a move type has."""
    if kind in (M_CAPTURE, M_CHAIN, M_R1, M_R2, M_RF, M_RS, M_L2):
        return 3
    if kind in (M_PLACE, M_MOVE, M_L1, M_REGION):
        return 2
    return 1 if kind in (M_LINE_ELIM, M_TERR_ELIM, M_RECOVERY_ELIM, M_FORCED) else 0


@kernel
def transform_move(state: State, tables: Tables, permutation: Permutation, move: int) -> int:
    """The image of a move that is legal in ``state`` (not in the image of ``state``)."""
    kind = move_type(move)
    a = move_a(move)
    b = move_b(move)
    c = move_c(move)
    if kind in (M_CAPTURE, M_CHAIN, M_R1, M_RF, M_RS):
        return encode(kind, permutation[a], permutation[b], permutation[c])
    if kind == M_MOVE:
        return encode(kind, permutation[a], permutation[b], 0)
    if kind in (M_L1, M_L2):
        start = 0
        if kind == M_L2:
            start = transform_window(tables, permutation, c, direction_between(tables, a, b))
        first = permutation[a]
        last = permutation[b]
        return encode(kind, min(first, last), max(first, last), start)
    if kind == M_R2:
        axis, _, _ = slide_run(state, tables, a, b, state[PLAYER])
        return encode(kind, permutation[a], permutation[b], transform_window(tables, permutation, c, axis))
    if kind == M_REGION:
        return encode(kind, transform_region(state, tables, permutation, a, b), b, 0)
    if operands(kind) == 0:
        return move
    return encode(kind, permutation[a], b, 0)


@kernel
def transform_moves(state: State, tables: Tables, permutation: Permutation, moves: State, images: State) -> None:
    """The images of many moves of one state."""
    for index in range(moves.size):
        images[index] = transform_move(state, tables, permutation, moves[index])
