"""The audit log of the registry: every change with who, when and why, each entry bound to the one before by its hash.

An entry that is changed, removed from the middle or slipped in breaks the chain at that place. A log that was cut off
at its end is whole in itself; that is found by the hashes that events in ``state.db`` carry.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from backend.databases import tables
from backend.errors import UnverifiedError

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One change; ``at`` is an ISO time, ``payload`` JSON as stored; ``hash`` covers all other fields."""

    seq: int
    at: str
    type: str
    subject: str
    by: str
    operation: str
    payload: str
    previous: str
    hash: str


def entry_hash(seq: int, at: str, type: str, subject: str, by: str, operation: str, payload: str, previous: str) -> str:
    """SHA-256 over the fields as one JSON list."""
    text = json.dumps([seq, at, type, subject, by, operation, payload, previous], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def append(
    db: sqlite3.Connection, type: str, subject: str, payload: dict[str, Any], *, at: str, by: str, operation: str
) -> str:
    """Adds an entry within the transaction of the change itself; returns its hash."""
    last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, previous = (int(last["seq"]) + 1, str(last["hash"])) if last else (1, GENESIS)
    text = json.dumps(payload, sort_keys=True)
    made = entry_hash(seq, at, type, subject, by, operation, text, previous)
    db.execute(
        "INSERT INTO audit (seq, at, type, subject, by, operation, payload, previous, hash) VALUES (?,?,?,?,?,?,?,?,?)",
        (seq, at, type, subject, by, operation, text, previous, made),
    )
    return made


def entries(db: sqlite3.Connection) -> Iterator[Entry]:
    """All entries, oldest first; empty in a registry that was never changed by this program."""
    if "audit" not in tables(db):
        return
    texts = ("at", "type", "subject", "by", "operation", "payload", "previous", "hash")
    for row in db.execute("SELECT * FROM audit ORDER BY seq"):
        yield Entry(row["seq"], *(str(row[name]) for name in texts))  # what is no text was not written by us


def verify(log: Iterable[Entry], known: Iterable[str] = ()) -> tuple[int, str]:
    """Walks the chain; returns how many entries it has and the hash of the last one.

    Args:
        known: hashes that were told to others when their entries were made; all of them have to be there.

    Raises:
        UnverifiedError: an entry is not what was written, one is missing, or the end was cut off.
    """
    count, previous, seen = 0, GENESIS, set[str]()
    for count, entry in enumerate(log, 1):
        made = entry_hash(
            entry.seq, entry.at, entry.type, entry.subject, entry.by, entry.operation, entry.payload, previous
        )
        if entry.seq != count or entry.previous != previous or entry.hash != made:
            raise UnverifiedError(
                "the audit log is not what was written",
                where=f"entry {count}" if entry.seq != count else f"entry {entry.seq} ({entry.type} {entry.subject})",
                hint="restore registry.db from a backup, and find out who changed it",
            )
        previous = entry.hash
        seen.add(previous)
    lost = [one for one in known if one not in seen]
    if lost:
        raise UnverifiedError(
            f"the audit log lacks {len(lost)} entries that events refer to",
            where=lost[0][:12],
            hint="restore registry.db from a backup, and find out who changed it",
        )
    return count, previous
