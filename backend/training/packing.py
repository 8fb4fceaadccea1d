"""Positions and whole games as packed bytes, and packed bytes as float planes: the kernels of the encoder.

All kernels that call one another lie in this file, because numba's disk cache looks at one file only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.rules.apply import apply_move
from backend.rules.jit import kernel
from backend.rules.layout import (
    ACTED,
    CELL,
    CHAIN,
    ELIMINATED,
    GONE,
    HAND,
    LPS_COUNT,
    LPS_FIRST,
    LPS_ONLY,
    LPS_ROUNDS,
    MARKERS,
    MUST,
    PHASE,
    PLAYER,
    RECOVERY,
    RING_GOAL,
    RINGS,
    STACK,
    STACKS,
    SUPPLY,
    SWAP_OPEN,
    SWAPPED,
    T_AXES,
    T_CELLS,
    T_LINE,
    T_PLAYERS,
    T_TERRITORY_GOAL,
    TERRITORY,
    WALL,
    cap,
    controller,
    height,
    ring,
)
from backend.rules.legal import legal_into

ENCODER_VERSION = "1"
"""Changes whenever the meaning of a packed byte, a plane or a global changes."""

PACKED = 9
"""Bytes a cell of a packed position: kind (0 off the board, 1 empty, 2..5 marker, 6..9 collapsed, 10..13 stack, by
seat), height, cap, seat + 1 of the ring under the cap (0 none), flags (1 must move, 2 captures on), rings of seats
0..3 in the stack."""

KINDS = 14
PLANES = 1 + (KINDS - 1) + 2 + 4 + 4 + 2 + 4
"""Float planes: on the board; one per kind but the first; height and cap in sixths; height 1, 2, 3, more; owner under
the cap, one per seat; must move; captures on; rings per seat in quarters."""

SEAT_GLOBALS = 10
PRESENT = 24
"""First column of the block of globals per seat; its columns 0 mod :data:`SEAT_GLOBALS` say whether a seat exists."""
GLOBALS = PRESENT + 4 * SEAT_GLOBALS


@kernel
def seat_of(player: int, mover: int, players: int) -> int:
    """Seat of ``player`` counted from ``mover`` (both 1-based), 0 .. players - 1."""
    return (player - mover + players) % players


@kernel
def pack_state(
    row: NDArray[np.int64],
    tables: NDArray[np.int16],
    places: NDArray[np.int32],
    packed: NDArray[np.uint8],
    scalars: NDArray[np.float32],
) -> None:
    """Writes one position: ``packed`` uint8[PACKED, area] and ``scalars`` float32[GLOBALS], both overwritten."""
    n = tables[T_PLAYERS]
    cells = tables[T_CELLS]
    mover = max(row[PLAYER], 1)
    packed[:] = 0
    scalars[:] = 0.0
    for cell in range(cells):
        word = row[CELL + cell]
        at = places[cell]
        if word == 0:
            packed[0, at] = 1
        elif word < WALL:
            packed[0, at] = 2 + seat_of(word, mover, n)
        elif word < STACK:
            packed[0, at] = 6 + seat_of(word - WALL, mover, n)
        else:
            tall = height(word)
            head = cap(word)
            packed[0, at] = 10 + seat_of(controller(word), mover, n)
            packed[1, at] = tall
            packed[2, at] = head
            if head < tall:
                packed[3, at] = 1 + seat_of(ring(word, head), mover, n)
            for i in range(tall):
                packed[5 + seat_of(ring(word, i), mover, n), at] += 1
    if row[MUST] >= 0:
        packed[4, places[row[MUST]]] |= 1
    if row[CHAIN] >= 0:
        packed[4, places[row[CHAIN]]] |= 2

    scalars[row[PHASE]] = 1.0  # 0..9
    scalars[10] = row[ACTED]
    scalars[11] = row[RECOVERY]
    scalars[12] = row[SWAP_OPEN]
    scalars[13] = row[SWAPPED]
    scalars[14] = n == 2
    scalars[15] = n == 3
    scalars[16] = n == 4
    scalars[17] = tables[T_LINE] / 4.0
    scalars[18] = tables[T_AXES] == 3
    scalars[19] = np.sqrt(cells) / 20.0
    scalars[20] = row[SUPPLY] / cells
    scalars[21] = row[LPS_COUNT] / max(row[LPS_ROUNDS], 1)
    scalars[22] = row[LPS_ROUNDS] / 3.0
    supply = max(row[SUPPLY], 1)
    goal = max(row[RING_GOAL], 1)
    for player in range(1, n + 1):
        at = PRESENT + SEAT_GLOBALS * seat_of(player, mover, n)
        scalars[at] = 1.0
        scalars[at + 1] = row[HAND + player] / supply
        scalars[at + 2] = row[ELIMINATED + player] / goal
        scalars[at + 3] = row[TERRITORY + player] / tables[T_TERRITORY_GOAL]
        scalars[at + 4] = row[MARKERS + player] * 4.0 / cells
        scalars[at + 5] = row[STACKS + player] * 4.0 / cells
        scalars[at + 6] = row[RINGS + player] / supply
        scalars[at + 7] = row[GONE + player] > 0
        scalars[at + 8] = row[LPS_ONLY] == player
        scalars[at + 9] = row[LPS_FIRST] == player


@kernel
def pack_states(
    states: NDArray[np.int64],
    chosen: NDArray[np.int64],
    tables: NDArray[np.int16],
    places: NDArray[np.int32],
    packed: NDArray[np.uint8],
    scalars: NDArray[np.float32],
) -> None:
    """:func:`pack_state` for rows ``chosen`` of ``states``, into the first rows of the outputs."""
    for i in range(len(chosen)):
        pack_state(states[chosen[i]], tables, places, packed[i], scalars[i])


@kernel
def unpack(packed: NDArray[np.uint8], sources: NDArray[np.int32], out: NDArray[np.float32]) -> None:
    """Float planes of one packed position seen through a symmetry.

    Args:
        packed: uint8[PACKED, area].
        sources: int32[area], a row of :attr:`Box.sources`.
        out: float32[PLANES, area], overwritten.
    """
    out[:] = 0.0
    for at in range(len(sources)):
        source = sources[at]
        kind = packed[0, source]
        if kind == 0:
            continue
        out[0, at] = 1.0
        out[kind, at] = 1.0
        tall = packed[1, source]
        if tall:
            out[14, at] = tall / 6.0
            out[15, at] = packed[2, source] / 6.0
            out[15 + min(tall, 4), at] = 1.0
            if packed[3, source]:
                out[19 + packed[3, source], at] = 1.0
            for seat in range(4):
                out[26 + seat, at] = packed[5 + seat, source] / 4.0
        flags = packed[4, source]
        if flags:
            out[24, at] = flags & 1
            out[25, at] = flags >> 1


@kernel
def unpack_batch(
    packed: NDArray[np.uint8],
    chosen: NDArray[np.int64],
    picks: NDArray[np.int64],
    sources: NDArray[np.int32],
    out: NDArray[np.float32],
) -> None:
    """:func:`unpack` of rows ``chosen`` of ``packed``, row i through symmetry ``picks[i]`` of ``sources``."""
    for i in range(len(chosen)):
        unpack(packed[chosen[i]], sources[picks[i]], out[i])


@kernel
def count_legal(
    state: NDArray[np.int64],
    tables: NDArray[np.int16],
    moves: NDArray[np.int64],
    buffer: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> int:
    """Plays ``moves`` from ``state`` (in place), writing how many legal moves there were at each.

    Returns the number of moves played: less than ``len(moves)`` when the next one is not legal.
    """
    for ply in range(len(moves)):
        if state[PLAYER] == 0:
            return ply
        found = legal_into(state, tables, buffer)
        if found > buffer.size:
            buffer = np.empty(found, np.int64)
            legal_into(state, tables, buffer)
        counts[ply] = found
        legal = False
        for i in range(found):
            if buffer[i] == moves[ply]:
                legal = True
                break
        if not legal:
            return ply
        apply_move(state, tables, moves[ply])
    return len(moves)


@kernel
def pack_game(
    state: NDArray[np.int64],
    tables: NDArray[np.int16],
    moves: NDArray[np.int64],
    keep: NDArray[np.bool_],
    places: NDArray[np.int32],
    buffer: NDArray[np.int64],
    packed: NDArray[np.uint8],
    scalars: NDArray[np.float32],
    legal: NDArray[np.int64],
    heads: NDArray[np.int64],
) -> None:
    """Plays ``moves`` from ``state`` and writes the kept positions.

    Args:
        legal: int64, the legal lists of the kept positions one after the other.
        heads: int64[n, 3]: player, phase and whether sides were swapped, at each kept position.
    """
    sample = 0
    at = 0
    for ply in range(len(moves)):
        if keep[ply]:
            found = legal_into(state, tables, buffer)
            if found > buffer.size:
                buffer = np.empty(found, np.int64)
                legal_into(state, tables, buffer)
            legal[at : at + found] = buffer[:found]
            at += found
            pack_state(state, tables, places, packed[sample], scalars[sample])
            heads[sample, 0] = state[PLAYER]
            heads[sample, 1] = state[PHASE]
            heads[sample, 2] = state[SWAPPED]
            sample += 1
        apply_move(state, tables, moves[ply])
