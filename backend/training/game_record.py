"""A finished game as data: its moves, result and players, and the compact forms that a database stores."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import UnverifiedError

MOVE_CAP = "move_cap"
"""Termination reason of a game that was stopped at its cap; it has no winner and is no draw."""


@dataclass(frozen=True, slots=True)
class PolicyTargets:
    """Soft move preferences of a whole game.

    Attributes:
        offsets: int64[T + 1]; move t has ``weights[offsets[t]:offsets[t + 1]]``, an empty slice where nobody chose
            (forced moves, random openings).
        weights: float32[offsets[T]]; per move the probabilities over the legal list, in the order of ``Rules.legal``.
    """

    offsets: NDArray[np.int64]
    weights: NDArray[np.float32]

    def of(self, move: int) -> NDArray[np.float32]:
        """The probabilities at move ``move``; empty when there are none."""
        return self.weights[self.offsets[move] : self.offsets[move + 1]]


@dataclass(frozen=True, slots=True)
class Seat:
    """One seat at the end of a game: who played it, rings credited, cells owned, rings left in hand."""

    player: str
    eliminated: int
    territory: int
    hand: int


@dataclass(frozen=True, slots=True)
class GameRecord:
    """One finished game; ``moves`` from the initial position of the settings give its result again.

    Attributes:
        config: config key.
        moves: int64[T] move codes of the engine.
        winner: seat, 1-based; 0 when the game was stopped at its cap.
        ranking: rank per seat, 1 for the winner; empty when stopped at the cap.
        reason: the engine's reason of the end, or ``move_cap``.
        seats: per seat the player's identity and the final counts.
        seed, index: the game's place in its run; its random choices are a function of both and of the settings.
        opening: moves at the start that were drawn at random.
        swap: whether the swap rule was on.
    """

    config: str
    moves: NDArray[np.int64]
    winner: int
    ranking: tuple[int, ...]
    reason: str
    seats: tuple[Seat, ...]
    seed: int
    index: int
    engine_version: str
    ring_supply: int
    lps_rounds: int = 3
    swap: bool = False
    opening: int = 0
    turns: int = 0
    duration_s: float = 0.0
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    policy: PolicyTargets | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def players(self) -> tuple[str, ...]:
        """Identity of the player in each seat."""
        return tuple(seat.player for seat in self.seats)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything besides the moves that decides what they lead to."""
        return {
            "config": self.config,
            "engine": self.engine_version,
            "lps_rounds": self.lps_rounds,
            "ring_supply": self.ring_supply,
            "swap": self.swap,
        }

    @property
    def game_id(self) -> str:
        """Identity by content: the same settings and moves are the same game, whoever played them."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        digest.update(self.moves.astype("<i8").tobytes())
        return digest.hexdigest()[:32]


def pack_moves(moves: NDArray[np.int64]) -> tuple[bytes, str]:
    """Compressed little-endian int64 codes, and the SHA-256 of the uncompressed bytes."""
    raw = moves.astype("<i8").tobytes()
    return zlib.compress(raw, 6), hashlib.sha256(raw).hexdigest()


def unpack_moves(data: bytes, sha256: str, where: str) -> NDArray[np.int64]:
    """The moves that :func:`pack_moves` packed.

    Raises:
        UnverifiedError: the bytes are not what was stored.
    """
    try:
        raw = _unpack(data)
    except zlib.error:
        raise UnverifiedError("the moves of a game are damaged", where=where) from None
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise UnverifiedError("the moves of a game are not those that were stored", where=where)
    return np.frombuffer(raw, dtype="<i8").astype(np.int64)


MOST_BYTES = 64 << 20
"""Of a game's moves or policy unpacked; the longest game, 4,800 moves, with 10,000 choices each would take 48 MB."""


def _unpack(data: bytes) -> bytes:
    """The uncompressed bytes; a few bytes that claim to be gigabytes are damage like any other."""
    reader = zlib.decompressobj()
    raw = reader.decompress(data, MOST_BYTES)
    if not reader.eof:
        raise zlib.error("incomplete, or larger than any game")
    return raw


def pack_policy(policy: PolicyTargets) -> bytes:
    """Compressed: uint32 count of moves, uint16 list length per move, uint8 weights relative to each list's largest.

    A weight is kept to 1/255 of the largest of its list.
    """
    lengths = np.diff(policy.offsets)
    if lengths.size and int(lengths.max()) > 0xFFFF:
        raise ValueError("a legal list is longer than 65,535 moves")
    quantised = np.zeros(policy.weights.size, dtype=np.uint8)
    for start, end in pairwise(policy.offsets):
        if end > start:
            part = policy.weights[start:end]
            quantised[start:end] = np.rint(part * (255.0 / float(part.max())))
    head = np.array([lengths.size], dtype="<u4").tobytes() + lengths.astype("<u2").tobytes()
    return zlib.compress(head + quantised.tobytes(), 6)


def unpack_policy(data: bytes, where: str) -> PolicyTargets:
    """The weights that :func:`pack_policy` packed, as probabilities again.

    Raises:
        UnverifiedError: the bytes are damaged.
    """
    try:
        raw = _unpack(data)
        count = int(np.frombuffer(raw, dtype="<u4", count=1)[0])
        lengths = np.frombuffer(raw, dtype="<u2", count=count, offset=4)
        offsets = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        counted = np.frombuffer(raw, dtype=np.uint8, count=int(offsets[-1]), offset=4 + 2 * count)
    except (zlib.error, ValueError):
        raise UnverifiedError("the policy targets of a game are damaged", where=where) from None
    weights = counted.astype(np.float32)
    for start, end in pairwise(offsets):
        if end > start:
            weights[start:end] /= weights[start:end].sum()
    return PolicyTargets(offsets, weights)
