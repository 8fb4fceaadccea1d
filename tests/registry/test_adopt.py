"""Adoption adds rows of ours and changes none of theirs; taking it back leaves what was there before."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from backend.errors import Exit, LockedError, NotFoundError, RefusedError, UnverifiedError
from backend.paths import Paths
from backend.plans import Plan
from backend.reference import adoption
from backend.reference.adopt import plan_adopt
from backend.reference.doctor import examine
from backend.registry import schema
from backend.registry.aliases import aliases_of
from backend.registry.changes import Author
from backend.registry.history import verify_audit
from backend.registry.promotion import plan_promote
from backend.registry.reject import plan_reject
from backend.registry.schema import reading
from backend.registry.store import Candidate, find, register
from backend.supervisor import stop
from ringrift_console.cli import main
from tests.registry.reference_root import ReferenceRoot, possible, weights
from tests.registry.test_policies import put
from tests.registry.test_promotion_crashes import carry_out, die_at, see_through
from tests.registry.test_untouched import picture

BACK = Author("me", "back")
THEIRS = ("models", "versions", "tags", "stage_transitions", "validations")


def dump(paths: Paths) -> list[str]:
    with closing(sqlite3.connect(paths.registry_db)) as db:
        return list(db.iterdump())


def rows(paths: Paths) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(paths.registry_db)) as db:
        return {table: db.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall() for table in THEIRS}


@pytest.fixture
def root(paths: Paths) -> Iterator[ReferenceRoot]:
    made = ReferenceRoot(paths)
    made.healthy(games=4)
    made.plant("model.alias")
    made.plant("file.unregistered")
    yield made
    stop(paths)


def plan(paths: Paths, *, undo: bool = False) -> Plan:
    return asyncio.run(plan_adopt(paths, undo=undo))


def adopt(paths: Paths, operation: str = "op-1") -> dict[str, object]:
    return adoption.adopt(paths, plan(paths).params, Author("tester", operation))


def test_rows_of_ours_stand_beside_theirs(root: ReferenceRoot) -> None:
    paths = root.paths
    before, files = rows(paths), picture(paths.models)
    records = paths.elo_db.read_bytes()
    done = adopt(paths)
    assert sorted(done["models"]) == [  # type: ignore[call-overload]
        "candidate_square8_2p_v2:v1", "canonical_square8_2p:v1", "hex8_2p:v1",
    ]  # fmt: skip
    after = rows(paths)
    for table, old in before.items():
        assert after[table][: len(old)] == old
    assert [len(after[table]) - len(before[table]) for table in THEIRS] == [1, 1, 0, 1, 0]
    assert picture(paths.models) == files and paths.elo_db.read_bytes() == records
    row = find(paths, "canonical_square8_2p:v1")
    assert not row.foreign and row.config == "square8_2p" and find(paths, row.sha256).label == row.label
    with reading(paths.registry_db) as db:
        assert db is not None
        names = aliases_of(db, row.sha256)
    assert names == [("models/ringrift_best_square8_2p.pth", "file"), ("canonical_square8_2p", "participant")]
    report = examine(paths)
    assert report.adopted == 3 and {one.kind for one in report.findings} == {"model.alias", "file.unregistered"}


def test_taking_it_back_leaves_exactly_what_was_there(root: ReferenceRoot) -> None:
    paths = root.paths
    for kind in possible("both"):
        if kind not in root.planted:
            root.plant(kind)
    before, files = dump(paths), picture(paths.models)
    adopt(paths)
    assert dump(paths) != before
    with reading(paths.registry_db) as db:
        last = adoption.last(db)
    assert last is not None
    for _ in ("once", "again, which changes nothing"):
        assert adoption.undo(paths, last.operation, BACK) == {"undone": "op-1"}
        assert dump(paths) == before and picture(paths.models) == files
    assert find(paths, "canonical_square8_2p:v1").foreign


def test_what_does_not_verify_is_passed_over_and_told(root: ReferenceRoot) -> None:
    kinds = [
        "file.missing",
        "file.other-bytes",
        "file.unsafe",
        "file.damaged",
        "model.config-conflict",
        "model.no-config",
    ]
    for kind in kinds:
        root.plant(kind)
    planned = plan(root.paths)
    assert len(planned.params["models"]) == 3
    for kind in kinds:
        assert any(f"passed over, {kind}" in warning for warning in planned.warnings), kind


def test_a_root_without_a_registry_gets_one_and_production_is_what_it_plays_with(paths: Paths) -> None:
    root = ReferenceRoot(paths)
    paths.registry_db.unlink()
    root.file("models/canonical_hex8_2p.pth", weights("hex8_2p", 1))
    root.file("models/candidate_hex8_2p.pth", weights("hex8_2p", 2))
    adopt(paths)
    stages = {find(paths, label).path: find(paths, label).stage for label in ("hex8_2p:v1", "hex8_2p:v2")}
    assert stages == {"models/canonical_hex8_2p.pth": "production", "models/candidate_hex8_2p.pth": "development"}
    adoption.undo(paths, "op-1", BACK)
    with closing(sqlite3.connect(paths.registry_db)) as db:
        assert [row for row in db.execute("SELECT name FROM sqlite_master") if not row[0].startswith("sqlite_")] == []


def test_nothing_is_changed_before_it_is_adopted_and_everything_can_be_after(root: ReferenceRoot) -> None:
    paths = root.paths
    with pytest.raises(RefusedError, match="another installation"):
        asyncio.run(plan_reject(paths, model="candidate_square8_2p_v2:v1"))
    with pytest.raises(RefusedError, match="ringrift adopt"):
        asyncio.run(plan_promote(paths, model="candidate_square8_2p_v2:v1", stage="staging", override="a test"))
    adopt(paths)
    row = carry_out(paths, asyncio.run(plan_reject(paths, model="candidate_square8_2p_v2:v1")))
    assert row.state == "done" and find(paths, "candidate_square8_2p_v2:v1").stage == "rejected"
    with pytest.raises(RefusedError, match="was moved since"):
        plan(paths, undo=True)


def test_it_is_not_taken_back_from_under_a_policy_that_was_set_since(root: ReferenceRoot) -> None:
    adopt(root.paths)
    put(root.paths, "archival", "dry-run")
    before = dump(root.paths)
    with pytest.raises(RefusedError, match="POLICY_SET of archival"):
        plan(root.paths, undo=True)
    assert dump(root.paths) == before and asyncio.run(verify_audit(root.paths))


def test_a_second_adoption_that_is_taken_back_stays_in_the_audit_log(root: ReferenceRoot) -> None:
    adopt(root.paths)
    root.file("models/late.pth", weights("hex8_2p", 9))
    carried = carry_out(root.paths, plan(root.paths))
    assert carried.state == "done"
    assert carry_out(root.paths, plan(root.paths, undo=True)).state == "done"
    with reading(root.paths.registry_db) as db:
        assert db is not None
        types = [row[0] for row in db.execute("SELECT type FROM audit ORDER BY seq")]
        first = adoption.last(db)
    assert types == ["MODELS_ADOPTED", "MODELS_ADOPTED", "ADOPTION_UNDONE"]
    assert first is not None and first.operation == "op-1" and asyncio.run(verify_audit(root.paths))


def test_it_is_not_taken_back_from_under_a_model_of_ours(root: ReferenceRoot) -> None:
    from backend.configs import parse_config

    adopt(root.paths)
    file = root.paths.root / "own.pth"
    file.write_bytes(b"weights")
    register(root.paths, Candidate(file=file, config=parse_config("hex8_2p")))
    before = dump(root.paths)
    with pytest.raises(RefusedError, match="hex8_2p:v2 was registered since"):
        plan(root.paths, undo=True)
    with pytest.raises(RefusedError):
        adoption.undo(root.paths, "op-1", BACK)
    assert dump(root.paths) == before


def test_a_file_that_changes_under_the_plan_stops_all_of_it(root: ReferenceRoot) -> None:
    planned, before = plan(root.paths), dump(root.paths)
    root.file("models/loose_hex8_2p.pth", weights("hex8_2p", 99))
    with pytest.raises(UnverifiedError, match="changed since the plan"):
        adoption.adopt(root.paths, planned.params, Author("tester", "op-1"))
    assert dump(root.paths) == before


def test_a_registry_that_another_program_holds_is_left_alone(
    root: ReferenceRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, before = plan(root.paths), dump(root.paths)
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(root.paths.registry_db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockedError):
            adoption.adopt(root.paths, planned.params, Author("tester", "op-1"))
    assert dump(root.paths) == before


def test_the_verb_adopts_and_takes_back(root: ReferenceRoot, capsys: pytest.CaptureFixture[str]) -> None:
    paths, before = root.paths, dump(root.paths)
    words = ["--wait", "--json", "--root", str(paths.root)]
    assert main(["adopt", *words]) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["adopted"]) == ("done", 3)
    assert main(["adopt", *words]) == Exit.NOT_FOUND
    assert "nothing to adopt" in capsys.readouterr().err
    assert main(["audit", "verify", "--root", str(paths.root)]) == Exit.DONE
    assert main(["adopt", "--undo", *words]) == Exit.DONE
    assert main(["audit", "verify", "--root", str(paths.root)]) == Exit.DONE
    assert dump(paths) == before
    with pytest.raises(NotFoundError):
        plan(paths, undo=True)


@pytest.mark.parametrize("undo", [False, True], ids=["adopt", "undo"])
def test_killed_after_its_commit_it_is_carried_out_once(
    root: ReferenceRoot, undo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, before = root.paths, dump(root.paths)
    if undo:
        adopt(paths)
    name = die_at(paths, plan(paths, undo=undo), "adopt.committed", monkeypatch)
    monkeypatch.undo()
    assert see_through(paths, name).state == "done"
    with reading(paths.registry_db) as db:
        assert (adoption.last(db) is None) == undo
    assert (dump(paths) == before) == undo
