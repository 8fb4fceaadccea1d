"""Recorded games for the tests of datasets and training: random play by the real rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backend.configs import Config, parse_config
from backend.paths import Paths
from backend.rules import ENGINE_VERSION, load
from backend.rules.layout import M_SWAP
from backend.training.export import export
from backend.training.game_record import GameRecord, PolicyTargets, Seat
from backend.training.games_db import GamesDb, Slot

MakeGame = Callable[..., GameRecord]


def play_randomly(
    config: Config, index: int, *, opening: int = 0, soft: bool = False, swap: bool = False
) -> GameRecord:
    """One game of uniformly random play.

    With ``soft``, probabilities are recorded at every decision after the opening; with ``swap``, sides are swapped.
    """
    rules = load(config)
    rng = np.random.default_rng([index, config.players])
    state = rules.new(swap=swap or None)
    moves: list[int] = []
    lengths: list[int] = []
    weights: list[np.ndarray] = []
    while not rules.over(state):
        legal = rules.legal(state)
        if soft and len(legal) > 1 and len(moves) >= opening:
            part = rng.random(len(legal)).astype(np.float32) + 0.1
            weights.append(part / part.sum())
            lengths.append(len(legal))
        else:
            lengths.append(0)
        move = M_SWAP if M_SWAP in legal else int(legal[rng.integers(len(legal))])
        moves.append(move)
        rules.apply(state, move, checked=False)
    policy = None
    if soft:
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        policy = PolicyTargets(offsets, np.concatenate(weights).astype(np.float32))
    return GameRecord(
        config=config.key,
        moves=np.array(moves, dtype=np.int64),
        winner=rules.winner(state),
        ranking=tuple(int(rank) for rank in rules.ranking(state)),
        reason=rules.reason(state),
        seats=tuple(Seat("random:1", 0, 0, 0) for _ in range(config.players)),
        seed=0,
        index=index,
        engine_version=ENGINE_VERSION,
        ring_supply=rules.board.supply,
        swap=swap,
        opening=opening,
        policy=policy,
    )


def store_games(path: Path, config: Config, games: list[GameRecord]) -> None:
    with GamesDb.write(path, config, "test") as db:
        db.append((game, Slot("test", 0, game.index)) for game in games)


@pytest.fixture
def make_game() -> MakeGame:
    return play_randomly


@pytest.fixture
def save_games() -> Callable[[Path, Config, list[GameRecord]], None]:
    return store_games


@pytest.fixture(scope="session")
def square8() -> Config:
    return parse_config("square8_2p")


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory, square8: Config) -> Paths:
    """A root with 12 games of square8_2p and their dataset; tests must leave it as it is."""
    paths = Paths(tmp_path_factory.mktemp("played"))
    store_games(paths.games_db(square8), square8, [play_randomly(square8, index) for index in range(12)])
    export(paths, square8)
    return paths
