"""Moves and captures along rays: whether a stack has any, and all of them."""

from __future__ import annotations

from backend.rules.jit import kernel
from backend.rules.layout import (
    CELL,
    HAND,
    M_CAPTURE,
    M_MOVE,
    STACK,
    STACKS,
    T_CELLS,
    T_DIRS,
    T_REACH,
    WALL,
    Moves,
    State,
    Tables,
    cap,
    controller,
    encode,
    height,
    neighbour,
)
from backend.rules.stacks import push_top


@kernel
def emit(moves: Moves, count: int, move: int) -> int:
    """Appends a move when there is room; returns the count with it either way."""
    if count < moves.size:
        moves[count] = move
    return count + 1


@kernel
def captures_beyond(state: State, tables: Tables, target: int, direction: int, distance: int, tall: int) -> bool:
    """True when a stack of height ``tall`` that meets ``target`` at ``distance`` can land beyond it."""
    cell = neighbour(tables, target, direction)
    distance += 1
    while state[CELL + cell] < WALL:
        if distance >= tall:
            return True
        cell = neighbour(tables, cell, direction)
        distance += 1
    return False


@kernel
def alive(state: State, tables: Tables, origin: int, tall: int, reach: int) -> bool:
    """True when a stack of height ``tall`` and cap ``reach`` standing on ``origin`` would have a move or a capture."""
    if tall > tables[T_REACH]:
        return False
    for direction in range(tables[T_DIRS]):
        cell = neighbour(tables, origin, direction)
        distance = 1
        word = state[CELL + cell]
        while word < WALL:
            if distance >= tall:
                return True
            cell = neighbour(tables, cell, direction)
            distance += 1
            word = state[CELL + cell]
        if word >= STACK and cap(word) <= reach and captures_beyond(state, tables, cell, direction, distance, tall):
            return True
    return False


@kernel
def can_act(state: State, tables: Tables, cell: int) -> bool:
    """True when the stack on ``cell`` has a move or a capture."""
    word = state[CELL + cell]
    return alive(state, tables, cell, height(word), cap(word))


@kernel
def can_capture(state: State, tables: Tables, origin: int) -> bool:
    """True when the stack on ``origin`` has a capture."""
    own = state[CELL + origin]
    tall = height(own)
    reach = cap(own)
    if tall > tables[T_REACH]:
        return False
    for direction in range(tables[T_DIRS]):
        cell = neighbour(tables, origin, direction)
        distance = 1
        while state[CELL + cell] < WALL:
            cell = neighbour(tables, cell, direction)
            distance += 1
        word = state[CELL + cell]
        if word >= STACK and cap(word) <= reach and captures_beyond(state, tables, cell, direction, distance, tall):
            return True
    return False


@kernel
def list_captures(state: State, tables: Tables, origin: int, kind: int, moves: Moves, count: int) -> int:
    """Appends the captures of the stack on ``origin`` as moves of type ``kind``."""
    own = state[CELL + origin]
    tall = height(own)
    reach = cap(own)
    if tall > tables[T_REACH]:
        return count
    for direction in range(tables[T_DIRS]):
        cell = neighbour(tables, origin, direction)
        distance = 1
        while state[CELL + cell] < WALL:
            cell = neighbour(tables, cell, direction)
            distance += 1
        word = state[CELL + cell]
        if word >= STACK and cap(word) <= reach:
            target = cell
            cell = neighbour(tables, cell, direction)
            distance += 1
            while state[CELL + cell] < WALL:
                if distance >= tall:
                    count = emit(moves, count, encode(kind, origin, target, cell))
                cell = neighbour(tables, cell, direction)
                distance += 1
    return count


@kernel
def list_stack(state: State, tables: Tables, origin: int, moves: Moves, count: int) -> int:
    """Appends the moves and first captures of the stack on ``origin``."""
    own = state[CELL + origin]
    tall = height(own)
    reach = cap(own)
    if tall > tables[T_REACH]:
        return count
    for direction in range(tables[T_DIRS]):
        cell = neighbour(tables, origin, direction)
        distance = 1
        word = state[CELL + cell]
        while word < WALL:
            if distance >= tall:
                count = emit(moves, count, encode(M_MOVE, origin, cell, 0))
            cell = neighbour(tables, cell, direction)
            distance += 1
            word = state[CELL + cell]
        if word >= STACK and cap(word) <= reach:
            target = cell
            cell = neighbour(tables, cell, direction)
            distance += 1
            while state[CELL + cell] < WALL:
                if distance >= tall:
                    count = emit(moves, count, encode(M_CAPTURE, origin, target, cell))
                cell = neighbour(tables, cell, direction)
                distance += 1
    return count


@kernel
def any_stack_acts(state: State, tables: Tables, player: int) -> bool:
    """True when some stack that ``player`` controls has a move or a capture."""
    left = state[STACKS + player]
    for cell in range(tables[T_CELLS]):
        if left == 0:
            return False
        word = state[CELL + cell]
        if word >= STACK and controller(word) == player:
            left -= 1
            if alive(state, tables, cell, height(word), cap(word)):
                return True
    return False


@kernel
def places_on(state: State, tables: Tables, cell: int, player: int) -> bool:
    """True when ``player`` may place one ring on ``cell``, the hand aside."""
    word = state[CELL + cell]
    if 0 < word < STACK:
        return False
    grown = push_top(word, player)
    return alive(state, tables, cell, height(grown), cap(grown))


@kernel
def can_place(state: State, tables: Tables, player: int) -> bool:
    """True when ``player`` has a ring in hand and a cell where placing one is legal."""
    if state[HAND + player] == 0:
        return False
    cell = 0
    while cell < tables[T_CELLS] and not places_on(state, tables, cell, player):
        cell += 1
    return cell < int(tables[T_CELLS])


@kernel
def real_action(state: State, tables: Tables, player: int) -> bool:
    """True when ``player`` can place, move or capture: what last player standing counts."""
    return can_place(state, tables, player) or any_stack_acts(state, tables, player)
