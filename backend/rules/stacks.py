"""Stacks as words: adding and removing rings, and the counters of a row that follow them."""

from __future__ import annotations

from backend.rules.jit import kernel
from backend.rules.layout import (
    CAP_ONE,
    CELL,
    ELIMINATED,
    HEIGHT_ONE,
    RING_BITS,
    RINGS,
    STACK,
    STACKS,
    State,
    cap,
    controller,
    height,
)

LOW_PAIRS = 0x1555555555555  # the low bit of each of 25 rings


@kernel
def build(rings: int, count: int) -> int:
    """The word of ``count`` rings packed two bits each, top lowest; 0 for no ring."""
    if count == 0:
        return 0
    run = 1
    top = rings & 3
    while run < count and (rings >> (2 * run)) & 3 == top:
        run += 1
    return rings | count * HEIGHT_ONE | run * CAP_ONE


@kernel
def push_top(word: int, player: int) -> int:
    """The stack, or empty cell, with a ring of ``player`` on top."""
    count = height(word)
    run = 1
    if count > 0 and controller(word) == player:
        run = cap(word) + 1
    return ((word & RING_BITS) << 2) | (player - 1) | (count + 1) * HEIGHT_ONE | run * CAP_ONE


@kernel
def push_bottom(word: int, player: int) -> int:
    """The stack with a ring of ``player`` under it."""
    count = height(word)
    run = cap(word)
    if run == count and controller(word) == player:
        run += 1
    return (word & RING_BITS) | ((player - 1) << (2 * count)) | (count + 1) * HEIGHT_ONE | run * CAP_ONE


@kernel
def pop(word: int, count: int) -> int:
    """The stack without its ``count`` top rings; 0 when none is left."""
    return build((word & RING_BITS) >> (2 * count), height(word) - count)


@kernel
def holds(word: int, player: int) -> bool:
    """True when a stack has a ring of ``player`` anywhere."""
    pattern = (word & RING_BITS) ^ ((player - 1) * LOW_PAIRS)
    free = ~(pattern | (pattern >> 1)) & LOW_PAIRS
    return free & ((1 << (2 * height(word))) - 1) != 0


@kernel
def holds_buried(word: int, player: int) -> bool:
    """True when a stack has a ring of ``player`` under its top ring, whatever the top ring is."""
    pattern = (word & RING_BITS) ^ ((player - 1) * LOW_PAIRS)
    free = ~(pattern | (pattern >> 1)) & LOW_PAIRS & ~3
    return free & ((1 << (2 * height(word))) - 1) != 0


@kernel
def extract(word: int, player: int) -> int:
    """The stack without the bottommost ring of ``player``, which it must hold."""
    count = height(word)
    rings = word & RING_BITS
    at = count - 1
    while (rings >> (2 * at)) & 3 != player - 1:
        at -= 1
    low = rings & ((1 << (2 * at)) - 1)
    return build(low | ((rings >> (2 * at + 2)) << (2 * at)), count - 1)


@kernel
def replace_stack(state: State, cell: int, word: int) -> None:
    """Writes a stack or emptiness over a stack or emptiness, keeping the counts of controlled stacks.

    Rings that leave the board are the caller's to count.
    """
    old = state[CELL + cell]
    if old >= STACK:
        state[STACKS + controller(old)] -= 1
    if word >= STACK:
        state[STACKS + controller(word)] += 1
    state[CELL + cell] = word


@kernel
def eliminate_top(state: State, cell: int, count: int, player: int) -> None:
    """Eliminates ``count`` rings of one colour from the top of a stack, credited to ``player``."""
    word = state[CELL + cell]
    state[RINGS + controller(word)] -= count
    state[ELIMINATED + player] += count
    replace_stack(state, cell, pop(word, count))


@kernel
def eliminate_lowest(state: State, cell: int, player: int) -> None:
    """Eliminates the bottommost ring of ``player`` from a stack, credited to ``player``."""
    state[RINGS + player] -= 1
    state[ELIMINATED + player] += 1
    replace_stack(state, cell, extract(state[CELL + cell], player))
