"""Games databases: ``data/games/canonical_<config>.db``.

The tables ``games``, ``game_players`` and ``schema_metadata`` have the names and columns of the reference
installation; ``compact_games`` beside them holds what a game is replayed from, and ``game_slots`` says which run and
index a game came from, so that a run started again plays only what is missing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backend.configs import Config
from backend.databases import columns, open_reader, open_writer, sqlite_errors, tables, transaction
from backend.errors import SchemaError
from backend.locks import FileLock
from backend.training.game_record import GameRecord, Seat, pack_moves, pack_policy, unpack_moves, unpack_policy

SCHEMA = 1
REFERENCE_SCHEMA = "18"
_KEY = "ringrift_console_schema"

_TABLES = (
    "CREATE TABLE IF NOT EXISTS schema_metadata (key TEXT PRIMARY KEY, value TEXT)",
    """CREATE TABLE IF NOT EXISTS games (
        game_id TEXT PRIMARY KEY, board_type TEXT NOT NULL, num_players INTEGER NOT NULL, rng_seed INTEGER,
        created_at TEXT NOT NULL, completed_at TEXT, game_status TEXT NOT NULL, winner INTEGER,
        termination_reason TEXT, total_moves INTEGER NOT NULL, total_turns INTEGER NOT NULL, duration_ms INTEGER,
        source TEXT, schema_version INTEGER NOT NULL, time_control_type TEXT, initial_time_ms INTEGER,
        time_increment_ms INTEGER, metadata_json TEXT, quality_score REAL, quality_category TEXT, engine_mode TEXT,
        parity_status TEXT, parity_checked_at TEXT, parity_divergence_move INTEGER, opponent_type TEXT,
        opponent_model_id TEXT)""",
    """CREATE TABLE IF NOT EXISTS game_players (
        game_id TEXT NOT NULL REFERENCES games(game_id), player_number INTEGER NOT NULL, player_type TEXT NOT NULL,
        ai_type TEXT, ai_difficulty INTEGER, ai_profile_id TEXT, final_eliminated_rings INTEGER,
        final_territory_spaces INTEGER, final_rings_in_hand INTEGER, PRIMARY KEY (game_id, player_number))""",
    """CREATE TABLE IF NOT EXISTS compact_games (
        game_id TEXT PRIMARY KEY REFERENCES games(game_id), engine_version TEXT NOT NULL,
        ring_supply INTEGER NOT NULL, lps_rounds INTEGER NOT NULL, swap_rule INTEGER NOT NULL, ranking TEXT NOT NULL,
        seed INTEGER NOT NULL, slot INTEGER NOT NULL, opening_moves INTEGER NOT NULL, move_count INTEGER NOT NULL,
        moves BLOB NOT NULL, moves_sha256 TEXT NOT NULL, policy BLOB)""",
    """CREATE TABLE IF NOT EXISTS game_slots (
        spec TEXT NOT NULL, seed INTEGER NOT NULL, slot INTEGER NOT NULL, game_id TEXT NOT NULL,
        PRIMARY KEY (spec, seed, slot)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS games_by_winner ON games(winner)",
    "CREATE INDEX IF NOT EXISTS compact_games_by_slot ON compact_games(seed, slot, game_id)",
)
_GAME = (
    "game_id",
    "board_type",
    "num_players",
    "rng_seed",
    "created_at",
    "completed_at",
    "game_status",
    "winner",
    "termination_reason",
    "total_moves",
    "total_turns",
    "duration_ms",
    "source",
    "schema_version",
    "metadata_json",
    "engine_mode",
)
_COMPACT = (
    "game_id",
    "engine_version",
    "ring_supply",
    "lps_rounds",
    "swap_rule",
    "ranking",
    "seed",
    "slot",
    "opening_moves",
    "move_count",
    "moves",
    "moves_sha256",
    "policy",
)
_READ = (
    "SELECT g.game_id, g.board_type, g.num_players, g.created_at, g.winner, g.termination_reason, g.total_turns, "
    "g.duration_ms, g.metadata_json, " + ", ".join(f"c.{name}" for name in _COMPACT[1:]) + " "
    "FROM compact_games c JOIN games g ON g.game_id = c.game_id ORDER BY c.seed, c.slot, c.game_id"
)


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a game in a run: the run's settings in words, its seed, and the index within it."""

    spec: str
    seed: int
    index: int


class GamesDb:
    """One games database, open for reading (:meth:`read`) or for writing (:meth:`write`); use it in a ``with``."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: FileLock | None) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock

    @classmethod
    def read(cls, path: Path) -> Self:
        """Opens an existing database of ours; safe while another process writes to it.

        Raises:
            NotFoundError: there is none.
            UnverifiedError: it is damaged or truncated.
            SchemaError: it is readable but not of our schema.
            LockedError: another program keeps it from being read.
        """
        connection = open_reader(path)
        try:
            with sqlite_errors(path):
                _check_schema(connection, path)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, None)

    @classmethod
    def write(cls, path: Path, config: Config, purpose: str) -> Self:
        """Opens or makes the database of ``config`` as its only writer until it is closed.

        Args:
            purpose: what the writer does, in words, shown to whoever comes second.

        Raises:
            LockedError: another writer has it; the message names it.
            UnverifiedError, SchemaError, ResourceError: it cannot be used.
        """
        lock = FileLock(path.with_name(path.name + ".lock"), purpose).acquire()
        try:
            connection = open_writer(path)
            try:
                _create(connection, path, config)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            lock.release()
            raise
        return cls(path, connection, lock)

    def append(self, games: Iterable[tuple[GameRecord, Slot]]) -> int:
        """Stores finished games in one transaction; returns how many of them were not there before.

        A game that is there already (same settings and moves) only gets its slot noted.

        Raises:
            ResourceError: the disk is full; none of these games was stored, all earlier ones are kept.
            LockedError, UnverifiedError: the database cannot be written.
        """
        added = 0
        with transaction(self._connection, self.path) as db:
            for game, slot in games:
                game_id = game.game_id
                row = _game_row(game, game_id)
                cursor = db.execute(_insert("games", _GAME, "OR IGNORE"), row)
                if cursor.rowcount == 1:
                    added += 1
                    db.execute(_insert("compact_games", _COMPACT), _compact_row(game, game_id))
                    db.executemany(
                        "INSERT INTO game_players (game_id, player_number, player_type, ai_type, ai_profile_id, "
                        "final_eliminated_rings, final_territory_spaces, final_rings_in_hand) "
                        "VALUES (?, ?, 'ai', ?, ?, ?, ?, ?)",
                        [
                            (
                                game_id,
                                n,
                                seat.player.split(":")[0],
                                seat.player,
                                seat.eliminated,
                                seat.territory,
                                seat.hand,
                            )
                            for n, seat in enumerate(game.seats, 1)
                        ],
                    )
                db.execute(
                    "INSERT OR IGNORE INTO game_slots (spec, seed, slot, game_id) VALUES (?, ?, ?, ?)",
                    (slot.spec, slot.seed, slot.index, game_id),
                )
        return added

    def count(self) -> int:
        """Games with a winner; games stopped at their cap do not count."""
        with sqlite_errors(self.path):
            return int(self._connection.execute("SELECT count(*) FROM games WHERE winner > 0").fetchone()[0])

    def taken(self, spec: str, seed: int) -> set[int]:
        """Indices of a run that have been played."""
        with sqlite_errors(self.path):
            rows = self._connection.execute("SELECT slot FROM game_slots WHERE spec = ? AND seed = ?", (spec, seed))
            return {int(row[0]) for row in rows}

    def games(self) -> Iterator[GameRecord]:
        """All games, by seed and index: an order that does not depend on when they were stored.

        Raises:
            UnverifiedError: a game is not what was stored, or the file is damaged.
        """
        with sqlite_errors(self.path):
            for row in self._connection.execute(_READ):
                yield _record(self._connection, row, str(self.path))

    def with_slots(self) -> Iterator[tuple[GameRecord, Slot]]:
        """All games in the order of :meth:`games`, each with every place of a run that it fills.

        Raises:
            UnverifiedError: a game is not what was stored, or the file is damaged.
        """
        places: dict[str, list[Slot]] = {}
        with sqlite_errors(self.path):
            for spec, seed, index, name in self._connection.execute("SELECT spec, seed, slot, game_id FROM game_slots"):
                places.setdefault(name, []).append(Slot(spec, seed, index))
        for game in self.games():
            for slot in places.get(game.game_id, ()):
                yield game, slot

    def close(self) -> None:
        """Closes the file and gives the writer's lock back."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def iterate_games(path: Path) -> Iterator[GameRecord]:
    """All games of a database of ours, by seed and index.

    Raises:
        NotFoundError, UnverifiedError, SchemaError, LockedError: see :meth:`GamesDb.read`.
    """
    with GamesDb.read(path) as db:
        yield from db.games()


def _create(connection: sqlite3.Connection, path: Path, config: Config) -> None:
    with sqlite_errors(path):
        present = tables(connection)
    if present:
        with sqlite_errors(path):
            _check_schema(connection, path)
            held = connection.execute("SELECT value FROM schema_metadata WHERE key = 'config'").fetchone()
        if held is not None and held[0] != config.key:
            raise SchemaError(f"the database holds games of {held[0]}, not {config.key}", where=str(path))
        return
    with transaction(connection, path) as db:
        for statement in _TABLES:
            db.execute(statement)
        pairs = {_KEY: str(SCHEMA), "schema_version": REFERENCE_SCHEMA, "config": config.key}
        db.executemany("INSERT OR REPLACE INTO schema_metadata (key, value) VALUES (?, ?)", pairs.items())


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    present = tables(connection)
    version = None
    if {"key", "value"} <= columns(connection, "schema_metadata").keys():
        version = connection.execute("SELECT value FROM schema_metadata WHERE key = ?", (_KEY,)).fetchone()
    if version is None:
        what = "a games database of another program" if "games" in present else "not a games database"
        raise SchemaError(what, where=str(path), hint="it is left as it is; use another file")
    if version[0] != str(SCHEMA):
        raise SchemaError(f"a games database of schema {version[0]}, this program knows {SCHEMA}", where=str(path))
    for table, needed in (("games", _GAME), ("compact_games", _COMPACT)):
        missing = set(needed) - columns(connection, table).keys()
        if missing:
            raise SchemaError(f"table {table} lacks {', '.join(sorted(missing))}", where=str(path))


def _insert(table: str, names: tuple[str, ...], how: str = "") -> str:
    return f"INSERT {how} INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def _game_row(game: GameRecord, game_id: str) -> tuple[Any, ...]:
    board, _, players = game.config.rpartition("_")
    at = game.created_at.isoformat(timespec="milliseconds")
    modes = sorted({player.split(":")[0] for player in game.players})
    return (
        game_id,
        board,
        int(players[:-1]),
        game.seed,
        at,
        at,
        "completed",
        game.winner or None,
        game.reason,
        int(game.moves.size),
        game.turns,
        round(game.duration_s * 1000),
        "selfplay",
        int(REFERENCE_SCHEMA),
        json.dumps({"players": game.players, **game.metadata}, sort_keys=True),
        "+".join(modes),
    )


def _compact_row(game: GameRecord, game_id: str) -> tuple[Any, ...]:
    moves, sha256 = pack_moves(game.moves)
    return (
        game_id,
        game.engine_version,
        game.ring_supply,
        game.lps_rounds,
        int(game.swap),
        json.dumps(game.ranking),
        game.seed,
        game.index,
        game.opening,
        int(game.moves.size),
        moves,
        sha256,
        None if game.policy is None else pack_policy(game.policy),
    )


def _record(connection: sqlite3.Connection, row: tuple[Any, ...], path: str) -> GameRecord:
    game_id, board, players, created_at, winner, reason, turns, duration_ms, metadata = row[:9]
    engine, supply, lps_rounds, swap, ranking, seed, index, opening, _, moves, sha256, policy = row[9:]
    where = f"{path} game {game_id}"
    seats = connection.execute(
        "SELECT ai_profile_id, final_eliminated_rings, final_territory_spaces, final_rings_in_hand "
        "FROM game_players WHERE game_id = ? ORDER BY player_number",
        (game_id,),
    )
    return GameRecord(
        config=f"{board}_{players}p",
        moves=unpack_moves(moves, sha256, where),
        winner=winner or 0,
        ranking=tuple(json.loads(ranking)),
        reason=reason,
        seats=tuple(Seat(*seat) for seat in seats),
        seed=seed,
        index=index,
        engine_version=engine,
        ring_supply=supply,
        lps_rounds=lps_rounds,
        swap=bool(swap),
        opening=opening,
        turns=turns,
        duration_s=(duration_ms or 0) / 1000,
        created_at=datetime.fromisoformat(created_at),
        policy=None if policy is None else unpack_policy(policy, where),
        metadata={key: value for key, value in json.loads(metadata or "{}").items() if key != "players"},
    )
