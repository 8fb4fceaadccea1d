"""How a position lies in memory, how a move is written as a number, and the small kernels that read both.

A state is one row of ``HEADER + N + 1`` int64 words: a header of named words, one word per cell, and one sentinel
cell ``N`` that stands for everything off the board (it reads as collapsed, so walks along rays stop there by
themselves). Everything the game depends on is in the row; a copy of the row is a copy of the game.

A cell word is

====================  ==========================================================================================
0                     empty
1..4                  marker of that player
8                     the sentinel (wall)
9..12                 collapsed, owned by player ``word - 8``
>= ``STACK``          stack: bits 0-49 two bits per ring, ``player - 1``, top ring lowest; bits 50-54 height;
                      bits 55-59 cap (rings of the top colour counted from the top)
====================  ==========================================================================================

so ``word < 8`` means that a stack may land there, and ``word >= 8`` that a ray ends there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.rules.jit import kernel

State = NDArray[np.int64]  # one row
Tables = NDArray[np.int16]  # the block of geometry.build_tables
Moves = NDArray[np.int64]

# --- header words -----------------------------------------------------------------------------------------------
PHASE = 0
PLAYER = 1  # to act, 1-based; 0 when over
WINNER = 2  # 0 while the game runs
REASON = 3
MUST = 4  # cell of the stack just placed, which has to move; -1 none
CHAIN = 5  # cell of the stack that captures on; -1 none
ACTED = 6  # 1 once the player did anything but no-ops this turn
RECOVERY = 7  # 1 in a turn with a recovery slide
TURN = 8  # 1-based
PLY = 9  # moves applied since the start
SUPPLY = 10  # rings a player starts with
RING_GOAL = 11  # credited rings that win
LPS_ROUNDS = 12  # rounds of sole mobility that win
LPS_FIRST = 13  # seat that opens a round; 0 none yet
LPS_SEEN = 14  # bit p: seat p had its turn in this round
LPS_REAL = 15  # bit p: it had a real action then
LPS_COUNT = 16  # finished rounds of sole mobility in a row
LPS_ONLY = 17  # seat they belong to; 0 none
SWAP_OPEN = 18  # 1 while player 2 may still swap sides
SWAPPED = 19  # 1 once sides were swapped: who held seat 1 now holds seat 2
# Blocks indexed by player 1..4: row[HAND + player].
HAND = 20
ELIMINATED = 25  # rings credited to the player, of whatever colour
TERRITORY = 30  # collapsed cells owned
MARKERS = 35  # markers on the board
STACKS = 40  # stacks controlled
RINGS = 45  # rings of the colour on the board, buried ones included
GONE = 50  # turn after which the seat had no ring left anywhere; 0 still in play
HEADER = 64
CELL = HEADER  # row[CELL + cell]

# --- cell words -------------------------------------------------------------------------------------------------
EMPTY = 0
WALL = 8
STACK = 1 << 50
RING_BITS = STACK - 1
HEIGHT_ONE = 1 << 50
CAP_ONE = 1 << 55

# --- phases -----------------------------------------------------------------------------------------------------
PLACE, MOVE, CAPTURE, CHAINING, LINE, LINE_ELIM, TERR, TERR_ELIM, FORCED, OVER = range(10)
PHASE_NAMES = ("place", "move", "capture", "chain", "line", "line_elim", "terr", "terr_elim", "forced", "over")

# --- reasons of the end -----------------------------------------------------------------------------------------
REASON_NAMES = (
    "",
    "ring_elimination",
    "territory",
    "lps_rounds",
    "lps_early",
    "stalemate:territory",
    "stalemate:eliminated",
    "stalemate:markers",
    "stalemate:last_actor",
)
(
    _,
    RING_ELIMINATION,
    TERRITORY_CONTROL,
    LPS_BY_ROUNDS,
    LPS_EARLY,
    STALE_TERRITORY,
    STALE_ELIMINATED,
    STALE_MARKERS,
    STALE_LAST_ACTOR,
) = range(9)

# --- moves: type | a << 5 | b << 14 | c << 23 -------------------------------------------------------------------
M_PLACE = 0  # a cell, b rings (1..3)
M_SKIP_PLACE = 1
M_NO_PLACE = 2
M_SWAP = 3
M_MOVE = 4  # a from, b to
M_CAPTURE = 5  # a from, b target, c to
M_CHAIN = 6  # a from, b target, c to
M_SKIP_CAPTURE = 7
M_NO_MOVE = 8
M_R1 = 9  # recovery slide, whole line collapses: a from, b to, c extraction stack
M_R2 = 10  # recovery slide, free: a from, b to, c first cell of the window that collapses
M_RF = 11  # fallback slide: a from, b to, c extraction stack
M_RS = 12  # stack strike: a from, b struck stack, c extraction stack
M_SKIP_RECOVERY = 13
M_L1 = 14  # whole line: a first cell, b last cell
M_L2 = 15  # overlength line, free: a first cell, b last cell, c first cell of the window
M_LINE_ELIM = 16  # a stack
M_NO_LINE = 17
M_REGION = 18  # a smallest cell of the region, b border colour (0 none, else the least that yields this region)
M_TERR_ELIM = 19  # a stack, whole cap
M_RECOVERY_ELIM = 20  # a stack, bottommost own ring
M_SKIP_TERR = 21
M_NO_TERR = 22
M_FORCED = 23  # a stack, whole cap
MOVE_TYPES = 24
# The notation's words, by type.
_WORDS = "P SP NP SW M C K SC NM R1 R2 RF RS SR L1 L2 EL NL T ET ER ST NT F"
MOVE_NAMES = tuple(_WORDS.split())

A_SHIFT, B_SHIFT, C_SHIFT = 5, 14, 23
CELL_BITS = 511


@kernel
def encode(kind: int, a: int, b: int, c: int) -> int:
    """The int64 code of a move."""
    return kind | (a << A_SHIFT) | (b << B_SHIFT) | (c << C_SHIFT)


@kernel
def move_type(move: int) -> int:
    """One of the ``M_`` constants."""
    return move & 31


@kernel
def move_a(move: int) -> int:
    """First operand of a move."""
    return (move >> A_SHIFT) & CELL_BITS


@kernel
def move_b(move: int) -> int:
    """Second operand of a move."""
    return (move >> B_SHIFT) & CELL_BITS


@kernel
def move_c(move: int) -> int:
    """Third operand of a move."""
    return (move >> C_SHIFT) & CELL_BITS


# --- tables: one int16 block a config (geometry.build_tables) ----------------------------------------------------
T_CELLS = 0  # N
T_DIRS = 1  # rays from a cell: 8 or 6; direction d and d + axes are opposite
T_AXES = 2  # line axes: 4 or 3, the first directions, in the order in which recovery slides try them
T_ADJACENT = 3  # territory neighbours: 4 or 6
T_LINE = 4  # effective line length
T_PLAYERS = 5
T_REACH = 6  # longest ray
T_TERRITORY_GOAL = 7
T_SIGNS = 8  # direction of a step with signs (sx, sy) at T_SIGNS + 3 * (sx + 1) + sy + 1; -1 none
T_BLOCKS = 32  # then 3 blocks of 8 words a cell (off the board = sentinel cell N), then the coordinates, 2 words a cell


@kernel
def neighbour(tables: Tables, cell: int, direction: int) -> int:
    """The next cell along a ray; the sentinel N beyond the edge."""
    return int(tables[T_BLOCKS + cell * 8 + direction])


@kernel
def adjacent(tables: Tables, cell: int, index: int) -> int:
    """Territory neighbour ``index`` (0 .. tables[T_ADJACENT] - 1), or the sentinel N."""
    return int(tables[T_BLOCKS + (tables[T_CELLS] + cell) * 8 + index])


@kernel
def spread(tables: Tables, cell: int, index: int) -> int:
    """Cell ``index`` (0..7) that a collapsing border spreads to, or the sentinel N (always, on hexagonal)."""
    return int(tables[T_BLOCKS + (2 * tables[T_CELLS] + cell) * 8 + index])


@kernel
def direction_between(tables: Tables, origin: int, to: int) -> int:
    """The ray direction from a cell to another one on the same ray."""
    base = T_BLOCKS + 24 * tables[T_CELLS]
    dx = tables[base + 2 * to] - tables[base + 2 * origin]
    dy = tables[base + 2 * to + 1] - tables[base + 2 * origin + 1]
    sx = 1 if dx > 0 else (-1 if dx < 0 else 0)
    sy = 1 if dy > 0 else (-1 if dy < 0 else 0)
    return int(tables[T_SIGNS + 3 * (sx + 1) + sy + 1])


# --- stacks -----------------------------------------------------------------------------------------------------
@kernel
def is_stack(word: int) -> bool:
    return word >= STACK


@kernel
def is_marker(word: int) -> bool:
    """The marker's player is the word itself."""
    return 0 < word < WALL


@kernel
def is_collapsed(word: int) -> bool:
    """True for the sentinel too; the owner is ``word - 8``."""
    return WALL <= word < STACK


@kernel
def controller(word: int) -> int:
    """Player of the top ring of a stack word."""
    return (word & 3) + 1


@kernel
def height(word: int) -> int:
    """Rings of a stack word; 0 for any other word."""
    return (word >> 50) & 31


@kernel
def cap(word: int) -> int:
    """Rings of the top colour from the top of a stack word; 0 for any other word."""
    return word >> 55


@kernel
def ring(word: int, index: int) -> int:
    """Player of the ring ``index`` places below the top."""
    return ((word >> (2 * index)) & 3) + 1
