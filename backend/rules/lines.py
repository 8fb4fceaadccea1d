"""Lines: finding, listing and collapsing runs of a player's own markers."""

from __future__ import annotations

from backend.rules.jit import kernel
from backend.rules.layout import (
    CELL,
    M_L1,
    M_L2,
    MARKERS,
    T_AXES,
    T_CELLS,
    T_LINE,
    TERRITORY,
    WALL,
    Moves,
    State,
    Tables,
    encode,
    neighbour,
)
from backend.rules.rays import emit


@kernel
def collapse_cell(state: State, cell: int, player: int) -> None:
    """Gives a cell that holds nothing or a marker to ``player`` for good."""
    word = state[CELL + cell]
    if word > 0:
        state[MARKERS + word] -= 1
    state[CELL + cell] = WALL + player
    state[TERRITORY + player] += 1


@kernel
def run_end(state: State, tables: Tables, cell: int, direction: int, player: int) -> tuple[int, int]:
    """Last cell and length of the run of markers of ``player`` that starts on ``cell``."""
    length = 1
    following = neighbour(tables, cell, direction)
    while state[CELL + following] == player:
        cell = following
        length += 1
        following = neighbour(tables, cell, direction)
    return cell, length


@kernel
def has_line(state: State, tables: Tables, player: int) -> bool:
    """True when ``player`` has a run of at least the line length."""
    least = tables[T_LINE]
    left = state[MARKERS + player]
    if left < least:
        return False
    axes = tables[T_AXES]
    for cell in range(tables[T_CELLS]):
        if state[CELL + cell] == player:
            for axis in range(axes):
                if state[CELL + neighbour(tables, cell, axis + axes)] != player:
                    _, length = run_end(state, tables, cell, axis, player)
                    if length >= least:
                        return True
            left -= 1
            if left == 0:
                break
    return False


@kernel
def list_lines(state: State, tables: Tables, player: int, moves: Moves) -> int:
    """Lists both options of every line of ``player``; 0 when there is none."""
    count = 0
    least = tables[T_LINE]
    left = state[MARKERS + player]
    if left < least:
        return 0
    axes = tables[T_AXES]
    for cell in range(tables[T_CELLS]):
        if state[CELL + cell] == player:
            for axis in range(axes):
                if state[CELL + neighbour(tables, cell, axis + axes)] == player:
                    continue
                last, length = run_end(state, tables, cell, axis, player)
                if length < least:
                    continue
                count = emit(moves, count, encode(M_L1, cell, last, 0))
                if length > least:
                    start = cell
                    for _ in range(length - least + 1):
                        count = emit(moves, count, encode(M_L2, cell, last, start))
                        start = neighbour(tables, start, axis)
            left -= 1
            if left == 0:
                break
    return count


@kernel
def collapse_run(state: State, tables: Tables, start: int, direction: int, length: int, player: int) -> None:
    """Collapses ``length`` cells from ``start`` on."""
    cell = start
    for _ in range(length):
        collapse_cell(state, cell, player)
        cell = neighbour(tables, cell, direction)
