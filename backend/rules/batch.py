"""Kernels that step many games in one call, play games to their end and digest positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.rules.apply import apply_move
from backend.rules.jit import kernel
from backend.rules.layout import OVER, PHASE, T_CELLS, T_DIRS, Moves, State, Tables
from backend.rules.legal import legal_into

Words = NDArray[np.uint64]


@kernel
def next_below(rng: Words, limit: int) -> int:
    """A uniform number in ``0 .. limit - 1`` from a SplitMix64 generator, whose whole state is ``rng[0]``.

    SplitMix64 after Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014); the upper half
    of a draw is scaled to the range, which favours no number by more than ``limit / 2**32``.
    """
    word = rng[0] + np.uint64(0x9E3779B97F4A7C15)
    rng[0] = word
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    word = word ^ (word >> np.uint64(31))
    return int(((word >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32))


@kernel
def buffer_size(tables: Tables) -> int:
    """Moves that hold every list but the longest recovery ones: a landing cell and a direction fix at most one move
    and one capture."""
    return int(2 * tables[T_DIRS]) * int(tables[T_CELLS])


@kernel
def legal_batch(states: State, tables: Tables, moves: Moves, counts: Moves) -> None:
    """Legal moves of ``states[G, S]`` into ``moves[G, M]``, true counts into ``counts[G]``."""
    for game in range(states.shape[0]):
        counts[game] = legal_into(states[game], tables, moves[game])


@kernel
def apply_batch(states: State, tables: Tables, moves: Moves) -> None:
    """Applies one legal move to each game; games that are over stay as they are."""
    for game in range(states.shape[0]):
        if states[game, PHASE] != OVER:
            apply_move(states[game], tables, moves[game])


@kernel
def advance_forced(state: State, tables: Tables, moves: Moves) -> int:
    """Plays on while there is exactly one legal move; returns how many moves that were.

    Afterwards the game is over or the player to act has a choice.
    """
    plies = 0
    while state[PHASE] != OVER and legal_into(state, tables, moves) == 1:
        apply_move(state, tables, moves[0])
        plies += 1
    return plies


@kernel
def advance_forced_batch(states: State, tables: Tables, plies: Moves) -> None:
    """:func:`advance_forced` for each game, moves played into ``plies[G]``."""
    moves = np.empty(buffer_size(tables), np.int64)
    for game in range(states.shape[0]):
        plies[game] = advance_forced(states[game], tables, moves)


@kernel
def random_step(state: State, tables: Tables, rng: Words, moves: Moves) -> None:
    """Plays one uniformly random legal move."""
    count = legal_into(state, tables, moves)
    if count > moves.size:
        wide = np.empty(count, np.int64)
        legal_into(state, tables, wide)
        apply_move(state, tables, wide[next_below(rng, count)])
    else:
        apply_move(state, tables, moves[next_below(rng, count)])


@kernel
def playout(state: State, tables: Tables, rng: Words) -> int:
    """Plays uniformly random moves to the end of the game; returns the plies played."""
    moves = np.empty(buffer_size(tables), np.int64)
    plies = 0
    while state[PHASE] != OVER:
        random_step(state, tables, rng, moves)
        plies += 1
    return plies


@kernel
def random_plies(state: State, start: State, tables: Tables, rng: Words, decisions: int) -> int:
    """Plays ``decisions`` random moves on from ``state``, in place; returns the games finished.

    A finished game is followed by a new one from ``start``.
    """
    moves = np.empty(buffer_size(tables), np.int64)
    games = 0
    for _ in range(decisions):
        random_step(state, tables, rng, moves)
        if state[PHASE] == OVER:
            games += 1
            state[:] = start
    return games


@kernel
def hash_row(state: State) -> int:
    """A 64-bit digest of the whole row, as a signed number."""
    digest = np.uint64(0x9E3779B97F4A7C15)
    for index in range(state.size):
        digest = (digest ^ np.uint64(state[index])) * np.uint64(0xFF51AFD7ED558CCD)
        digest = digest ^ (digest >> np.uint64(32))
    return np.int64(digest)  # type: ignore[return-value]
