"""One running game as self-play and gauntlets hold it: its row, its generator and the moves so far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.configs import Config
from backend.rules.apply import apply_move
from backend.rules.engine import Rules
from backend.rules.jit import kernel
from backend.rules.layout import OVER, PHASE, PLAYER, TURN, Moves, State, Tables
from backend.rules.legal import legal_into

# Recorded moves for 2, 3 and 4 players after which a game is stopped, as the reference's training does. The rules
# bound every game, and games in play end far below these.
_CAPS: dict[str, tuple[int, int, int]] = {
    "square8": (600, 900, 1400),
    "hex8": (600, 900, 1400),
    "square19": (2400, 3000, 3600),
    "hexagonal": (3600, 4200, 4800),
}


def move_cap(config: Config) -> int:
    """Recorded moves after which a game of ``config`` is stopped without a winner."""
    return _CAPS[config.board][config.players - 2]


@kernel
def play_forced(state: State, tables: Tables, buffer: Moves, moves: Moves, played: int) -> int:
    """Applies and records moves while there is exactly one legal move; returns the number of moves recorded.

    Args:
        buffer: int64[M] of scratch for a legal list.
        moves: int64[cap], the record; play stops when it is full.
        played: moves recorded so far.
    """
    while played < moves.size and state[PHASE] != OVER:
        if legal_into(state, tables, buffer) != 1:
            break
        moves[played] = buffer[0]
        apply_move(state, tables, buffer[0])
        played += 1
    return played


@kernel
def play_random(
    state: State, tables: Tables, buffer: Moves, moves: Moves, played: int, draws: NDArray[np.float64], turns: int
) -> int:
    """Plays uniformly random moves, one draw each, until turn ``turns`` has ended or the draws are used up."""
    used = 0
    while played < moves.size and state[PHASE] != OVER and state[TURN] <= turns and used < draws.size:
        count = min(buffer.size, legal_into(state, tables, buffer))
        move = buffer[min(count - 1, int(draws[used] * count))]
        used += count > 1
        moves[played] = move
        apply_move(state, tables, move)
        played += 1
    return played


class LiveGame:
    """A game in progress.

    Args:
        rules: the config's rules.
        cap: recorded moves after which the game counts as stopped.
    """

    def __init__(self, rules: Rules, cap: int) -> None:
        self.state: State = rules.new()
        self.played = 0
        self._rules = rules
        self._record: Moves = np.empty(cap, dtype=np.int64)
        self._buffer: Moves = np.empty(rules.max_moves, dtype=np.int64)

    @property
    def moves(self) -> Moves:
        """int64[played] moves so far."""
        return self._record[: self.played]

    @property
    def over(self) -> bool:
        """The rules have ended the game."""
        return bool(self.state[PHASE] == OVER)

    @property
    def ended(self) -> bool:
        """The rules have ended the game, or it has reached its cap."""
        return self.over or self.played >= self._record.size

    @property
    def player(self) -> int:
        """Seat to act, 1-based; 0 when the game is over."""
        return int(self.state[PLAYER])

    def settle(self) -> bool:
        """Plays forced moves; True when the game has ended, else somebody has a choice to make."""
        self.played = play_forced(self.state, self._rules.tables, self._buffer, self._record, self.played)
        return self.ended

    def play(self, move: int, *, checked: bool) -> None:
        """Plays one move.

        Raises:
            UsageError: ``checked`` and the move is not legal; the game is as it was.
        """
        self._rules.apply(self.state, move, checked=checked)
        self._record[self.played] = move
        self.played += 1

    def play_at_random(self, draws: NDArray[np.float64], turns: int) -> None:
        """Plays random moves, one of ``draws`` a choice, at most until turn ``turns`` has ended."""
        self.played = play_random(self.state, self._rules.tables, self._buffer, self._record, self.played, draws, turns)
