"""Which names mean the same file: the SHA-256 behind a participant, from everything that tells."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from backend.databases import columns
from backend.errors import NotFoundError
from backend.paths import Paths
from backend.reference.names import Participant, moment, participant
from backend.registry.hashing import sha256_file

_TOPS = ("models", "models_essential", "data")


def stored_name(path: str) -> str:
    """A path as any machine may have written it, from the first folder that every root has: ``models/x.pth``."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    start = next((n for n, part in enumerate(parts) if part in _TOPS), None)
    return "/".join(parts[start:]) if start is not None else path


_hashed: dict[tuple[Path, int, int], str] = {}


def file_hash(paths: Paths, stored: str) -> str | None:
    """SHA-256 of a file under the root, read once as long as its size and time stay; None when it is not there."""
    path = paths.root / stored
    try:
        status = path.stat()
        key = (path.resolve(), status.st_size, status.st_mtime_ns)
        if key not in _hashed:
            _hashed[key] = sha256_file(path)
        return _hashed[key]
    except (OSError, NotFoundError):
        return None


@dataclass
class Identities:
    """What is known of names and files.

    Attributes:
        path_of: path of a participant's file, by participant id.
        noted: per path the SHA-256s that the ai-service has noted, the newest last.
        told: SHA-256 of a participant by its id, where a table says so.
    """

    root: Callable[[str], str | None]
    path_of: dict[str, str] = field(default_factory=dict)
    noted: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def sha256(self, who: Participant) -> str | None:
        """The file behind a participant; None when nothing tells."""
        if who.network is None:
            return None
        for name in (who.id, who.network):
            path = self.path_of.get(name)
            if path is not None and (found := self.root(path)):
                return found
            if path is not None and self.noted.get(path):
                return self.noted[path][-1]
            if name in self.told:
                return self.told[name]
        for end in (".pth", ".pt"):
            path = f"models/{who.network}{end}"
            if found := self.root(path) or next(reversed(self.noted.get(path, [])), None):
                return found
        return None

    def key(self, who: Participant) -> str:
        """Who is rated: a baseline by its name, a network by its file where that is known, each with its search."""
        if who.baseline is not None:
            return who.baseline
        head = self.sha256(who) or who.network or "none"
        return f"{head}:{who.search}" if who.search else head

    def reused(self) -> dict[str, list[str]]:
        """Paths that have held several files, so that one name's history mixes several models."""
        return {path: found for path, found in self.noted.items() if len(found) > 1}


def read_identities(db: sqlite3.Connection, paths: Paths, own: Iterable[tuple[str, str]] = ()) -> Identities:
    """Everything that ``unified_elo.db`` says of names and files.

    Args:
        own: more names with their SHA-256, from the registry.
    """
    found = Identities(lambda stored: file_hash(paths, stored))
    there = columns(db, "participants")
    if "participant_id" in there:
        names = ("participant_id", "nn_model_path", "model_path", "metadata")
        parts = [name if name in there else f"NULL AS {name}" for name in names]
        for who, network, path, metadata in db.execute(f"SELECT {', '.join(parts)} FROM participants"):
            given = network or path
            if isinstance(given, str) and given:
                found.path_of[str(who)] = stored_name(given)
            sha256 = _sha_of(metadata)
            if sha256:
                found.told[str(who)] = sha256
    _read_noted(db, found)
    _read_aliases(db, found)
    found.told |= dict(own)
    return found


def _sha_of(metadata: object) -> str | None:
    try:
        told = json.loads(metadata) if isinstance(metadata, str) else None
    except ValueError:
        return None
    value = (told.get("sha256") or told.get("content_sha256")) if isinstance(told, dict) else None
    return value if isinstance(value, str) and len(value) == 64 else None


def _read_noted(db: sqlite3.Connection, found: Identities) -> None:
    there = columns(db, "model_identities")
    if not {"model_path", "content_sha256"} <= there.keys():
        return
    at = next((name for name in ("last_verified_at", "first_seen_at") if name in there), "NULL")
    rows = db.execute(f"SELECT model_path, content_sha256, {at} FROM model_identities").fetchall()
    rows.sort(key=lambda row: moment(row[2]).timestamp() if moment(row[2]) else 0.0)  # type: ignore[union-attr]
    for path, sha256, _ in rows:
        if isinstance(path, str) and isinstance(sha256, str):
            known = found.noted.setdefault(stored_name(path), [])
            if sha256 in known:
                known.remove(sha256)
            known.append(sha256)


def _read_aliases(db: sqlite3.Connection, found: Identities) -> None:
    there = columns(db, "participant_aliases")
    pair = [next((name for name in there if name.startswith(start)), None) for start in ("primary", "alias")]
    if None in pair or "content_sha256" not in there:
        return
    query = f'SELECT "{pair[0]}", "{pair[1]}", content_sha256 FROM participant_aliases'
    for primary, alias, sha256 in db.execute(query):
        if isinstance(sha256, str) and sha256:
            for name in (primary, alias):
                found.told.setdefault(str(name), sha256)


def grouped(found: Identities, ids: Iterable[str]) -> dict[str, list[str]]:
    """Participant ids by whom they mean."""
    groups: dict[str, list[str]] = {}
    for text in ids:
        groups.setdefault(found.key(participant(text)), []).append(text)
    return groups
