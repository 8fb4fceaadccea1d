"""Replaying recorded games and comparing every legal list and every state.

The recording is a file of JSON rows, plain or gzip: a header row ``{"k": "game", ...}`` a game, one row a ply, an end
row ``{"k": "end", ...}``. Rows carry the CRC-32 of the sorted legal list and of the state after the move, and at some
plies both in full.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.configs import make_config
from backend.errors import NotFoundError, RingRiftError, UnverifiedError
from backend.rules import load
from backend.rules.engine import Rules
from backend.rules.layout import PHASE, PHASE_NAMES, PLAYER, TURN, State

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first difference of a game: where it is, what differs, and the position before the move, drawn."""

    file: str
    game: int
    ply: int
    what: str
    position: str

    def text(self) -> str:
        return f"{self.file}: game {self.game}, ply {self.ply}: {self.what}\n{self.position}"


@dataclass(frozen=True, slots=True)
class Report:
    """What replaying a file showed. A game ends at its first mismatch; its later plies are not counted."""

    file: str
    games: int
    plies: int
    mismatches: tuple[Mismatch, ...]


class _Differs(Exception):
    pass


def crc(text: str) -> int:
    return zlib.crc32(text.encode())


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a recording.

    Raises:
        NotFoundError: there is no such file.
        UnverifiedError: it is truncated, damaged or no recording.
    """
    number = 0
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if packed else raw as lines:
                for number, line in enumerate(lines, 1):
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UnverifiedError("not a recorded game", where=f"{path}, line {number}")
                    yield row
    except FileNotFoundError:
        raise NotFoundError("no such file", where=str(path)) from None
    except IsADirectoryError:
        raise NotFoundError("a folder, not a recording", where=str(path)) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnverifiedError(f"not a recorded game ({error})", where=f"{path}, line {number}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnverifiedError(f"damaged ({error})", where=f"{path}, after line {number}") from None


def _start(rules: Rules, header: Row) -> State:
    return rules.parse_text(
        header["init"],
        swap=bool(header["swap"]),
        lps_rounds=header["lpsRounds"],
        ring_supply=header.get("supply"),
    )


def _sets(ours: list[str], theirs: list[str]) -> str:
    extra = sorted(set(ours) - set(theirs))
    missing = sorted(set(theirs) - set(ours))
    return f"legal moves differ\n  only ours:     {_some(extra)}\n  only recorded: {_some(missing)}"


def _some(moves: list[str], most: int = 12) -> str:
    shown = "; ".join(moves[:most]) or "none"
    return f"{shown} ... {len(moves)} in all" if len(moves) > most else shown


def _check_before(rules: Rules, state: State, row: Row) -> dict[str, int]:
    """The legal moves by text, after comparing phase, player and list with the row."""
    phase = str(row["ph"]).partition("@")[0]
    if PHASE_NAMES[state[PHASE]] != phase or state[PLAYER] != row["cp"]:
        raise _Differs(
            f"player {state[PLAYER]} in phase {PHASE_NAMES[state[PHASE]]}, recorded player {row['cp']} in {row['ph']}"
        )
    moves = {rules.move_text(state, move): move for move in rules.legal(state).tolist()}
    texts = sorted(moves)
    if "lg" in row and texts != row["lg"]:
        raise _Differs(_sets(texts, row["lg"]))
    if len(texts) != row["n"] or crc("\n".join(texts)) != row["lh"]:
        raise _Differs(f"legal moves differ: {len(texts)} here, {row['n']} recorded; ours: {_some(texts, 400)}")
    if row["mv"] not in moves:
        raise _Differs(f"the recorded move {row['mv']} is not legal")
    return moves


def _check_after(rules: Rules, state: State, row: Row) -> None:
    text = rules.text(state)
    if "s" in row and text != row["s"]:
        raise _Differs(f"after {row['mv']} the state differs\n  ours:     {text}\n  recorded: {row['s']}")
    if crc(text) != row["sh"]:
        raise _Differs(f"after {row['mv']} the state differs; ours: {text}")


def _check_end(rules: Rules, state: State, row: Row, plies: int) -> None:
    ours = {
        "plies": plies,
        "turns": int(state[TURN]) - 1,  # a recording counts the hand-overs
        "winner": rules.winner(state),
        "reason": rules.reason(state),
        "rank": rules.ranking(state).tolist(),
    }
    for name, value in ours.items():
        if value != row[name]:
            raise _Differs(f"at the end {name} is {value}, recorded {row[name]}")
    if not rules.over(state):
        raise _Differs("the recording ends, the game does not")


def replay(path: Path) -> Report:
    """Replays every game of a recording.

    Raises:
        NotFoundError: there is no such file.
        UnverifiedError: it is truncated, damaged or no recording.
    """
    games = plies = 0
    mismatches: list[Mismatch] = []
    rules: Rules | None = None
    state: State | None = None
    before: State | None = None
    ply = 0
    open_game = False
    for number, row in enumerate(read_rows(path), 1):
        try:
            if row.get("k") == "game":
                if open_game:
                    raise UnverifiedError("a game without an end", where=f"{path}, line {number}")
                rules = load(make_config(row["board"], row["n"]))
                before = state = _start(rules, row)
                games, ply, open_game = games + 1, 0, True
            elif rules is None or not open_game:
                raise UnverifiedError("a ply before its game", where=f"{path}, line {number}")
            elif row.get("k") == "end":
                open_game = False
                if state is not None:
                    _check_end(rules, state, row, ply)
            elif state is not None:
                before = state.copy()
                moves = _check_before(rules, state, row)
                rules.apply(state, moves[row["mv"]], checked=False)
                _check_after(rules, state, row)
                ply += 1
                plies += 1
        except _Differs as difference:
            assert rules is not None and before is not None
            mismatches.append(Mismatch(path.name, games, ply, str(difference), rules.draw(before)))
            state = None
        except (KeyError, TypeError, ValueError, RingRiftError) as error:
            if isinstance(error, UnverifiedError):
                raise
            raise UnverifiedError(f"not a recorded game ({error})", where=f"{path}, line {number}") from None
    if open_game or games == 0:
        raise UnverifiedError("truncated: the last game has no end" if games else "no game in it", where=str(path))
    return Report(path.name, games, plies, tuple(mismatches))
