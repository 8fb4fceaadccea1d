"""The legal moves of any position."""

from __future__ import annotations

from backend.rules.jit import kernel
from backend.rules.layout import (
    CAPTURE,
    CELL,
    CHAIN,
    CHAINING,
    FORCED,
    LINE,
    LINE_ELIM,
    M_CAPTURE,
    M_CHAIN,
    M_FORCED,
    M_LINE_ELIM,
    M_NO_LINE,
    M_NO_MOVE,
    M_NO_TERR,
    M_RECOVERY_ELIM,
    M_SKIP_CAPTURE,
    M_SKIP_TERR,
    M_TERR_ELIM,
    MOVE,
    MUST,
    PHASE,
    PLACE,
    PLAYER,
    RECOVERY,
    STACK,
    STACKS,
    T_CELLS,
    TERR,
    TERR_ELIM,
    Moves,
    State,
    Tables,
    controller,
    encode,
)
from backend.rules.lines import list_lines
from backend.rules.placement import list_placements, recovery_eligible
from backend.rules.rays import emit, list_captures, list_stack
from backend.rules.recovery import list_recoveries
from backend.rules.regions import list_regions, pays


@kernel
def list_movement(state: State, tables: Tables, player: int, moves: Moves) -> int:
    """Lists the movement phase."""
    if state[MUST] >= 0:
        return list_stack(state, tables, state[MUST], moves, 0)
    if recovery_eligible(state, player):
        return list_recoveries(state, tables, player, moves)
    count = 0
    left = state[STACKS + player]
    for cell in range(tables[T_CELLS]):
        if left == 0:
            break
        word = state[CELL + cell]
        if word >= STACK and controller(word) == player:
            count = list_stack(state, tables, cell, moves, count)
            left -= 1
    if count == 0:
        count = emit(moves, count, M_NO_MOVE)
    return count


@kernel
def list_payments(state: State, tables: Tables, player: int, kind: int, recovering: bool, moves: Moves) -> int:
    """Lists one elimination for every stack that may pay."""
    count = 0
    for cell in range(tables[T_CELLS]):
        if pays(state[CELL + cell], player, recovering):
            count = emit(moves, count, encode(kind, cell, 0, 0))
    return count


@kernel
def legal_into(state: State, tables: Tables, moves: Moves) -> int:
    """Writes the legal moves into ``moves`` and returns how many there are, 0 when the game is over.

    At most ``moves.size`` are written; a larger result says that the buffer was too small. The order is a function
    of the position.
    """
    phase = state[PHASE]
    player = state[PLAYER]
    count = 0
    if phase == PLACE:
        count = list_placements(state, tables, player, moves)
    elif phase == MOVE:
        count = list_movement(state, tables, player, moves)
    elif phase == CAPTURE:
        count = list_captures(state, tables, state[CHAIN], M_CAPTURE, moves, 0)
        count = emit(moves, count, M_SKIP_CAPTURE)
    elif phase == CHAINING:
        count = list_captures(state, tables, state[CHAIN], M_CHAIN, moves, 0)
    elif phase == LINE:
        count = list_lines(state, tables, player, moves)
        if count == 0:
            count = emit(moves, count, M_NO_LINE)
    elif phase == LINE_ELIM:
        count = list_payments(state, tables, player, M_LINE_ELIM, False, moves)
    elif phase == TERR:
        count = list_regions(state, tables, player, moves, False)
        count = emit(moves, count, M_SKIP_TERR if count > 0 else M_NO_TERR)
    elif phase == TERR_ELIM:
        recovering = state[RECOVERY] == 1
        kind = M_RECOVERY_ELIM if recovering else M_TERR_ELIM
        count = list_payments(state, tables, player, kind, recovering, moves)
    elif phase == FORCED:
        count = list_payments(state, tables, player, M_FORCED, False, moves)
    return count
