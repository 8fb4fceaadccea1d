"""Measures the fit of ratings: how long it takes beside a plain implementation, and how often its intervals cover.

    python benchmarks/ratings.py [--repeats N]

The plain implementation is the minorisation-maximisation of Hunter (2004) on the table of pair scores, with the same
virtual draws. It knows no seats and gives no standard errors; both must agree on the ratings where seats do not matter.
Times are processor time of one thread, so that a busy machine does not count.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.rating_spec import ANCHOR, RatingSpec
from backend.evaluation.ratings import SCALE, Ratings, rate

SIZES = ((100, 59_000), (500, 400_000))
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def random_games(rng: np.random.Generator, elo: Floats, games: int) -> tuple[Ints, Ints]:
    """Two-player games of uniformly drawn pairs."""
    first = rng.integers(0, len(elo), games)
    second = (first + rng.integers(1, len(elo), games)) % len(elo)
    seats = np.stack([first, second], axis=1)
    scores = elo[seats] / SCALE + rng.gumbel(size=seats.shape)
    return seats, 1 + (scores < scores.max(1, keepdims=True))


def block_games(rng: np.random.Generator, elo: Floats, edge: Floats, blocks: int) -> tuple[Ints, Ints]:
    """Each model against the anchor and three others, every block from every seat."""
    width, rows = len(edge), []
    for model in range(1, len(elo)):
        others = [other for other in range(1, len(elo)) if other != model]
        for opponent in [0, *rng.choice(others, 3, replace=False).tolist()]:
            for seat in range(width):
                row = [opponent] * width
                row[seat] = model
                rows += [row] * blocks
    seats = np.array(rows)
    scores = (elo[seats] + edge) / SCALE + rng.gumbel(size=seats.shape)
    return seats, (scores[:, :, None] < scores[:, None, :]).sum(2) + 1


def plain_fit(seats: Ints, ranks: Ints, players: int, anchor: int, tolerance: float = 1e-6) -> tuple[Floats, int]:
    """Elo by minorisation-maximisation until no rating moves by more than ``tolerance`` Elo a pass; the passes."""
    wins = np.zeros((players, players))
    for (one, other), (first, second) in zip(seats.tolist(), ranks.tolist(), strict=True):
        if first < second:
            wins[one, other] += 1
        else:
            wins[other, one] += 1
    met = wins + wins.T
    share = met / met.sum(1, keepdims=True)
    share[anchor] = 0.0
    wins += (share + share.T) / 2
    met = wins + wins.T
    strength, total = np.ones(players), wins.sum(1)
    for passes in range(1, 100_000):
        new = total / (met / (strength[:, None] + strength[None, :])).sum(1)
        new /= new[anchor]
        moved = np.abs(np.log(new / strength)).max() * SCALE
        strength = new
        if moved < tolerance:
            return 1500.0 + np.log(strength) * SCALE, passes
    raise ArithmeticError("no convergence")


def timed(function: Callable[[], object], repeats: int) -> tuple[float, object]:
    """The shortest processor time of some calls, in seconds, and the last result."""
    best, result = np.inf, None
    for _ in range(repeats):
        begin = time.process_time()
        result = function()
        best = min(best, time.process_time() - begin)
    return best, result


def measure_speed() -> None:
    print("| players | games | fit | plain | ratio | passes of plain | largest difference |")
    print("|---|---|---|---|---|---|---|")
    for players, games in SIZES:
        rng = np.random.default_rng(players)
        elo = np.append(0.0, rng.normal(100, 200, players - 1))
        seats, ranks = random_games(rng, elo, games)
        names = [ANCHOR, *(f"model{i:04d}" for i in range(1, players))]
        own, found = timed(lambda s=seats, r=ranks, n=names: rate(n, s, r, RatingSpec(seat_sd=1e-3)), 5)
        other, plain = timed(lambda s=seats, r=ranks, p=players: plain_fit(s, r, p, 0), 1)
        assert isinstance(found, Ratings) and isinstance(plain, tuple)
        by_name = dict(zip(found.players, found.elo, strict=True))
        gap = max(abs(by_name[name] - value) for name, value in zip(names, plain[0], strict=True))
        print(
            f"| {players} | {games:,} | {own * 1e3:.0f} ms | {other * 1e3:.0f} ms | {other / own:.1f} | {plain[1]} | "
            f"{gap:.3f} Elo |",
            flush=True,
        )


def measure_coverage(repeats: int) -> None:
    print("\n| players | games a model | likelihood | coverage of 95 % | of differences | bias | RMSE | mean SE |")
    print("|---|---|---|---|---|---|---|---|")
    names = [ANCHOR, *(f"model{i}" for i in range(1, 10))]
    for width in (2, 3, 4):
        for blocks in (3, 12):
            for spec in (RatingSpec(), RatingSpec(stages="ranking")):
                if width == 2 and spec.stages == "ranking":
                    continue
                hits, pairs, errors, spreads, count = [], [], [], [], 0
                for number in range(repeats):
                    rng = np.random.default_rng([width, blocks, number])
                    elo = np.append(0.0, rng.normal(100, 150, 9))
                    seats, ranks = block_games(rng, elo, np.linspace(30, -30, width), blocks)
                    found = rate(names, seats, ranks, spec)
                    gap = (found.elo - 1500 - elo)[1:]
                    hits.append(np.abs(gap) <= 1.96 * found.se[1:])
                    errors.append(gap)
                    spreads.append(found.se[1:])
                    difference, se = found.difference(1, 2)
                    pairs.append(abs(difference - (elo[1] - elo[2])) <= 1.96 * se)
                    count = int(found.games[1:].mean())
                print(
                    f"| {width} | {count} | {spec.stages} | {np.mean(hits):.1%} | {np.mean(pairs):.1%} | "
                    f"{np.mean(errors):+.1f} | {np.sqrt(np.mean(np.square(errors))):.1f} | {np.mean(spreads):.1f} |",
                    flush=True,
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=500, help="simulated tournaments a row of the coverage table")
    repeats: int = parser.parse_args().repeats
    measure_speed()
    measure_coverage(repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
