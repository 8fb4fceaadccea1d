"""Players by name, Random, and the live game."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.configs import CONFIGS, Config, parse_config
from backend.errors import NotFoundError, UsageError
from backend.players import make_player
from backend.players.live import LiveGame, move_cap
from backend.rules import load

SQUARE = parse_config("square8_2p")


def test_random_picks_every_legal_move_about_as_often() -> None:
    rules, player = load(SQUARE), make_player("random", SQUARE)
    assert player.identity == "random:1"
    states = np.stack([rules.new()] * 9600)
    picks = player.choose(states, [np.random.default_rng(n) for n in range(9600)])
    moves, counts = np.unique(picks, return_counts=True)
    assert set(moves.tolist()) == set(rules.legal(rules.new()).tolist())
    assert counts.min() > 15 and counts.max() < 90  # 50 expected, sigma 7


@pytest.mark.parametrize("name", ["heuristic:x", "heuristic:e2", "heuristic:e-1", "heuristic:enough", "random:e0.5"])
def test_an_unknown_option_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError):
        make_player(name, SQUARE)


def test_a_model_that_is_not_there_is_an_error_and_never_a_stand_in(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        make_player(str(tmp_path / "nothing.pth"), SQUARE)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_live_game_records_exactly_the_moves_that_lead_to_its_position(config: Config) -> None:
    rules = load(config)
    game, rng = LiveGame(rules, move_cap(config)), np.random.default_rng(4)
    game.play_at_random(rng.random(20), turns=10_000)
    game.settle()
    state = rules.new()
    for move in game.moves:
        rules.apply(state, int(move))  # checked
    assert (state == game.state).all()
    assert len(rules.legal(state)) > 1 or game.ended


def test_a_game_stops_at_its_cap_and_is_not_over() -> None:
    game = LiveGame(load(SQUARE), 25)
    game.play_at_random(np.random.default_rng(0).random(200), turns=10_000)
    assert game.settle() and game.ended and not game.over
    assert game.moves.size == 25


def test_random_turns_end_with_the_turn_and_an_illegal_move_changes_nothing() -> None:
    rules = load(SQUARE)
    game = LiveGame(rules, 600)
    game.play_at_random(np.random.default_rng(0).random(200), turns=2)
    assert rules.player(game.state) == 1 and game.played > 4
    before = game.state.copy()
    with pytest.raises(UsageError):
        game.play(-1, checked=True)
    assert (game.state == before).all()


def test_caps_are_far_above_what_games_need() -> None:
    longest = 0
    for seed in range(30):
        game = LiveGame(load(SQUARE), move_cap(SQUARE))
        game.play_at_random(np.random.default_rng(seed).random(5000), turns=10_000)
        assert game.over
        longest = max(longest, game.played)
    assert longest < move_cap(SQUARE) / 2
