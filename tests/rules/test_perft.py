"""Counts of move sequences from the start, as the reference engine counts them."""

from __future__ import annotations

import pytest

from backend.rules import load
from backend.rules.engine import Rules
from backend.rules.layout import State


def perft(rules: Rules, state: State, depth: int) -> int:
    moves = rules.legal(state)
    if depth == 1:
        return len(moves)
    total = 0
    for move in moves:
        after = state.copy()
        rules.apply(after, move, checked=False)
        total += perft(rules, after, depth - 1)
    return total


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        ("square8_2p", [192, 3192, 3192, 3192, 596904]),
        ("hex8_2p", [183, 2430, 2430, 2430, 432540]),
        ("square19_2p", [1083, 56520]),
        ("hexagonal_2p", [1407, 70062]),
    ],
)
def test_the_sequences_from_the_start_are_as_many_as_in_the_reference(config: str, counts: list[int]) -> None:
    rules = load(config)
    assert [perft(rules, rules.new(), depth) for depth in range(1, len(counts) + 1)] == counts
