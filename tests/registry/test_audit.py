"""The audit log: nothing in it can be changed without being found."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from backend.errors import NotFoundError, UnverifiedError
from backend.paths import Paths
from backend.registry import audit
from backend.registry.changes import Author, Decision
from backend.registry.history import verify_audit
from backend.registry.outbox import publish
from backend.registry.schema import reading
from backend.registry.switch import Planned, change_stage
from backend.state.store import StateStore
from tests.registry.conftest import Make


@pytest.fixture
async def log(paths: Paths, make_model: Make) -> Path:
    for n in range(4):
        row = make_model()
        model = Planned(row.label, row.sha256, row.stage)
        change_stage(paths, model, "staging", Decision("promote", f"because {n}"), Author("me", f"o{n}"))
    async with await StateStore.open(paths) as store:
        assert await publish(paths, store) == 4
        assert await publish(paths, store) == 0
    return paths.registry_db


def tamper(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for trigger in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {trigger[0]}")
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


async def test_a_log_that_nobody_touched_is_whole(paths: Paths, log: Path) -> None:
    count, head = await verify_audit(paths)
    assert count == 4 and len(head) == 64


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE audit SET payload = replace(payload, 'because 1', 'because of them') WHERE seq = 2", "entry 2"),
        ("UPDATE audit SET payload = replace(payload, ': ', ':') WHERE seq = 2", "entry 2"),
        ("UPDATE audit SET payload = 'no JSON' WHERE seq = 2", "entry 2"),
        ("UPDATE audit SET payload = x'00ff' WHERE seq = 2", "entry 2"),
        ("UPDATE audit SET payload = CAST(x'ff' AS TEXT) WHERE seq = 2", "registry.db"),
        ("UPDATE audit SET by = 'you' WHERE seq = 3", "entry 3"),
        ("UPDATE audit SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 1", "entry 1"),
        ("DELETE FROM audit WHERE seq = 2", "entry 2"),
        ("DELETE FROM audit WHERE seq = 4", "1 entries that events refer to"),
        ("DELETE FROM audit", "4 entries that events refer to"),
    ],
)
async def test_every_change_is_found(paths: Paths, log: Path, statement: str, where: str) -> None:
    tamper(log, statement)
    with pytest.raises(UnverifiedError, match=where):
        await verify_audit(paths)


async def test_a_chain_made_anew_does_not_match_the_events(paths: Paths, log: Path) -> None:
    with reading(log) as db:
        assert db is not None
        kept = [entry for entry in audit.entries(db) if entry.seq != 2]
    made, previous = [], audit.GENESIS
    for n, entry in enumerate(kept, 1):
        fields = (n, entry.at, entry.type, entry.subject, entry.by, entry.operation, entry.payload, previous)
        previous = audit.entry_hash(*fields)
        made.append((*fields, previous))
    tamper(log, "DELETE FROM audit")
    db = sqlite3.connect(log)
    db.executemany("INSERT INTO audit VALUES (?,?,?,?,?,?,?,?,?)", made)
    db.commit()
    db.close()
    with pytest.raises(UnverifiedError, match="events refer to"):
        await verify_audit(paths)


def test_the_tables_refuse_to_be_rewritten(paths: Paths, log: Path) -> None:
    db = sqlite3.connect(log)
    for table in ("audit", "decisions"):
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET by = 'x'"):
            with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
                db.execute(statement)
    db.close()


async def test_a_root_without_models_has_no_log(paths: Paths) -> None:
    with pytest.raises(NotFoundError):
        await verify_audit(paths)
