"""How often an equal model is staged, by simulation over games that are looked at again and again."""

from __future__ import annotations

import random

import pytest

from backend.configs import parse_config
from backend.evaluation.criteria import staging_rows
from backend.evaluation.evidence import Evidence, Played
from backend.evaluation.verdict import Outcome
from backend.thresholds import thresholds

MODELS = 120
LOOK_EVERY = 40
"""Games between two looks at the same model."""
CHAMPION = "c" * 64


def staged(config: str, chance: float, seed: int) -> bool:
    """Whether a model that wins each game with ``chance`` is staged at any look up to the end of the test."""
    made = parse_config(config)
    limits, dice = thresholds(made), random.Random(f"{config} {seed}")
    games: list[Played] = []
    for block in range(limits.sequential_games // made.players + 1):
        for seat in range(1, made.players + 1):
            won = dice.random() < chance
            games.append(
                Played(len(games) + 1, "neural:x", f"neural:{CHAMPION[:16]}:s16", seat, f"o{block}", won, False,
                       f"{len(games)}")
            )  # fmt: skip
        if block % (LOOK_EVERY // made.players) == 0 and block:
            rows = staging_rows(Evidence(tuple(games), len(games), "s16"), limits, made.players, CHAMPION)
            verdicts = {row.verdict for row in rows}
            if verdicts == {Outcome.PASS}:
                return True
            if Outcome.FAIL in verdicts:
                return False
    return False


@pytest.mark.parametrize("config", ["hex8_2p", "square8_3p", "hexagonal_4p"])
def test_an_equal_model_is_staged_one_time_in_twenty_at_most(config: str) -> None:
    equal = 1 / parse_config(config).players
    passed = sum(staged(config, equal, seed) for seed in range(MODELS))
    assert passed <= 0.05 * MODELS + 2 * (0.05 * 0.95 * MODELS) ** 0.5  # the seeds are fixed: it is the same each time
    better = {2: 0.64, 3: 0.47, 4: 0.37}[parse_config(config).players]  # odds of 100 Elo against each opponent
    assert sum(staged(config, better, seed) for seed in range(30)) >= 27
