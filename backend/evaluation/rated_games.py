"""The games that ratings are made of, as arrays, read from the match records of one config."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.databases import tables
from backend.errors import SchemaError
from backend.evaluation.rating_spec import RatingSpec
from backend.evaluation.rating_view import model_of as model_of
from backend.evaluation.ratings import Ratings, rate
from backend.evaluation.ratings_choices import Ints


def player_key(identity: str, sha256: str | None) -> str:
    """Who is rated: a model is the SHA-256 of its file, with its search settings, a baseline its identity.

    The same network with another search is another player; pooling them would mix two strengths into one number.
    """
    if sha256 is None:
        return identity
    settings = identity.split(":", 2)[2:]  # behind "neural:<first digits of the SHA-256>"
    return ":".join([sha256, *settings])


@dataclass(frozen=True, slots=True)
class Void:
    """A game that is not to count: ``number`` orders these rows, ``since`` is the last match before it was said."""

    number: int
    game_id: str
    reason: str
    since: int
    made_at: str


@dataclass(frozen=True, slots=True)
class RatedGames:
    """Games of one config with a result, in the order in which they were stored.

    Games in which a player crashed are not among them: they tell of a program, not of its strength (verdicts count
    them apart). A game stopped at its cap is a tie of all its players: nobody won, and nobody stood above another.

    Attributes:
        players: keys, see :func:`player_key`; identities: the seat identity last used by each.
        seq: int64[G], increasing. seats: int64[G, n], index of the player. ranks: int64[G, n].
        caps: bool as int64[G]. game_ids: G ids.
        digests: per game the SHA-256 of what was read, as an integer.
        voids: corrections, by number.
    """

    config: str
    players: tuple[str, ...]
    identities: tuple[str, ...]
    seq: Ints
    seats: Ints
    ranks: Ints
    caps: Ints
    game_ids: tuple[str, ...]
    digests: tuple[int, ...]
    voids: tuple[Void, ...]

    @property
    def last(self) -> int:
        """The last game's number; 0 without games."""
        return int(self.seq[-1]) if len(self.seq) else 0

    def voids_at(self, seq: int, number: int | None = None) -> int:
        """Number of the last correction that was known at match ``seq``, not above ``number``; 0 for none."""
        known = (void.number for void in self.voids if void.since <= seq)
        return max((n for n in known if number is None or n <= number), default=0)

    def kept(self, seq: int, voids: int) -> Ints:
        """int64[K], the games up to match ``seq`` that corrections up to ``voids`` leave."""
        gone = {void.game_id for void in self.voids if void.number <= voids and void.since <= seq}
        upto = int(np.searchsorted(self.seq, seq, side="right"))
        if not gone:
            return np.arange(upto)
        return np.array([i for i in range(upto) if self.game_ids[i] not in gone], dtype=np.int64)

    def inputs_digest(self, kept: Ints) -> str:
        """What these games are, whatever their order: the sum of their digests modulo 2^256, hexadecimal."""
        total = sum(self.digests) if len(kept) == len(self.digests) else sum(self.digests[i] for i in kept.tolist())
        return f"{total % (1 << 256):064x}"

    def rate(self, spec: RatingSpec, kept: Ints) -> Ratings:
        """The ratings that some of the games give."""
        return rate(self.players, self.seats[kept], self.ranks[kept], spec)


def read_games(
    connection: sqlite3.Connection, config: str, width: int, where: str, *, of: str | None = None
) -> RatedGames:
    """All games with a result of a config.

    Args:
        width: its number of players.
        where: the file, for errors.
        of: only games with this in a seat: the SHA-256 of a model, or the identity of a baseline.

    Raises:
        SchemaError: a record cannot be read.
    """
    rows: list[Any] = []
    voids: list[Void] = []
    there = tables(connection)
    if "match_games" in there:
        rows = connection.execute(
            "SELECT seq, game_id, seats, ranking, winner, termination FROM match_games "
            "WHERE config = ? AND termination != 'crash' AND (? IS NULL OR instr(seats, ?)) ORDER BY seq",
            (config, of, of),
        ).fetchall()
    if "match_voids" in there:
        found = connection.execute(
            "SELECT id, game_id, reason, since, made_at FROM match_voids WHERE config = ? ORDER BY id", (config,)
        )
        voids = [Void(*row) for row in found]
    names: dict[str, int] = {}
    identities: dict[int, str] = {}
    lineups: dict[str, list[int]] = {}
    rankings: dict[str, list[int]] = {}
    seats, ranks = np.empty((len(rows), width), dtype=np.int64), np.empty((len(rows), width), dtype=np.int64)
    for number, (seq, _, seated, ranked, _, termination) in enumerate(rows):
        try:
            if seated not in lineups:
                lineup = []
                for seat in json.loads(seated):
                    index = names.setdefault(player_key(seat["identity"], seat["sha256"]), len(names))
                    identities[index] = seat["identity"]
                    lineup.append(index)
                lineups[seated] = lineup
            text = ranked if termination == "natural" else "cap"
            if text not in rankings:
                rankings[text] = [1] * width if text == "cap" else json.loads(text)
            seats[number], ranks[number] = lineups[seated], rankings[text]
        except (ValueError, KeyError, TypeError) as error:
            raise SchemaError("a match record cannot be read", where=f"{where} match {seq}: {error}") from None
    return RatedGames(
        config=config,
        players=tuple(names),
        identities=tuple(identities[i] for i in range(len(names))),
        seq=np.array([row[0] for row in rows], dtype=np.int64),
        seats=seats,
        ranks=ranks,
        caps=np.array([row[5] == "cap" for row in rows], dtype=np.int64),
        game_ids=tuple(row[1] for row in rows),
        digests=tuple(_digest(row[1:]) for row in rows),
        voids=tuple(voids),
    )


def _digest(row: tuple[object, ...]) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, row)).encode()).digest(), "big")
