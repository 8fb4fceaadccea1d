"""Recorded games as training samples: each replayed by the rules, its decisions packed by the encoder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import UnverifiedError
from backend.rules import load
from backend.rules.layout import (
    CELL,
    ELIMINATED,
    RING_GOAL,
    STACK,
    SWAPPED,
    T_TERRITORY_GOAL,
    TERRITORY,
    WALL,
)
from backend.training.encoder import box_of
from backend.training.game_record import GameRecord
from backend.training.packing import GLOBALS, PACKED, count_legal, pack_game


def most_samples(cells: int) -> int:
    """Decisions kept of one game: 200 on the small boards, which is nearly all, and 80 on the big ones.

    Neighbouring positions of a long game say much the same, and each costs six to ten times as much there.
    """
    return 200 if cells < 100 else 80


@dataclass(frozen=True, slots=True)
class GameSamples:
    """The samples of one game; arrays as in :mod:`backend.training.dataset`, with ``counts`` moves a sample."""

    per_sample: dict[str, NDArray[Any]]
    counts: NDArray[np.int64]
    policy_indices: NDArray[np.int64]
    policy_values: NDArray[np.float32]
    final_cells: NDArray[np.uint8]
    final_scores: NDArray[np.float32]


def game_samples(game: GameRecord, *, most: int | None = None) -> GameSamples:
    """The decisions of a finished game with more than one legal move, at most ``most`` of them
    (by default :func:`most_samples`).

    Raises:
        UnverifiedError: the moves do not replay to the recorded winner.
    """
    rules = load(game.config)
    box = box_of(rules.board.name)
    area = box.side * box.side
    start = rules.new(swap=game.swap, ring_supply=game.ring_supply, lps_rounds=game.lps_rounds)
    buffer = np.empty(rules.max_moves, dtype=np.int64)
    legal_counts = np.zeros(len(game.moves), dtype=np.int64)
    final = start.copy()
    played = count_legal(final, rules.tables, game.moves, buffer, legal_counts)
    if played != len(game.moves) or rules.winner(final) != game.winner:
        raise UnverifiedError(
            f"the game does not replay (move {played} of {len(game.moves)})",
            where=f"{game.config} game {game.game_id}",
            hint="it was recorded by another engine, or its database is damaged",
        )
    chosen = _choose(np.flatnonzero(legal_counts > 1), most or most_samples(rules.cells), game.game_id)
    keep = np.zeros(len(game.moves), dtype=np.bool_)
    keep[chosen] = True
    counts = legal_counts[chosen]
    packed = np.empty((len(chosen), PACKED, area), dtype=np.uint8)
    scalars = np.empty((len(chosen), GLOBALS), dtype=np.float32)
    legal = np.empty(int(counts.sum()), dtype=np.int64)
    heads = np.empty((len(chosen), 3), dtype=np.int64)
    pack_game(start, rules.tables, game.moves, keep, box.places, buffer, packed, scalars, legal, heads)

    counts, legal, targets = _policy(game, chosen, counts, legal)
    movers = heads[:, 0]
    exchanged = heads[:, 2] != final[SWAPPED]
    values_mp = np.stack([_rank_values(game, False), _rank_values(game, True)])[exchanged.astype(np.int64)]
    winners = np.where(exchanged, _exchange(game.winner), game.winner)
    size = len(chosen)
    per_sample: dict[str, NDArray[Any]] = {
        "features": packed.reshape(size, PACKED, box.side, box.side),
        "globals": scalars,
        "players": movers.astype(np.uint8),
        "winners": winners.astype(np.uint8),
        "values": values_mp[np.arange(size), movers - 1].astype(np.float32),
        "values_mp": values_mp.astype(np.float32),
        "num_players": np.full(size, rules.players, dtype=np.int32),
        "move_numbers": chosen.astype(np.int32),
        "total_game_moves": np.full(size, len(game.moves), dtype=np.int32),
        "phases": heads[:, 1].astype(np.uint8),
        "exchanged": exchanged.astype(np.uint8),
    }
    cells = final_owners(final, box.places, area)
    return GameSamples(
        per_sample, counts, legal, targets, cells.reshape(box.side, box.side), _final_scores(final, rules.tables)
    )


def _choose(decisions: NDArray[np.int64], most: int, game_id: str) -> NDArray[np.int64]:
    """At most ``most`` decisions, drawn by the game's identity so that the same game gives the same samples."""
    if len(decisions) <= most:
        return decisions
    seed = int.from_bytes(hashlib.sha256(game_id.encode()).digest()[:8], "big")
    drawn = np.random.Generator(np.random.PCG64(seed)).choice(decisions, most, replace=False)
    return np.sort(drawn)


def _policy(
    game: GameRecord, chosen: NDArray[np.int64], counts: NDArray[np.int64], legal: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Moves and target probabilities of the positions where somebody chose: soft where recorded, else the move made.

    Raises:
        UnverifiedError: recorded probabilities do not belong to the legal list.
    """
    starts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts)))
    kept_counts = np.zeros_like(counts)
    moves: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.float32]] = []
    for i, ply in enumerate(chosen):
        listed = legal[starts[i] : starts[i + 1]]
        if game.policy is not None:
            soft = game.policy.of(int(ply))
            if not len(soft):
                continue
            if len(soft) != len(listed):
                raise UnverifiedError(
                    f"{len(soft)} recorded probabilities for {len(listed)} legal moves",
                    where=f"{game.config} game {game.game_id} move {ply}",
                )
            target = soft.astype(np.float32)
        elif ply < game.opening:
            continue
        else:
            target = (listed == game.moves[ply]).astype(np.float32)
        kept_counts[i] = len(listed)
        moves.append(listed)
        targets.append(target)
    if not moves:
        return kept_counts, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    return kept_counts, np.concatenate(moves), np.concatenate(targets)


def _exchange(player: int) -> int:
    return 3 - player if player in (1, 2) else player


def _rank_values(game: GameRecord, exchanged: bool) -> NDArray[np.float32]:
    """``1 - 2 (rank - 1) / (n - 1)`` per player, 0 for absent ones; seats 1 and 2 exchanged on request."""
    values = np.zeros(4, dtype=np.float32)
    ranks = np.array(game.ranking, dtype=np.float32)
    values[: len(ranks)] = 1.0 - 2.0 * (ranks - 1.0) / (len(ranks) - 1)
    if exchanged:
        values[:2] = values[1::-1]
    return values


def final_owners(state: NDArray[np.int64], places: NDArray[np.int32], area: int) -> NDArray[np.uint8]:
    """uint8[area]: who holds each cell (collapsed, marker or top ring), 0 nobody, 255 off the board."""
    words = state[CELL : CELL + len(places)]
    owners = np.where(words >= STACK, (words & 3) + 1, np.where(words > WALL, words - WALL, words))
    cells = np.full(area, 255, dtype=np.uint8)
    cells[places] = owners
    return cells


def _final_scores(state: NDArray[np.int64], tables: NDArray[np.int16]) -> NDArray[np.float32]:
    scores = np.zeros((4, 2), dtype=np.float32)
    scores[:, 0] = state[ELIMINATED + 1 : ELIMINATED + 5] / max(int(state[RING_GOAL]), 1)
    scores[:, 1] = state[TERRITORY + 1 : TERRITORY + 5] / int(tables[T_TERRITORY_GOAL])
    return scores
