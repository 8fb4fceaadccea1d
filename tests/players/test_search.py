"""The search: its schedule, its arithmetic against a plain rewrite, and that it finds what can be found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.configs import parse_config
from backend.players.search import halving, search
from backend.players.tree import C_SCALE, C_VISIT, new_tree
from backend.rules import load
from backend.rules.engine import Rules
from backend.rules.layout import M_SWAP, PLAYER


class Fixed:
    """Evaluates by a function of the position alone: priors from the moves' codes, values from a digest."""

    def __init__(self, rules: Rules, *, undecided: bool = False) -> None:
        self.rules, self.undecided, self.asked = rules, undecided, 0

    def __call__(self, states: np.ndarray, moves: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.asked += len(states)
        assert len(moves) == counts.sum()
        logits = ((moves * 2654435761 % 1000) / 500.0).astype(np.float32) * (not self.undecided)
        values = np.empty((len(states), self.rules.players))
        for row, state in zip(values, states, strict=True):
            assert not self.rules.over(state)
            rng = np.random.default_rng(self.rules.hash(state) % 2**32)
            part = np.ones(self.rules.players) if self.undecided else rng.random(self.rules.players)
            row[:] = part / part.sum()
        return logits, values


def running(rules: Rules, seed: int, plies: int) -> np.ndarray:
    """A position with a choice after about ``plies`` random moves."""
    rng = np.random.default_rng(seed)
    state = rules.new()
    for ply in range(10_000):
        legal = rules.legal(state)
        if ply >= plies and len(legal) > 1:
            return state
        rules.apply(state, legal[rng.integers(len(legal))], checked=False)
        if rules.over(state):
            return running(rules, seed + 1000, plies // 2)
    raise AssertionError


@pytest.mark.parametrize("considered", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("simulations", [1, 7, 16, 32, 50, 200])
def test_sequential_halving_uses_every_simulation_and_narrows(considered: int, simulations: int) -> None:
    plan = halving(considered, simulations)
    assert len(plan) == simulations
    visits = [0] * considered
    for wanted in plan:  # each step names a visit count that some edge has
        place = visits.index(wanted)
        visits[place] += 1
    assert sum(visits) == simulations
    if simulations >= 2 * considered * max(1, math.ceil(math.log2(considered))):
        assert min(visits) >= 1 and (considered == 1 or sorted(visits)[-2] > min(visits) or considered == 2)


def test_16_moves_share_32_simulations_in_three_rounds() -> None:
    assert halving(16, 32) == (0,) * 16 + (1,) * 8 + (2,) * 4 + (3,) * 4


def test_without_simulations_the_best_prior_is_played() -> None:
    rules = load("square8_2p")
    states = np.stack([running(rules, seed, 10 * seed) for seed in range(6)])
    found = search(rules, Fixed(rules), states, [], simulations=0)
    for state, move, policy in zip(states, found.moves, found.policies, strict=True):
        legal = rules.legal(state)
        logits = (legal * 2654435761 % 1000) / 500.0
        assert move == legal[np.argmax(logits)]
        assert np.allclose(policy, np.exp(logits) / np.exp(logits).sum(), atol=1e-5)


@pytest.mark.parametrize("key", ["square8_2p", "hex8_3p", "square8_4p"])
def test_a_search_is_the_same_alone_and_in_company(key: str) -> None:
    rules = load(key)
    states = np.stack([running(rules, seed, 12 * seed) for seed in range(8)])
    rngs = [np.random.default_rng(seed) for seed in range(8)]
    together = search(rules, Fixed(rules), states, rngs, simulations=24, noise=1.0)
    for index in range(8):
        alone = search(
            rules, Fixed(rules), states[index : index + 1], [np.random.default_rng(index)], simulations=24, noise=1.0
        )
        assert alone.moves[0] == together.moves[index]
        assert np.array_equal(alone.policies[0], together.policies[index])
        assert together.moves[index] in rules.legal(states[index])


def test_noise_draws_different_moves_and_none_always_the_same() -> None:
    rules = load("hex8_2p")
    state = running(rules, 1, 30)[None]
    still = {int(search(rules, Fixed(rules), state, [], simulations=8).moves[0]) for _ in range(3)}
    drawn = {
        int(search(rules, Fixed(rules), state, [np.random.default_rng(s)], simulations=8, noise=1.0).moves[0])
        for s in range(20)
    }
    assert len(still) == 1 and len(drawn) > 3


def plain_search(rules: Rules, evaluate: Fixed, root: np.ndarray, simulations: int) -> tuple[int, np.ndarray]:
    """The same search for one game, written with dictionaries and floats: the oracle."""

    def make(state: np.ndarray) -> dict[str, object]:
        node: dict[str, object] = {"state": state, "visits": 0, "total": np.zeros(rules.players), "children": {}}
        if not rules.over(state):
            legal = rules.legal(state)
            logits, values = evaluate(state[None], legal, np.array([len(legal)]))
            node |= {"legal": legal, "logits": logits.astype(float), "raw": values[0], "mover": state[PLAYER] - 1}
        return node

    def sigma(node: dict) -> tuple[np.ndarray, np.ndarray]:
        visits = np.array(
            [node["children"][i]["visits"] if i in node["children"] else 0 for i in range(len(node["legal"]))]
        )
        prior = np.exp(node["logits"] - node["logits"].max())
        q = np.zeros(len(visits))
        for i, child in node["children"].items():
            q[i] = child["total"][node["mover"]] / child["visits"]
        mixed = node["raw"][node["mover"]]
        tried = visits > 0
        if tried.any():
            mixed = (mixed + visits.sum() * (prior[tried] * q[tried]).sum() / prior[tried].sum()) / (1 + visits.sum())
        q[~tried] = mixed
        scale = (C_VISIT + visits.max()) * C_SCALE
        return visits, scale * (q - q.min()) / max(q.max() - q.min(), 1e-8)

    def grow(node: dict, index: int) -> dict:
        state = node["state"].copy()
        rules.apply(state, node["legal"][index])
        while not rules.over(state) and len(rules.legal(state)) == 1:
            rules.apply(state, rules.legal(state)[0])
        node["children"][index] = make(state)
        return node["children"][index]

    def back_up(path: list[dict]) -> None:
        leaf = path[-1]
        value = np.eye(rules.players)[rules.winner(leaf["state"]) - 1] if rules.over(leaf["state"]) else leaf["raw"]
        for node in path:
            node["visits"] += 1
            node["total"] += value

    top = make(root)
    back_up([top])
    for wanted in halving(min(16, len(top["legal"])), simulations):
        visits, scores = sigma(top)
        scores = np.where(visits == wanted, scores + top["logits"], -np.inf)
        path, index = [top], int(np.argmax(scores))
        while True:
            node = path[-1]
            new = index not in node["children"]
            child = grow(node, index) if new else node["children"][index]
            path.append(child)
            if new or rules.over(child["state"]):
                break
            visits, scores = sigma(child)
            improved = np.exp(child["logits"] + scores - (child["logits"] + scores).max())
            index = int(np.argmax(improved / improved.sum() - visits / (1 + visits.sum())))
        back_up(path)
    visits, scores = sigma(top)
    total = top["logits"] + scores
    improved = np.exp(total - total.max())
    return int(top["legal"][np.argmax(np.where(visits == visits.max(), total, -np.inf))]), improved / improved.sum()


@pytest.mark.parametrize(("key", "seed", "plies"), [("square8_2p", 1, 40), ("hex8_3p", 2, 70), ("square8_2p", 3, 110)])
def test_the_kernels_agree_with_a_plain_rewrite(key: str, seed: int, plies: int) -> None:
    rules = load(key)
    state = running(rules, seed, plies)
    found = search(rules, Fixed(rules), state[None], [], simulations=40)
    move, policy = plain_search(rules, Fixed(rules), state, 40)
    assert found.moves[0] == move
    assert np.allclose(found.policies[0], policy, atol=1e-5)


def winning_positions(rules: Rules, wanted: int) -> list[tuple[np.ndarray, set[int]]]:
    """Positions in which some but not all moves win at once, with those moves."""
    found: list[tuple[np.ndarray, set[int]]] = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        state = rules.new()
        while not rules.over(state):
            legal = rules.legal(state)
            wins = set()
            if 1 < len(legal) <= 16:
                for move in legal:
                    after = state.copy()
                    rules.apply(after, move)
                    while not rules.over(after) and len(rules.legal(after)) == 1:
                        rules.apply(after, rules.legal(after)[0])
                    if rules.over(after) and rules.winner(after) == state[PLAYER]:
                        wins.add(int(move))
            if 0 < len(wins) < len(legal):
                found.append((state.copy(), wins))
                break
            rules.apply(state, legal[rng.integers(len(legal))], checked=False)
        if len(found) == wanted:
            return found
    raise AssertionError("too few positions")


@pytest.mark.parametrize("key", ["square8_2p", "hex8_3p"])
def test_a_move_that_wins_at_once_is_found(key: str) -> None:
    rules = load(key)
    positions = winning_positions(rules, 6)
    states = np.stack([state for state, _ in positions])
    found = search(rules, Fixed(rules, undecided=True), states, [], simulations=48)
    for move, (_, wins) in zip(found.moves, positions, strict=True):
        assert int(move) in wins


def test_trees_grow_when_a_position_has_more_moves_than_there_is_room_for() -> None:
    rules = load("square8_2p")
    states = np.stack([running(rules, seed, 8) for seed in range(4)])
    wide = search(rules, Fixed(rules), states, [], simulations=16)
    assert new_tree(states, 2, 4, 10).move.shape == (4, 10)
    with pytest.MonkeyPatch.context() as patch:
        import backend.players.search as module

        patch.setattr(
            module, "new_tree", lambda roots, players, simulations, edges: new_tree(roots, players, simulations, 3)
        )
        narrow = search(rules, Fixed(rules), states, [], simulations=16)
    assert np.array_equal(wide.moves, narrow.moves)
    assert all(np.array_equal(a, b) for a, b in zip(wide.policies, narrow.policies, strict=True))


def test_swapping_sides_is_judged_from_the_other_seat() -> None:
    rules = load("square8_2p")
    state = rules.new(swap=True)
    rules.apply(state, rules.legal(state)[0])
    while M_SWAP not in rules.legal(state):
        rules.apply(state, rules.legal(state)[0])

    class SeatOneWins(Fixed):
        def __call__(self, states: np.ndarray, moves: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            logits = np.where(moves == M_SWAP, 1.0, 0.0).astype(np.float32)
            return logits, np.tile([0.9, 0.1], (len(states), 1))

    assert search(rules, SeatOneWins(rules), state[None], [], simulations=32).moves[0] == M_SWAP


def test_every_simulation_asks_at_most_once_a_game() -> None:
    rules = load(parse_config("hex8_2p"))
    evaluate = Fixed(rules)
    states = np.stack([running(rules, seed, 30) for seed in range(5)])
    search(rules, evaluate, states, [], simulations=20)
    assert 5 < evaluate.asked <= 5 * 21
