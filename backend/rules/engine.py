"""The rules of one config: what the rest of the program plays with."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from backend.configs import Config, parse_config
from backend.errors import UsageError
from backend.rules import batch, geometry, layout, symmetry
from backend.rules.apply import apply_move
from backend.rules.compiling import compile_all
from backend.rules.draw import draw
from backend.rules.layout import Moves, State
from backend.rules.legal import legal_into
from backend.rules.notation import Notation
from backend.rules.state import new_state, row_size


class Rules:
    """The game on one board for a number of players. A state is an int64 row, see :mod:`backend.rules.layout`.

    Attributes:
        config: the board and the number of players.
        board: geometry of the board.
        tables: the int16 block that every kernel takes.
        size: words of a state row.
        cells: cells of the board.
        players: number of players.
        max_moves: moves that a buffer should hold; only the longest recovery lists are longer.
        symmetries: ``int16[K, N]``, where each cell goes under each symmetry; row 0 is the identity.
        notation: states and moves as text.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.board = geometry.BOARDS[config.board]
        self.tables = geometry.build_tables(config)
        self.size = row_size(config)
        self.cells = self.board.cells
        self.players = config.players
        self.max_moves = int(batch.buffer_size(self.tables))
        self.symmetries = geometry.symmetries(config.board)
        self.notation = Notation(config, self.tables)

    # --- one game -----------------------------------------------------------------------------------------------
    def new(self, swap: bool | None = None, ring_supply: int | None = None, lps_rounds: int = 3) -> State:
        """The start of a game.

        Args:
            swap: whether player 2 may swap sides instead of placing first; two players only. None is no, as in the
                reference's server and training: the seats of a game then keep their players.
            ring_supply: rings a player starts with; None is the board's own number.
            lps_rounds: rounds of sole mobility that win.
        """
        return new_state(self.config, bool(swap), ring_supply, lps_rounds)

    def legal(self, state: State) -> Moves:
        """The legal moves as int64 codes, in a fixed order; empty when the game is over."""
        moves = np.empty(self.max_moves, np.int64)
        count = legal_into(state, self.tables, moves)
        if count > moves.size:
            moves = np.empty(count, np.int64)
            legal_into(state, self.tables, moves)
        return moves[:count].copy()

    def apply(self, state: State, move: int, *, checked: bool = True) -> None:
        """Carries out a move in place.

        Raises:
            UsageError: ``checked`` and the move is not legal here.
        """
        if checked and move not in self.legal(state):
            raise UsageError("illegal move", where=f"{move} in {self.text(state)[:60]}")
        apply_move(state, self.tables, int(move))

    def advance_forced(self, state: State) -> int:
        """Plays on while there is exactly one legal move; returns how many moves that were."""
        return int(batch.advance_forced(state, self.tables, np.empty(2, np.int64)))

    def hash(self, state: State) -> int:
        """A 64-bit digest of everything in the row, 0 .. 2**64 - 1."""
        return int(batch.hash_row(state)) & 0xFFFF_FFFF_FFFF_FFFF

    def over(self, state: State) -> bool:
        return bool(state[layout.PHASE] == layout.OVER)

    def player(self, state: State) -> int:
        """The player to act, 1-based; 0 when the game is over."""
        return int(state[layout.PLAYER])

    def winner(self, state: State) -> int:
        """The winner, 1-based; 0 while the game runs."""
        return int(state[layout.WINNER])

    def reason(self, state: State) -> str:
        """Why the game ended, e.g. ``ring_elimination``; empty while it runs."""
        return layout.REASON_NAMES[int(state[layout.REASON])]

    def ranking(self, state: State) -> NDArray[np.int64]:
        """Rank of each seat, ``int64[players]``: the winner first, then by territory, credited rings, markers and how
        long the seat had rings; equal seats share a rank. While the game runs: as if it ended without a winner."""
        keys = []
        for seat in range(1, self.players + 1):
            gone = int(state[layout.GONE + seat])
            keys.append(
                (
                    int(state[layout.WINNER]) == seat,
                    int(state[layout.TERRITORY + seat]),
                    int(state[layout.ELIMINATED + seat]),
                    int(state[layout.MARKERS + seat]),
                    np.inf if gone == 0 else gone,
                )
            )
        return np.array([1 + sum(other > key for other in keys) for key in keys], dtype=np.int64)

    # --- text ---------------------------------------------------------------------------------------------------
    def text(self, state: State) -> str:
        """The position as one line."""
        return self.notation.state_text(state)

    def parse_text(self, text: str, **told: object) -> State:
        """A position from :meth:`text`; see :meth:`Notation.parse_state` for what the text does not tell."""
        return self.notation.parse_state(text, **told)  # type: ignore[arg-type]

    def move_text(self, state: State, move: int) -> str:
        """A legal move of ``state`` in words."""
        return self.notation.move_text(state, int(move))

    def parse_move(self, state: State, text: str) -> int:
        """The legal move of ``state`` that reads ``text``.

        Raises:
            UsageError: no legal move reads so.
        """
        wanted = " ".join(text.split())
        for move in self.legal(state).tolist():
            if self.notation.move_text(state, move) == wanted:
                return int(move)
        raise UsageError("illegal move", where=f"{wanted} in {self.text(state)[:60]}")

    def draw(self, state: State) -> str:
        """The board as plain text."""
        return draw(self.board, self.players, state)

    # --- many games ---------------------------------------------------------------------------------------------
    def legal_batch(self, states: State) -> tuple[Moves, NDArray[np.int64]]:
        """Legal moves of ``states[G, S]``: ``moves[G, M]`` and how many of each row are valid, ``counts[G]``."""
        moves = np.empty((len(states), self.max_moves), np.int64)
        counts = np.empty(len(states), np.int64)
        batch.legal_batch(states, self.tables, moves, counts)
        longest = int(counts.max(initial=0))
        if longest > moves.shape[1]:
            moves = np.empty((len(states), longest), np.int64)
            batch.legal_batch(states, self.tables, moves, counts)
        return moves, counts

    def apply_batch(self, states: State, moves: Moves) -> None:
        """Applies ``moves[G]``, one legal move to each game, unchecked; games that are over stay as they are."""
        batch.apply_batch(states, self.tables, np.ascontiguousarray(moves, dtype=np.int64))

    def advance_forced_batch(self, states: State) -> NDArray[np.int64]:
        """:meth:`advance_forced` for ``states[G, S]``; returns the moves played in each."""
        plies = np.zeros(len(states), np.int64)
        batch.advance_forced_batch(states, self.tables, plies)
        return plies

    # --- symmetries ---------------------------------------------------------------------------------------------
    def transform_state(self, state: State, k: int) -> State:
        """The image of a state under symmetry ``k``."""
        image = np.empty_like(state)
        symmetry.transform_state_into(state, self.tables, self.symmetries[k], image)
        return image

    def transform_move(self, state: State, move: int, k: int) -> int:
        """The image of a legal move of ``state`` (the state before the transformation) under symmetry ``k``."""
        return int(symmetry.transform_move(state, self.tables, self.symmetries[k], int(move)))

    def transform_moves(self, state: State, moves: Moves, k: int) -> Moves:
        """The images of many legal moves of one state."""
        images = np.empty_like(moves)
        symmetry.transform_moves(state, self.tables, self.symmetries[k], moves, images)
        return images


@cache
def _rules(config: Config) -> Rules:
    return Rules(config)


def load_rules(config: Config | str, *, quiet: bool = False) -> Rules:
    """The rules of a config or config key, with all kernels compiled."""
    compile_all(quiet=quiet)
    return _rules(parse_config(config) if isinstance(config, str) else config)
