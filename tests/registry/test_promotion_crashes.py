"""The supervisor is killed at every durable step of promote, rollback and archive, and started again.

Afterwards: exactly one production model a config, files and database agree, one event, a whole audit log.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time

import pytest

from backend.crash import CRASH_VARIABLE
from backend.paths import Paths
from backend.plans import Plan
from backend.registry import pointers
from backend.registry.archive import manifest_path, plan_archive
from backend.registry.deployment import MANIFEST, production_file
from backend.registry.hashing import read_sidecar, sha256_file
from backend.registry.history import verify_audit
from backend.registry.promotion import plan_promote
from backend.registry.rollback import plan_rollback
from backend.registry.schema import reading
from backend.registry.store import find
from backend.snapshot import ModelRow, OperationRow
from backend.state.store import StateStore
from backend.supervisor import ensure_running, running_pid, stop
from tests.registry.conftest import Make

CONFIG = "hex8_2p"
PATIENCE_S = 60.0
SETTLE = ("place.renamed", "deploy.placed", "deploy.manifest", "outbox.published", "outbox.marked")
PROMOTE = ("promote.judged", "promote.committed", *SETTLE)
ROLLBACK = (
    "rollback.committed", "place.renamed", "deploy.manifest", "outbox.published", "outbox.marked", "archive.manifest",
    "rollback.moved", "rollback.archived",
)  # fmt: skip
ARCHIVE = ("archive.manifest", "archive.moved", "archive.committed", "outbox.published", "outbox.marked")


def carry_out(paths: Paths, plan: Plan) -> OperationRow:
    """Submits a plan and sees it through, with a supervisor kept alive."""

    async def work() -> OperationRow:
        async with await StateStore.open(paths) as store:
            name = await store.submit(plan, "tester")
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end:
                ensure_running(paths)
                row = await store.operation(name)
                assert row is not None
                if row.state in ("done", "failed", "refused"):
                    return row
                await asyncio.sleep(0.05)
        raise AssertionError(f"{plan.title} did not end")

    return asyncio.run(work())


def die_at(paths: Paths, plan: Plan, point: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Submits a plan to a supervisor that kills itself at ``point``; returns the operation when that is done."""

    async def submit() -> str:
        async with await StateStore.open(paths) as store:
            return await store.submit(plan, "tester")

    stop(paths)
    name = asyncio.run(submit())
    monkeypatch.setenv(CRASH_VARIABLE, point)
    ensure_running(paths)
    end = time.monotonic() + PATIENCE_S
    while running_pid(paths) is not None and time.monotonic() < end:
        time.sleep(0.02)
    assert running_pid(paths) is None, f"nothing died at {point}"
    monkeypatch.delenv(CRASH_VARIABLE)
    return name


def see_through(paths: Paths, name: str) -> OperationRow:
    async def work() -> OperationRow:
        async with await StateStore.open(paths) as store:
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end:
                row = await store.operation(name)
                assert row is not None
                if row.state in ("done", "failed", "refused"):
                    return row
                await asyncio.sleep(0.05)
        raise AssertionError(f"{name} did not end")

    ensure_running(paths)
    return asyncio.run(work())


def promoted(paths: Paths, row: ModelRow) -> None:
    for stage in ("staging", "production"):
        plan = asyncio.run(plan_promote(paths, model=row.label, stage=stage, override="a test"))
        assert carry_out(paths, plan).state == "done"


def check_one_production(paths: Paths, label: str, events: dict[str, int]) -> None:
    """The invariant, and how many events of each type there are."""
    row = find(paths, label)
    with reading(paths.registry_db) as db:
        assert db is not None
        assert [one.label for one in pointers.in_production(db, CONFIG)] == [label]
        pointer = pointers.current(db, CONFIG)
        assert (pointer.label, pointer.sha256) == (label, row.sha256)
    file = paths.essential / production_file(CONFIG)
    assert sha256_file(file) == row.sha256 == read_sidecar(file)
    manifest = json.loads((paths.essential / MANIFEST).read_text())["configs"][CONFIG]
    assert manifest["production"]["sha256"] == row.sha256 and manifest["revision"] == pointer.revision
    if pointer.previous is not None:
        assert manifest["previous"]["sha256"] == find(paths, pointer.previous).sha256
    assert not list(paths.essential.glob(".*.tmp"))
    check_events(paths, events)


def check_events(paths: Paths, events: dict[str, int]) -> None:
    db = sqlite3.connect(paths.state_db)
    for type, count in events.items():
        assert db.execute("SELECT count(*) FROM events WHERE type = ?", (type,)).fetchone() == (count,)
    db.close()
    db = sqlite3.connect(paths.registry_db)
    assert db.execute("SELECT count(*) FROM outbox WHERE published_at IS NULL").fetchone() == (0,)
    db.close()
    asyncio.run(verify_audit(paths))


@pytest.mark.parametrize("point", PROMOTE)
def test_a_promotion_that_is_killed_anywhere_is_finished_once(
    root: Paths, make_model: Make, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    old, new = make_model(), make_model()
    promoted(root, old)
    assert carry_out(root, asyncio.run(plan_promote(root, model=new.label, stage="staging", override="t"))).state
    plan = asyncio.run(plan_promote(root, model=new.label, override="a test"))
    name = die_at(root, plan, point, monkeypatch)
    before = find(root, old.label).stage == "production"
    assert before == (find(root, new.label).stage == "staging")  # all of the change, or nothing of it
    assert see_through(root, name).state == "done"
    check_one_production(root, new.label, {"MODEL_PROMOTED": 2, "MODEL_STAGED": 2})
    assert find(root, old.label).stage == "archived" and find(root, old.label).present


@pytest.mark.parametrize("point", ROLLBACK)
def test_a_rollback_that_is_killed_anywhere_is_finished_once(
    root: Paths, make_model: Make, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    old, new = make_model(), make_model()
    promoted(root, old)
    promoted(root, new)
    plan = asyncio.run(plan_rollback(root, config=CONFIG, reason="worse"))
    name = die_at(root, plan, point, monkeypatch)
    assert see_through(root, name).state == "done"
    check_one_production(root, old.label, {"MODEL_PROMOTED": 2, "MODEL_ROLLED_BACK": 1})
    left = find(root, new.label)
    assert left.stage == "archived" and left.path.startswith("models/archive/") and left.present
    assert sha256_file(root.root / left.path) == new.sha256


@pytest.mark.parametrize("point", ARCHIVE)
def test_an_archival_that_is_killed_anywhere_is_finished_once(
    root: Paths, make_model: Make, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    row = make_model()
    name = die_at(root, asyncio.run(plan_archive(root, model=row.label, reason="old")), point, monkeypatch)
    assert see_through(root, name).state == "done"
    found = find(root, row.label)
    target = root.root / found.path
    assert found.stage == "archived" and sha256_file(target) == row.sha256 == read_sidecar(target)
    assert json.loads(manifest_path(target).read_text())["sha256"] == row.sha256
    assert not (root.root / row.path).exists()
    check_events(root, {"MODEL_ARCHIVED": 1})
