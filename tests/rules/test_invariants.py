"""What holds in every position of every config, checked along random games and in made-up positions."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from backend.configs import CONFIGS
from backend.errors import UsageError
from backend.rules import layout, load
from backend.rules.engine import Rules
from backend.rules.layout import (
    CELL,
    ELIMINATED,
    HAND,
    M_CAPTURE,
    M_PLACE,
    M_R1,
    M_R2,
    MARKERS,
    PHASE,
    PLAYER,
    PLY,
    RINGS,
    STACK,
    STACKS,
    SUPPLY,
    TERRITORY,
    TURN,
    WALL,
    State,
)
from backend.rules.legal import legal_into
from backend.rules.record import by_type, scattered, uniform

KEYS = [config.key for config in CONFIGS]
pytestmark = pytest.mark.parametrize("key", KEYS)


def generator(key: str, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([zlib.crc32(key.encode()), seed]))


@cache
def game(key: str) -> tuple[tuple[State, int], ...]:
    """Positions with the move played in them: one whole uniform game, then games from made-up positions."""
    rules = load(key)
    rng = generator(key, 1)
    played = []
    made_up = 25 if rules.cells < 100 else 3
    for number in range(1 + made_up):
        state = rules.new(swap=rules.players == 2) if number == 0 else scattered(rules, rng)
        policy = uniform if number == 0 else by_type
        while not rules.over(state):
            move = policy(state, rules.legal(state), rng)
            played.append((state.copy(), move))
            rules.apply(state, move, checked=False)
        played.append((state.copy(), -1))
    return tuple(played)


def running(key: str, most: int) -> Iterator[tuple[Rules, State, int]]:
    """At most ``most`` evenly spread positions in which a move is to be made."""
    rules = load(key)
    positions = [(state, move) for state, move in game(key) if move >= 0]
    for index in np.unique(np.linspace(0, len(positions) - 1, most).astype(int)):
        state, move = positions[index]
        yield rules, state, move


def counters(rules: Rules, state: State) -> dict[int, list[int]]:
    """The counted header blocks, recounted from the cells."""
    words = state[CELL : CELL + rules.cells].tolist()
    counted = {block: [0] * 5 for block in (MARKERS, STACKS, RINGS, TERRITORY)}
    for word in words:
        if word >= STACK:
            counted[STACKS][(word & 3) + 1] += 1
            for index in range((word >> 50) & 31):
                counted[RINGS][((word >> (2 * index)) & 3) + 1] += 1
        elif word > WALL:
            counted[TERRITORY][word - WALL] += 1
        elif word:
            counted[MARKERS][word] += 1
    return counted


def test_rings_are_conserved_and_the_counters_are_those_of_the_cells(key: str) -> None:
    rules = load(key)
    for state, _ in game(key):
        total = sum(int(state[block : block + 5].sum()) for block in (HAND, RINGS, ELIMINATED))
        assert total == rules.players * state[SUPPLY]
        assert state[CELL + rules.cells] == WALL
        for block, numbers in counters(rules, state).items():
            assert state[block : block + 5].tolist() == numbers


def test_a_stack_word_says_its_height_and_its_cap(key: str) -> None:
    rules = load(key)
    for state, _ in game(key):
        words = state[CELL : CELL + rules.cells]
        for word in words[words >= STACK].tolist():
            tall = (word >> 50) & 31
            rings = [(word >> (2 * index)) & 3 for index in range(25)]
            run = next((index for index in range(tall) if rings[index] != rings[0]), tall)
            assert 1 <= tall <= rules.board.reach + 1
            assert word >> 55 == run
            assert not any(rings[tall:])


def test_the_progress_measure_grows_with_every_move_that_changes_the_board(key: str) -> None:
    """Markers plus twice the collapsed cells and credited rings: why every game ends."""
    rules = load(key)

    def progress(state: State) -> int:
        final = 2 * (state[TERRITORY : TERRITORY + 5].sum() + state[ELIMINATED : ELIMINATED + 5].sum())
        return int(state[MARKERS : MARKERS + 5].sum() + final)

    for state, move in game(key):
        if move < 0:
            continue
        after = state.copy()
        rules.apply(after, move, checked=False)
        same_board = np.array_equal(state[CELL:], after[CELL:])
        grown = progress(after) - progress(state)
        assert after[PLY] == state[PLY] + 1
        assert 0 <= after[TURN] - state[TURN] <= 1
        if move & 31 == M_PLACE or same_board:
            assert grown == 0
        else:
            assert grown > 0


def test_a_finished_game_stays_as_it_is(key: str) -> None:
    rules = load(key)
    ends = [state for state, move in game(key) if move < 0]
    assert len(ends) > 3
    for state in ends:
        before = state.copy()
        assert rules.over(state)
        assert rules.player(state) == 0
        assert 1 <= rules.winner(state) <= rules.players
        assert rules.reason(state)
        assert len(rules.legal(state)) == 0
        assert rules.advance_forced(state) == 0
        with pytest.raises(UsageError, match="illegal move"):
            rules.apply(state, 0)
        rules.apply_batch(state[None, :], np.zeros(1, np.int64))
        assert np.array_equal(state, before)
        ranks = rules.ranking(state)
        assert ranks[rules.winner(state) - 1] == 1
        assert sorted(ranks)[:2] != [1, 1]


def test_every_legal_move_applies_and_every_other_is_refused(key: str) -> None:
    rng = generator(key, 2)
    for rules, state, _ in running(key, 60):
        moves = rules.legal(state)
        assert len(moves) == len(np.unique(moves)) > 0
        before = state.copy()
        for move in rng.permutation(moves)[:20].tolist():
            after = state.copy()
            rules.apply(after, move)
            assert not np.array_equal(after, state)
            assert rules.over(after) or len(rules.legal(after)) > 0
        others = rng.integers(0, 2**32, 20).tolist() + [int(moves[0]) ^ (1 << bit) for bit in range(0, 32, 3)]
        for move in set(others) - set(moves.tolist()):
            with pytest.raises(UsageError, match="illegal move"):
                rules.apply(state, move)
        assert np.array_equal(state, before)


def chooses_axis(rules: Rules, state: State, moves: list[int]) -> bool:
    """True when a recovery slide completes lines on two axes: the rules then take the first, in a fixed order."""
    player = int(state[PLAYER])
    for move in moves:
        if move & 31 not in (M_R1, M_R2):
            continue
        origin, to = (move >> 5) & 511, (move >> 14) & 511
        lines = 0
        for axis in range(len(rules.board.axes)):
            length = 1
            for direction in (axis, axis + len(rules.board.axes)):
                cell = int(layout.neighbour(rules.tables, to, direction))
                while cell != origin and state[CELL + cell] == player:
                    length += 1
                    cell = int(layout.neighbour(rules.tables, cell, direction))
            lines += length >= rules.tables[layout.T_LINE]
        if lines > 1:
            return True
    return False


def test_the_symmetries_commute_with_play(key: str) -> None:
    checked = 0
    for rules, state, move in running(key, 80 if load(key).cells < 100 else 30):
        moves = rules.legal(state)
        if chooses_axis(rules, state, moves.tolist()):
            continue
        after = state.copy()
        rules.apply(after, move)
        for k in range(len(rules.symmetries)):
            image = rules.transform_state(state, k)
            assert np.array_equal(np.sort(rules.transform_moves(state, moves, k)), np.sort(rules.legal(image)))
            rules.apply(image, rules.transform_move(state, move, k))
            assert np.array_equal(image, rules.transform_state(after, k))
        checked += 1
    assert checked > 20


def test_the_symmetries_are_a_group_of_the_promised_size(key: str) -> None:
    rules = load(key)
    table = [tuple(row) for row in rules.symmetries.tolist()]
    assert len(set(table)) == {"square8": 8, "square19": 8, "hex8": 4, "hexagonal": 12}[rules.config.board]
    assert table[0] == tuple(range(rules.cells))
    for first in table:
        for second in table:
            assert tuple(second[cell] for cell in first) in set(table)


def test_the_hash_is_that_of_the_content(key: str) -> None:
    seen: dict[int, bytes] = {}
    for rules, state, _ in running(key, 200):
        digest = rules.hash(state)
        assert 0 <= digest < 2**64
        assert digest == rules.hash(state.copy())
        assert seen.setdefault(digest, state.tobytes()) == state.tobytes()
    for word in range(len(state)):
        other = state.copy()
        other[word] += 1
        assert rules.hash(other) != digest


def test_copies_are_independent(key: str) -> None:
    for rules, state, move in running(key, 20):
        kept = state.tobytes()
        copy = state.copy()
        rules.apply(copy, move)
        assert state.tobytes() == kept
        rules.legal(state)
        rules.text(state)
        rules.draw(state)
        rules.hash(state)
        assert state.tobytes() == kept


def test_states_and_moves_come_back_from_their_text(key: str) -> None:
    rng = generator(key, 3)
    for rules, state, _ in running(key, 60):
        text = rules.text(state)
        back = rules.parse_text(text, ring_supply=int(state[SUPPLY]))
        assert rules.text(back) == text
        assert np.array_equal(back[CELL:], state[CELL:])
        for block in (HAND, ELIMINATED, TERRITORY, MARKERS, STACKS, RINGS):
            assert np.array_equal(back[block : block + 5], state[block : block + 5])
        moves = rules.legal(state)
        texts = [rules.move_text(state, move) for move in moves.tolist()]
        assert len(set(texts)) == len(texts)
        for index in rng.permutation(len(moves))[:3].tolist():
            assert rules.parse_move(state, f" {texts[index]} ") == moves[index]


def test_a_batch_is_many_single_games(key: str) -> None:
    picked = list(running(key, 40))
    rules = picked[0][0]
    states = np.stack([state for _, state, _ in picked])
    moves, counts = rules.legal_batch(states)
    for index, (_, state, _) in enumerate(picked):
        assert np.array_equal(moves[index, : counts[index]], rules.legal(state))
    rules.apply_batch(states, np.array([move for _, _, move in picked]))
    for index, (_, state, move) in enumerate(picked):
        single = state.copy()
        rules.apply(single, move)
        assert np.array_equal(states[index], single)
    plies = rules.advance_forced_batch(states)
    for index, (_, state, move) in enumerate(picked):
        single = state.copy()
        rules.apply(single, move)
        assert rules.advance_forced(single) == plies[index]
        assert np.array_equal(states[index], single)
        assert rules.over(single) or len(rules.legal(single)) > 1
    assert plies.max() > 0


def test_a_buffer_that_is_too_small_is_filled_and_the_true_count_told(key: str) -> None:
    for rules, state, _ in running(key, 30):
        moves = rules.legal(state)
        size = len(moves) // 2
        guarded = np.full(len(moves) + 1, -1, np.int64)
        assert legal_into(state, rules.tables, guarded[:size]) == len(moves)
        assert np.array_equal(guarded[:size], moves[:size])
        assert set(guarded[size:].tolist()) == {-1}


def test_the_drawing_fits_the_screen_and_is_ascii(key: str) -> None:
    for rules, state, _ in running(key, 10):
        drawn = rules.draw(state)
        assert drawn.isascii()
        assert max(map(len, drawn.splitlines())) <= 80
        assert f"player {state[PLAYER]}: " in drawn.splitlines()[-1]


def test_the_games_of_this_suite_reach_captures_and_every_phase(key: str) -> None:
    rules = load(key)
    phases = {int(state[PHASE]) for state, _ in game(key)}
    assert phases >= set(range(layout.OVER + 1)) - {layout.LINE_ELIM, layout.FORCED}
    assert any(move & 31 == M_CAPTURE for _, move in game(key))
    assert rules.players == max(int(state[PLAYER]) for state, _ in game(key))
