"""The four boards, two to four players, and the twelve config keys they make."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from backend.errors import UsageError

BOARDS: tuple[str, ...] = ("square8", "square19", "hex8", "hexagonal")
PLAYER_COUNTS: tuple[int, ...] = (2, 3, 4)


@dataclass(frozen=True, slots=True, order=True)
class Config:
    """A board type with a number of players, e.g. ``hex8`` for 2; its key is ``hex8_2p``."""

    board: str
    players: int

    @property
    def key(self) -> str:
        return f"{self.board}_{self.players}p"

    def __str__(self) -> str:
        return self.key


CONFIGS: tuple[Config, ...] = tuple(Config(board, n) for board in BOARDS for n in PLAYER_COUNTS)
_BY_KEY = {config.key: config for config in CONFIGS}


def parse_config(key: str) -> Config:
    """The config of a key such as ``square8_2p``.

    Raises:
        UsageError: there is no such config; the message lists the nearest ones.
    """
    config = _BY_KEY.get(key.strip().lower())
    if config is None:
        near = difflib.get_close_matches(key, _BY_KEY, n=1)
        hint = f"did you mean {near[0]}?" if near else "one of " + " ".join(_BY_KEY)
        raise UsageError("unknown config", where=key, hint=hint)
    return config


def make_config(board: str, players: int) -> Config:
    """The config of a board name and a player count, as given by ``--board-type`` and ``--num-players``."""
    if board not in BOARDS:
        near = difflib.get_close_matches(board, BOARDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "one of " + " ".join(BOARDS)
        raise UsageError("unknown board type", where=board, hint=hint)
    if players not in PLAYER_COUNTS:
        raise UsageError("unknown number of players", where=str(players), hint="2, 3 or 4")
    return Config(board, players)
