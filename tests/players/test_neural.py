"""The neural player: legal, repeatable, and the same whatever games are played beside its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.configs import CONFIGS, Config, parse_config
from backend.errors import NotFoundError, SchemaError, UsageError
from backend.players import make_player
from backend.players.neural import NetworkEvaluator, NeuralPlayer, load_player
from backend.rules import load
from backend.rules.layout import PLAYER
from backend.training.checkpoint import LoadedModel, Metadata, save_model
from backend.training.network import Architecture, Network


def model(config: Config, seed: int = 0) -> LoadedModel:
    """An untrained network with opinions."""
    torch.manual_seed(seed)
    architecture = Architecture(1, 8, 4)
    network = Network(architecture)
    for tensor in network.parameters():
        if tensor.ndim > 1:
            torch.nn.init.normal_(tensor, std=0.15)
    metadata = Metadata(config=config.key, architecture=asdict(architecture), created_at="2026-01-01T00:00:00+00:00")
    return LoadedModel(network.eval().requires_grad_(False), config, metadata, "ab" * 32)


def positions(config: Config, count: int, every: int = 7) -> np.ndarray:
    rules = load(config)
    found: list[np.ndarray] = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        state = rules.new()
        ply = 0
        while not rules.over(state) and len(found) < count:
            if ply % every == seed % every:
                found.append(state.copy())
            legal = rules.legal(state)
            rules.apply(state, legal[rng.integers(len(legal))], checked=False)
            ply += 1
    return np.stack(found[:count])


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng([9, index]) for index in range(count)]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_plays_legal_moves_on_every_board(config: Config) -> None:
    player = NeuralPlayer(model(config), simulations=3)
    states = positions(config, 6)
    before = states.copy()
    moves, policies = player.choose_with_policy(states, generators(6))
    rules = load(config)
    for state, move, policy in zip(states, moves, policies, strict=True):
        legal = rules.legal(state)
        assert move in legal and len(policy) == len(legal)
        assert policy.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(states, before)


@pytest.mark.parametrize("key", ["square8_2p", "hex8_3p"])
def test_a_game_does_not_depend_on_the_games_beside_it(key: str) -> None:
    config = parse_config(key)
    torch.set_num_threads(1)
    player = NeuralPlayer(model(config), simulations=12, noise=1.0)
    states = positions(config, 40)
    moves, policies = player.choose_with_policy(states, generators(40))
    backwards = player.choose_with_policy(states[::-1].copy(), generators(40)[::-1])
    assert np.array_equal(moves, backwards[0][::-1])
    assert all(np.array_equal(a, b) for a, b in zip(policies, backwards[1][::-1], strict=True))
    for index in range(0, 40, 9):
        alone, policy = player.choose_with_policy(states[index : index + 1], generators(40)[index : index + 1])
        assert alone[0] == moves[index] and np.array_equal(policy[0], policies[index])


def test_values_are_told_by_seat_and_sum_to_one() -> None:
    config = parse_config("square8_3p")
    evaluate = NetworkEvaluator(model(config))
    rules = load(config)
    states = positions(config, 20)
    legal = [rules.legal(state) for state in states]
    counts = np.array([len(moves) for moves in legal])
    logits, values = evaluate(states, np.concatenate(legal), counts)
    assert logits.shape == (counts.sum(),) and values.shape == (20, 3)
    assert np.allclose(values.sum(axis=1), 1.0)
    for index, (state, value) in enumerate(zip(states, values, strict=True)):
        single = evaluate(state[None], legal[index], counts[index : index + 1])[1][0]
        assert np.array_equal(single, value)
    assert len(set(states[:, PLAYER].tolist())) == 3


def test_the_identity_says_what_plays() -> None:
    loaded = model(parse_config("hex8_2p"))
    assert NeuralPlayer(loaded).identity == "neural:" + "ab" * 8 + ":s32"
    assert NeuralPlayer(loaded, 0).identity.endswith(":s0")
    assert NeuralPlayer(loaded, 8, noise=1.0).identity.endswith(":s8:g1.00")
    with pytest.raises(UsageError):
        NeuralPlayer(loaded, -1)


def test_a_checkpoint_plays_by_name_and_nothing_stands_in_for_a_missing_one(tmp_path: Path) -> None:
    config = parse_config("hex8_2p")
    loaded = model(config)
    path = tmp_path / "m.pth"
    sha256 = save_model(path, loaded.network, loaded.metadata)
    player = make_player(str(path), config, simulations=2)
    assert player.identity == f"neural:{sha256[:16]}:s2"
    states = positions(config, 3)
    direct = load_player(path, config, simulations=2).choose(states, generators(3))
    assert np.array_equal(player.choose(states, generators(3)), direct)
    with pytest.raises(NotFoundError):
        make_player(str(tmp_path / "none.pth"), config)
    with pytest.raises(SchemaError):
        make_player(str(path), parse_config("square8_2p"))
