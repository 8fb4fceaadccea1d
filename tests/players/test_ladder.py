"""The ladder: rungs play without chance, see a win in one, and do not depend on who plays beside them."""

from __future__ import annotations

import numpy as np
import pytest

from backend.configs import Config, parse_config
from backend.errors import UsageError
from backend.players import make_player
from backend.players.heuristic import VERSION as HEURISTIC
from backend.players.ladder import VERSION, HeuristicEvaluator, LadderPlayer
from backend.players.live import LiveGame, move_cap
from backend.rules import load

CONFIGS = [parse_config(key) for key in ("square8_2p", "hex8_2p", "square8_3p", "hex8_4p")]


def positions(config: Config, count: int, seed: int = 3) -> np.ndarray:
    """Positions with a choice, from random games."""
    rules, found = load(config), []
    for number in range(count):
        game = LiveGame(rules, move_cap(config))
        rng = np.random.default_rng([seed, number])
        game.play_at_random(rng.random(400), turns=1 + number % 12)
        if not game.settle():
            found.append(game.state.copy())
    return np.stack(found)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_rung_plays_legal_moves_that_depend_on_the_position_alone(config: Config) -> None:
    rules, player = load(config), make_player("ladder:6", config)
    states = positions(config, 12)
    moves = player.choose(states, [np.random.default_rng(n) for n in range(len(states))])
    for state, move in zip(states, moves.tolist(), strict=True):
        assert move in rules.legal(state).tolist()
        assert player.choose(state[None].copy(), [np.random.default_rng(99)]).tolist() == [move]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_what_it_thinks_is_a_distribution_over_moves_and_over_seats(config: Config) -> None:
    rules, states = load(config), positions(config, 10)
    legal = [rules.legal(state) for state in states]
    counts = np.array([len(listed) for listed in legal])
    logits, values = HeuristicEvaluator(rules)(states, np.concatenate(legal), counts)
    assert values.min() >= 0 and values.sum(1) == pytest.approx(np.ones(len(states)))
    for part in np.split(np.exp(logits.astype(np.float64)), np.cumsum(counts)[:-1]):
        assert part.sum() == pytest.approx(1, abs=1e-5)


def test_a_win_in_one_is_taken() -> None:
    config = CONFIGS[0]
    rules, player, found = load(config), make_player("ladder:8", CONFIGS[0]), 0
    heuristic = make_player("heuristic", config)
    for number in range(30):
        game, rng = LiveGame(rules, move_cap(config)), np.random.default_rng(number)
        while not game.settle():
            winning = set()
            for move in rules.legal(game.state).tolist():
                after = game.state.copy()
                rules.apply(after, move)
                if rules.winner(after) == game.player:
                    winning.add(move)
            if winning:
                assert int(player.choose(game.state[None].copy(), [rng])[0]) in winning
                found += 1
            game.play(int(heuristic.choose(game.state[None].copy(), [rng])[0]), checked=False)
    assert found >= 2  # the seed is fixed


def test_its_identity_names_everything_that_changes_how_it_plays() -> None:
    player = make_player("ladder:32", CONFIGS[0])
    assert isinstance(player, LadderPlayer)
    assert player.identity == f"ladder:{VERSION}:heuristic:{HEURISTIC}:n32"


@pytest.mark.parametrize("name", ["ladder", "ladder:0", "ladder:x", "ladder:-3", "ladder:1000000"])
def test_there_is_no_such_rung(name: str) -> None:
    with pytest.raises(UsageError, match="ladder"):
        make_player(name, CONFIGS[0])
