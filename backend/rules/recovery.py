"""Recovery slides: a player without a stack slides one marker and pays with a buried ring."""

from __future__ import annotations

from backend.rules.jit import kernel
from backend.rules.layout import (
    CELL,
    EMPTY,
    M_R1,
    M_R2,
    M_RF,
    M_RS,
    M_SKIP_RECOVERY,
    MARKERS,
    STACK,
    T_AXES,
    T_CELLS,
    T_DIRS,
    T_LINE,
    Moves,
    State,
    Tables,
    encode,
    move_a,
    move_b,
    move_c,
    move_type,
    neighbour,
)
from backend.rules.lines import collapse_run
from backend.rules.rays import emit
from backend.rules.stacks import eliminate_lowest, eliminate_top, holds_buried


@kernel
def slide_run(state: State, tables: Tables, origin: int, to: int, player: int) -> tuple[int, int, int]:
    """The run that a marker makes by sliding from ``origin`` to the empty cell ``to``.

    Returns its axis, first cell and length on the first axis where it is long enough, or ``(-1, to, 0)``.
    """
    axes = tables[T_AXES]
    for axis in range(axes):
        length = 1
        cell = neighbour(tables, to, axis)
        while cell != origin and state[CELL + cell] == player:
            length += 1
            cell = neighbour(tables, cell, axis)
        first = to
        cell = neighbour(tables, to, axis + axes)
        while cell != origin and state[CELL + cell] == player:
            length += 1
            first = cell
            cell = neighbour(tables, cell, axis + axes)
        if length >= tables[T_LINE]:
            return axis, first, length
    return -1, to, 0


@kernel
def list_paid(state: State, tables: Tables, kind: int, origin: int, to: int, player: int, moves: Moves, n: int) -> int:
    """Appends one slide for every stack that could pay for it."""
    for cell in range(tables[T_CELLS]):
        word = state[CELL + cell]
        if word >= STACK and holds_buried(word, player):
            n = emit(moves, n, encode(kind, origin, to, cell))
    return n


@kernel
def list_line_slides(state: State, tables: Tables, origin: int, to: int, player: int, moves: Moves, n: int) -> int:
    """Appends the slides from ``origin`` to ``to`` that complete a line: paid, and free windows of a longer one."""
    axis, first, length = slide_run(state, tables, origin, to, player)
    if length == 0:
        return n
    n = list_paid(state, tables, M_R1, origin, to, player, moves, n)
    window = tables[T_LINE]
    if length > window:
        before = 0
        cell = first
        while cell != to:
            before += 1
            cell = neighbour(tables, cell, axis)
        start = first
        for skipped in range(length - window + 1):
            if skipped <= before < skipped + window:
                n = emit(moves, n, encode(M_R2, origin, to, start))
            start = neighbour(tables, start, axis)
    return n


@kernel
def list_recoveries(state: State, tables: Tables, player: int, moves: Moves) -> int:
    """Lists the movement phase of an eligible player; line slides exclude all other slides."""
    dirs = tables[T_DIRS]
    count = emit(moves, 0, M_SKIP_RECOVERY)
    for origin in range(tables[T_CELLS]):
        if state[CELL + origin] == player:
            for direction in range(dirs):
                to = neighbour(tables, origin, direction)
                if state[CELL + to] == EMPTY:
                    count = list_line_slides(state, tables, origin, to, player, moves, count)
    if count > 1:
        return count
    for origin in range(tables[T_CELLS]):
        if state[CELL + origin] == player:
            for direction in range(dirs):
                to = neighbour(tables, origin, direction)
                word = state[CELL + to]
                if word == EMPTY:
                    count = list_paid(state, tables, M_RF, origin, to, player, moves, count)
                elif word >= STACK:
                    count = list_paid(state, tables, M_RS, origin, to, player, moves, count)
    return count


@kernel
def apply_recovery(state: State, tables: Tables, move: int, player: int) -> None:
    """Carries out a slide and its payment."""
    kind = move_type(move)
    origin = move_a(move)
    to = move_b(move)
    axis, first, length = -1, to, 0
    if kind != M_RS:
        axis, first, length = slide_run(state, tables, origin, to, player)
    state[CELL + origin] = EMPTY
    if kind == M_RS:
        state[MARKERS + player] -= 1
        eliminate_top(state, to, 1, player)
    else:
        state[CELL + to] = player
        if kind == M_R1:
            collapse_run(state, tables, first, axis, length, player)
        elif kind == M_R2:
            collapse_run(state, tables, move_c(move), axis, tables[T_LINE], player)
    if kind != M_R2:
        eliminate_lowest(state, move_c(move), player)
