"""The features of Heuristic: what they measure and how much they weigh; and the board tables they need.

Features and weights are those of the reference's one-ply baseline, its "balanced" profile. Two places are ours, so
that mirrored positions have the same score and every board is served by the rules' own rays: *closure* takes the mean
distance over all markers of a player, where the reference takes the first ten it happens to list; and a direction is
*free* when its neighbour cell holds no stack and is not collapsed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.players.heuristic_kernels import AXIS, CENTRE, FAR, NEAR
from backend.rules.geometry import Board


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the score: ``weight`` times what ``formula`` says."""

    name: str
    weight: float
    formula: str


# s: the player that scores; mean, max, sum: over its opponents.
FEATURES: tuple[Feature, ...] = (
    Feature("stacks", 10, "controlled stacks: s - mean"),
    Feature("height", 5, "heights of controlled stacks, each ring above five counts 0.1: s - mean"),
    Feature("caps", 6, "caps of controlled stacks: s - mean"),
    Feature("diversity", 1, "-50 without a stack, -10 with one, 2k with k: s - mean"),
    Feature("territory", 8, "collapsed cells owned: s - max"),
    Feature("hand", 3, "rings in hand: s - max"),
    Feature("centre", 4, "controlled stacks on the centre: s - sum"),
    Feature("threats", 6, "-1/2 of every enemy cap next to a stack of s minus the cap of that stack"),
    Feature("mobility", 4, "neighbour cells a stack could step on or overtake (enemy, cap not larger): s - sum"),
    Feature("eliminated", 12, "rings credited to s"),
    Feature("markers", 1.5, "markers: s - max"),
    Feature("proximity", 20, "50/rings needed + 50/cells needed; 1000 at a goal; 900..990 in sole mobility: s - max"),
    Feature("behind", 6, "-(max - s) of proximity when an opponent is ahead, else 0"),
    Feature("freedom", 4, "neighbour cells without stack per stack, -5 for a stack without any: s - max"),
    Feature("leader", 2, "from three players: -(best - second best opponent) of proximity"),
    Feature("lines", 7, "per marker and direction 1 for two in a row, 2 more for three, 5 more for four: s - max"),
    Feature("links", 6, "per marker and direction 1 for a neighbour, 0.5 across one open cell: s - max"),
    Feature("exposed", 8, "-(enemy cap - own) for every enemy in sight with a larger cap"),
    Feature("overtakes", 8, "own cap - enemy's for every enemy in sight with a smaller cap"),
    Feature("closure", 10, "from two markers: 10/max(1, mean distance of markers) + 0.5 a marker: s - max"),
    Feature("safety", 5, "-(3 - d) per marker whose nearest enemy stack is d = 1 or 2 away: s - max"),
    Feature("stuck", 4, "-(s - max) of max(0, 2 - actions/stacks), 0 without a stack"),
    Feature("actions", 2, "from three players: -1 without action, else the share of opponents without"),
    Feature("recovery", 1, "8 when eligible to recover and 6 more with a slide, else 0.9 a buried ring: s - max"),
)
WEIGHTS: NDArray[np.float64] = np.array([feature.weight for feature in FEATURES])


def build_places(board: Board) -> NDArray[np.int16]:
    """int16[N + 1, 16] a cell: the cells at distance 1 (4) and 2 (8), whether it is centre, its coordinates (3).

    Distance is the sum of coordinate differences (three on hexagonal boards, so neighbours are 2 apart there), the
    centre is 2x2, 3x3, or two steps around the middle; both as in the reference. Missing cells are N.
    """
    count = board.cells
    places = np.full((count + 1, 16), count, dtype=np.int16)
    index = {at: cell for cell, at in enumerate(board.coordinates)}
    if board.hexagonal:
        near: list[tuple[int, int]] = []
        far = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)]
    else:
        near = [(1, 0), (-1, 0), (0, 1), (0, -1)]
        far = [(2, 0), (-2, 0), (0, 2), (0, -2), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    for (x, y), cell in index.items():
        for column, (dx, dy) in [*enumerate(near, NEAR), *enumerate(far, FAR)]:
            places[cell, column] = index.get((x + dx, y + dy), count)
        if board.hexagonal:
            places[cell, CENTRE] = max(abs(x), abs(y), abs(x + y)) <= 2
            places[cell, AXIS:] = (x + board.extent, y + board.extent, board.extent - x - y)
        else:
            low, high = (board.extent - 1) // 2, board.extent // 2
            if board.extent % 2:
                low, high = low - 1, high + 1
            places[cell, CENTRE] = low <= x <= high and low <= y <= high
            places[cell, AXIS:] = (x, y, 0)
    places.setflags(write=False)
    return places
