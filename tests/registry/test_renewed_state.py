"""``registry.db`` outlives ``state.db``: where that begins anew, ids are given again, and mean something else."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from backend.errors import RefusedError
from backend.paths import Paths
from backend.registry.changes import Author, Decision
from backend.registry.reject import apply_reject, plan_reject
from backend.registry.store import find
from backend.registry.switch import Planned, change_stage
from backend.snapshot import ModelRow
from backend.state.migrations import MIGRATIONS
from backend.state.store import StateStore
from tests.registry.conftest import Make


async def reject(paths: Paths, row: ModelRow) -> str:
    plan = await plan_reject(paths, model=row.label)
    async with await StateStore.open(paths) as store:
        name = await store.submit(plan, "me")
        await apply_reject(paths, plan, store.bound(name))
    return name


async def test_an_id_that_is_given_again_is_another_operation(paths: Paths, make_model: Make) -> None:
    first, second = make_model(), make_model()
    names = [await reject(paths, first)]
    for end in ("", "-wal", "-shm"):
        paths.state_db.with_name(paths.state_db.name + end).unlink(missing_ok=True)
    names.append(await reject(paths, second))
    assert names == ["o1", "o1"]
    assert [find(paths, row.label).stage for row in (first, second)] == ["rejected", "rejected"]
    async with await StateStore.open(paths) as store:
        assert [event.subject for event in await store.events(type="MODEL_REJECTED")] == [second.label]


async def test_an_operation_of_an_older_program_goes_on_under_the_name_that_it_began_with(
    paths: Paths, make_model: Make
) -> None:
    row = make_model()
    plan = await plan_reject(paths, model=row.label)
    async with await StateStore.open(paths) as store:
        assert await store.submit(plan, "me") == "o1"
    with closing(sqlite3.connect(paths.state_db)) as db:
        db.execute("ALTER TABLE operations DROP COLUMN lasting")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) - 1}")
    model = Planned(row.label, row.sha256, row.stage)
    begun = change_stage(paths, model, "rejected", Decision("reject", "rejected by hand"), Author("me", "o1"))
    async with await StateStore.open(paths) as store:
        assert await apply_reject(paths, plan, store.bound("o1")) == begun
        new = store.bound(await store.submit(plan, "me"))
        assert (await new.lasting_operation()).startswith("o2-")


@pytest.mark.parametrize("after", ["rejected", "staging"])
def test_what_another_model_or_change_was_recorded_as_is_no_success(paths: Paths, make_model: Make, after: str) -> None:
    first, second = make_model(), make_model()
    by, why = Author("me", "o1"), Decision("by hand", "t")
    change_stage(paths, Planned(first.label, first.sha256, first.stage), "rejected", why, by)
    row = second if after == "rejected" else find(paths, first.label)
    with pytest.raises(RefusedError, match=f"something else: MODEL_REJECTED {first.label}"):
        change_stage(paths, Planned(row.label, row.sha256, row.stage), after, why, by)
    assert find(paths, second.label).stage == "development"
