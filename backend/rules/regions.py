"""Territory: finding the regions a player may take, and taking one.

For each colour with a marker on the board the walls are the collapsed cells and the markers of that colour; for
border 0 the collapsed cells alone. A component of the other cells is a region when some colour that has a ring on
the board tops no stack in it; with border 0 exactly one colour must top a stack in it. A player may take a region
who can pay from a stack outside.
"""

from __future__ import annotations

import numpy as np

from backend.rules.jit import kernel
from backend.rules.layout import (
    CELL,
    ELIMINATED,
    EMPTY,
    M_REGION,
    MARKERS,
    RECOVERY,
    RINGS,
    STACK,
    STACKS,
    T_ADJACENT,
    T_CELLS,
    T_PLAYERS,
    TERRITORY,
    WALL,
    Moves,
    State,
    Tables,
    adjacent,
    controller,
    encode,
    height,
    ring,
    spread,
)
from backend.rules.lines import collapse_cell
from backend.rules.rays import emit
from backend.rules.stacks import holds_buried, replace_stack

FOUND = 32  # bit of a component in the table of components; the bits below are the marker colours inside


@kernel
def pays(word: int, player: int, recovering: bool) -> bool:
    """True when ``player`` could pay for a region with this cell's stack."""
    if word < STACK:
        return False
    if recovering:
        return holds_buried(word, player)
    return controller(word) == player


@kernel
def count_payable(state: State, tables: Tables, player: int, recovering: bool) -> int:
    """Stacks with which ``player`` could pay."""
    if not recovering:
        return int(state[STACKS + player])
    count = 0
    for cell in range(tables[T_CELLS]):
        if pays(state[CELL + cell], player, recovering):
            count += 1
    return count


@kernel
def flood(state: State, tables: Tables, start: int, border: int, mark: int, marks: State, queue: State) -> int:
    """Marks the component of ``start`` and lists its cells in ``queue``; returns how many they are."""
    neighbours = tables[T_ADJACENT]
    marks[start] = mark
    queue[0] = start
    size = 1
    at = 0
    while at < size:
        cell = queue[at]
        at += 1
        for index in range(neighbours):
            following = adjacent(tables, cell, index)
            if marks[following] == mark:
                continue
            word = state[CELL + following]
            if WALL <= word < STACK or (border > 0 and word == border):
                continue
            marks[following] = mark
            queue[size] = following
            size += 1
    return size


@kernel
def list_regions(state: State, tables: Tables, player: int, moves: Moves, first_only: bool) -> int:
    """Lists the regions that ``player`` may take, or only whether there is one.

    Regions with the same cells are listed once, under the least border colour.
    """
    players = tables[T_PLAYERS]
    colours = 0
    collapsed = 0
    for seat in range(1, players + 1):
        if state[RINGS + seat] > 0:
            colours += 1
        collapsed += state[TERRITORY + seat]
    recovering = state[RECOVERY] == 1
    payable = count_payable(state, tables, player, recovering)
    if payable == 0 or colours == 0:
        return 0
    cells = tables[T_CELLS]
    count = 0
    marks = np.zeros(cells + 1, np.int64)
    queue = np.empty(cells + 1, np.int64)
    components = np.zeros((players + 1, cells), np.uint8)
    for border in range(players + 1):
        if border == 0:
            if collapsed < 2 or colours == 1:
                continue
        elif state[MARKERS + border] == 0 or collapsed + state[MARKERS + border] < 2:
            continue  # the corner that is easiest to cut off has two neighbours
        mark = border + 1
        for start in range(cells):
            if marks[start] == mark:
                continue
            word = state[CELL + start]
            if WALL <= word < STACK or (border > 0 and word == border):
                continue
            size = flood(state, tables, start, border, mark, marks, queue)
            tops = 0
            inside = 0
            markers = 0
            for at in range(size):
                word = state[CELL + queue[at]]
                if word >= STACK:
                    tops |= 1 << controller(word)
                    if pays(word, player, recovering):
                        inside += 1
                elif word > 0:
                    markers |= 1 << word
            if inside == payable:
                continue
            represented = 0
            for seat in range(1, players + 1):
                represented += (tops >> seat) & 1
            if represented >= colours or (border == 0 and represented != 1):
                continue
            if first_only:
                return 1
            known = False
            for other in range(border):
                found = components[other, start]
                # Two components that share a cell are equal when neither holds a marker of the other's border.
                if found != 0 and (found * 2 >> border) & 1 == 0 and (other == 0 or (markers >> other) & 1 == 0):
                    known = True
            components[border, start] = FOUND | (markers >> 1)
            if not known:
                count = emit(moves, count, encode(M_REGION, start, border, 0))
    return count


@kernel
def can_take(state: State, tables: Tables, player: int) -> bool:
    """True when there is a region that ``player`` may take."""
    return list_regions(state, tables, player, np.empty(0, np.int64), True) > 0


@kernel
def region_with_border(
    state: State, tables: Tables, start: int, border: int, marks: State, queue: State
) -> tuple[int, int]:
    """Lists a region and then the markers that fall with it in ``queue``; returns both counts.

    ``marks`` must be zero; it is left with 1 in the region and 2 on its border.
    """
    size = flood(state, tables, start, border, 1, marks, queue)
    total = size
    for at in range(size):
        for index in range(tables[T_ADJACENT]):
            following = adjacent(tables, queue[at], index)
            if marks[following] == 0 and 0 < state[CELL + following] < WALL:
                marks[following] = 2
                queue[total] = following
                total += 1
    at = size
    while at < total:
        for index in range(8):
            following = spread(tables, queue[at], index)
            if marks[following] == 0 and 0 < state[CELL + following] < WALL:
                marks[following] = 2
                queue[total] = following
                total += 1
        at += 1
    return size, total - size


@kernel
def take_region(state: State, tables: Tables, start: int, border: int, player: int) -> None:
    """Gives a region and its border to ``player``, who is credited with every ring in it."""
    cells = tables[T_CELLS]
    marks = np.zeros(cells + 1, np.int64)
    queue = np.empty(cells + 1, np.int64)
    size, outer = region_with_border(state, tables, start, border, marks, queue)
    for at in range(size + outer):
        cell = queue[at]
        word = state[CELL + cell]
        if word >= STACK:
            for index in range(height(word)):
                state[RINGS + ring(word, index)] -= 1
            state[ELIMINATED + player] += height(word)
            replace_stack(state, cell, EMPTY)
        collapse_cell(state, cell, player)
