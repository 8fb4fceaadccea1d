"""The network: one for all boards, blind to what is off the board, and its losses against hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from backend.configs import CONFIGS, Config
from backend.rules import load
from backend.training.encoder import box_of, encode
from backend.training.losses import best_moves
from backend.training.network import Architecture, Network, Output, segment_log_softmax
from backend.training.packing import PLANES
from backend.training.policy import COLUMNS, PLANE_TABLE, write_all_operands


def ask(network: Network, config: Config, planes: np.ndarray, scalars: np.ndarray, states: np.ndarray) -> Output:
    rules, box = load(config), box_of(config.board)
    legal = [rules.legal(state) for state in states]
    counts = np.array([len(moves) for moves in legal])
    operands = np.empty((counts.sum(), COLUMNS), dtype=np.int64)
    rows = np.empty(counts.sum(), dtype=np.int64)
    write_all_operands(
        np.concatenate(legal), np.cumsum(counts) - counts, counts, states[:, 1].copy(), config.players, box.places,
        np.tile(box.targets[0], (len(states), 1)), PLANE_TABLE, operands, rows,
    )  # fmt: skip
    with torch.inference_mode():
        return network(
            torch.from_numpy(planes), torch.from_numpy(scalars), torch.from_numpy(operands), torch.from_numpy(rows)
        )


def states_of(config: Config) -> np.ndarray:
    rules = load(config)
    rng = np.random.default_rng(3)
    state, found = rules.new(), []
    for _ in range(60):
        found.append(state.copy())
        legal = rules.legal(state)
        rules.apply(state, legal[rng.integers(len(legal))], checked=False)
    return np.stack(found[::20])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_one_network_serves_every_config(config: Config) -> None:
    torch.manual_seed(0)
    network = Network(Architecture(1, 8, 4)).eval()
    states = states_of(config)
    planes, scalars = encode(states, load(config).tables, config.board)
    output = ask(network, config, planes, scalars, states)
    chances = output.value.exp()
    assert torch.allclose(chances.sum(dim=1), torch.ones(len(states)))
    assert (chances[:, config.players :] == 0).all() and (chances[:, : config.players] > 0).all()
    assert torch.isfinite(output.policy).all() and torch.isfinite(output.scores).all()


def test_what_lies_beyond_the_board_changes_nothing() -> None:
    config = next(config for config in CONFIGS if config.key == "hex8_2p")
    torch.manual_seed(0)
    network = Network(Architecture(2, 8, 4)).eval()
    for tensor in network.parameters():
        torch.nn.init.normal_(tensor, std=0.2)
    states = states_of(config)
    planes, scalars = encode(states, load(config).tables, config.board)
    small = ask(network, config, planes, scalars, states)
    padded = np.zeros((len(states), PLANES, 13, 13), dtype=np.float32)
    padded[:, :, :9, :9] = planes
    empty = (torch.zeros(0, COLUMNS, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    with torch.inference_mode():
        large = network(torch.from_numpy(padded), torch.from_numpy(scalars), *empty)
    assert torch.allclose(small.value.exp(), large.value.exp(), atol=1e-5)
    assert torch.allclose(small.scores, large.scores, atol=1e-4)
    on_board = torch.from_numpy(planes[:, :1] > 0).expand(-1, 5, -1, -1)
    assert torch.allclose(small.ownership[on_board], large.ownership[:, :, :9, :9][on_board], atol=1e-4)


def test_probabilities_are_normalised_within_each_position() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0, 1000.0, 1001.0])
    rows = torch.tensor([0, 0, 0, 2, 2])
    logs = segment_log_softmax(logits, rows, 3)
    assert torch.allclose(logs[:3], torch.log_softmax(logits[:3], 0))
    assert torch.allclose(logs[3:], torch.log_softmax(logits[3:], 0))
    assert logs.exp().sum().item() == pytest.approx(2.0)


def test_the_best_move_of_each_position_is_the_first_highest() -> None:
    scores = torch.tensor([1.0, 5.0, 5.0, -math.inf, 2.0])
    rows = torch.tensor([0, 0, 0, 3, 3])
    assert best_moves(scores, rows, 4).tolist() == [1, -1, -1, 4]
