"""What bounds that hold at every look cost: the chance that a model has passed 1650 after so many games.

    python benchmarks/bounds.py

Exact, by dynamic programming over the games won against Heuristic, with a look after each game from the contract's
hundredth on. The table stands in docs/ratings.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from backend.evaluation.rating_bounds import TIGHTEST
from backend.evaluation.ratings import win_chance
from backend.evaluation.stats.score import limit
from backend.thresholds import DEFAULT

TRUE_ELO = (1650, 1675, 1700, 1725, 1750, 1800)
AFTER = (200, 400, 800)


def passed(elo: float) -> dict[int, float]:
    """Chance that a model of a true rating was above the limit at any look up to each number of games."""
    p, wanted = win_chance(elo - DEFAULT.anchor_elo), win_chance(DEFAULT.production_elo - DEFAULT.anchor_elo)
    alive, crossed, found = np.ones(1), 0.0, {}
    for games in range(1, max(AFTER) + 1):
        alive = np.concatenate([alive * (1 - p), [0.0]]) + np.concatenate([[0.0], alive * p])
        if games >= DEFAULT.production_games:
            score = np.arange(games + 1) - games * wanted
            over = score >= limit(games * wanted * (1 - wanted), DEFAULT.sequential_error, TIGHTEST)
            crossed += float(alive[over].sum())
            alive[over] = 0.0
        if games in AFTER:
            found[games] = crossed
    return found


def main() -> int:
    print("| true rating | wins against Heuristic |", *(f"within {n} |" for n in AFTER))
    for elo in TRUE_ELO:
        share, found = win_chance(elo - DEFAULT.anchor_elo), passed(elo)
        print(f"| {elo} | {share:.0%} |", *(f"{found[n]:.1%} |" for n in AFTER))
    return 0


if __name__ == "__main__":
    sys.exit(main())
