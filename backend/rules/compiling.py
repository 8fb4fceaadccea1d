"""Compiling everything once, and saying so."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from backend.configs import Config
from backend.rules import batch, layout, symmetry
from backend.rules.apply import apply_move
from backend.rules.geometry import build_tables, symmetries
from backend.rules.jit import CACHE
from backend.rules.legal import legal_into
from backend.rules.regions import region_with_border
from backend.rules.state import new_state

_STAMP = "compiled"
_ready = False


def is_compiled() -> bool:
    """True when the disk cache of these sources is complete."""
    return (CACHE / _STAMP).exists()


def run_everything() -> None:
    """Calls every kernel that Python calls, with the types it calls them with."""
    config = Config("hex8", 2)
    tables = build_tables(config)
    permutation = symmetries(config.board)[1]
    state = new_state(config)
    moves = np.empty(int(batch.buffer_size(tables)), np.int64)
    count = legal_into(state, tables, moves)
    symmetry.transform_state_into(state, tables, permutation, state.copy())
    symmetry.transform_move(state, tables, permutation, int(moves[0]))
    symmetry.transform_moves(state, tables, permutation, moves[:count], moves[:count].copy())
    region_with_border(state, tables, 0, 0, np.zeros(62, np.int64), np.zeros(62, np.int64))
    rows = np.stack([state, state])
    lists = np.empty((2, moves.size), np.int64)
    counts = np.empty(2, np.int64)
    batch.legal_batch(rows, tables, lists, counts)
    batch.apply_batch(rows, tables, lists[:, 0].copy())
    batch.advance_forced_batch(rows, tables, counts)
    apply_move(state, tables, int(moves[0]))
    batch.advance_forced(state, tables, moves)
    batch.hash_row(state)
    rng = np.array([1], np.uint64)
    batch.random_plies(state, new_state(config), tables, rng, 1)
    batch.playout(state, tables, rng)
    layout.encode(0, 0, 0, 0)


def _discard_old() -> None:
    """Removes the kernels of other sources that nobody completed or used for a month."""
    for folder in CACHE.parent.glob("kernels-*"):
        if folder != CACHE and time.time() - folder.stat().st_mtime > 30 * 86_400:
            shutil.rmtree(folder, ignore_errors=True)


def compile_all(*, quiet: bool = False) -> float:
    """Makes sure that every kernel is compiled; returns the seconds it took.

    Processes that find a cold cache at the same time compile once: the others wait for the first. ``quiet``, or
    ``RINGRIFT_QUIET=1`` in the environment, leaves out the line on stderr.
    """
    global _ready
    begin = time.perf_counter()
    if _ready:
        return 0.0
    CACHE.mkdir(parents=True, exist_ok=True)
    if not is_compiled():
        with open(CACHE / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_compiled():
                if not quiet and os.environ.get("RINGRIFT_QUIET") != "1":
                    sys.stderr.write("compiling the rules, once (about a minute)...\n")
                    sys.stderr.flush()
                run_everything()
                Path(CACHE / _STAMP).touch()
                _discard_old()
    _ready = True
    return time.perf_counter() - begin


if __name__ == "__main__":
    compile_all()
