"""Rating snapshots and corrections in ``data/unified_elo.db``, beside the match records.

A snapshot is a cache: the ratings of one config after one match, with what they were computed from, so that they can
be computed again and compared. Nothing is ever deleted or changed, but the covariance of older snapshots is dropped.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np

from backend.databases import open_writer, tables, transaction
from backend.errors import NotFoundError, UnverifiedError, UsageError
from backend.evaluation.rating_spec import RatingSpec
from backend.evaluation.ratings import Ratings
from backend.evaluation.ratings_check import FitCheck, PairFit
from backend.evaluation.ratings_choices import Floats
from backend.paths import Paths

_TABLES = (
    """CREATE TABLE IF NOT EXISTS rating_specs (digest TEXT PRIMARY KEY, spec TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS rating_snapshots (
        id INTEGER PRIMARY KEY AUTOINCREMENT, config TEXT NOT NULL, seq INTEGER NOT NULL, voids INTEGER NOT NULL,
        spec TEXT NOT NULL, inputs TEXT NOT NULL, games INTEGER NOT NULL, ratings BLOB NOT NULL, covariance BLOB,
        made_at TEXT NOT NULL, UNIQUE (config, seq, voids, spec))""",
    """CREATE TABLE IF NOT EXISTS match_voids (
        id INTEGER PRIMARY KEY AUTOINCREMENT, config TEXT NOT NULL, game_id TEXT NOT NULL, reason TEXT NOT NULL,
        since INTEGER NOT NULL, made_at TEXT NOT NULL)""",
    """CREATE INDEX IF NOT EXISTS match_games_by_config ON match_games(config, seq)""",
)
_SNAPSHOT = "config, seq, voids, spec, inputs, games, ratings, covariance, made_at"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Stored ratings. ``voids`` is the last correction that was known, ``spec`` and ``inputs`` are digests; without a
    stored covariance only its diagonal is filled."""

    config: str
    seq: int
    voids: int
    spec: str
    inputs: str
    games: int
    ratings: Ratings
    has_covariance: bool
    made_at: str


def open_rating_tables(paths: Paths) -> sqlite3.Connection:
    """The match records, open for writing, with the tables of ratings.

    Raises:
        NotFoundError: there are no match records.
        LockedError, ResourceError, UnverifiedError: they cannot be used.
    """
    if not paths.elo_db.exists():
        raise NotFoundError("there are no match records", where=str(paths.elo_db), hint="play a gauntlet first")
    connection = open_writer(paths.elo_db)
    try:
        with transaction(connection, paths.elo_db) as db:
            if "match_games" not in tables(db):
                raise NotFoundError("there are no matches of ours", where=str(paths.elo_db))
            for statement in _TABLES:
                db.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def add_snapshot(
    db: sqlite3.Connection, config: str, seq: int, voids: int, spec: RatingSpec, inputs: str, games: int, found: Ratings
) -> None:
    """Stores ratings inside a transaction; the newest snapshot of a config is the one that keeps its covariance."""
    db.execute("INSERT OR IGNORE INTO rating_specs VALUES (?, ?)", (spec.digest, spec.to_json()))
    db.execute("UPDATE rating_snapshots SET covariance = NULL WHERE config = ? AND seq < ?", (config, seq))
    db.execute(
        f"INSERT OR IGNORE INTO rating_snapshots ({_SNAPSHOT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            config, seq, voids, spec.digest, inputs, games, pack_ratings(found), pack_covariance(found.covariance),
            datetime.now(UTC).isoformat(timespec="milliseconds"),
        ),
    )  # fmt: skip


def snapshots(db: sqlite3.Connection, config: str | None = None, *, seq: int | None = None) -> list[Snapshot]:
    """Stored snapshots in the order of matches, of one config, up to and at match ``seq`` only, or all.

    Raises:
        UnverifiedError: one of them cannot be read.
    """
    if "rating_snapshots" not in tables(db):
        return []
    where, values = ["1"], []
    for column, value in (("config", config), ("seq", seq)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    query = f"SELECT {_SNAPSHOT} FROM rating_snapshots WHERE {' AND '.join(where)} ORDER BY config, seq, id"
    return [_snapshot(row) for row in db.execute(query, values)]


def _snapshot(row: tuple[object, ...]) -> Snapshot:
    config, seq, voids, spec, inputs, games, ratings, covariance, made_at = row
    try:
        found = unpack_ratings(ratings, covariance)  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise UnverifiedError("a stored rating snapshot is damaged", where=f"{config} match {seq}: {error}") from None
    return Snapshot(
        str(config), int(seq), int(voids), str(spec), str(inputs), int(games), found,  # type: ignore[call-overload]
        covariance is not None, str(made_at),
    )  # fmt: skip


def pack_ratings(found: Ratings) -> bytes:
    """Everything of ratings but the covariance beside the diagonal: JSON under zlib; numbers come back bit by bit."""
    data = {
        "players": found.players,
        "elo": found.elo.tolist(),
        "variance": np.diag(found.covariance).tolist(),
        "games": found.games.tolist(),
        "pinned": found.pinned.tolist(),
        "open_above": found.open_above.tolist(),
        "open_below": found.open_below.tolist(),
        "unrated": found.unrated,
        "seat_edge": found.seat_edge.tolist(),
        "seat_se": found.seat_se.tolist(),
        "check": asdict(found.check),
    }
    return zlib.compress(json.dumps(data).encode())


def pack_covariance(covariance: Floats) -> bytes:
    """The lower triangle by rows, little-endian float32, under zlib."""
    return zlib.compress(covariance[np.tril_indices(len(covariance))].astype("<f4").tobytes())


def unpack_ratings(ratings: bytes, covariance: bytes | None) -> Ratings:
    """Ratings from what :func:`pack_ratings` and :func:`pack_covariance` made."""
    data = json.loads(zlib.decompress(ratings))
    size, variance = len(data["players"]), np.array(data["variance"], dtype=np.float64)
    full = np.zeros((size, size))
    if covariance is not None:
        full[np.tril_indices(size)] = np.frombuffer(zlib.decompress(covariance), dtype="<f4")
        full = full + np.tril(full, -1).T
    np.fill_diagonal(full, variance)
    check = data["check"] | {"pairs": tuple(PairFit(**pair) for pair in data["check"]["pairs"])}
    return Ratings(
        players=tuple(data["players"]),
        elo=np.array(data["elo"], dtype=np.float64),
        covariance=full,
        games=np.array(data["games"], dtype=np.int64),
        pinned=np.array(data["pinned"], dtype=bool),
        open_above=np.array(data["open_above"], dtype=bool),
        open_below=np.array(data["open_below"], dtype=bool),
        unrated=data["unrated"],
        seat_edge=np.array(data["seat_edge"], dtype=np.float64),
        seat_se=np.array(data["seat_se"], dtype=np.float64),
        check=FitCheck(**check),
    )


def void_games(paths: Paths, game_ids: Sequence[str], reason: str) -> int:
    """Takes games out of all ratings from now on; they stay in the records, and so does the reason.

    Ratings of the past keep them. A game that is void already is left alone.

    Returns:
        How many games became void.

    Raises:
        UsageError: no reason was given. NotFoundError: there is no such game; none becomes void.
    """
    if not reason.strip():
        raise UsageError("a game becomes void for a reason only", hint="say why, in words")
    connection = open_rating_tables(paths)
    made = 0
    try:
        with transaction(connection, paths.elo_db) as db:
            for game_id in game_ids:
                row = db.execute("SELECT config FROM match_games WHERE game_id = ?", (game_id,)).fetchone()
                if row is None:
                    raise NotFoundError("there is no such match", where=game_id)
                if db.execute("SELECT 1 FROM match_voids WHERE game_id = ?", (game_id,)).fetchone():
                    continue
                db.execute(
                    "INSERT INTO match_voids (config, game_id, reason, since, made_at) VALUES (?, ?, ?, "
                    "(SELECT coalesce(max(seq), 0) FROM match_games WHERE config = ? AND termination != 'crash'), ?)",
                    (row[0], game_id, reason.strip(), row[0], datetime.now(UTC).isoformat(timespec="milliseconds")),
                )
                made += 1
    finally:
        connection.close()
    return made
