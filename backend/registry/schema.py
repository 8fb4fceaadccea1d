"""The registry database: the ai-service's tables and columns, and ours beside them.

An existing ``registry.db`` of a RingRift ai-service opens as it is. Its tables are never altered, its journal mode is
left alone (another program may have it open), and our table is added at the first change that we make.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backend.databases import check_file, columns, open_reader, sqlite_errors
from backend.errors import SchemaError

BUSY_SECONDS = 10.0

REFERENCE_COLUMNS: dict[str, tuple[str, ...]] = {
    "models": ("model_id", "name", "description", "model_type", "created_at", "updated_at"),
    "versions": (
        "model_id", "version", "stage", "file_path", "file_hash", "file_size_bytes", "metrics_json",
        "training_config_json", "created_at", "updated_at",
    ),
    "tags": ("model_id", "version", "tag"),
    "stage_transitions": (
        "model_id", "version", "from_stage", "to_stage", "reason", "transitioned_by", "transitioned_at",
    ),
}  # fmt: skip
"""Columns that we read or write; a table of that name without them is another program's."""

OWN_COLUMNS: tuple[str, ...] = (
    "sha256", "model_id", "version", "label", "config", "path", "size_bytes", "architecture", "encoder_version",
    "data_digest", "parent_sha256", "metadata_json", "registered_at",
)  # fmt: skip

_DDL = (
    """CREATE TABLE IF NOT EXISTS models (
        model_id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT, model_type TEXT NOT NULL,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS versions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL REFERENCES models(model_id),
        version INTEGER NOT NULL, stage TEXT NOT NULL, file_path TEXT NOT NULL, file_hash TEXT NOT NULL,
        file_size_bytes INTEGER NOT NULL, metrics_json TEXT NOT NULL, training_config_json TEXT NOT NULL,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL, UNIQUE(model_id, version))""",
    """CREATE TABLE IF NOT EXISTS tags (
        id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, version INTEGER NOT NULL, tag TEXT NOT NULL,
        UNIQUE(model_id, version, tag))""",
    """CREATE TABLE IF NOT EXISTS stage_transitions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, version INTEGER NOT NULL, from_stage TEXT,
        to_stage TEXT NOT NULL, reason TEXT, transitioned_by TEXT, transitioned_at TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS comparisons (
        id INTEGER PRIMARY KEY AUTOINCREMENT, model_a_id TEXT NOT NULL, model_a_version INTEGER NOT NULL,
        model_b_id TEXT NOT NULL, model_b_version INTEGER NOT NULL, games_played INTEGER NOT NULL,
        model_a_wins INTEGER NOT NULL, model_b_wins INTEGER NOT NULL, draws INTEGER NOT NULL, elo_diff REAL,
        compared_at TEXT NOT NULL, notes TEXT)""",
    """CREATE TABLE IF NOT EXISTS validations (
        id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, version INTEGER NOT NULL,
        status TEXT NOT NULL DEFAULT 'pending', work_id TEXT, baselines TEXT,
        games_per_matchup INTEGER DEFAULT 50, results_json TEXT, started_at TEXT, completed_at TEXT,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL, UNIQUE(model_id, version))""",
    "CREATE INDEX IF NOT EXISTS idx_versions_model ON versions(model_id)",
    "CREATE INDEX IF NOT EXISTS idx_versions_stage ON versions(stage)",
    "CREATE INDEX IF NOT EXISTS idx_tags_model ON tags(model_id, version)",
    "CREATE INDEX IF NOT EXISTS idx_transitions_model ON stage_transitions(model_id, version)",
    "CREATE INDEX IF NOT EXISTS idx_validations_status ON validations(status)",
    """CREATE TABLE IF NOT EXISTS artifacts (
        sha256 TEXT PRIMARY KEY, model_id TEXT NOT NULL, version INTEGER NOT NULL, label TEXT NOT NULL UNIQUE,
        config TEXT NOT NULL, path TEXT NOT NULL, size_bytes INTEGER NOT NULL, architecture TEXT,
        encoder_version TEXT, data_digest TEXT, parent_sha256 TEXT, metadata_json TEXT NOT NULL,
        registered_at TEXT NOT NULL, UNIQUE(model_id, version))""",
    """CREATE TABLE IF NOT EXISTS pointers (
        config TEXT PRIMARY KEY, label TEXT NOT NULL, sha256 TEXT NOT NULL, previous TEXT, revision INTEGER NOT NULL,
        moved_by TEXT NOT NULL, moved_at TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS pointer_moves (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, config TEXT NOT NULL, revision INTEGER NOT NULL, action TEXT NOT NULL,
        from_label TEXT, from_sha256 TEXT, to_label TEXT NOT NULL, to_sha256 TEXT NOT NULL, reason TEXT NOT NULL,
        by TEXT NOT NULL, at TEXT NOT NULL, operation TEXT NOT NULL UNIQUE, UNIQUE(config, revision))""",
    """CREATE TABLE IF NOT EXISTS decisions (
        operation TEXT PRIMARY KEY, at TEXT NOT NULL, by TEXT NOT NULL, action TEXT NOT NULL, config TEXT,
        model TEXT NOT NULL, sha256 TEXT NOT NULL, from_stage TEXT NOT NULL, to_stage TEXT NOT NULL,
        outcome TEXT NOT NULL, override TEXT, reason TEXT NOT NULL, record TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS decisions_by_model ON decisions(sha256)",
    """CREATE TABLE IF NOT EXISTS aliases (
        name TEXT NOT NULL, kind TEXT NOT NULL, sha256 TEXT NOT NULL, operation TEXT NOT NULL,
        PRIMARY KEY (name, kind))""",
    """CREATE TABLE IF NOT EXISTS adoptions (
        operation TEXT PRIMARY KEY, at TEXT NOT NULL, by TEXT NOT NULL, record TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS audit (
        seq INTEGER PRIMARY KEY, at TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL, by TEXT NOT NULL,
        operation TEXT NOT NULL, payload TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL UNIQUE)""",
    """CREATE TABLE IF NOT EXISTS outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, subject TEXT NOT NULL, payload TEXT NOT NULL,
        operation TEXT NOT NULL UNIQUE, published_at TEXT)""",
    """CREATE TABLE IF NOT EXISTS policies (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL UNIQUE, at TEXT NOT NULL, by TEXT NOT NULL,
        name TEXT NOT NULL, config TEXT NOT NULL, mode TEXT NOT NULL, reason TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS golden_fingerprints (
        sha256 TEXT NOT NULL, suite TEXT NOT NULL, model TEXT NOT NULL, config TEXT NOT NULL, outputs TEXT NOT NULL,
        made_at TEXT NOT NULL, PRIMARY KEY (sha256, suite)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS golden_checks (
        sha256 TEXT PRIMARY KEY, model TEXT NOT NULL, config TEXT NOT NULL, outcome TEXT NOT NULL, drift REAL,
        detail TEXT NOT NULL, at TEXT NOT NULL, sound_at TEXT) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS monitor_checks (
        config TEXT PRIMARY KEY, revision INTEGER NOT NULL, sha256 TEXT NOT NULL, since INTEGER NOT NULL,
        seq INTEGER NOT NULL, at REAL NOT NULL, state TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS monitor_mode (
        one INTEGER PRIMARY KEY CHECK (one = 1), mode TEXT NOT NULL, games_per_day INTEGER NOT NULL, by TEXT NOT NULL,
        at TEXT NOT NULL, operation TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS alarms (
        id INTEGER PRIMARY KEY AUTOINCREMENT, config TEXT NOT NULL, model TEXT NOT NULL, sha256 TEXT NOT NULL,
        cause TEXT NOT NULL, detail TEXT NOT NULL, evidence TEXT NOT NULL, target TEXT, raised_at TEXT NOT NULL,
        acked_at TEXT, acked_by TEXT, ack_reason TEXT, ack_operation TEXT)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS one_open_alarm ON alarms(sha256, cause) WHERE acked_at IS NULL",
    *(
        f"CREATE TRIGGER IF NOT EXISTS {table}_never_{what.lower()} BEFORE {what} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, '{table}: rows are only ever added'); END"
        for table in ("pointer_moves", "decisions", "audit", "policies")
        for what in ("UPDATE", "DELETE")
    ),
)


def check_columns(connection: sqlite3.Connection, path: Path) -> None:
    """Compares the tables that are there with what we need of them.

    Raises:
        SchemaError: a table of the registry lacks columns, so it is not what its name says.
    """
    for table, wanted in (*REFERENCE_COLUMNS.items(), ("artifacts", OWN_COLUMNS)):
        found = columns(connection, table)
        missing = [name for name in wanted if name not in found]
        if found and missing:
            raise SchemaError(
                f"the registry's table {table} has no column {', '.join(missing)}",
                where=str(path),
                hint="it belongs to another program or version; move it away",
            )


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A read-only connection, or None when there is no registry yet.

    Raises:
        UnverifiedError: the file is no database.
        SchemaError: its tables are another program's.
        LockedError: another program holds it.
    """
    if not path.exists():
        yield None
        return
    with closing(open_reader(path, timeout_s=BUSY_SECONDS)) as opened, sqlite_errors(path):
        opened.row_factory = sqlite3.Row
        check_columns(opened, path)
        yield opened


def found(db: sqlite3.Connection) -> dict[str, int | None]:
    """Names of all tables, indexes and triggers, with the last number of a table that counts its rows."""
    names: dict[str, int | None] = {str(row[0]): None for row in db.execute("SELECT name FROM sqlite_master")}
    if "sqlite_sequence" in names:
        names |= {str(row[0]): int(row[1]) for row in db.execute("SELECT name, seq FROM sqlite_sequence")}
    return names


@contextmanager
def writing(path: Path, made: dict[str, int | None] | None = None) -> Iterator[sqlite3.Connection]:
    """A connection inside one IMMEDIATE transaction, committed when the block ends well and rolled back otherwise.

    Makes the database and adds missing tables.

    Args:
        made: gets what :func:`found` told before any table was added.

    Raises:
        UnverifiedError: the file is no database.
        SchemaError: its tables are another program's.
        LockedError: another program holds it.
        ResourceError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        check_file(path)
    connect = sqlite3.connect
    with sqlite_errors(path), closing(connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as opened:
        opened.row_factory = sqlite3.Row
        opened.execute("BEGIN IMMEDIATE")
        try:
            check_columns(opened, path)
            if made is not None:
                made.update(found(opened))
            for statement in _DDL:
                opened.execute(statement)
            yield opened
            opened.execute("COMMIT")
        except BaseException:
            if opened.in_transaction:
                opened.execute("ROLLBACK")
            raise
