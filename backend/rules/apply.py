"""Carrying out a move."""

from __future__ import annotations

from backend.rules.jit import kernel
from backend.rules.layout import (
    ACTED,
    CAPTURE,
    CELL,
    CHAIN,
    CHAINING,
    EMPTY,
    HAND,
    LINE,
    LINE_ELIM,
    M_CAPTURE,
    M_CHAIN,
    M_FORCED,
    M_L1,
    M_L2,
    M_LINE_ELIM,
    M_MOVE,
    M_NO_LINE,
    M_NO_MOVE,
    M_NO_PLACE,
    M_NO_TERR,
    M_PLACE,
    M_RECOVERY_ELIM,
    M_REGION,
    M_SKIP_CAPTURE,
    M_SKIP_PLACE,
    M_SKIP_RECOVERY,
    M_SKIP_TERR,
    M_SWAP,
    M_TERR_ELIM,
    MARKERS,
    MOVE,
    MUST,
    PHASE,
    PLAYER,
    PLY,
    RECOVERY,
    RINGS,
    STACK,
    STACKS,
    SWAP_OPEN,
    SWAPPED,
    T_LINE,
    TERR,
    TERR_ELIM,
    WALL,
    State,
    Tables,
    cap,
    controller,
    direction_between,
    move_a,
    move_b,
    move_c,
    move_type,
    neighbour,
)
from backend.rules.lines import collapse_cell, collapse_run, has_line, run_end
from backend.rules.rays import can_capture
from backend.rules.recovery import apply_recovery
from backend.rules.regions import can_take, take_region
from backend.rules.stacks import eliminate_lowest, eliminate_top, pop, push_bottom, push_top, replace_stack
from backend.rules.turns import after_lines, after_territory, end_turn


@kernel
def cross(state: State, tables: Tables, origin: int, to: int, player: int) -> None:
    """Collapses own markers and flips others strictly between two cells of a ray."""
    direction = direction_between(tables, origin, to)
    cell = neighbour(tables, origin, direction)
    while cell != to:
        word = state[CELL + cell]
        if word == player:
            collapse_cell(state, cell, player)
        elif 0 < word < WALL:
            state[MARKERS + word] -= 1
            state[MARKERS + player] += 1
            state[CELL + cell] = player
        cell = neighbour(tables, cell, direction)


@kernel
def depart(state: State, origin: int, player: int) -> int:
    """Lifts the stack of ``origin``, leaves a marker there and returns the stack."""
    word = state[CELL + origin]
    replace_stack(state, origin, EMPTY)
    state[CELL + origin] = player
    state[MARKERS + player] += 1
    return int(word)


@kernel
def land(state: State, to: int, word: int, player: int) -> None:
    """Puts a stack down; a marker there costs its top ring."""
    marker = state[CELL + to]
    if marker > 0:
        state[MARKERS + marker] -= 1
        state[CELL + to] = EMPTY
    replace_stack(state, to, word)
    if marker > 0:
        eliminate_top(state, to, 1, player)


@kernel
def apply_place(state: State, cell: int, count: int, player: int) -> None:
    word = state[CELL + cell]
    for _ in range(count):
        word = push_top(word, player)
    replace_stack(state, cell, word)
    state[HAND + player] -= count
    state[RINGS + player] += count
    state[MUST] = cell
    state[PHASE] = MOVE


@kernel
def go_on_capturing(state: State, tables: Tables, cell: int, player: int, phase: int) -> None:
    """Enters ``phase`` when the stack on ``cell`` is still the player's and can capture, else the line phase."""
    word = state[CELL + cell]
    state[MUST] = -1
    if word >= STACK and controller(word) == player and can_capture(state, tables, cell):
        state[PHASE] = phase
        state[CHAIN] = cell
    else:
        state[PHASE] = LINE
        state[CHAIN] = -1


@kernel
def apply_move_stack(state: State, tables: Tables, origin: int, to: int, player: int) -> None:
    word = depart(state, origin, player)
    cross(state, tables, origin, to, player)
    land(state, to, word, player)
    go_on_capturing(state, tables, to, player, CAPTURE)


@kernel
def apply_capture(state: State, tables: Tables, origin: int, target: int, to: int, player: int) -> None:
    word = depart(state, origin, player)
    cross(state, tables, origin, target, player)
    cross(state, tables, target, to, player)
    taken = state[CELL + target]
    replace_stack(state, target, pop(taken, 1))
    land(state, to, push_bottom(word, controller(taken)), player)
    go_on_capturing(state, tables, to, player, CHAINING)


@kernel
def after_line(state: State, tables: Tables, player: int) -> None:
    """After a line that is paid for or free: the next line, or on without a word."""
    if not has_line(state, tables, player):
        after_lines(state, tables)


@kernel
def apply_line(state: State, tables: Tables, move: int, player: int) -> None:
    first = move_a(move)
    direction = direction_between(tables, first, move_b(move))
    if move_type(move) == M_L2:
        collapse_run(state, tables, move_c(move), direction, tables[T_LINE], player)
        after_line(state, tables, player)
        return
    _, length = run_end(state, tables, first, direction, player)
    collapse_run(state, tables, first, direction, length, player)
    if state[STACKS + player] > 0:
        state[PHASE] = LINE_ELIM
    else:
        after_line(state, tables, player)


@kernel
def apply_elimination(state: State, tables: Tables, kind: int, cell: int, player: int) -> None:
    if kind == M_LINE_ELIM:
        eliminate_top(state, cell, 1, player)
        state[PHASE] = LINE
    elif kind == M_FORCED:
        eliminate_top(state, cell, cap(state[CELL + cell]), player)
        end_turn(state, tables)
    else:
        if kind == M_TERR_ELIM:
            eliminate_top(state, cell, cap(state[CELL + cell]), player)
        else:
            eliminate_lowest(state, cell, player)
        if can_take(state, tables, player):
            state[PHASE] = TERR
        else:
            end_turn(state, tables)


@kernel
def apply_pass(state: State, tables: Tables, kind: int) -> None:
    """The moves that change nothing on the board."""
    if kind in (M_SKIP_PLACE, M_NO_PLACE):
        state[PHASE] = MOVE
    elif kind == M_SWAP:
        state[SWAPPED] = 1
    elif kind == M_NO_LINE:
        after_lines(state, tables)
    elif kind in (M_SKIP_TERR, M_NO_TERR):
        after_territory(state, tables)
    else:  # M_SKIP_CAPTURE, M_NO_MOVE, M_SKIP_RECOVERY
        state[PHASE] = LINE
        state[CHAIN] = -1
        state[MUST] = -1


@kernel
def is_pass(kind: int) -> bool:
    """True for the no-ops that do not count as acting, and for the swap of sides."""
    return kind in (M_SKIP_PLACE, M_NO_PLACE, M_SWAP, M_SKIP_CAPTURE, M_NO_MOVE) or kind in (
        M_SKIP_RECOVERY,
        M_NO_LINE,
        M_SKIP_TERR,
        M_NO_TERR,
    )


@kernel
def apply_move(state: State, tables: Tables, move: int) -> None:
    """Carries out a legal move in place. Nothing is checked."""
    kind = move_type(move)
    player = state[PLAYER]
    state[PLY] += 1
    if player == 2:
        state[SWAP_OPEN] = 0
    if is_pass(kind):
        apply_pass(state, tables, kind)
        return
    state[ACTED] = 1
    if kind == M_PLACE:
        apply_place(state, move_a(move), move_b(move), player)
    elif kind == M_MOVE:
        apply_move_stack(state, tables, move_a(move), move_b(move), player)
    elif kind in (M_CAPTURE, M_CHAIN):
        apply_capture(state, tables, move_a(move), move_b(move), move_c(move), player)
    elif kind in (M_L1, M_L2):
        apply_line(state, tables, move, player)
    elif kind == M_REGION:
        take_region(state, tables, move_a(move), move_b(move), player)
        state[PHASE] = TERR_ELIM
    elif kind in (M_LINE_ELIM, M_TERR_ELIM, M_RECOVERY_ELIM, M_FORCED):
        apply_elimination(state, tables, kind, move_a(move), player)
    else:
        apply_recovery(state, tables, move, player)
        state[RECOVERY] = 1
        state[PHASE] = LINE
