"""Positions drawn in plain ASCII."""

from __future__ import annotations

from backend.rules.geometry import Board
from backend.rules.layout import (
    CELL,
    CHAIN,
    ELIMINATED,
    HAND,
    MUST,
    OVER,
    PHASE,
    PHASE_NAMES,
    PLAYER,
    REASON,
    REASON_NAMES,
    STACK,
    TERRITORY,
    TURN,
    WALL,
    WINNER,
    State,
)

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
OWNERS = " ABCD"


def cell_text(word: int, width: int) -> str:
    """A cell in ``width`` characters, the last one blank.

    ``.`` empty, ``m1`` marker, ``#1`` collapsed, ``A32`` a stack of player 1 of height 3 and cap 2; heights are
    written in base 36, and where only two characters are free the cap is left out.
    """
    if word == 0:
        text = "."
    elif word >= STACK:
        text = OWNERS[(word & 3) + 1] + DIGITS[(word >> 50) & 31] + DIGITS[word >> 55]
    elif word < WALL:
        text = f"m{word}"
    else:
        text = f"#{word - WALL}"
    return text[: width - 1].ljust(width)


def draw(board: Board, players: int, state: State) -> str:
    """The board with its coordinates, the seats and who is to act.

    Square boards: x to the right, y down. Hexagonal boards: q to the right, r down; row r is labelled on the left with
    its first q. All lines fit 80 columns.
    """
    words = state[CELL : CELL + board.cells].tolist()
    at = {place: words[cell] for cell, place in enumerate(board.coordinates)}
    lines = []
    if board.hexagonal:
        width = 4 if board.extent < 9 else 3
        for r in range(-board.extent, board.extent + 1):
            row = [q for q in range(-board.extent, board.extent + 1) if (q, r) in at]
            label = f"{r:3d} "
            indent = " " * (abs(r) * width // 2)
            lines.append((label + indent + "".join(cell_text(at[q, r], width) for q in row)).rstrip())
        lines.append("rows: r; first cell of a row: q = max(-R, -R - r), R = " + str(board.extent))
    else:
        lines.append("   " + "".join(str(x).ljust(4) for x in range(board.extent)).rstrip())
        for y in range(board.extent):
            row_text = "".join(cell_text(at[x, y], 4) for x in range(board.extent))
            lines.append(f"{y:2d} {row_text}".rstrip())
    for seat in range(1, players + 1):
        lines.append(
            f"{'>' if state[PLAYER] == seat else ' '} {OWNERS[seat]} player {seat}: hand {state[HAND + seat]}, "
            f"eliminated {state[ELIMINATED + seat]}, territory {state[TERRITORY + seat]}"
        )
    if state[PHASE] == OVER:
        lines.append(f"over: player {state[WINNER]} wins by {REASON_NAMES[state[REASON]]}, turn {state[TURN]}")
    else:
        lines.append(f"turn {state[TURN]}, player {state[PLAYER]}: {PHASE_NAMES[state[PHASE]]}{_focus(board, state)}")
    return "\n".join(lines)


def _focus(board: Board, state: State) -> str:
    cell = int(max(state[MUST], state[CHAIN]))
    if cell < 0:
        return ""
    x, y = board.coordinates[cell]
    return f" with the stack on {x},{y}"
