"""Moves as the operands of the policy head.

A move's logit is a sum of parts that the network computes per position: a pooled number for its *slot* (its kind), one
number from a plane at each cell that the move names, and products of vectors at its first cell, its destination and
its target. A symmetry of the board therefore acts on a move just by moving its cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.rules.jit import kernel
from backend.rules.layout import (
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
    MOVE_TYPES,
    move_a,
    move_b,
    move_c,
    move_type,
)

SLOTS = MOVE_TYPES + 2 + 4
"""Kinds of moves told apart: the move types, placements by count, regions by the border colour's seat."""
_PLACE_MORE = MOVE_TYPES  # placements of 2 and 3 rings
_REGION_OF = MOVE_TYPES + 2  # regions bordered by seat 0..3; the bare type is a region without border colour

COLUMNS = 7
"""Operands of a move: slot; plane entries of its cells a, b, c; first cell, destination, target as box places."""


def _planes() -> tuple[NDArray[np.int64], int]:
    """For each slot the planes read at operands a, b and c (-1 none), and how many planes there are."""
    table = np.full((SLOTS, 3), -1, dtype=np.int64)
    count = 0
    operands: dict[int, str] = {
        M_PLACE: "a", _PLACE_MORE: "a", _PLACE_MORE + 1: "a", M_MOVE: "ab", M_CAPTURE: "abc", M_CHAIN: "abc",
        M_R1: "abc", M_R2: "abc", M_RF: "abc", M_RS: "abc", M_L1: "a", M_L2: "ac",
        M_LINE_ELIM: "a", M_TERR_ELIM: "a", M_RECOVERY_ELIM: "a", M_FORCED: "a", M_REGION: "a",
    }  # fmt: skip
    operands |= {_REGION_OF + seat: "a" for seat in range(4)}
    for slot, names in operands.items():
        for name in names:
            table[slot, "abc".index(name)] = count
            count += 1
    for slot in (M_L1, M_L2):  # both ends of a line mean the same
        table[slot, 1] = table[slot, 0]
    table.setflags(write=False)
    return table, count


PLANE_TABLE, POLICY_PLANES = _planes()


@kernel
def slot_of(move: int, mover: int, players: int) -> int:
    """The slot of a move made by ``mover``."""
    kind = move_type(move)
    if kind == M_PLACE and move_b(move) > 1:
        return _PLACE_MORE + move_b(move) - 2
    if kind == M_REGION and move_b(move) > 0:
        return _REGION_OF + (move_b(move) - mover + players) % players
    return kind


@kernel
def write_operands(
    move: int,
    mover: int,
    players: int,
    places: NDArray[np.int32],
    targets: NDArray[np.int32],
    plane_table: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    """Operands of one move into ``out`` int64[COLUMNS].

    ``targets`` is a row of :attr:`backend.training.encoder.Box.targets`: the symmetry through which the move is seen;
    its last entry, ``area``, is the place "nowhere". An absent plane entry is ``planes * area``.
    """
    area = len(targets) - 1
    nowhere = plane_table.max() * area + area
    slot = slot_of(move, mover, players)
    out[0] = slot
    out[1] = out[2] = out[3] = nowhere
    out[4] = out[5] = out[6] = area
    if plane_table[slot, 0] < 0:
        return
    a = targets[places[move_a(move)]]
    out[1] = plane_table[slot, 0] * area + a
    out[4] = a
    kind = move_type(move)
    if plane_table[slot, 1] >= 0:
        b = targets[places[move_b(move)]]
        out[2] = plane_table[slot, 1] * area + b
        if kind in (M_CAPTURE, M_CHAIN):
            out[6] = b
        else:
            out[5] = b
    if plane_table[slot, 2] >= 0:
        c = targets[places[move_c(move)]]
        out[3] = plane_table[slot, 2] * area + c
        if kind in (M_CAPTURE, M_CHAIN):
            out[5] = c


@kernel
def write_all_operands(
    moves: NDArray[np.int64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    movers: NDArray[np.int64],
    players: int,
    places: NDArray[np.int32],
    targets: NDArray[np.int32],
    plane_table: NDArray[np.int64],
    out: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> int:
    """Operands of the moves of many positions, one after the other.

    Position i has moves ``moves[starts[i] : starts[i] + counts[i]]`` and player ``movers[i]`` to act; ``targets`` is
    int32[G, area + 1], one symmetry a position. Writes ``out`` int64[M, COLUMNS] and ``rows`` int64[M], the position
    of each move; returns M.
    """
    done = 0
    for i in range(len(starts)):
        for j in range(counts[i]):
            write_operands(moves[starts[i] + j], movers[i], players, places, targets[i], plane_table, out[done])
            rows[done] = i
            done += 1
    return done
