"""Bounds of a rating that are read again and again while games run: they are wrong as seldom as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.evaluation.rated_games import RatedGames
from backend.evaluation.rating_bounds import TIGHTEST, bounds
from backend.evaluation.rating_spec import ANCHOR, RatingSpec
from backend.evaluation.ratings import SCALE, rate, win_chance
from backend.evaluation.stats.score import Lineups, always_valid, growth, limit
from backend.thresholds import DEFAULT

MODEL, RANDOM, CHAMPION = "a" * 64 + ":s16", "random:1", "c" * 64 + ":s16"
SIMULATED = 60
PLAYERS = (ANCHOR, MODEL, RANDOM, CHAMPION)


def against(games: int, won: float, opponent: float = 0.0, players: int = 2, at: float = 0.0) -> Lineups:
    """Games with fixed opponents of one log-strength."""
    share = np.full(games, won / games)
    return Lineups(share, np.full((games, players - 1), opponent), np.zeros((games, players - 1)), at)


def test_the_limit_is_the_published_formula_and_least_for_its_size_where_it_is_to_be() -> None:
    r = 42 / (2 * math.log(10) + math.log(1 + 2 * math.log(10)))
    assert limit(42, 0.05, 42) == pytest.approx(
        math.sqrt(2 * (42 + r) * math.log(math.sqrt((42 + r) / r) / 0.1 + 1)), rel=1e-12
    )
    sizes = {v: limit(v, 0.05, 42) / math.sqrt(v) for v in np.geomspace(2, 1000, 200)}
    assert 30 <= min(sizes, key=sizes.__getitem__) <= 90


def test_the_limit_is_crossed_one_time_in_twenty_at_most_though_one_looks_after_every_game() -> None:
    """Exact, by dynamic programming over the number of wins, for 1,000 games against one fixed opponent."""
    for p in (0.36, 0.5, 0.7034, 0.9):
        alive, crossed = np.ones(1), 0.0  # chance of each number of wins that has not crossed yet
        for games in range(1, 1001):
            alive = np.concatenate([alive * (1 - p), [0.0]]) + np.concatenate([[0.0], alive * p])
            over = np.arange(games + 1) - games * p >= limit(games * p * (1 - p), 0.05, TIGHTEST)
            crossed += alive[over].sum()
            alive[over] = 0.0
        assert 0.01 < crossed <= 0.05


def test_bounds_are_the_strengths_whose_limit_the_score_just_reaches() -> None:
    games = against(200, 160, at=math.log(4))
    low, high = always_valid(games, 0.05, TIGHTEST)
    for end, sign in ((low, 1), (high, -1)):
        score, information = games.score(end)
        assert sign * score == pytest.approx(limit(information, 0.05, TIGHTEST), rel=1e-9)
    assert low < math.log(4) < high
    mirrored = always_valid(against(200, 40, at=-math.log(4)), 0.05, TIGHTEST)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


def test_one_who_wins_everything_is_bounded_from_below_alone_and_few_games_bound_nothing() -> None:
    low, high = always_valid(against(120, 120, at=6.0), 0.05, TIGHTEST)
    assert low * SCALE > 150 and high == math.inf
    assert always_valid(against(4, 4, at=1.0), 0.05, TIGHTEST) == (-math.inf, math.inf)
    assert always_valid(against(120, 0, at=-6.0), 0.05, TIGHTEST)[0] == -math.inf


def test_a_game_against_somebody_known_from_nothing_else_says_nothing() -> None:
    games = against(50, 45)
    moving = Lineups(games.won, games.others, np.ones((50, 1)), math.log(9))
    assert moving.score(0.0)[1] == moving.score(2.0)[1] == 0
    assert moving.score(0.0)[0] == pytest.approx(moving.score(3.0)[0], abs=1e-9)


def test_the_games_that_are_still_needed_come_out() -> None:
    games = against(100, 80)
    times = growth(games, math.log(0.7 / 0.3), 0.05, TIGHTEST)
    enough, few = round(100 * times * 1.02), round(100 * times / 1.03)
    start = math.log(0.7 / 0.3) - 1e-9
    assert always_valid(against(enough, 0.8 * enough, at=math.log(4)), 0.05, TIGHTEST)[0] >= start
    assert always_valid(against(few, 0.8 * few, at=math.log(4)), 0.05, TIGHTEST)[0] < start
    assert growth(games, math.log(9), 0.05, TIGHTEST) == math.inf


def tournament(
    rng: np.random.Generator, elo: dict[str, float], width: int, blocks: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Blocks of a gauntlet: the model in each seat once against copies of Heuristic, of Random and of the champion.

    In front stand games of the champion against Heuristic alone, as it has played them before.
    """
    rows = []
    for model, opponents, count in ((3, (0,), 30), (1, (0, 2, 3), blocks)):
        for _ in range(count):
            for opponent in opponents:
                for seat in range(width):
                    row = [opponent] * width
                    row[seat] = model
                    rows.append(row)
    seats = np.array(rows, dtype=np.int64)
    edge = np.linspace(30, -30, width)
    strength = (np.array([elo[name] for name in PLAYERS])[seats] + edge) / SCALE + rng.gumbel(size=seats.shape)
    return seats, (strength[:, :, None] < strength[:, None, :]).sum(2) + 1


def looked_at(seed: int, width: int, model: float) -> tuple[bool, bool]:
    """Whether the bounds of a model said at any look up to 400 games that it is above 1650, and that it is below."""
    rng = np.random.default_rng([seed, width])
    blocks = 400 // (3 * width)
    seats, ranks = tournament(rng, {ANCHOR: 1500, MODEL: model, RANDOM: 1000, CHAMPION: 1700}, width, blocks)
    before, block = 30 * width, 3 * width
    passed = failed = False
    for count in range(max(1, 24 // block), blocks + 1, max(1, 24 // block)):
        upto = before + count * block
        games = RatedGames(
            config="hex8_2p", players=PLAYERS, identities=PLAYERS, seq=np.arange(1, upto + 1), seats=seats[:upto],
            ranks=ranks[:upto], caps=np.zeros(upto, dtype=np.int64), game_ids=tuple(map(str, range(upto))),
            digests=(0,) * upto, voids=(),
        )  # fmt: skip
        ratings = rate(PLAYERS, games.seats, games.ranks, RatingSpec())
        found = bounds(ratings, games, MODEL, DEFAULT)
        passed, failed = passed or found.low >= DEFAULT.production_elo, failed or found.high < DEFAULT.production_elo
    return passed, failed


@pytest.mark.parametrize("width", [2, 3, 4])
def test_a_model_at_the_threshold_is_wrongly_judged_one_time_in_twenty_at_most(width: int) -> None:
    """Whole fits, with opponents that are estimated from the same games, looked at every 24 games."""
    found = [looked_at(seed, width, DEFAULT.production_elo) for seed in range(SIMULATED)]
    passed, failed = (sum(one[side] for one in found) for side in (0, 1))
    assert passed <= 0.05 * SIMULATED and failed <= 0.05 * SIMULATED  # the seeds are fixed: it is the same each time
    strong = [looked_at(seed, width, DEFAULT.production_elo + 150)[0] for seed in range(10)]
    assert sum(strong) >= 8
    assert win_chance(150) == pytest.approx(0.7034, abs=1e-4)
