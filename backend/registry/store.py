"""The model registry: immutable models by SHA-256, their stages, and how they came to be.

A model trained here belongs to the model id of its config (``hex8_2p``) and gets the next version; its label is
``hex8_2p:v3``. Every change is one IMMEDIATE transaction that writes the row and its transition together.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from backend.configs import Config
from backend.databases import Stamp, file_stamp
from backend.errors import NotFoundError, UsageError
from backend.paths import Paths
from backend.registry.files import full_path, place, registered_path, remove_leftovers, stored_path
from backend.registry.hashing import sha256_file
from backend.registry.rows import is_file, json_of, present_files, read_rows, time_of
from backend.registry.schema import reading, writing
from backend.snapshot import ModelRow

# No more digits than an integer of SQLite holds.
_LABEL = re.compile(r"^(?P<model>.+):v?(?P<version>[0-9]{1,18})$")
_SHA_PREFIX = re.compile(r"^[0-9a-f]{6,64}$")


@dataclass(frozen=True, slots=True)
class Registration:
    """What :meth:`Registry.register` did; ``created`` is False when the file had been registered before."""

    label: str
    model_id: str
    version: int
    sha256: str
    path: Path
    created: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to register, with what is known of it; all values are plain JSON data.

    Attributes:
        file: the checkpoint.
        config: what it plays.
        metrics: the ai-service's ``metrics_json`` (policy_accuracy, value_mse, ...).
        training_config: the ai-service's ``training_config_json``.
        metadata: everything the checkpoint says of itself.
    """

    file: Path
    config: Config
    architecture: str | None = None
    encoder_version: str | None = None
    data_digest: str | None = None
    parent_sha256: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    training_config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    source: str = "training"


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a model's stage; ``before`` is None at registration."""

    before: str | None
    after: str
    reason: str | None
    by: str | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Everything the registry knows of one model."""

    row: ModelRow
    file: Path
    tags: tuple[str, ...]
    transitions: tuple[Transition, ...]
    metrics: dict[str, Any]
    training_config: dict[str, Any]


class Registry:
    """The registry of one root. Its methods do their file work in a thread, never on the event loop."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    @classmethod
    async def open(cls, paths: Paths) -> Self:
        """Opens the registry; a root without one reads as empty and gets one at the first registration.

        Raises:
            UnverifiedError: the file is no database.
            SchemaError: its tables are another program's.
        """
        registry = cls(paths)
        await asyncio.to_thread(registry.check)
        return registry

    def check(self) -> None:
        """Reads the schema; see :meth:`open` for the errors."""
        with reading(self.paths.registry_db):
            pass

    async def register(self, candidate: Candidate) -> Registration:
        """Registers a checkpoint as DEVELOPMENT; the same bytes again change nothing and return the same label.

        Raises:
            NotFoundError: there is no such file.
            LockedError: another program holds the registry.
            ResourceError: the disk is full.
        """
        return await asyncio.to_thread(register, self.paths, candidate)

    async def model_rows(self) -> tuple[ModelRow, ...]:
        """All models, newest first, without games and win rates."""
        return await asyncio.to_thread(model_rows, self.paths)

    async def find(self, text: str) -> ModelRow:
        """The model of a label, a SHA-256 or the start of one (6 digits at least), or a file path.

        Raises:
            NotFoundError: there is none.
            UsageError: several models match.
        """
        return await asyncio.to_thread(find, self.paths, text)

    async def info(self, text: str) -> ModelInfo:
        """Everything about the model that :meth:`find` finds."""
        return await asyncio.to_thread(info, self.paths, text)


def register(paths: Paths, candidate: Candidate) -> Registration:
    """:meth:`Registry.register`, blocking.

    The file is in its place before its row is written. A process killed between the two leaves a file without a row,
    which the next registration takes over or removes.
    """
    sha256 = sha256_file(candidate.file)
    model_id = candidate.config.key
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    with writing(paths.registry_db) as db:
        known = db.execute("SELECT * FROM artifacts WHERE sha256 = ?", (sha256,)).fetchone()
        if known is not None:
            path = full_path(paths, known["path"])
            if not path.exists() and path.parent == paths.models / known["model_id"]:
                place(candidate.file, path, sha256)
            return Registration(known["label"], known["model_id"], known["version"], sha256, path, created=False)
        version = db.execute(
            "SELECT COALESCE(MAX(version), 0) + 1 FROM versions WHERE model_id = ?", (model_id,)
        ).fetchone()[0]
        path = registered_path(paths, model_id, version, sha256)
        remove_leftovers(path.parent, version, keep=path)
        place(candidate.file, path, sha256)
        _insert(db, paths, candidate, sha256, version, path, now)
    return Registration(f"{model_id}:v{version}", model_id, version, sha256, path, created=True)


def _insert(
    db: sqlite3.Connection, paths: Paths, candidate: Candidate, sha256: str, version: int, path: Path, now: str
) -> None:
    config = candidate.config
    model_id, size, stored = config.key, path.stat().st_size, stored_path(paths, path)
    training = candidate.training_config | {
        "parent_model_id": candidate.parent_sha256,
        "training_data_hash": candidate.data_digest,
        "extra_config": {"board_type": config.board, "num_players": config.players, "source": candidate.source},
    }
    db.execute(
        "INSERT INTO models (model_id, name, description, model_type, created_at, updated_at) VALUES (?,?,?,?,?,?)"
        " ON CONFLICT(model_id) DO UPDATE SET updated_at = excluded.updated_at",
        (model_id, model_id, f"Networks for {model_id}", "policy_value", now, now),
    )
    db.execute(
        "INSERT INTO versions (model_id, version, stage, file_path, file_hash, file_size_bytes, metrics_json,"
        " training_config_json, created_at, updated_at) VALUES (?,?,'development',?,?,?,?,?,?,?)",
        (model_id, version, stored, sha256, size, json.dumps(candidate.metrics), json.dumps(training), now, now),
    )
    db.executemany(
        "INSERT OR IGNORE INTO tags (model_id, version, tag) VALUES (?,?,?)",
        [(model_id, version, tag) for tag in (config.board, f"{config.players}p", candidate.source)],
    )
    db.execute(
        "INSERT INTO stage_transitions (model_id, version, from_stage, to_stage, reason, transitioned_by,"
        " transitioned_at) VALUES (?,?,NULL,'development','registered',?,?)",
        (model_id, version, candidate.source, now),
    )
    db.execute(
        "INSERT INTO artifacts (sha256, model_id, version, label, config, path, size_bytes, architecture,"
        " encoder_version, data_digest, parent_sha256, metadata_json, registered_at)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            sha256, model_id, version, f"{model_id}:v{version}", config.key, stored, size, candidate.architecture,
            candidate.encoder_version, candidate.data_digest, candidate.parent_sha256,
            json.dumps(candidate.metadata), now,
        ),
    )  # fmt: skip


def model_rows(paths: Paths) -> tuple[ModelRow, ...]:
    """:meth:`Registry.model_rows`, blocking. The same tuple as long as nothing has changed."""
    path = paths.registry_db
    stamp = file_stamp(path)
    known = _known.get(path)
    if known is not None and known[0] == stamp:
        rows = _look_again(paths, known[1])
    else:
        with reading(path) as db:
            rows = () if db is None else read_rows(db, paths)
        before = {(row.model_id, row.version): row for row in known[1]} if known else {}
        rows = tuple(old if (old := before.get((row.model_id, row.version))) == row else row for row in rows)
    _known[path] = (stamp, rows)
    return rows


_known: dict[Path, tuple[Stamp, tuple[ModelRow, ...]]] = {}


def _look_again(paths: Paths, rows: tuple[ModelRow, ...]) -> tuple[ModelRow, ...]:
    """Rows that are as they were, but for files that came or went."""
    there = present_files(paths, [row.path for row in rows])
    if all(row.present == (row.path in there) for row in rows):
        return rows
    return tuple(row if row.present == (row.path in there) else replace(row, present=not row.present) for row in rows)


def find(paths: Paths, text: str) -> ModelRow:
    """:meth:`Registry.find`, blocking."""
    with reading(paths.registry_db) as db:
        if db is None:
            raise NotFoundError("no model is registered yet", where=text)
        found = _matches(db, paths, text)
    if not found:
        hint = "ringrift adopt registers it" if is_file(full_path(paths, text)) else "ringrift registry list shows all"
        raise NotFoundError("no such model", where=text, hint=hint)
    own = tuple(row for row in found if not row.foreign)
    if own and len({row.sha256 for row in found}) == 1:
        found = own  # the others are names that an adopted file had elsewhere
    if len(found) > 1:
        labels = " ".join(row.label for row in found[:5]) + (" …" if len(found) > 5 else "")
        raise UsageError(f"several models match: {labels}", where=text, hint="give the label")
    return found[0]


def _matches(db: sqlite3.Connection, paths: Paths, text: str) -> tuple[ModelRow, ...]:
    label = _LABEL.match(text)
    if label:
        return read_rows(db, paths, "WHERE v.model_id = ? AND v.version = ?", (label["model"], int(label["version"])))
    if _SHA_PREFIX.match(text.lower()):
        found = read_rows(db, paths, "WHERE v.file_hash >= ? AND v.file_hash < ?", (text.lower(), text.lower() + "g"))
        if found:
            return found
    file = Path(text)
    if is_file(file):
        return read_rows(db, paths, "WHERE v.file_hash = ?", (sha256_file(file),))
    return read_rows(db, paths, "WHERE v.model_id = ?", (text,))


def info(paths: Paths, text: str) -> ModelInfo:
    """:meth:`Registry.info`, blocking."""
    row = find(paths, text)
    with reading(paths.registry_db) as db:
        assert db is not None
        key = (row.model_id, row.version)
        version = db.execute("SELECT * FROM versions WHERE model_id = ? AND version = ?", key).fetchone()
        tags = db.execute("SELECT tag FROM tags WHERE model_id = ? AND version = ? ORDER BY id", key).fetchall()
        steps = db.execute(
            "SELECT * FROM stage_transitions WHERE model_id = ? AND version = ? ORDER BY id", key
        ).fetchall()
    return ModelInfo(
        row=row,
        file=full_path(paths, row.path),
        tags=tuple(tag["tag"] for tag in tags),
        transitions=tuple(
            Transition(
                step["from_stage"], step["to_stage"], step["reason"], step["transitioned_by"],
                time_of(step["transitioned_at"]),
            )
            for step in steps
        ),
        metrics=json_of(version["metrics_json"]),
        training_config=json_of(version["training_config_json"]),
    )  # fmt: skip
