"""States and moves as text, and back.

State: ``phase|player|status|winner|hands|eliminated|territory|stacks|markers|collapsed``, stacks as ``x,y:RINGS``
from the bottom up, lists in cell order. Moves: a word (``P1`` ``M`` ``C`` ...) and cells ``x,y``; the words are
those of :data:`backend.rules.layout.MOVE_NAMES`, placements ``P1`` to ``P3``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.configs import Config
from backend.errors import UsageError
from backend.rules.geometry import BOARDS, ring_goal
from backend.rules.layout import (
    ACTED,
    CAPTURE,
    CELL,
    CHAIN,
    CHAINING,
    ELIMINATED,
    HAND,
    M_L1,
    M_L2,
    M_PLACE,
    M_R1,
    M_R2,
    M_REGION,
    M_RF,
    M_RS,
    MARKERS,
    MOVE_NAMES,
    MUST,
    OVER,
    PHASE,
    PHASE_NAMES,
    PLAYER,
    RECOVERY,
    RING_GOAL,
    RINGS,
    STACK,
    STACKS,
    SUPPLY,
    T_LINE,
    TERRITORY,
    WALL,
    WINNER,
    State,
    Tables,
    controller,
    direction_between,
    neighbour,
)
from backend.rules.recovery import slide_run
from backend.rules.regions import region_with_border
from backend.rules.stacks import push_top
from backend.rules.state import new_state

MAX_HEIGHT = 25


class Notation:
    """Text of the states and moves of one config."""

    def __init__(self, config: Config, tables: Tables) -> None:
        self.config = config
        self.tables = tables
        self.cells = BOARDS[config.board].cells
        self.names = [f"{x},{y}" for x, y in BOARDS[config.board].coordinates]
        self.cell_of = {name: cell for cell, name in enumerate(self.names)}
        self._stacks: dict[int, str] = {}
        self._moves: dict[int, str] = {}

    # --- states -------------------------------------------------------------------------------------------------
    def stack_text(self, word: int) -> str:
        """Rings of a stack word from the bottom up, as player digits."""
        text = self._stacks.get(word)
        if text is None:
            rings = range((word >> 50) & 31)
            text = "".join(str(((word >> (2 * index)) & 3) + 1) for index in reversed(rings))
            self._stacks[word] = text
        return text

    def state_text(self, state: State) -> str:
        """The whole position as one line."""
        names = self.names
        stacks, markers, collapsed = [], [], []
        words = state[CELL : CELL + self.cells]
        filled = np.flatnonzero(words)
        for cell, word in zip(filled.tolist(), words[filled].tolist(), strict=True):
            if word >= STACK:
                stacks.append(f"{names[cell]}:{self.stack_text(word)}")
            elif word < WALL:
                markers.append(f"{names[cell]}:{word}")
            else:
                collapsed.append(f"{names[cell]}:{word - WALL}")
        phase = int(state[PHASE])
        name = PHASE_NAMES[phase]
        if phase in (CAPTURE, CHAINING):
            name = f"{name}@{names[state[CHAIN]]}"
        status = "over" if phase == OVER else "active"
        seats = self.config.players + 1
        fields = [name, str(state[PLAYER]), status, str(state[WINNER])]
        for block in (HAND, ELIMINATED, TERRITORY):
            fields.append(",".join(map(str, state[block + 1 : block + seats].tolist())))
        return "|".join([*fields, " ".join(stacks), " ".join(markers), " ".join(collapsed)])

    def _cell(self, name: str, text: str) -> int:
        cell = self.cell_of.get(name)
        if cell is None:
            raise UsageError(f"no cell {name!r} on {self.config.board}", where=text[:80])
        return cell

    def _pairs(self, field: str, text: str) -> list[tuple[int, str]]:
        pairs = []
        for item in field.split():
            name, _, value = item.partition(":")
            if not value or any(digit not in "1234"[: self.config.players] for digit in value):
                raise UsageError(f"cannot read {item!r}", where=text[:80])
            pairs.append((self._cell(name, text), value))
        return pairs

    def _numbers(self, field: str, text: str) -> list[int]:
        parts = field.split(",")
        if len(parts) != self.config.players or not all(part.isdecimal() for part in parts):
            raise UsageError(f"cannot read {field!r} as a number for each player", where=text[:80])
        return [int(part) for part in parts]

    def parse_state(
        self,
        text: str,
        *,
        swap: bool = False,
        ring_supply: int | None = None,
        lps_rounds: int = 3,
        must: str | None = None,
        acted: bool = False,
        recovery: bool = False,
    ) -> State:
        """A position from its text.

        What the text does not tell comes from the arguments: whether sides may still be swapped, the rings a player
        started with (from the rings counted, when they divide evenly), the cell of the stack just placed, whether
        the player acted or slid for recovery this turn. The last-player-standing count starts anew.

        Raises:
            UsageError: the text is not a position of this config.
        """
        fields = text.split("|")
        if len(fields) != 10:
            raise UsageError("a state has ten fields", where=text[:80])
        phase, _, at = fields[0].partition("@")
        if phase not in PHASE_NAMES or not fields[1].isdecimal() or not fields[3].isdecimal():
            raise UsageError("cannot read phase, player and winner", where=text[:80])
        state = new_state(self.config, swap, lps_rounds=lps_rounds)
        state[PHASE] = PHASE_NAMES.index(phase)
        state[PLAYER], state[WINNER] = int(fields[1]), int(fields[3])
        if max(state[PLAYER], state[WINNER]) > self.config.players or (state[PLAYER] == 0) != (state[PHASE] == OVER):
            raise UsageError("no such player to act", where=text[:80])
        state[CHAIN] = self._cell(at, text) if at else -1
        state[MUST] = -1 if must is None else self._cell(must, text)
        state[ACTED], state[RECOVERY] = int(acted), int(recovery)
        for block, field in ((HAND, fields[4]), (ELIMINATED, fields[5]), (TERRITORY, fields[6])):
            state[block + 1 : block + 1 + self.config.players] = self._numbers(field, text)
        for cell, rings in self._pairs(fields[7], text):
            self._put_stack(state, cell, rings, text)
        for field, base in ((fields[8], 0), (fields[9], WALL)):
            for cell, seat in self._pairs(field, text):
                if len(seat) != 1 or state[CELL + cell]:
                    raise UsageError(f"cannot read {self.names[cell]}:{seat}", where=text[:80])
                state[CELL + cell] = base + int(seat)
                if base == 0:
                    state[MARKERS + int(seat)] += 1
        total = int(
            state[HAND : HAND + 5].sum() + state[ELIMINATED : ELIMINATED + 5].sum() + state[RINGS : RINGS + 5].sum()
        )
        state[SUPPLY] = max(1, total // self.config.players) if ring_supply is None else ring_supply
        state[RING_GOAL] = ring_goal(self.config.players, int(state[SUPPLY]))
        return state

    def _put_stack(self, state: State, cell: int, rings: str, text: str) -> None:
        if state[CELL + cell] or len(rings) > min(MAX_HEIGHT, BOARDS[self.config.board].reach + 1):
            raise UsageError(f"no stack can be {self.names[cell]}:{rings}", where=text[:80])
        word = 0
        for digit in rings:
            word = push_top(word, int(digit))
            state[RINGS + int(digit)] += 1
        state[CELL + cell] = word
        state[STACKS + controller(word)] += 1

    # --- moves --------------------------------------------------------------------------------------------------
    def _run(self, first: int, direction: int, count: int) -> list[int]:
        cells = [first]
        while len(cells) < count:
            cells.append(int(neighbour(self.tables, cells[-1], direction)))
        return sorted(cells)

    def _between(self, first: int, last: int) -> list[int]:
        direction = direction_between(self.tables, first, last)
        cells = [first]
        while cells[-1] != last:
            cells.append(int(neighbour(self.tables, cells[-1], direction)))
        return cells

    def region_cells(self, state: State, move: int) -> NDArray[np.int64]:
        """Cells of the region that a ``T`` move takes, in order; its border markers are not among them."""
        marks = np.zeros(self.cells + 1, np.int64)
        queue = np.empty(self.cells + 1, np.int64)
        size, _ = region_with_border(state, self.tables, (move >> 5) & 511, (move >> 14) & 511, marks, queue)
        return np.sort(queue[:size])

    def _list(self, cells: list[int]) -> str:
        return " ".join(self.names[cell] for cell in cells)

    def move_text(self, state: State, move: int) -> str:
        """A legal move of ``state`` as text."""
        text = self._moves.get(move)
        if text is None:
            text = self._compose(state, move)
            if move & 31 not in (M_R2, M_REGION):
                self._moves[move] = text
        return text

    def _compose(self, state: State, move: int) -> str:
        kind, a, b, c = move & 31, (move >> 5) & 511, (move >> 14) & 511, (move >> 23) & 511
        if kind >= len(MOVE_NAMES):
            raise UsageError("no such move", where=str(move))
        word, names = MOVE_NAMES[kind], self.names
        count = _OPERANDS.get(word, 0)
        if kind == M_PLACE:
            return f"P{b} {names[a]}"
        if kind in (M_R1, M_RF, M_RS):
            return f"{word} {names[a]} {names[b]} ! {names[c]}"
        if kind == M_R2:
            axis, _, _ = slide_run(state, self.tables, a, b, int(state[PLAYER]))
            return f"R2 {names[a]} {names[b]} / {self._list(self._run(c, axis, int(self.tables[T_LINE])))}"
        if kind == M_L1:
            return f"L1 {self._list(self._between(a, b))}"
        if kind == M_L2:
            window = self._run(c, direction_between(self.tables, a, b), int(self.tables[T_LINE]))
            return f"L2 {self._list(self._between(a, b))} / {self._list(window)}"
        if kind == M_REGION:
            return f"T {self._list(self.region_cells(state, move).tolist())}"
        return " ".join([word, *(names[cell] for cell in (a, b, c)[:count])])


_OPERANDS = {"M": 2, "C": 3, "K": 3, "EL": 1, "ET": 1, "ER": 1, "F": 1}
