"""The legal placements."""

from __future__ import annotations

from backend.rules.jit import kernel
from backend.rules.layout import (
    CELL,
    HAND,
    M_NO_PLACE,
    M_PLACE,
    M_SKIP_PLACE,
    M_SWAP,
    MARKERS,
    RINGS,
    STACK,
    STACKS,
    SWAP_OPEN,
    T_CELLS,
    T_DIRS,
    WALL,
    Moves,
    State,
    Tables,
    encode,
    neighbour,
)
from backend.rules.rays import alive, any_stack_acts, emit, places_on


@kernel
def recovery_eligible(state: State, player: int) -> bool:
    """True when ``player`` controls no stack but has a marker and a ring on the board, which then is a buried one."""
    return bool(state[STACKS + player] == 0 and state[MARKERS + player] > 0 and state[RINGS + player] > 0)


@kernel
def free_run(state: State, tables: Tables, origin: int, enough: int) -> int:
    """Free cells from ``origin`` along its best ray; stops counting at ``enough``."""
    best = 0
    for direction in range(tables[T_DIRS]):
        cell = neighbour(tables, origin, direction)
        length = 0
        while length < enough and state[CELL + cell] < WALL:
            length += 1
            cell = neighbour(tables, cell, direction)
        if length > best:
            best = length
            if best == enough:
                return best
    return best


@kernel
def list_placements(state: State, tables: Tables, player: int, moves: Moves) -> int:
    """Lists the placement phase: no dead placement, larger counts only where a single ring is legal."""
    count = 0
    hand = state[HAND + player]
    if hand > 0:
        most = min(3, hand)
        for cell in range(tables[T_CELLS]):
            word = state[CELL + cell]
            if word == 0:
                free = free_run(state, tables, cell, most)
                if free == 0 and not alive(state, tables, cell, 1, 1):
                    continue
                for rings in range(1, most + 1):
                    if rings == 1 or free >= rings or alive(state, tables, cell, rings, rings):
                        count = emit(moves, count, encode(M_PLACE, cell, rings, 0))
            elif word >= STACK and places_on(state, tables, cell, player):
                count = emit(moves, count, encode(M_PLACE, cell, 1, 0))
        if state[STACKS + player] > 0:
            if any_stack_acts(state, tables, player):
                count = emit(moves, count, M_SKIP_PLACE)
        elif recovery_eligible(state, player):
            count = emit(moves, count, M_SKIP_PLACE)
    if count == 0:
        count = emit(moves, count, M_NO_PLACE)
    if state[SWAP_OPEN] == 1 and player == 2:
        count = emit(moves, count, M_SWAP)
    return count
