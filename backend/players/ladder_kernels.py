"""Kernels of the ladder: what Heuristic thinks of positions, as priors and win chances for a search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.players.heuristic_kernels import SCRATCH_SIZE, score_moves, settle, soften, value_of
from backend.rules.apply import apply_move
from backend.rules.batch import buffer_size
from backend.rules.jit import kernel
from backend.rules.layout import OVER, PHASE, PLAYER, WINNER, Tables

_LEAST = np.float32(1e-30)


@kernel
def evaluate_positions(
    states: NDArray[np.int64],
    tables: Tables,
    places: NDArray[np.int16],
    weights: NDArray[np.float64],
    moves: NDArray[np.int64],
    counts: NDArray[np.int64],
    temperature: float,
    scale: float,
    weight: float,
    logits: NDArray[np.float32],
    values: NDArray[np.float64],
) -> None:
    """Logits of the legal moves and win chances by seat of running games.

    The win chances follow from the scores that Heuristic gives the position *after its own best move*, each seen by its
    seat: a softmax of ``weight * asinh((score - mean) / scale)``, because scores near a goal are a hundred times larger
    than others and say little more. A move that ends the game gives certainty.

    Args:
        states: int64[G, S].
        moves: int64[M], ``counts[g]`` legal moves of each position, one after the other.
        temperature: of the logits, in standard deviations of the scores.
        scale, weight: see above.
        logits: float32[M], written. values: float64[G, n], written.
    """
    players = values.shape[1]
    buffer = np.empty(buffer_size(tables), np.int64)
    after, trial = np.empty_like(states[0]), np.empty_like(states[0])
    rows, out = np.empty(SCRATCH_SIZE), np.empty(weights.size)
    at = 0
    for game in range(states.shape[0]):
        count = counts[game]
        scores = np.empty(count)
        score_moves(states[game], tables, places, weights, moves[at : at + count], scores)
        soften(scores, temperature, logits[at : at + count])
        best = 0
        for index in range(count):
            logits[at + index] = np.log(max(logits[at + index], _LEAST))
            if scores[index] > scores[best]:
                best = index
        after[:] = states[game]
        apply_move(after, tables, moves[at + best])
        settle(after, tables, places, weights, int(states[game, PLAYER]), buffer, trial, rows, out)
        at += count
        if after[PHASE] == OVER:
            for seat in range(players):
                values[game, seat] = 1.0 if after[WINNER] == seat + 1 else 0.0
            continue
        mean = 0.0
        for seat in range(players):
            values[game, seat] = value_of(after, tables, places, weights, seat + 1, rows, out)
            mean += values[game, seat] / players
        top = -np.inf
        for seat in range(players):
            values[game, seat] = weight * np.arcsinh((values[game, seat] - mean) / scale)
            top = max(top, values[game, seat])
        total = 0.0
        for seat in range(players):
            values[game, seat] = np.exp(values[game, seat] - top)
            total += values[game, seat]
        for seat in range(players):
            values[game, seat] /= total
