"""Match records: ``data/unified_elo.db``.

``participants``, ``match_history`` and ``gauntlet_runs`` are the reference installation's tables; two modules of it
make them with different columns, so rows go into the columns that are there. ``match_games`` and ``match_slots``
beside them are ours: every match with its moves, and which place of which run it filled. Rows are only ever added.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backend.databases import (
    Stamp,
    columns,
    file_stamp,
    open_reader,
    open_writer,
    sqlite_errors,
    tables,
    transaction,
)
from backend.errors import SchemaError, UnverifiedError, UsageError
from backend.evaluation import match_totals
from backend.evaluation.match_record import MatchRecord, MatchSeat, Tally
from backend.evaluation.statistics import wilson
from backend.paths import Paths
from backend.snapshot import WinRate

_TABLES = (
    """CREATE TABLE IF NOT EXISTS participants (
        participant_id TEXT PRIMARY KEY, participant_type TEXT DEFAULT 'model', ai_type TEXT, difficulty INTEGER,
        use_neural_net INTEGER, model_path TEXT, model_version TEXT, metadata TEXT, created_at REAL, last_seen REAL,
        nn_model_id TEXT, nn_model_path TEXT, ai_algorithm TEXT, algorithm_config TEXT, is_composite INTEGER,
        is_deployable INTEGER)""",
    """CREATE TABLE IF NOT EXISTS match_history (
        id INTEGER PRIMARY KEY AUTOINCREMENT, participant_a TEXT, participant_b TEXT, participant_ids TEXT,
        rankings TEXT, winner TEXT, winner_id TEXT, board_type TEXT NOT NULL, num_players INTEGER NOT NULL,
        game_length INTEGER, duration_sec REAL, timestamp REAL, tournament_id TEXT, game_id TEXT, worker TEXT,
        metadata TEXT, elo_before TEXT, elo_after TEXT, harness_type TEXT, architecture_version TEXT,
        evaluation_metadata TEXT)""",
    """CREATE TABLE IF NOT EXISTS gauntlet_runs (
        run_id TEXT PRIMARY KEY, config_key TEXT NOT NULL, started_at REAL, completed_at REAL,
        models_evaluated INTEGER, total_games INTEGER, status TEXT)""",
    """CREATE TABLE IF NOT EXISTS match_games (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, game_id TEXT NOT NULL UNIQUE, config TEXT NOT NULL,
        candidate TEXT NOT NULL, candidate_sha256 TEXT, candidate_seat INTEGER NOT NULL, opponent TEXT NOT NULL,
        seats TEXT NOT NULL, winner INTEGER, won INTEGER NOT NULL, ranking TEXT NOT NULL, reason TEXT NOT NULL,
        termination TEXT NOT NULL, crashed INTEGER NOT NULL, opening TEXT NOT NULL, opening_moves INTEGER NOT NULL,
        seed INTEGER NOT NULL, move_count INTEGER NOT NULL, moves BLOB NOT NULL, moves_sha256 TEXT NOT NULL,
        engine_version TEXT NOT NULL, wall_s REAL NOT NULL, worker TEXT NOT NULL, played_at TEXT NOT NULL)""",
    """CREATE INDEX IF NOT EXISTS match_games_by_candidate ON match_games(
        candidate_sha256, opponent, candidate, termination, won, moves_sha256, seq)""",
    """CREATE TABLE IF NOT EXISTS match_runs (run_id TEXT PRIMARY KEY, spec TEXT NOT NULL, started_at TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS match_slots (
        run_id TEXT NOT NULL, slot TEXT NOT NULL, game_id TEXT NOT NULL, PRIMARY KEY (run_id, slot)) WITHOUT ROWID""",
    *match_totals.TABLES,
)
_NEEDED = {"participants": {"participant_id"}, "match_history": {"board_type", "num_players", "participant_ids"}}


class Records:
    """The match records of a root, open for writing; several processes may have them open at once."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._columns = {
            table: columns(connection, table) for table in ("participants", "match_history", "gauntlet_runs")
        }

    @classmethod
    def open(cls, paths: Paths) -> Self:
        """Opens the records, adding our tables beside whatever is there.

        Raises:
            UnverifiedError, LockedError, ResourceError: the file cannot be used.
            SchemaError: its tables are not those of match records.
        """
        path = paths.elo_db
        connection = open_writer(path)
        try:
            with transaction(connection, path) as db:
                for statement in _TABLES:
                    db.execute(statement)
                for table, needed in _NEEDED.items():
                    missing = needed - columns(db, table).keys()
                    if missing:
                        raise SchemaError(f"table {table} lacks {', '.join(sorted(missing))}", where=str(path))
            return cls(path, connection)
        except BaseException:
            connection.close()
            raise

    def begin_run(self, run_id: str, config: str, spec: Mapping[str, Any]) -> None:
        """Notes a run, or finds it again.

        Raises:
            UsageError: the run exists with other settings.
        """
        text, now = json.dumps(spec, sort_keys=True), datetime.now(UTC)
        with transaction(self._connection, self.path) as db:
            row = db.execute("SELECT spec FROM match_runs WHERE run_id = ?", (run_id,)).fetchone()
            if row is not None and row[0] != text:
                raise UsageError("the run exists with another model or other settings", where=run_id)
            if row is None:
                db.execute("INSERT INTO match_runs VALUES (?, ?, ?)", (run_id, text, now.isoformat()))
                values = {"run_id": run_id, "config_key": config, "started_at": now.timestamp(), "status": "running"}
                self._insert("gauntlet_runs", values | {"models_evaluated": 1, "total_games": 0})

    def end_run(self, run_id: str, games: int) -> None:
        """Notes that a run has played all its games."""
        with transaction(self._connection, self.path) as db:
            values = {"completed_at": datetime.now(UTC).timestamp(), "status": "completed", "total_games": games}
            known = {key: value for key, value in values.items() if key in self._columns["gauntlet_runs"]}
            sets = ", ".join(f"{key} = ?" for key in known)
            db.execute(f"UPDATE gauntlet_runs SET {sets} WHERE run_id = ?", (*known.values(), run_id))

    def taken(self, run_id: str) -> set[str]:
        """Slots of a run that have been played."""
        with sqlite_errors(self.path):
            rows = self._connection.execute("SELECT slot FROM match_slots WHERE run_id = ?", (run_id,))
            return {str(row[0]) for row in rows}

    def add(self, run_id: str, matches: Iterable[tuple[str, MatchRecord]]) -> None:
        """Stores matches with their slots in one transaction; what is there already is left alone.

        Raises:
            LockedError, ResourceError, UnverifiedError: none of them was stored.
        """
        with transaction(self._connection, self.path) as db:
            for slot, match in matches:
                cursor = db.execute("INSERT OR IGNORE INTO match_slots VALUES (?, ?, ?)", (run_id, slot, match.game_id))
                if cursor.rowcount == 1 and self._add_game(db, match) and match.termination == "natural":
                    self._add_history(run_id, match)
            match_totals.bring_up(db)

    def run_tally(self, run_id: str, slots: Iterable[str], opponent: str) -> Tally:
        """Results over the given slots of a run."""
        wanted = set(slots)
        with sqlite_errors(self.path):
            rows = [
                row[1:]
                for row in self._connection.execute(
                    "SELECT s.slot, g.termination, g.won, g.moves_sha256 FROM match_slots s "
                    "JOIN match_games g ON g.game_id = s.game_id WHERE s.run_id = ?",
                    (run_id,),
                )
                if row[0] in wanted
            ]
        finished = [row for row in rows if row[0] != "crash"]
        return Tally(
            opponent,
            wins=sum(row[1] for row in finished),
            games=len(finished),
            unique=len({row[2] for row in finished}),
            crashes=len(rows) - len(finished),
            caps=sum(row[0] == "cap" for row in finished),
        )

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _insert(self, table: str, values: Mapping[str, Any]) -> None:
        known = {key: value for key, value in values.items() if key in self._columns[table]}
        names, marks = ", ".join(known), ", ".join("?" * len(known))
        self._connection.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", tuple(known.values()))

    def _add_game(self, db: sqlite3.Connection, match: MatchRecord) -> bool:
        from backend.training.game_record import pack_moves  # numpy: a reader of win rates does without

        moves, sha256 = pack_moves(match.moves)
        candidate = match.seats[match.candidate - 1]
        values: dict[str, Any] = {
            "game_id": match.game_id,
            "config": match.config,
            "candidate": candidate.identity,
            "candidate_sha256": candidate.sha256,
            "candidate_seat": match.candidate,
            "opponent": match.opponent,
            "seats": json.dumps([{"identity": seat.identity, "sha256": seat.sha256} for seat in match.seats]),
            "winner": match.winner or None,
            "won": int(match.winner == match.candidate),
            "ranking": json.dumps(match.ranking),
            "reason": match.reason,
            "termination": match.termination,
            "crashed": match.crashed,
            "opening": match.opening,
            "opening_moves": match.opening_moves,
            "seed": match.seed,
            "move_count": int(match.moves.size),
            "moves": moves,
            "moves_sha256": sha256,
            "engine_version": match.engine_version,
            "wall_s": match.wall_s,
            "worker": match.worker,
            "played_at": match.played_at.isoformat(timespec="milliseconds"),
        }
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        cursor = db.execute(f"INSERT OR IGNORE INTO match_games ({names}) VALUES ({marks})", tuple(values.values()))
        return cursor.rowcount == 1

    def _add_history(self, run_id: str, match: MatchRecord) -> None:
        known = self._columns["match_history"]
        at = match.played_at
        for seat in {seat.identity: seat for seat in match.seats}.values():
            base = seat.identity.split(":")[0]
            self._insert(
                "participants",
                {
                    "participant_id": seat.identity,
                    "participant_type": "model" if seat.sha256 else "baseline",
                    "ai_type": base,
                    "use_neural_net": int(seat.sha256 is not None),
                    "model_version": seat.sha256,
                    "metadata": json.dumps({"sha256": seat.sha256}),
                    "created_at": at.timestamp(),
                    "last_seen": at.timestamp(),
                },
            )
        board, _, players = match.config.rpartition("_")
        winner = match.seats[match.winner - 1].identity if match.winner else None
        candidate = match.seats[match.candidate - 1]
        values = {
            "participant_a": candidate.identity,
            "participant_b": match.opponent,
            "participant_ids": json.dumps([seat.identity for seat in match.seats]),
            "rankings": json.dumps([rank - 1 for rank in match.ranking]),
            "winner": winner,
            "winner_id": winner,
            "board_type": board,
            "num_players": int(players[:-1]),
            "game_length": int(match.moves.size),
            "duration_sec": match.wall_s,
            "timestamp": at.isoformat() if "TEXT" in known.get("timestamp", "") else at.timestamp(),
            "tournament_id": run_id,
            "game_id": match.game_id,
            "worker": match.worker,
            "metadata": json.dumps({"opening": match.opening, "candidate_sha256": candidate.sha256}),
            "harness_type": candidate.identity.split(":")[0],
        }
        if "TEXT" in known.get("id", ""):
            values["id"] = match.game_id
        self._insert("match_history", values)


def win_rates(paths: Paths) -> dict[str, tuple[WinRate, ...]]:
    """Per model (SHA-256 of its file) the results against each opponent, with Wilson's interval at 95 %.

    A model that was played with several search settings counts with the settings played last. An absent database is
    an empty result.

    Raises:
        UnverifiedError, LockedError, ResourceError: the database cannot be read.
    """
    path = paths.elo_db
    if not path.exists():
        return {}
    stamp = file_stamp(path)
    known = _known.get(path)
    if known is None or known[0] != stamp:
        known = _known[path] = (stamp, _count_rates(path, known[1] if known else {}))
    return dict(known[1])


_known: dict[Path, tuple[Stamp, dict[str, tuple[WinRate, ...]]]] = {}


def _count_rates(path: Path, known: dict[str, tuple[WinRate, ...]]) -> dict[str, tuple[WinRate, ...]]:
    """Results by model; tuples that have not changed are those of ``known``."""
    connection = open_reader(path)
    try:
        with sqlite_errors(path):
            if "match_games" not in tables(connection):
                return {}
            rows = match_totals.totals(connection)
    finally:
        connection.close()
    latest: dict[str, dict[str, match_totals.Total]] = {}
    for row in rows:
        own = latest.setdefault(row[0], {})
        if row[1] not in own or row[3] > own[row[1]][3]:
            own[row[1]] = row
    return {sha256: _rates(own, known.get(sha256, ())) for sha256, own in latest.items()}


def _rates(own: Mapping[str, match_totals.Total], known: tuple[WinRate, ...]) -> tuple[WinRate, ...]:
    counts = [(name, row[5], row[4], row[6], row[7]) for name, row in sorted(own.items())]
    if counts == [(rate.opponent, rate.wins, rate.games, rate.unique, rate.crashes) for rate in known]:
        return known
    return tuple(WinRate(*count, *wilson(count[1], count[2])) for count in counts)


def run_slots(paths: Paths, run_id: str) -> set[str]:
    """Slots of a run that have been played; empty when there is no such run.

    Raises:
        UnverifiedError, LockedError, ResourceError: the database cannot be read.
    """
    if not paths.elo_db.exists():
        return set()
    connection = open_reader(paths.elo_db)
    try:
        with sqlite_errors(paths.elo_db):
            if "match_slots" not in tables(connection):
                return set()
            rows = connection.execute("SELECT slot FROM match_slots WHERE run_id = ?", (run_id,)).fetchall()
    finally:
        connection.close()
    return {str(row[0]) for row in rows}


def stored_runs(path: Path) -> Iterator[tuple[str, dict[str, Any], list[tuple[str, MatchRecord]]]]:
    """The runs of a records file of ours with their settings and, by slot, their matches.

    Raises:
        UnverifiedError: a match is not what was stored, or the file is damaged.
        SchemaError: the file holds no matches of ours.
    """
    connection = open_reader(path)
    try:
        with sqlite_errors(path):
            if "match_runs" not in tables(connection):
                raise SchemaError("not a file of match records", where=str(path))
            for run_id, spec in connection.execute("SELECT run_id, spec FROM match_runs ORDER BY run_id").fetchall():
                rows = connection.execute(
                    f"SELECT s.slot, g.game_id, {', '.join(f'g.{name}' for name in _MATCH)} FROM match_slots s "
                    "JOIN match_games g ON g.game_id = s.game_id WHERE s.run_id = ? ORDER BY s.slot",
                    (run_id,),
                )
                yield run_id, json.loads(spec), [_stored_match(path, *row) for row in rows]
    finally:
        connection.close()


def check_matches(path: Path, config: str, look: Callable[[str, MatchRecord], None] | None = None) -> int:
    """Checks every match of a config: its moves and its identity against their hashes; returns how many there are.

    Args:
        look: called with the id of each match and the match.

    Raises:
        UnverifiedError: a match is not what was stored; says which.
        NotFoundError, LockedError, ResourceError: the file cannot be read.
    """
    count = 0
    connection = open_reader(path)
    try:
        with sqlite_errors(path):
            if "match_games" in tables(connection):
                query = f"SELECT '', game_id, {', '.join(_MATCH)} FROM match_games WHERE config = ? ORDER BY seq"
                for row in connection.execute(query, (config,)):
                    _, match = _stored_match(path, *row)
                    if look is not None:
                        look(str(row[1]), match)
                    count += 1
    finally:
        connection.close()
    return count


_MATCH = (
    "config", "seats", "candidate_seat", "winner", "ranking", "reason", "termination", "opening", "opening_moves",
    "seed", "moves", "moves_sha256", "engine_version", "wall_s", "worker", "crashed", "played_at",
)  # fmt: skip


def _stored_match(path: Path, slot: str, game_id: str, *values: Any) -> tuple[str, MatchRecord]:
    from backend.training.game_record import unpack_moves

    row = dict(zip(_MATCH, values, strict=True))
    match = MatchRecord(
        config=row["config"],
        seats=tuple(MatchSeat(seat["identity"], seat["sha256"]) for seat in json.loads(row["seats"])),
        candidate=row["candidate_seat"],
        winner=row["winner"] or 0,
        ranking=tuple(json.loads(row["ranking"])),
        reason=row["reason"],
        termination=row["termination"],
        opening=row["opening"],
        opening_moves=row["opening_moves"],
        seed=row["seed"],
        moves=unpack_moves(row["moves"], row["moves_sha256"], f"{path} match {game_id}"),
        engine_version=row["engine_version"],
        wall_s=row["wall_s"],
        worker=row["worker"],
        crashed=row["crashed"],
        played_at=datetime.fromisoformat(row["played_at"]),
    )
    if match.game_id != game_id:
        raise UnverifiedError("a match is not what was stored", where=f"{path} match {game_id}")
    return slot, match


def stored_moves(paths: Paths, game_id: str) -> list[int]:
    """The moves of a stored match; empty when there is no such match.

    Raises:
        UnverifiedError: they are not what was stored.
    """
    from backend.training.game_record import unpack_moves

    connection = open_reader(paths.elo_db)
    try:
        with sqlite_errors(paths.elo_db):
            row = connection.execute(
                "SELECT moves, moves_sha256 FROM match_games WHERE game_id = ?", (game_id,)
            ).fetchone()
    finally:
        connection.close()
    return [] if row is None else [int(move) for move in unpack_moves(row[0], row[1], f"match {game_id}")]
