"""How fast the engine is on one core."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from backend.configs import Config
from backend.rules import batch, load

STEP = 2_000  # decisions between two looks at the clock


@dataclass(frozen=True, slots=True)
class Measurement:
    """Speed of one config in random play on one core.

    Attributes:
        config: its key.
        decisions_per_s: legal list, uniform choice and apply; every phase action counts, the forced ones too.
        playouts_per_s: whole games from the start.
        plies_per_game: mean length of those games.
        seconds: time measured, both parts together.
    """

    config: str
    decisions_per_s: float
    playouts_per_s: float
    plies_per_game: float
    seconds: float


def measure(config: Config, seconds: float, seed: int = 1) -> Measurement:
    """Plays random games for about ``seconds``: half for decisions, half for whole games."""
    rules = load(config)
    rng = np.array([seed], np.uint64)
    start = rules.new()
    state = rules.new()
    batch.random_plies(state, start, rules.tables, rng, STEP)
    decisions, begin = 0, time.perf_counter()
    spent = 0.0
    while spent < seconds / 2:
        batch.random_plies(state, start, rules.tables, rng, STEP)
        decisions += STEP
        spent = time.perf_counter() - begin
    games = plies = 0
    begin = time.perf_counter()
    lasted = 0.0
    while lasted < seconds / 2:
        plies += batch.playout(start.copy(), rules.tables, rng)
        games += 1
        lasted = time.perf_counter() - begin
    return Measurement(config.key, decisions / spent, games / lasted, plies / games, spent + lasted)
