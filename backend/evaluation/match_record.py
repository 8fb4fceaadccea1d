"""One played match as data: who sat where, how it began, every move, and how it ended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from backend.errors import NotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Termination = Literal["natural", "cap", "crash"]


@dataclass(frozen=True, slots=True)
class MatchSeat:
    """Who played a seat: identity with version, and the SHA-256 of the model file when there is one."""

    identity: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class MatchRecord:
    """One match of a candidate against copies of one opponent.

    Attributes:
        seats: players by seat.
        candidate: seat of the candidate, 1-based.
        winner: seat; 0 when there is none (stopped at the cap, or a player crashed).
        ranking: rank per seat; empty without a winner.
        termination: ``natural``; ``cap``, stopped by the move limit, a game not won; ``crash``, a player failed and
            the game counts for nobody.
        crashed: seat of the player that failed; 0 none.
        opening: name of the opening; ``opening_moves`` moves of it.
        moves: int64[T] from the initial position.
    """

    config: str
    seats: tuple[MatchSeat, ...]
    candidate: int
    winner: int
    ranking: tuple[int, ...]
    reason: str
    termination: Termination
    opening: str
    opening_moves: int
    seed: int
    moves: NDArray[np.int64]
    engine_version: str
    wall_s: float
    worker: str
    crashed: int = 0
    played_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def opponent(self) -> str:
        """Identity of the other seats' player."""
        return next(seat.identity for n, seat in enumerate(self.seats, 1) if n != self.candidate)

    @property
    def moves_sha256(self) -> str:
        return hashlib.sha256(self.moves.astype("<i8").tobytes()).hexdigest()

    @property
    def game_id(self) -> str:
        """Identity by content: the same lineup, seats, opening and moves are the same evidence."""
        header = {
            "config": self.config,
            "engine": self.engine_version,
            "opening": self.opening,
            "seats": [[seat.identity, seat.sha256] for seat in self.seats],
            "candidate": self.candidate,
            "seed": self.seed,
            "termination": self.termination,
        }
        text = json.dumps(header, sort_keys=True) + self.moves_sha256
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Tally:
    """Results of a candidate against one opponent.

    Attributes:
        games: finished games, those stopped at the cap included (they are not won).
        unique: different move sequences among them.
        crashes: games in which a player failed; they are in no other count.
        caps: games stopped at the cap.
    """

    opponent: str
    wins: int
    games: int
    unique: int
    crashes: int
    caps: int


def tally(records: list[MatchRecord]) -> Tally:
    """Counts matches against one opponent.

    Raises:
        NotFoundError: there are none.
    """
    if not records:
        raise NotFoundError("no games to count")
    finished = [record for record in records if record.termination != "crash"]
    return Tally(
        records[0].opponent,
        wins=sum(record.winner == record.candidate for record in finished),
        games=len(finished),
        unique=len({record.moves_sha256 for record in finished}),
        crashes=len(records) - len(finished),
        caps=sum(record.termination == "cap" for record in finished),
    )
