"""The kernels of Heuristic: features of a position, and the choice of a move by the scores of its successors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.rules.apply import apply_move
from backend.rules.batch import buffer_size
from backend.rules.jit import kernel
from backend.rules.layout import (
    CAPTURE,
    CELL,
    ELIMINATED,
    HAND,
    LPS_COUNT,
    LPS_ONLY,
    LPS_ROUNDS,
    MARKERS,
    OVER,
    PHASE,
    PLAYER,
    RING_GOAL,
    RINGS,
    STACK,
    STACKS,
    T_AXES,
    T_CELLS,
    T_DIRS,
    T_PLAYERS,
    T_TERRITORY_GOAL,
    TERRITORY,
    WALL,
    WINNER,
    Moves,
    State,
    Tables,
    cap,
    controller,
    height,
    neighbour,
)
from backend.rules.legal import legal_into
from backend.rules.recovery import list_recoveries

Scratch = NDArray[np.float64]

# Columns of the board block: cells at distance 1 (4 of them) and 2 (8), whether it is centre, coordinates (3).
NEAR, FAR, CENTRE, AXIS = 0, 4, 12, 13
SPAN = 32  # more than the largest coordinate of any board

# Rows of the scratch block, five columns each: column p is player p.
HEIGHT, CAPS, IN_CENTRE, MOBILE, FREE, CAN_ACT, LINES, LINKS, SAFETY, VALUE = range(10)
COUNTS = 10 * 5  # then per player and axis how many markers have each coordinate
SCRATCH_SIZE = COUNTS + 5 * 3 * SPAN

WON = 100_000.0  # score of a move that wins; the negative of it for one that ends the game for somebody else
TIE = 1e-6  # scores nearer than this are equal: sums in another order differ by less


@kernel
def is_own_marker(state: State, cell: int, player: int) -> bool:
    return bool(state[CELL + cell] == player)


@kernel
def add_stack(state: State, tables: Tables, places: NDArray[np.int16], cell: int, me: int, rows: Scratch) -> float:
    """Adds what a stack gives to its controller's columns; returns its part of *threats*."""
    word = state[CELL + cell]
    player, top, tall = controller(word), cap(word), height(word)
    rows[HEIGHT * 5 + player] += tall if tall <= 5 else 5 + 0.1 * (tall - 5)
    rows[CAPS * 5 + player] += top
    rows[IN_CENTRE * 5 + player] += places[cell, CENTRE]
    threat, mobile, free = 0.0, 0, 0
    for direction in range(tables[T_DIRS]):
        other = state[CELL + neighbour(tables, cell, direction)]
        if other < WALL:
            free += 1
            mobile += 1
        elif other >= STACK and controller(other) != player:
            if cap(other) <= top:
                mobile += 1
            if player == me:
                threat -= 0.5 * (cap(other) - top)
    rows[MOBILE * 5 + player] += mobile
    rows[FREE * 5 + player] += free if free > 0 else -5
    rows[CAN_ACT * 5 + player] += mobile > 0
    return threat


@kernel
def add_sight(state: State, tables: Tables, cell: int, me: int, out: Scratch) -> None:
    """Adds *exposed* and *overtakes* of a stack of ``me``: the first stack on each ray, over all else."""
    count = tables[T_CELLS]
    own = cap(state[CELL + cell])
    for direction in range(tables[T_DIRS]):
        at = neighbour(tables, cell, direction)
        while at != count and state[CELL + at] < STACK:
            at = neighbour(tables, at, direction)
        if at != count:
            word = state[CELL + at]
            if controller(word) != me:
                gap = cap(word) - own
                if gap > 0:
                    out[17] -= gap
                else:
                    out[18] -= gap


@kernel
def add_marker(state: State, tables: Tables, places: NDArray[np.int16], cell: int, player: int, rows: Scratch) -> None:
    """Adds what a marker gives to its player's columns. Runs are looked at forwards and counted for both directions."""
    count = tables[T_CELLS]
    for axis in range(tables[T_AXES]):
        first = neighbour(tables, cell, axis)
        if first == count:
            continue
        second = neighbour(tables, first, axis)
        if is_own_marker(state, first, player):
            rows[LINKS * 5 + player] += 2
            rows[LINES * 5 + player] += 2
            if second != count and is_own_marker(state, second, player):
                rows[LINES * 5 + player] += 4
                third = neighbour(tables, second, axis)
                if third != count and is_own_marker(state, third, player):
                    rows[LINES * 5 + player] += 10
        elif state[CELL + first] < WALL and second != count and is_own_marker(state, second, player):
            rows[LINKS * 5 + player] += 1
    worst = 0
    for column in range(NEAR, CENTRE):
        word = state[CELL + places[cell, column]]
        if word >= STACK and controller(word) != player:
            worst = 2 if column < FAR else 1
            break
    rows[SAFETY * 5 + player] -= worst
    base = COUNTS + player * 3 * SPAN
    for axis in range(3):
        rows[base + axis * SPAN + places[cell, AXIS + axis]] += 1


@kernel
def mean_distance(rows: Scratch, player: int, markers: int) -> float:
    """Mean over all pairs of markers of the sum of coordinate differences, from the counts per coordinate."""
    total = 0.0
    base = COUNTS + player * 3 * SPAN
    for axis in range(3):
        before, moment = 0.0, 0.0
        for value in range(SPAN):
            here = rows[base + axis * SPAN + value]
            if here > 0:
                total += here * (value * before - moment)
                before += here
                moment += here * value
    return total / (markers * (markers - 1) / 2)


@kernel
def proximity(state: State, tables: Tables, player: int) -> float:
    """How near a player is to winning: 0..100, 900..990 in a streak of sole mobility, 1000 at a goal."""
    if state[LPS_ONLY] == player and state[LPS_COUNT] > 0:
        if state[LPS_ROUNDS] <= 1 or state[LPS_COUNT] >= state[LPS_ROUNDS]:
            return 1000.0
        return float(1000.0 * (0.90 + 0.09 * min(1.0, state[LPS_COUNT] / (state[LPS_ROUNDS] - 1.0))))
    rings = state[RING_GOAL] - state[ELIMINATED + player]
    cells = tables[T_TERRITORY_GOAL] - state[TERRITORY + player]
    if rings <= 0 or cells <= 0:
        return 1000.0
    return float(50.0 / rings + 50.0 / cells)


@kernel
def recovery_value(state: State, tables: Tables, player: int) -> float:
    """Worth of a player's buried rings as a means to come back."""
    buried = state[RINGS + player] - state[STACKS + player]
    if state[STACKS + player] > 0 or state[MARKERS + player] == 0 or buried == 0:
        return float(0.9 * buried)
    slot = np.empty(1, dtype=np.int64)
    return 14.0 if list_recoveries(state, tables, player, slot) > 1 else 8.0


@kernel
def over_best(values: Scratch, row: int, me: int, players: int) -> float:
    """A player's value minus the largest of its opponents."""
    best = -np.inf
    for player in range(1, players + 1):
        if player != me:
            best = max(best, values[row * 5 + player])
    return float(values[row * 5 + me] - best)


@kernel
def over_sum(values: Scratch, row: int, me: int, players: int, share: float) -> float:
    """A player's value minus ``share`` of the sum of its opponents'."""
    total = 0.0
    for player in range(1, players + 1):
        if player != me:
            total += values[row * 5 + player]
    return float(values[row * 5 + me] - share * total)


@kernel
def over_best_word(state: State, block: int, me: int, players: int) -> float:
    """The same over a block of header words."""
    best = 0
    for player in range(1, players + 1):
        if player != me:
            best = max(best, state[block + player])
    return float(state[block + me] - best)


@kernel
def features_into(
    state: State, tables: Tables, places: NDArray[np.int16], me: int, rows: Scratch, out: Scratch
) -> None:
    """Writes all features of ``state`` as ``me`` sees them, in the order of :data:`backend.players.features.FEATURES`.

    Args:
        state: a running game's row.
        tables: the config's tables.
        places: of :func:`build_places`.
        me: seat, 1-based.
        rows: float64[SCRATCH_SIZE] of scratch.
        out: float64[len(FEATURES)].
    """
    players = int(tables[T_PLAYERS])
    share = 1.0 / (players - 1)
    rows[:] = 0.0
    out[:] = 0.0
    open_cells = 0
    for cell in range(tables[T_CELLS]):
        word = state[CELL + cell]
        if word >= STACK:
            out[7] += add_stack(state, tables, places, cell, me, rows)
            if controller(word) == me:
                add_sight(state, tables, cell, me, out)
        elif word < WALL:
            open_cells += 1
            if word > 0:
                add_marker(state, tables, places, cell, int(word), rows)
    out[1] = over_sum(rows, HEIGHT, me, players, share)
    out[2] = over_sum(rows, CAPS, me, players, share)
    out[6] = over_sum(rows, IN_CENTRE, me, players, 1.0)
    out[8] = over_sum(rows, MOBILE, me, players, 1.0)
    out[13] = over_best(rows, FREE, me, players)
    out[15] = over_best(rows, LINES, me, players)
    out[16] = over_best(rows, LINKS, me, players)
    out[20] = over_best(rows, SAFETY, me, players)
    out[4] = over_best_word(state, TERRITORY, me, players)
    out[5] = over_best_word(state, HAND, me, players)
    out[10] = over_best_word(state, MARKERS, me, players)
    out[9] = state[ELIMINATED + me]
    for player in range(1, players + 1):
        rows[VALUE * 5 + player] = state[STACKS + player]
    out[0] = over_sum(rows, VALUE, me, players, share)
    for player in range(1, players + 1):
        stacks = state[STACKS + player]
        rows[VALUE * 5 + player] = -50.0 if stacks == 0 else -10.0 if stacks == 1 else 2.0 * stacks
    out[3] = over_sum(rows, VALUE, me, players, share)
    for player in range(1, players + 1):
        markers = state[MARKERS + player]
        value = 0.0
        if markers > 1:
            value = 10.0 / max(1.0, mean_distance(rows, player, markers)) + 0.5 * markers
        rows[VALUE * 5 + player] = value
    out[19] = over_best(rows, VALUE, me, players)
    for player in range(1, players + 1):
        rows[VALUE * 5 + player] = recovery_value(state, tables, player)
    out[23] = over_best(rows, VALUE, me, players)
    add_race(state, tables, me, rows, out)
    add_stuck(state, me, players, open_cells, rows, out)


@kernel
def add_race(state: State, tables: Tables, me: int, rows: Scratch, out: Scratch) -> None:
    """*proximity*, *behind* and *leader*."""
    players = int(tables[T_PLAYERS])
    first, second = -np.inf, -np.inf
    own = proximity(state, tables, me)
    for player in range(1, players + 1):
        if player != me:
            value = proximity(state, tables, player)
            if value > first:
                first, second = value, first
            elif value > second:
                second = value
    out[11] = own - first
    out[12] = -max(0.0, first - own)
    if players > 2:
        out[14] = -(first - second)


@kernel
def add_stuck(state: State, me: int, players: int, open_cells: int, rows: Scratch, out: Scratch) -> None:
    """*stuck* and *actions*; an action is a stack that can step or overtake, or a placement."""
    idle = 0
    for player in range(1, players + 1):
        actions = rows[CAN_ACT * 5 + player]
        if state[HAND + player] > 0 and open_cells > 0:
            actions += 1
        stacks = state[STACKS + player]
        rows[VALUE * 5 + player] = 0.0 if stacks == 0 else max(0.0, 2.0 - actions / stacks)
        rows[CAN_ACT * 5 + player] = actions
        if player != me and actions == 0:
            idle += 1
    out[21] = -over_best(rows, VALUE, me, players)
    if players > 2:
        out[22] = -1.0 if rows[CAN_ACT * 5 + me] == 0 else idle / (players - 1)


@kernel
def value_of(
    state: State, tables: Tables, places: NDArray[np.int16], weights: Scratch, me: int, rows: Scratch, out: Scratch
) -> float:
    """The score of a position as ``me`` sees it; rows and out are scratch."""
    if state[PHASE] == OVER:
        return WON if state[WINNER] == me else -WON
    features_into(state, tables, places, me, rows, out)
    total = 0.0
    for feature in range(weights.size):
        total += weights[feature] * out[feature]
    return float(total)


@kernel
def settle(
    state: State,
    tables: Tables,
    places: NDArray[np.int16],
    weights: Scratch,
    me: int,
    buffer: Moves,
    trial: State,
    rows: Scratch,
    out: Scratch,
) -> None:
    """Plays what a move of ``me`` entails: forced moves, chain captures, lines, territory and payments.

    Where there are several ways, the best scored (the first of equals) is played. It stops where ``me`` may place,
    move or begin a capture, or somebody else is to act.
    """
    while state[PHASE] != OVER and state[PLAYER] == me:
        count = legal_into(state, tables, buffer)
        if count == 1:
            apply_move(state, tables, buffer[0])
            continue
        if state[PHASE] <= CAPTURE:
            break
        best, chosen = -np.inf, 0
        for index in range(count):
            trial[:] = state
            apply_move(trial, tables, buffer[index])
            value = value_of(trial, tables, places, weights, me, rows, out)
            if value > best + TIE:
                best, chosen = value, index
        apply_move(state, tables, buffer[chosen])


@kernel
def score_moves(
    state: State,
    tables: Tables,
    places: NDArray[np.int16],
    weights: Scratch,
    moves: Moves,
    scores: Scratch,
) -> None:
    """Scores each of ``moves`` for the player who is to act by the position it leads to, see :func:`settle`."""
    me = int(state[PLAYER])
    buffer = np.empty(buffer_size(tables), dtype=np.int64)
    after, trial = np.empty_like(state), np.empty_like(state)
    rows, out = np.empty(SCRATCH_SIZE), np.empty(weights.size)
    for index in range(moves.size):
        after[:] = state
        apply_move(after, tables, moves[index])
        settle(after, tables, places, weights, me, buffer, trial, rows, out)
        scores[index] = value_of(after, tables, places, weights, me, rows, out)


@kernel
def pick_best(scores: Scratch, draw: float) -> int:
    """Index of the largest score, ties broken evenly by ``draw`` in [0, 1)."""
    limit = scores.max() - TIE
    ties = 0
    for score in scores:
        ties += score >= limit
    chosen = int(draw * ties)
    for index in range(scores.size):
        if scores[index] >= limit:
            if chosen == 0:
                return index
            chosen -= 1
    return scores.size - 1


@kernel
def soften(scores: Scratch, temperature: float, weights: NDArray[np.float32]) -> None:
    """Writes the probabilities of a softmax over standardised scores.

    Among winning moves they are even; moves that lose at once get none unless all do. The rest is
    ``exp((score - best) / (temperature * spread))`` with the standard deviation of the scores as spread.
    """
    best = scores.max()
    total, squares, counted = 0.0, 0.0, 0
    for score in scores:
        if abs(score) < WON / 2:
            total += score
            squares += score * score
            counted += 1
    spread = 0.0
    if counted > 0:
        spread = np.sqrt(max(0.0, squares / counted - (total / counted) ** 2))
    scale = temperature * max(spread, 1e-3)
    mass = 0.0
    for index in range(scores.size):
        value = np.exp((scores[index] - best) / scale) if best - scores[index] < 80.0 * scale else 0.0
        weights[index] = value
        mass += value
    for index in range(scores.size):
        weights[index] /= mass


@kernel
def choose_batch(
    states: NDArray[np.int64],
    tables: Tables,
    places: NDArray[np.int16],
    weights: Scratch,
    draws: Scratch,
    epsilon: float,
    temperature: float,
    buffer: Moves,
    picks: Moves,
    policy: NDArray[np.float32],
    lengths: NDArray[np.int64],
) -> int:
    """One move per game: with chance ``epsilon`` any legal one, else one of the best scored.

    Args:
        draws: float64[G, 2] in [0, 1): the first decides on ``epsilon``, the second picks.
        temperature: of the probabilities that are written to ``policy``; 0 writes none.
        buffer: int64[M] of scratch for a legal list.
        picks: int64[G] of moves, written.
        policy: float32[G, M], its rows' first ``lengths`` entries written.
        lengths: int64[G], lengths of the legal lists, written.

    Returns:
        The longest legal list. When that is more than the buffer holds, nothing else counts.
    """
    scores = np.empty(buffer.size)
    for game in range(states.shape[0]):
        state = states[game]
        count = legal_into(state, tables, buffer)
        lengths[game] = count
        if count > buffer.size:
            return count
        if count == 1:
            picks[game] = buffer[0]
            policy[game, 0] = 1.0
            continue
        by_chance = draws[game, 0] < epsilon
        if not by_chance or temperature > 0:
            score_moves(state, tables, places, weights, buffer[:count], scores)
        if temperature > 0:
            soften(scores[:count], temperature, policy[game])
        if by_chance:
            picks[game] = buffer[int(draws[game, 1] * count)]
        else:
            picks[game] = buffer[pick_best(scores[:count], draws[game, 1])]
    return int(lengths.max())
