"""Rows of the registry as plain values, whoever wrote them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend.configs import CONFIGS
from backend.databases import tables
from backend.paths import Paths
from backend.registry.files import full_path
from backend.snapshot import ModelRow

_MANY = 8  # paths of one folder from which looking through it is cheaper
_CONFIG_KEYS = frozenset(config.key for config in CONFIGS)


def read_rows(
    db: sqlite3.Connection, paths: Paths | None = None, where: str = "", values: tuple[Any, ...] = ()
) -> tuple[ModelRow, ...]:
    """The versions that ``where`` (SQL over ``v``) selects, newest first; without ``paths`` no file is looked for."""
    known = tables(db)
    if "versions" not in known:
        return ()
    if "artifacts" in known:
        ours = "a.config, a.architecture, a.parent_sha256, a.metadata_json, a.path AS own_path,"
        ours += " a.label IS NULL AS is_foreign"
        join = "LEFT JOIN artifacts a ON a.model_id = v.model_id AND a.version = v.version"
    else:
        ours = "NULL AS config, NULL AS architecture, NULL AS parent_sha256, NULL AS metadata_json, NULL AS own_path,"
        ours += " 1 AS is_foreign"
        join = ""
    since = "NULL"
    if "stage_transitions" in known:
        since = (
            "(SELECT t.transitioned_at FROM stage_transitions t WHERE t.model_id = v.model_id"
            " AND t.version = v.version ORDER BY t.id DESC LIMIT 1)"
        )
    found = db.execute(
        f"SELECT v.*, {ours}, {since} AS stage_since FROM versions v {join} {where} ORDER BY v.id DESC", values
    )
    rows = found.fetchall()
    there = None if paths is None else present_files(paths, [_path(row) for row in rows])
    return tuple(_model_row(row, there) for row in rows)


def present_files(paths: Paths, stored: Iterable[str]) -> set[str]:
    """Those of some stored paths where there is a file; a folder with many of them is looked through once."""
    folders: dict[str, list[str]] = {}
    for text in stored:
        folders.setdefault(text.rpartition("/")[0], []).append(text)
    found: set[str] = set()
    for folder, texts in folders.items():
        names = _names(full_path(paths, folder)) if len(texts) >= _MANY else None
        if names is None:
            found |= {text for text in texts if is_file(full_path(paths, text))}
        else:
            found |= {text for text in texts if text.rpartition("/")[2] in names}
    return found


def _names(folder: Path) -> set[str] | None:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return None


def _path(row: sqlite3.Row) -> str:
    """Where the file lies; the path of another installation may be one of another machine."""
    return str(row["own_path"] or row["file_path"] or "")


def _model_row(row: sqlite3.Row, there: set[str] | None) -> ModelRow:
    path = _path(row)
    metadata = json_of(row["metadata_json"])
    told = metadata and row["config"] and row["architecture"] and row["parent_sha256"]
    training = {} if told else json_of(row["training_config_json"])
    return ModelRow(
        model_id=row["model_id"],
        version=int(row["version"]),
        sha256=row["file_hash"] or "",
        config=row["config"] or _config_of_training(training),
        stage=row["stage"],
        path=path,
        size=int(row["file_size_bytes"] or 0),
        created_at=time_of(row["created_at"]) or datetime.fromtimestamp(0, UTC),
        parent=row["parent_sha256"] or _text(training.get("parent_model_id")),
        architecture=row["architecture"] or _text(training.get("architecture")),
        metadata=metadata or {"training": training},
        stage_since=time_of(row["stage_since"]),
        present=there is None or path in there,
        foreign=bool(row["is_foreign"]),
    )


def _text(value: object) -> str | None:
    """A value of a foreign row where a text belongs."""
    return value if isinstance(value, str) else None


def is_file(path: Path) -> bool:
    """Whether there is such a file; False too where nobody can look."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that nobody may enter
        return False


def _config_of_training(training: dict[str, Any]) -> str | None:
    """The config of a row that the ai-service wrote: only its ``extra_config`` names it."""
    extra = training.get("extra_config")
    if not isinstance(extra, dict):
        return None
    key = f"{extra.get('board_type')}_{extra.get('num_players')}p"
    return key if key in _CONFIG_KEYS else None


def json_of(text: str | None) -> dict[str, Any]:
    """A JSON object; anything else is an empty one."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def time_of(text: str | None) -> datetime | None:
    """An ISO time as aware UTC; one without a zone, as the ai-service writes them, was local time."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None
