"""Recording games in the notation that :mod:`backend.rules.replay` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from backend.rules.engine import Rules
from backend.rules.layout import (
    CAPTURE,
    CHAIN,
    CHAINING,
    LPS_ROUNDS,
    PHASE,
    PHASE_NAMES,
    PLAYER,
    SUPPLY,
    SWAP_OPEN,
    T_TERRITORY_GOAL,
    TURN,
    Moves,
    State,
)
from backend.rules.replay import crc

Row = dict[str, Any]
Policy = Callable[[State, Moves, np.random.Generator], int]


def uniform(state: State, moves: Moves, rng: np.random.Generator) -> int:
    """Any legal move; no draw is spent where only one is legal."""
    return int(moves[0 if len(moves) == 1 else rng.integers(len(moves))])


def by_type(state: State, moves: Moves, rng: np.random.Generator) -> int:
    """A type of move first, then a move of that type: rare types come up more often."""
    if len(moves) == 1:
        return int(moves[0])
    kinds = moves & 31
    present = np.unique(kinds)
    return uniform(state, moves[kinds == present[rng.integers(len(present))]], rng)


POLICIES: dict[str, Policy] = {"uniform": uniform, "by_type": by_type}


def scattered(rules: Rules, rng: np.random.Generator) -> State:
    """A made-up position early in a turn, rich in rare moves: few rings, many markers and collapsed cells.

    Rings are conserved, nobody has won yet, and the player to act has a ring. In every third position the player
    to act controls no stack, so that recovery comes up.
    """
    seats = range(1, rules.players + 1)
    player = int(rng.integers(rules.players)) + 1
    landless = rng.random() < 1 / 3
    hands = [int(rng.integers(3)) if rng.random() < 0.5 else 0 for _ in seats]
    cells = rng.permutation(rules.cells).tolist()
    names = rules.notation.names
    stacks = {}
    for _ in range(int(rng.integers(2, 3 + rules.players + rules.cells // 16))):
        tall = int(min(rng.geometric(0.4), 6))
        rings = rng.integers(1, rules.players + 1, tall).tolist()
        if landless:
            rings[-1] = int(rng.choice([seat for seat in seats if seat != player]))
            if tall > 1 and rng.random() < 0.6:
                rings[0] = player
        stacks[cells.pop()] = "".join(map(str, rings))
    if str(player) not in "".join(stacks.values()):
        hands[player - 1] += 1
    filled = int(rng.integers(rules.cells * 3 // 4))
    most_owned = int(rules.tables[T_TERRITORY_GOAL]) - 1
    markers, collapsed, territory = [], [], [0] * rules.players
    chance = rng.random() * 0.8
    for cell in cells[:filled]:
        seat = int(rng.integers(rules.players)) + 1
        if rng.random() < chance and territory[seat - 1] < most_owned:
            collapsed.append(f"{names[cell]}:{seat}")
            territory[seat - 1] += 1
        else:
            markers.append(f"{names[cell]}:{seat}")
    left = sum(hands) + sum(map(len, stacks.values()))
    supply = -(-left // rules.players) + int(rng.integers(3))
    eliminated = [0] * rules.players
    for _ in range(supply * rules.players - left):
        eliminated[int(rng.integers(rules.players))] += 1
    fields = [",".join(map(str, numbers)) for numbers in (hands, eliminated, territory)]
    board = " ".join(f"{names[cell]}:{rings}" for cell, rings in stacks.items())
    text = "|".join(["place", str(player), "active", "0", *fields, board, " ".join(markers), " ".join(collapsed)])
    return rules.parse_text(text, swap=rules.players == 2 and bool(rng.integers(2)))


def _phase_text(rules: Rules, state: State) -> str:
    name = PHASE_NAMES[state[PHASE]]
    if state[PHASE] in (CAPTURE, CHAINING):
        return f"{name}@{rules.notation.names[state[CHAIN]]}"
    return name


def record_game(
    rules: Rules,
    start: State,
    rng: np.random.Generator,
    *,
    policy: str = "uniform",
    seed: int = 0,
    every: int = 8,
) -> Iterator[Row]:
    """Plays one game from ``start`` and yields its header, plies and end.

    Args:
        policy: a key of :data:`POLICIES`.
        seed: written into the header, to find the game again.
        every: the legal list and the state are written in full at every so many plies and at the last; at the others
            their checksums stand for them.
    """
    state = start.copy()
    yield {
        "k": "game",
        "board": rules.config.board,
        "n": rules.players,
        "seed": seed,
        "policy": policy,
        "swap": int(state[SWAP_OPEN]),
        "lpsRounds": int(state[LPS_ROUNDS]),
        "supply": int(state[SUPPLY]),
        "every": every,
        "init": rules.text(state),
    }
    ply = 0
    while not rules.over(state):
        moves = rules.legal(state)
        texts = sorted(rules.move_text(state, move) for move in moves.tolist())
        move = POLICIES[policy](state, moves, rng)
        row: Row = {"i": ply, "ph": _phase_text(rules, state), "cp": int(state[PLAYER]), "n": len(texts)}
        row |= {"lh": crc("\n".join(texts)), "mv": rules.move_text(state, move)}
        rules.apply(state, move, checked=False)
        text = rules.text(state)
        row["sh"] = crc(text)
        if ply % every == 0 or rules.over(state):
            row |= {"lg": texts, "s": text}
        yield row
        ply += 1
    yield {
        "k": "end",
        "plies": ply,
        "turns": int(state[TURN]) - 1,
        "winner": rules.winner(state),
        "reason": rules.reason(state),
        "rank": rules.ranking(state).tolist(),
    }


def row_text(row: Row) -> str:
    """A row as one line of a recording."""
    return json.dumps(row, separators=(",", ":")) + "\n"
