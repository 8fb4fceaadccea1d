"""Names of models besides their labels: table ``aliases``, ours, filled when an ai-service's models are adopted.

Its ``kind`` is ``file`` (path under the root), ``label`` (another row of the registry) or ``participant``.
"""

from __future__ import annotations

import sqlite3
from pathlib import PurePosixPath

from backend.databases import tables
from backend.paths import Paths
from backend.registry.schema import reading


def aliases_of(db: sqlite3.Connection, sha256: str) -> list[tuple[str, str]]:
    """Names of a model with their kinds, sorted; empty in a registry without the table."""
    if "aliases" not in tables(db):
        return []
    rows = db.execute("SELECT name, kind FROM aliases WHERE sha256 = ? ORDER BY kind, name", (sha256,)).fetchall()
    return [(str(row[0]), str(row[1])) for row in rows]


def known_names(paths: Paths) -> list[tuple[str, str]]:
    """Names that participants may go by, each with its SHA-256, from the registry alone; nothing is hashed."""
    found: list[tuple[str, str]] = []
    with reading(paths.registry_db) as db:
        there = tables(db) if db is not None else set()
        if db is None or "versions" not in there:
            return []
        rows = db.execute("SELECT model_id, version, file_path, file_hash FROM versions ORDER BY id").fetchall()
        for model_id, version, path, sha256 in rows:
            if isinstance(sha256, str) and len(sha256) == 64:
                found.append((f"{model_id}:v{version}", sha256))
                stem = PurePosixPath(str(path)).stem
                if stem.lower() not in ("latest", f"v{version}"):  # names of a place, not of a model
                    found.append((stem, sha256))
        if "aliases" in there:
            for name, kind, sha256 in db.execute("SELECT name, kind, sha256 FROM aliases"):
                found.append((PurePosixPath(name).stem if kind == "file" else str(name), str(sha256)))
    return found
