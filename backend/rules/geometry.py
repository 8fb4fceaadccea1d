"""Boards as tables: cells, rays, neighbours, symmetries and the numbers that win.

Cells are numbered in the order of their coordinates, ``(x, y)`` on square boards and axial ``(q, r)`` on hexagonal
ones; a list of cells sorted by number is sorted as the notation wants it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from backend.configs import Config
from backend.rules.layout import (
    T_ADJACENT,
    T_AXES,
    T_BLOCKS,
    T_CELLS,
    T_DIRS,
    T_LINE,
    T_PLAYERS,
    T_REACH,
    T_SIGNS,
    T_TERRITORY_GOAL,
)

Coordinate = tuple[int, int]

SQUARE_AXES: tuple[Coordinate, ...] = ((1, 0), (0, 1), (1, 1), (1, -1))
HEX_AXES: tuple[Coordinate, ...] = ((1, 0), (1, -1), (0, 1))
SPREAD: tuple[Coordinate, ...] = tuple((dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0))


@dataclass(frozen=True, slots=True)
class Board:
    """One of the four boards.

    Attributes:
        name: ``square8`` and so on.
        hexagonal: True for axial coordinates.
        extent: cells along a side of a square board, radius of a hexagonal one.
        supply: rings a player starts with.
        reach: cells on the longest ray; a stack higher than that cannot move.
        coordinates: coordinates of each cell, in cell order.
        axes: forward directions of the line axes, in the order in which recovery slides try them.
        directions: all rays; the second half are the opposites of the first.
        adjacency: offsets of territory neighbours.
        spreading: offsets over which a collapsing border spreads.
    """

    name: str
    hexagonal: bool
    extent: int
    supply: int
    reach: int
    coordinates: tuple[Coordinate, ...]
    axes: tuple[Coordinate, ...]
    directions: tuple[Coordinate, ...]
    adjacency: tuple[Coordinate, ...]
    spreading: tuple[Coordinate, ...]

    @property
    def cells(self) -> int:
        return len(self.coordinates)


def _square(name: str, side: int, supply: int) -> Board:
    cells = tuple((x, y) for x in range(side) for y in range(side))
    directions = SQUARE_AXES + tuple((-dx, -dy) for dx, dy in SQUARE_AXES)
    straight = tuple(d for d in directions if 0 in d)
    return Board(name, False, side, supply, side - 1, cells, SQUARE_AXES, directions, straight, SPREAD)


def _hexagon(name: str, radius: int, supply: int, spreading: tuple[Coordinate, ...]) -> Board:
    span = range(-radius, radius + 1)
    cells = tuple((q, r) for q in span for r in span if abs(q + r) <= radius)
    directions = HEX_AXES + tuple((-dx, -dy) for dx, dy in HEX_AXES)
    return Board(name, True, radius, supply, 2 * radius, cells, HEX_AXES, directions, directions, spreading)


BOARDS: dict[str, Board] = {
    "square8": _square("square8", 8, 18),
    "square19": _square("square19", 19, 72),
    # On hex8 a border spreads over the square board's eight offsets, on hexagonal not at all; both as played.
    "hex8": _hexagon("hex8", 4, 18, SPREAD),
    "hexagonal": _hexagon("hexagonal", 12, 96, ()),
}


def line_length(config: Config) -> int:
    """Markers in a row that make a line: three on the small boards with three or four players, else four."""
    small = config.board in ("square8", "hex8")
    return 3 if small and config.players > 2 else 4


def ring_goal(players: int, supply: int) -> int:
    """Credited rings that win: ``supply * (2/3 + (players - 1)/3)``, rounded to the nearest."""
    return (2 * supply * (players + 1) + 3) // 6


def territory_goal(config: Config) -> int:
    """Cells that win, provided that they outnumber those of all others together: more than an equal share."""
    return BOARDS[config.board].cells // config.players + 1


def build_tables(config: Config) -> NDArray[np.int16]:
    """The int16 block that kernels take: constants, per cell its rays, territory neighbours and spread, coordinates.

    The positions are the ``T_`` constants of :mod:`backend.rules.layout`.
    """
    board = BOARDS[config.board]
    count = board.cells
    tables = np.full(T_BLOCKS + 3 * 8 * count + 2 * count, count, dtype=np.int16)
    tables[:T_BLOCKS] = 0
    tables[T_CELLS] = count
    tables[T_DIRS] = len(board.directions)
    tables[T_AXES] = len(board.axes)
    tables[T_ADJACENT] = len(board.adjacency)
    tables[T_LINE] = line_length(config)
    tables[T_PLAYERS] = config.players
    tables[T_REACH] = board.reach
    tables[T_TERRITORY_GOAL] = territory_goal(config)
    tables[T_SIGNS : T_SIGNS + 9] = -1
    for direction, (dx, dy) in enumerate(board.directions):
        tables[T_SIGNS + 3 * (dx + 1) + dy + 1] = direction
    index = {at: cell for cell, at in enumerate(board.coordinates)}
    blocks = tables[T_BLOCKS : T_BLOCKS + 24 * count].reshape(3, count, 8)
    tables[T_BLOCKS + 24 * count :] = np.array(board.coordinates, dtype=np.int16).ravel()
    for cell, (x, y) in enumerate(board.coordinates):
        for block, offsets in enumerate((board.directions, board.adjacency, board.spreading)):
            for slot, (dx, dy) in enumerate(offsets):
                blocks[block, cell, slot] = index.get((x + dx, y + dy), count)
    tables.setflags(write=False)
    return tables


def _square_map(edge: int, exchange: int, flip_x: int, flip_y: int, at: Coordinate) -> Coordinate:
    x, y = at[exchange], at[1 - exchange]
    return (edge - x if flip_x else x, edge - y if flip_y else y)


def _hex_map(turns: int, exchange: int, at: Coordinate) -> Coordinate:
    q, r = (at[1], at[0]) if exchange else at
    for _ in range(turns):
        q, r = -r, q + r
    return (q, r)


def _maps(board: Board) -> list[Callable[[Coordinate], Coordinate]]:
    if not board.hexagonal:
        edge = board.extent - 1
        return [partial(_square_map, edge, exchange, fx, fy) for exchange in (0, 1) for fx in (0, 1) for fy in (0, 1)]
    # The spread has directions of its own: only the maps that keep it are exact.
    turns = (0, 3) if board.spreading else range(6)
    return [partial(_hex_map, turn, exchange) for exchange in (0, 1) for turn in turns]


@cache
def symmetries(board_name: str) -> NDArray[np.int16]:
    """``int16[K, N]``: row k says to which cell symmetry k takes each cell; row 0 is the identity.

    8 on square boards, 12 on hexagonal; on hex8 the border spread leaves 4 (identity, half-turn, exchange of the
    axes, both).
    """
    board = BOARDS[board_name]
    index = {at: cell for cell, at in enumerate(board.coordinates)}
    table = np.array([[index[move(at)] for at in board.coordinates] for move in _maps(board)], dtype=np.int16)
    table.setflags(write=False)
    return table
