"""The transactions of an adoption: rows of ours beside those of an ai-service, and exactly those away again."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any

from backend.databases import tables
from backend.errors import RefusedError, UnverifiedError
from backend.paths import Paths
from backend.registry import audit
from backend.registry.changes import Author
from backend.registry.files import full_path
from backend.registry.hashing import sha256_file
from backend.registry.pointers import current
from backend.registry.rows import json_of
from backend.registry.schema import writing

_THEIRS = ("models", "versions", "stage_transitions")
"""Tables of theirs that an adopted file gets rows in."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """One adoption; ``record`` has what it found and made, see :func:`adopt`."""

    operation: str
    record: dict[str, Any]


class _GoneError(Exception):
    """The adoption was taken back before."""


def last(db: sqlite3.Connection | None) -> Adoption | None:
    """The newest adoption that was not taken back."""
    if db is None or "adoptions" not in tables(db):
        return None
    row = db.execute("SELECT operation, record FROM adoptions ORDER BY rowid DESC LIMIT 1").fetchone()
    return Adoption(str(row[0]), json.loads(row[1])) if row is not None else None


def state(db: sqlite3.Connection | None) -> str:
    """What a plan depends on: the newest row of the registry, and the adoptions."""
    there = tables(db) if db is not None else set()
    newest = db.execute("SELECT max(id) FROM versions").fetchone()[0] if db and "versions" in there else None
    done = db.execute("SELECT count(*) FROM adoptions").fetchone()[0] if db and "adoptions" in there else 0
    return f"at row {newest or 0} after {done} adoptions"


def adopt(paths: Paths, params: dict[str, Any], author: Author) -> dict[str, Any]:
    """Adds the models and names of a plan; the second time under the same operation changes nothing.

    Raises:
        UnverifiedError, NotFoundError: a file is not what was planned with; nothing was adopted.
    """
    for model in params["models"]:
        path = full_path(paths, str(model["path"]))
        if sha256_file(path) != model["sha256"]:
            raise UnverifiedError("the file has changed since the plan was made", where=str(path), hint="plan it again")
    before: dict[str, int | None] = {}
    with writing(paths.registry_db, before) as db:
        done = db.execute("SELECT record FROM adoptions WHERE operation = ?", (author.operation,)).fetchone()
        if done is None:
            record = _add(db, params, author, before)
            db.execute(
                "INSERT INTO adoptions (operation, at, by, record) VALUES (?,?,?,?)",
                (author.operation, author.at, author.by, json.dumps(record)),
            )
        else:
            record = json.loads(done[0])
    return {"adopted": len(record["models"]), "names": record["names"], "models": record["labels"]}


def _add(
    db: sqlite3.Connection, params: dict[str, Any], author: Author, before: dict[str, int | None]
) -> dict[str, Any]:
    added: dict[str, list[int]] = {table: [] for table in _THEIRS}
    labels = []
    for model in sorted(params["models"], key=lambda one: one["version"] is None):
        if model["version"] is None:
            version, stage = _register(db, model, author, added)
        else:
            version, stage = int(model["version"]), str(model["stage"])
        labels.append(f"{model['model_id']}:v{version}")
        size, training = db.execute(
            "SELECT file_size_bytes, training_config_json FROM versions WHERE model_id = ? AND version = ?",
            (model["model_id"], version),
        ).fetchone()
        metadata = {"adopted": {"stage": stage, "path": model["path"]}, "training": json_of(training)}
        db.execute(
            "INSERT INTO artifacts (sha256, model_id, version, label, config, path, size_bytes, architecture,"
            " metadata_json, registered_at) VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                model["sha256"], model["model_id"], version, labels[-1], model["config"], model["path"], size,
                model["architecture"], json.dumps(metadata), author.at,
            ),
        )  # fmt: skip
    names = db.executemany(
        "INSERT OR IGNORE INTO aliases (name, kind, sha256, operation) VALUES (?,?,?,?)",
        [(*alias, author.operation) for alias in params["aliases"]],
    ).rowcount
    audit.append(
        db, "MODELS_ADOPTED", "registry", {"models": labels}, at=author.at, by=author.by, operation=author.operation
    )
    return {
        "first": "artifacts" not in before, "before": before, "added": added, "labels": labels, "names": max(0, names),
        "models": [model["sha256"] for model in params["models"]],
    }  # fmt: skip


def _register(
    db: sqlite3.Connection, model: dict[str, Any], author: Author, added: dict[str, list[int]]
) -> tuple[int, str]:
    """Rows of the ai-service's tables for a file that none of them names; returns version and stage."""
    key, stage = str(model["config"]), str(model["stage"])
    if stage == "production" and current(db, key).label is not None:
        stage = "development"
    version = int(
        db.execute("SELECT coalesce(max(version), 0) + 1 FROM versions WHERE model_id = ?", (key,)).fetchone()[0]
    )
    board, players = key[:-3], int(key[-2])
    if db.execute("SELECT 1 FROM models WHERE model_id = ?", (key,)).fetchone() is None:
        row = (key, key, f"Networks for {key}", "policy_value", author.at, author.at)
        made = db.execute(
            "INSERT INTO models (model_id, name, description, model_type, created_at, updated_at) VALUES (?,?,?,?,?,?)",
            row,
        )
        added["models"].append(int(made.lastrowid or 0))
    extra = {"extra_config": {"board_type": board, "num_players": players, "source": "adopted"}}
    made = db.execute(
        "INSERT INTO versions (model_id, version, stage, file_path, file_hash, file_size_bytes, metrics_json,"
        " training_config_json, created_at, updated_at) VALUES (?,?,?,?,?,?,'{}',?,?,?)",
        (
            key, version, stage, model["path"], model["sha256"], int(model["size"]), json.dumps(extra), author.at,
            author.at,
        ),
    )  # fmt: skip
    added["versions"].append(int(made.lastrowid or 0))
    made = db.execute(
        "INSERT INTO stage_transitions (model_id, version, from_stage, to_stage, reason, transitioned_by,"
        " transitioned_at) VALUES (?,?,NULL,?,'adopted',?,?)",
        (key, version, stage, author.by, author.at),
    )
    added["stage_transitions"].append(int(made.lastrowid or 0))
    return version, stage


def built_on(db: sqlite3.Connection, one: Adoption) -> str | None:
    """Why an adoption cannot be taken back any more; None when nothing was built on it."""
    own = set(one.record["models"])
    if one.record["first"]:
        others = [row[0] for row in db.execute("SELECT label, sha256 FROM artifacts") if row[1] not in own]
        if others:
            return f"{others[0]} was registered since"
    decided = db.execute(
        f"SELECT model FROM decisions WHERE sha256 IN ({', '.join('?' * len(own))}) LIMIT 1", tuple(own)
    ).fetchone()
    if decided:
        return f"{decided[0]} was moved since (ringrift registry info {decided[0]})"
    entry = db.execute(
        "SELECT type, subject FROM audit WHERE type NOT IN ('MODELS_ADOPTED', 'ADOPTION_UNDONE') ORDER BY seq LIMIT 1"
    ).fetchone()
    return f"the audit log has {entry[0]} of {entry[1]} since" if entry and one.record["first"] else None


def undo(paths: Paths, operation: str, author: Author) -> dict[str, Any]:
    """Takes an adoption back; one that is gone already was taken back in an earlier run.

    The audit log says so, unless it was made by this adoption and goes with it.

    Raises:
        RefusedError: something was built on it meanwhile.
    """
    try:
        with writing(paths.registry_db) as db:
            one = last(db)
            if one is None or one.operation != operation:
                raise _GoneError  # and with it go the tables that were made for this transaction
            why = built_on(db, one)
            if why:
                raise RefusedError(f"the adoption cannot be taken back: {why}", where=operation)
            _remove(db, one)
            if not one.record["first"]:
                told = {"adoption": operation, "models": one.record["labels"]}
                audit.append(
                    db, "ADOPTION_UNDONE", "registry", told, at=author.at, by=author.by, operation=author.operation
                )
    except _GoneError:
        pass
    return {"undone": operation}


def _remove(db: sqlite3.Connection, one: Adoption) -> None:
    before: dict[str, int | None] = one.record["before"]
    for table in reversed(_THEIRS):
        db.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(number,) for number in one.record["added"][table]])
    db.executemany("DELETE FROM artifacts WHERE sha256 = ?", [(sha256,) for sha256 in one.record["models"]])
    db.execute("DELETE FROM aliases WHERE operation = ?", (one.operation,))
    db.execute("DELETE FROM adoptions WHERE operation = ?", (one.operation,))
    if not one.record["first"]:
        return
    made = db.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    for kind in ("trigger", "index", "table"):
        for one_kind, name in made:
            if one_kind == kind and name not in before and not str(name).startswith("sqlite_"):
                db.execute(f'DROP {kind} IF EXISTS "{name}"')
    counted = Counter(dict(db.execute("SELECT name, seq FROM sqlite_sequence").fetchall()))
    for name in counted:
        if before.get(name) is None:
            db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
        else:
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (before[name], name))
