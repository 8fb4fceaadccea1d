"""Planes: complete, the same for every seat, and commuting with the exact symmetries of each board."""

from __future__ import annotations

import numpy as np
import pytest

from backend.configs import CONFIGS, Config, parse_config
from backend.rules import load
from backend.rules.layout import (
    CELL,
    M_CAPTURE,
    M_CHAIN,
    M_LINE_ELIM,
    M_MOVE,
    M_PLACE,
    M_TERR_ELIM,
    PHASE,
    PLAYER,
    STACK,
    move_type,
)
from backend.training.encoder import box_of, encode
from backend.training.packing import GLOBALS, PLANES, PRESENT, SEAT_GLOBALS
from backend.training.policy import COLUMNS, PLANE_TABLE, POLICY_PLANES, SLOTS, slot_of, write_operands


def positions(config: Config, every: int = 1) -> np.ndarray:
    """Positions of one random game."""
    rules = load(config)
    rng = np.random.default_rng(config.players)
    state, found = rules.new(), []
    while not rules.over(state):
        found.append(state.copy())
        legal = rules.legal(state)
        rules.apply(state, legal[rng.integers(len(legal))], checked=False)
    return np.stack(found[::every])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_encoding_commutes_with_every_exact_symmetry(config: Config) -> None:
    rules, box = load(config), box_of(config.board)
    states = positions(config, every=29)
    planes, scalars = encode(states, rules.tables, config.board)
    flat = planes.reshape(len(states), PLANES, -1)
    for k in range(len(rules.symmetries)):
        moved = np.stack([rules.transform_state(state, k) for state in states])
        other, other_scalars = encode(moved, rules.tables, config.board)
        assert np.array_equal(other.reshape(flat.shape), flat[:, :, box.sources[k]])
        assert np.array_equal(other_scalars, scalars)


@pytest.mark.parametrize("board", ["square8", "square19", "hex8", "hexagonal"])
def test_sources_and_targets_are_inverse_and_keep_the_board(board: str) -> None:
    box = box_of(board)
    area = box.side**2
    on_board = np.zeros(area, dtype=bool)
    on_board[box.places] = True
    for sources, targets in zip(box.sources, box.targets, strict=True):
        assert np.array_equal(sources[targets[:area]], np.arange(area))
        assert targets[area] == area
        assert np.array_equal(on_board[sources], on_board)


@pytest.mark.parametrize("key", ["square8_2p", "hex8_3p", "hexagonal_4p"])
def test_positions_that_differ_in_what_matters_differ_in_planes(key: str) -> None:
    config = parse_config(key)
    states = positions(config, every=3)
    planes, scalars = encode(states, load(config).tables, config.board)
    seen: dict[bytes, np.ndarray] = {}
    for state, plane, numbers in zip(states, planes, scalars, strict=True):
        other = seen.setdefault(plane.tobytes() + numbers.tobytes(), state)
        relevant = np.r_[PHASE, PLAYER, CELL : len(state)]
        assert np.array_equal(other[relevant], state[relevant])


def test_the_player_to_act_is_always_seat_zero() -> None:
    config = parse_config("square8_3p")
    states = positions(config)
    planes, scalars = encode(states, load(config).tables, config.board)
    words = states[:, CELL : CELL + 64]
    own = ((words >= STACK) & ((words & 3) + 1 == states[:, PLAYER, None])).sum(axis=1)
    assert np.array_equal(planes[:, 10].sum(axis=(1, 2)), own)
    present = scalars[:, PRESENT::SEAT_GLOBALS]
    assert np.array_equal(present, np.tile([1, 1, 1, 0], (len(states), 1)))
    assert scalars.shape[1] == GLOBALS and np.isfinite(scalars).all()


def operands(config: Config, state: np.ndarray, move: int, k: int) -> tuple[int, ...]:
    box = box_of(config.board)
    out = np.empty(COLUMNS, dtype=np.int64)
    write_operands(move, state[PLAYER], config.players, box.places, box.targets[k], PLANE_TABLE, out)
    return tuple(out.tolist())


@pytest.mark.parametrize("key", ["square8_2p", "square8_3p", "hex8_2p", "hex8_4p", "hexagonal_2p"])
def test_a_moves_operands_move_with_the_board(key: str) -> None:
    config = parse_config(key)
    rules = load(config)
    plain = {
        M_PLACE,
        M_MOVE,
        M_CAPTURE,
        M_CHAIN,
        M_LINE_ELIM,
        M_TERR_ELIM,
    }  # others name a region's or line's first cell
    checked = 0
    for state in positions(config, every=8):
        for k in range(1, len(rules.symmetries)):
            moved = rules.transform_state(state, k)
            for move in rules.legal(state)[::5]:
                if move_type(int(move)) not in plain:
                    continue
                image = int(rules.transform_move(state, int(move), k))
                assert operands(config, state, int(move), k) == operands(config, moved, image, 0)
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("key", ["square8_2p", "hex8_3p", "hexagonal_2p"])
def test_no_two_legal_moves_share_their_operands(key: str) -> None:
    config = parse_config(key)
    rules = load(config)
    for state in positions(config, every=5):
        legal = rules.legal(state)
        assert len({operands(config, state, int(move), 0) for move in legal}) == len(legal)


def test_operands_stay_within_their_planes() -> None:
    config = parse_config("hex8_4p")
    rules, area = load(config), 81
    for state in positions(config, every=5):
        for move in rules.legal(state):
            slot, a, b, c, first, destination, target = operands(config, state, int(move), 0)
            assert 0 <= slot < SLOTS
            assert slot == slot_of(int(move), int(state[PLAYER]), config.players)
            assert all(0 <= entry <= POLICY_PLANES * area for entry in (a, b, c))
            assert all(0 <= place <= area for place in (first, destination, target))
