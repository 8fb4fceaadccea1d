"""The end of a turn: victory, the next player, last player standing."""

from __future__ import annotations

from backend.rules.jit import kernel
from backend.rules.layout import (
    ACTED,
    CHAIN,
    ELIMINATED,
    FORCED,
    GONE,
    HAND,
    LPS_BY_ROUNDS,
    LPS_COUNT,
    LPS_EARLY,
    LPS_FIRST,
    LPS_ONLY,
    LPS_REAL,
    LPS_ROUNDS,
    LPS_SEEN,
    MARKERS,
    MUST,
    OVER,
    PHASE,
    PLACE,
    PLAYER,
    REASON,
    RECOVERY,
    RING_ELIMINATION,
    RING_GOAL,
    RINGS,
    STACKS,
    STALE_ELIMINATED,
    STALE_LAST_ACTOR,
    STALE_MARKERS,
    STALE_TERRITORY,
    T_PLAYERS,
    T_TERRITORY_GOAL,
    TERR,
    TERRITORY,
    TERRITORY_CONTROL,
    TURN,
    WINNER,
    State,
    Tables,
)
from backend.rules.rays import can_place, real_action
from backend.rules.regions import can_take


@kernel
def has_rings(state: State, player: int) -> bool:
    """True while ``player`` has a ring in hand or anywhere on the board."""
    return bool(state[HAND + player] > 0 or state[RINGS + player] > 0)


@kernel
def sole_leader(state: State, block: int, plus: int, players: int) -> int:
    """The seat that alone has the most in a header block, hands added when ``plus`` is 1; 0 when shared or nothing."""
    best = 0
    leader = 0
    for seat in range(1, players + 1):
        value = state[block + seat] + plus * state[HAND + seat]
        if value > best:
            best = value
            leader = seat
        elif value == best:
            leader = 0
    return leader


@kernel
def finish(state: State, winner: int, reason: int) -> None:
    """Ends the game."""
    state[PHASE] = OVER
    state[PLAYER] = 0
    state[WINNER] = winner
    state[REASON] = reason
    state[MUST] = -1
    state[CHAIN] = -1


@kernel
def bare_board(state: State, tables: Tables, mover: int) -> tuple[int, int]:
    """Winner and reason on a board without a stack; (0, 0) while somebody can place."""
    players = tables[T_PLAYERS]
    hands = 0
    for seat in range(1, players + 1):
        if can_place(state, tables, seat):
            return 0, 0
        if state[HAND + seat] > 0:
            hands = 1
    leader = sole_leader(state, TERRITORY, 0, players)
    if leader > 0:
        return leader, STALE_TERRITORY
    leader = sole_leader(state, ELIMINATED, hands, players)
    if leader > 0:
        return leader, STALE_ELIMINATED
    leader = sole_leader(state, MARKERS, 0, players)
    if leader > 0:
        return leader, STALE_MARKERS
    return mover, STALE_LAST_ACTOR


@kernel
def verdict(state: State, tables: Tables, mover: int) -> tuple[int, int]:
    """Winner and reason after a turn of ``mover``; (0, 0) while the game goes on."""
    players = tables[T_PLAYERS]
    owned = 0
    for seat in range(1, players + 1):
        if state[ELIMINATED + seat] >= state[RING_GOAL]:
            return seat, RING_ELIMINATION
        owned += state[TERRITORY + seat]
    for seat in range(1, players + 1):
        mine = state[TERRITORY + seat]
        if mine >= tables[T_TERRITORY_GOAL] and mine > owned - mine:
            return seat, TERRITORY_CONTROL
    controlling = 0
    last = 0
    alive = 0
    for seat in range(1, players + 1):
        if state[STACKS + seat] > 0:
            controlling += 1
            last = seat
        if has_rings(state, seat):
            alive += 1
    if controlling == 1 and alive == 1:
        return last, LPS_EARLY
    if controlling > 0:
        return 0, 0
    return bare_board(state, tables, mover)


@kernel
def close_round(state: State, players: int) -> None:
    """Counts a finished round: did exactly one seat in play have a real action in it?"""
    only = 0
    count = 0
    for seat in range(1, players + 1):
        if has_rings(state, seat) and (state[LPS_REAL] >> seat) & 1:
            only = seat
            count += 1
    if count != 1:
        state[LPS_COUNT] = 0
        state[LPS_ONLY] = 0
    elif state[LPS_ONLY] == only:
        state[LPS_COUNT] += 1
    else:
        state[LPS_COUNT] = 1
        state[LPS_ONLY] = only
    state[LPS_SEEN] = 0
    state[LPS_REAL] = 0


@kernel
def track_standing(state: State, tables: Tables) -> None:
    """Last player standing, at the start of a turn; may end the game."""
    player = state[PLAYER]
    players = tables[T_PLAYERS]
    first = state[LPS_FIRST]
    if first == 0 or not has_rings(state, first):
        state[LPS_FIRST] = player
        state[LPS_SEEN] = 0
        state[LPS_REAL] = 0
        if state[LPS_ONLY] > 0 and not has_rings(state, state[LPS_ONLY]):
            state[LPS_COUNT] = 0
            state[LPS_ONLY] = 0
    elif player == first and state[LPS_SEEN] != 0:
        close_round(state, players)
    state[LPS_SEEN] |= 1 << player
    acts = real_action(state, tables, player)
    if not acts:
        return
    state[LPS_REAL] |= 1 << player
    if state[LPS_ONLY] != player or state[LPS_COUNT] < state[LPS_ROUNDS]:
        return
    for seat in range(1, players + 1):
        if seat != player and has_rings(state, seat) and real_action(state, tables, seat):
            return
    finish(state, player, LPS_BY_ROUNDS)


@kernel
def end_turn(state: State, tables: Tables) -> None:
    """Decides the game or hands the turn to the next seat with a ring."""
    mover = state[PLAYER]
    players = tables[T_PLAYERS]
    for seat in range(1, players + 1):
        if state[GONE + seat] == 0 and not has_rings(state, seat):
            state[GONE + seat] = state[TURN]
    winner, reason = verdict(state, tables, mover)
    if winner > 0:
        finish(state, winner, reason)
        return
    following = mover % players + 1
    while not has_rings(state, following):
        following = following % players + 1
    state[PLAYER] = following
    state[PHASE] = PLACE
    state[MUST] = -1
    state[CHAIN] = -1
    state[ACTED] = 0
    state[RECOVERY] = 0
    state[TURN] += 1
    track_standing(state, tables)


@kernel
def after_lines(state: State, tables: Tables) -> None:
    """Territory follows the lines; a player who did nothing and has no region goes straight to forced elimination."""
    player = state[PLAYER]
    if state[ACTED] == 0 and state[STACKS + player] > 0 and not can_take(state, tables, player):
        state[PHASE] = FORCED
    else:
        state[PHASE] = TERR


@kernel
def after_territory(state: State, tables: Tables) -> None:
    """A turn in which nothing was done costs its player a cap, if there is one."""
    if state[ACTED] == 0 and state[STACKS + state[PLAYER]] > 0:
        state[PHASE] = FORCED
    else:
        end_turn(state, tables)
