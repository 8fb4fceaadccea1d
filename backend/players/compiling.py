"""Compiling the players' kernels once, and saying so."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backend.players import heuristic_kernels, live
from backend.players.features import FEATURES, WEIGHTS, build_places
from backend.players.once import compile_once
from backend.rules.engine import Rules


def run_everything(rules: Rules) -> None:
    """Calls every kernel that Python calls, with the types it calls them with."""
    places = build_places(rules.board)
    state = rules.new()
    moves = rules.legal(state)
    buffer = np.empty(rules.max_moves, np.int64)
    record = np.empty(2, np.int64)
    live.play_forced(state, rules.tables, buffer, record, 0)
    live.play_random(state.copy(), rules.tables, buffer, record, 0, np.zeros(1), 1)
    rows, out = np.empty(heuristic_kernels.SCRATCH_SIZE), np.empty(len(FEATURES))
    heuristic_kernels.features_into(state, rules.tables, places, 1, rows, out)
    heuristic_kernels.score_moves(state, rules.tables, places, WEIGHTS, moves, np.empty(moves.size))
    heuristic_kernels.choose_batch(
        state[None, :].copy(),
        rules.tables,
        places,
        WEIGHTS,
        np.zeros((1, 2)),
        0.0,
        0.0,
        buffer,
        np.empty(1, np.int64),
        np.empty((1, 1), np.float32),
        np.empty(1, np.int64),
    )


def compile_players(rules: Rules) -> None:
    """Makes sure that the players' kernels are compiled."""
    sources = tuple(Path(str(module.__file__)) for module in (heuristic_kernels, live))
    compile_once(
        "players", sources, "compiling the players, once (about half a minute)...", lambda: run_everything(rules)
    )
