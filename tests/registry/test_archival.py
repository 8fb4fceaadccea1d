"""The policy of archival over a root: facts, what is protected, the operation, and the way back."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from backend.distribution import ledger
from backend.distribution.ledger import Wanted
from backend.errors import Exit, LockedError, RefusedError
from backend.paths import Paths
from backend.plans import Plan
from backend.registry.archival import AT_ONCE, apply_archival, plan_archival, rulings
from backend.registry.archive import archive, manifest_path, plan_archive, plan_restore
from backend.registry.changes import Author, Decision
from backend.registry.leases import leases
from backend.registry.policy_facts import standings
from backend.registry.promotion import plan_promote
from backend.registry.store import find
from backend.registry.switch import Planned, change_stage
from backend.snapshot import ModelRow
from backend.state.store import StateStore
from ringrift_console.cli import main
from tests.registry.conftest import Make
from tests.registry.synthetic import play
from tests.registry.test_promotion_crashes import carry_out, check_events, die_at, promoted, see_through

LATER = datetime.now(UTC) + timedelta(days=8)
SOON = datetime.now(UTC) + timedelta(hours=1)


def ruled(paths: Paths, now: datetime = SOON) -> dict[str, tuple[str, str]]:
    found = asyncio.run(rulings(paths, now=now))
    return {one.ruling.label: (one.ruling.action, one.ruling.folder or one.ruling.reason) for one in found}


def weak(paths: Paths, row: ModelRow) -> None:
    """A record that leaves no doubt: far below Heuristic."""
    play(paths, row.sha256, "heuristic:1", 120, wins=12)


def strong(paths: Paths, row: ModelRow) -> None:
    play(paths, row.sha256, "heuristic:1", 120, wins=96)


def age(paths: Paths) -> None:
    """All models have been what they are for ten days."""
    old = (datetime.now(UTC) - timedelta(days=10)).isoformat()
    with sqlite3.connect(paths.registry_db) as db:
        db.execute("UPDATE stage_transitions SET transitioned_at = ?", (old,))
    db.close()


def test_a_weak_model_is_rejected_and_a_beaten_one_archived(root: Paths, make_model: Make) -> None:
    bad, good, middle, new = (make_model() for _ in range(4))
    weak(root, bad)
    strong(root, good)
    play(root, middle.sha256, "heuristic:1", 100, wins=50)
    play(root, new.sha256, "heuristic:1", 20, wins=4)  # too few games to be called beaten
    assert ruled(root) == {
        bad.label: ("reject", "low_elo"),
        good.label: ("keep", "0.0 days without promotion, less than it takes"),
        middle.label: ("archive", "low_elo"),
        new.label: ("keep", "0.0 days without promotion, less than it takes"),
    }
    assert ruled(root, LATER)[good.label] == ("archive", "aged_out")


def test_a_model_is_not_rejected_for_one_unlucky_look(root: Paths, make_model: Make) -> None:
    """26 of 100 is 1318, and below 1400 by an interval for one look; the policy looks after every match."""
    row = make_model()
    play(root, row.sha256, "heuristic:1", 100, wins=26)
    assert (
        standings(root, "hex8_2p")[row.sha256].high < 1400 < standings(root, "hex8_2p", {row.sha256})[row.sha256].high
    )
    assert ruled(root)[row.label][0] == "keep"
    play(root, row.sha256, "heuristic:1", 150, wins=39, seed=2)
    assert ruled(root)[row.label] == ("reject", "low_elo")


def test_only_a_living_model_of_the_same_config_supersedes(root: Paths, make_model: Make) -> None:
    good, middle, other = make_model(), make_model(), make_model("hex8_3p")
    strong(root, good)
    play(root, middle.sha256, "heuristic:1", 100, wins=50)
    play(root, other.sha256, "heuristic:1", 99, wins=10, config="hex8_3p")
    assert standings(root, "hex8_2p", {good.sha256})[middle.sha256].beaten_by == good.sha256
    assert standings(root, "hex8_2p")[middle.sha256].beaten_by is None
    change_stage(
        root, Planned(good.label, good.sha256, "development"), "archived", Decision("x", "t"), Author("t", "o")
    )
    assert ruled(root)[middle.label][0] == "keep"
    assert ruled(root)[other.label][0] == "keep"  # 99 games are not 100


def test_what_is_protected_stays_whatever_the_rules_say(root: Paths, make_model: Make) -> None:
    first, second, staged = make_model(), make_model(), make_model()
    parent = make_model()
    child = make_model(parent=parent.sha256)
    promoted(root, first)
    promoted(root, second)
    plan = asyncio.run(plan_promote(root, model=staged.label, stage="staging", override="t"))
    assert carry_out(root, plan).state == "done"
    for row in (first, second, staged, parent, child):
        weak(root, row)
    found = ruled(root, LATER)
    assert {label: action for label, (action, _) in found.items()} == {
        first.label: "keep", second.label: "keep", staged.label: "keep", parent.label: "keep", child.label: "reject",
    }  # fmt: skip
    assert found[first.label][1] == "a rollback of hex8_2p goes to it"
    assert found[second.label][1] == "it is in production" and found[staged.label][1] == "it is in staging"
    assert found[parent.label][1] == f"{child.label} came from it"


def job(paths: Paths, params: dict[str, object], state: str = "waiting") -> None:
    """A job that no supervisor starts: it is bound to a host that there is not."""

    async def add() -> None:
        async with await StateStore.open(paths) as store, store.database.write() as db:
            number = await db.next_number("job")
            await db.run(
                "INSERT INTO jobs (number, id, kind, config, title, params, state, created_at, bound)"
                " VALUES (?, ?, 'gauntlet', 'hex8_2p', 't', ?, ?, 0, 'nowhere')",
                (number, f"g{number}", json.dumps(params), state),
            )

    asyncio.run(add())


def test_a_model_that_a_job_uses_is_kept_by_whatever_the_job_calls_it(root: Paths, make_model: Make) -> None:
    rows = [make_model() for _ in range(6)]
    save = root.root / "runs" / "t1.pth"
    save.parent.mkdir()
    os.link(root.root / rows[3].path, save)  # as training leaves its file beside the registered one
    job(root, {"model": rows[0].label})
    job(root, {"argv": ["x", "--model", rows[1].sha256[:12]]})
    job(root, {"save": rows[2].path})
    job(root, {"save": "runs/t1.pth"})
    job(root, {"model": rows[4].label}, "done")
    found = ruled(root, LATER)
    assert [found[row.label][0] for row in rows] == ["keep"] * 4 + ["archive"] * 2
    assert found[rows[0].label][1] == "job g1 (gauntlet) uses it"
    assert len(asyncio.run(leases(root))) == 6


def test_a_model_that_is_in_transfer_or_is_to_be_stays_until_every_host_has_it(root: Paths, make_model: Make) -> None:
    going, planned, gone, free = (make_model() for _ in range(4))

    async def transfer(row: ModelRow, *, carried_out: bool = True, ended: bool = False) -> None:
        params = {"path": str(root.root / row.path), "sha256": row.sha256}
        plan = Plan("transfers.distribute", f"Distribute {row.label}", params)
        async with await StateStore.open(root) as store:
            operation = await store.submit(plan, "tester")
            if not carried_out:
                return
            wanted = Wanted(row.label, "distribute", f"models/{row.sha256}.pth", params["path"], row.sha256, 9,
                            "checkpoint", (("n1", ("stream",), 0),), row.label)  # fmt: skip
            name = await ledger.create(store, wanted, operation)
            await store.end_operation(operation, "done")
            if ended:
                async with store.database.write() as db:
                    await db.run("UPDATE transfers SET ended_at = 1 WHERE id = ?", (name,))

    asyncio.run(transfer(going))
    asyncio.run(transfer(planned, carried_out=False))
    asyncio.run(transfer(gone, ended=True))
    found = ruled(root, LATER)
    assert [found[row.label][0] for row in (going, planned, gone, free)] == ["keep", "keep", "archive", "archive"]
    assert found[going.label][1] == "transfer x1 brings it to hosts"
    assert "is to bring it to hosts" in found[planned.label][1]
    with pytest.raises(RefusedError, match="transfer x1 brings it to hosts"):
        asyncio.run(plan_archive(root, model=going.label))


def test_a_transfer_that_begins_after_the_plan_stops_an_archival_by_hand_before_the_file_moves(
    root: Paths, make_model: Make
) -> None:
    row = make_model()
    params = asyncio.run(plan_archive(root, model=row.label)).params
    used = {row.sha256: "transfer x1 brings it to hosts"}
    with pytest.raises(RefusedError, match="transfer x1"):
        archive(root, params, Author("t", "o1"), used)
    assert find(root, row.label).present
    os.rename(root.root / row.path, make_room(root, params["to"]))  # killed after the move, before its row
    assert archive(root, params, Author("t", "o1"), used)["path"] == params["to"]


def make_room(paths: Paths, stored: str) -> str:
    target = paths.root / stored
    target.parent.mkdir(parents=True)
    return str(target)


def test_foreign_rows_are_left_alone_where_moving_them_would_break_something(root: Paths, make_model: Make) -> None:
    rows = [make_model() for _ in range(4)]
    with sqlite3.connect(root.registry_db) as db:
        db.execute("UPDATE versions SET file_path = '/elsewhere/a.pth' WHERE version = 1")
        db.execute("UPDATE versions SET file_path = 'models/canonical_hex8_2p.pth' WHERE version = 2")
        db.execute("UPDATE versions SET file_path = 'models/same.pth' WHERE version > 2")
        db.execute(
            "UPDATE artifacts SET path = (SELECT v.file_path FROM versions v"
            " WHERE v.model_id = artifacts.model_id AND v.version = artifacts.version)"
        )
    db.close()
    found = ruled(root, LATER)
    assert [found[row.label][0] for row in rows] == ["keep"] * 4
    assert "outside" in found[rows[0].label][1] and "canonical" in found[rows[1].label][1]
    assert "same file" in found[rows[2].label][1]


def test_the_operation_puts_away_and_restore_brings_back(root: Paths, make_model: Make) -> None:
    bad, old, good = make_model(), make_model(), make_model()
    weak(root, bad)
    age(root)
    with sqlite3.connect(root.registry_db) as db:
        db.execute("UPDATE stage_transitions SET transitioned_at = ? WHERE version = 3", (SOON.isoformat(),))
    db.close()
    plan = asyncio.run(plan_archival(root))
    assert [(change.subject, change.after.split(",")[0]) for change in plan.changes] == [
        (bad.label, "rejected"), (old.label, "archived"),
    ]  # fmt: skip
    done = carry_out(root, plan)
    assert (done.state, done.result) == ("done", {"archived": [old.label], "rejected": [bad.label]})
    for row, folder, stage in ((bad, "low_elo", "rejected"), (old, "aged_out", "archived")):
        now = find(root, row.label)
        assert now.stage == stage and now.present and f"/{folder}/" in now.path
        manifest = json.loads(manifest_path(root.root / now.path).read_text())
        assert (manifest["sha256"], manifest["stage"]) == (row.sha256, "development")
        assert manifest["restore"] == f"ringrift registry restore {row.label}"
        assert (manifest["rating"] is None) == (row is old)
    assert find(root, good.label).stage == "development"
    check_events(root, {"MODEL_ARCHIVED": 1, "MODEL_REJECTED": 1})
    for row in (bad, old):
        assert carry_out(root, asyncio.run(plan_restore(root, model=row.label))).state == "done"
        now = find(root, row.label)
        assert (now.stage, now.path, now.present) == ("development", row.path, True)
    assert ruled(root)[bad.label] == ("keep", "somebody restored it 0.0 days ago")
    with pytest.raises(RefusedError, match="keeps every model"):
        asyncio.run(plan_archival(root))


def bound(paths: Paths, plan: object) -> dict[str, object]:
    """Carries a plan out in this process."""

    async def work() -> dict[str, object]:
        async with await StateStore.open(paths) as store:
            name = await store.submit(plan, "tester")  # type: ignore[arg-type]
            await store.begin_operation(name)
            return await apply_archival(paths, plan, store.bound(name))  # type: ignore[arg-type]

    return asyncio.run(work())


def test_models_that_have_moved_since_are_left_and_the_others_go(root: Paths, make_model: Make) -> None:
    rows = [make_model() for _ in range(5)]
    age(root)
    plan = asyncio.run(plan_archival(root))
    staged, used, played = rows[:3]
    change_stage(
        root, Planned(staged.label, staged.sha256, "development"), "staging", Decision("x", "t"), Author("t", "o")
    )
    job(root, {"model": used.label})
    weak(root, played)  # to be rejected now, not archived
    result = bound(root, plan)
    assert result["archived"] == [rows[3].label, rows[4].label]
    left = result["left"]
    assert isinstance(left, dict) and sorted(left) == [staged.label, used.label, played.label]
    assert "it is staging" in left[staged.label] and "uses it" in left[used.label]
    assert [find(root, row.label).path for row in rows[:3]] == [row.path for row in rows[:3]]
    with pytest.raises(LockedError, match="nothing was archived"):
        bound(root, plan)


def test_a_file_that_is_not_what_was_registered_is_not_moved(root: Paths, make_model: Make) -> None:
    row = make_model()
    age(root)
    plan = asyncio.run(plan_archival(root))
    file = root.root / row.path
    file.chmod(0o644)
    file.write_bytes(b"other")
    with pytest.raises(LockedError, match="not the one that was registered"):
        bound(root, plan)
    assert find(root, row.label).stage == "development" and file.read_bytes() == b"other"


def test_files_of_archived_models_follow_when_nothing_needs_them(root: Paths, make_model: Make) -> None:
    row = make_model()
    change_stage(root, Planned(row.label, row.sha256, "development"), "archived", Decision("x", "t"), Author("t", "o"))
    assert bound(root, asyncio.run(plan_archival(root))) == {"moved": [row.label]}
    assert "/low_elo/" in find(root, row.label).path and find(root, row.label).present
    assert ruled(root)[row.label][0] == "keep"


def test_one_operation_takes_so_many_and_says_so(root: Paths, make_model: Make) -> None:
    row = make_model()
    age(root)
    with sqlite3.connect(root.registry_db) as db:
        for n in range(AT_ONCE + 5):
            db.execute(
                "INSERT INTO versions (model_id, version, stage, file_path, file_hash, file_size_bytes, metrics_json,"
                " training_config_json, created_at, updated_at) SELECT model_id, ?, stage, ?, ?, 1, '{}', '{}',"
                " '2026-01-01', '2026-01-01' FROM versions WHERE version = 1",
                (n + 2, f"models/{n}.pth", f"{n:064x}"),
            )
    db.close()
    plan = asyncio.run(plan_archival(root))
    assert len(plan.changes) == AT_ONCE and plan.changes[0].subject == row.label
    assert plan.warnings == ("6 more are due; the next operation takes them",)


POINTS = (
    "archival.gathered", "archive.manifest", "archive.moved", "archive.committed", "archival.step", "outbox.published",
    "outbox.marked",
)  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_an_archival_by_policy_that_is_killed_anywhere_is_finished_once(
    root: Paths, make_model: Make, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    rows = [make_model() for _ in range(3)]
    weak(root, rows[0])
    age(root)
    name = die_at(root, asyncio.run(plan_archival(root)), point, monkeypatch)
    done = see_through(root, name)
    assert (done.state, done.result) == (
        "done", {"archived": [row.label for row in rows[1:]], "rejected": [rows[0].label]},
    )  # fmt: skip
    for row in rows:
        now = find(root, row.label)
        assert now.present and now.path.startswith("models/archive/") and not (root.root / row.path).exists()
        assert json.loads(manifest_path(root.root / now.path).read_text())["sha256"] == row.sha256
    check_events(root, {"MODEL_ARCHIVED": 2, "MODEL_REJECTED": 1})


def test_the_verb_lists_and_applies(root: Paths, make_model: Make, capsys: pytest.CaptureFixture[str]) -> None:
    row, fresh = make_model(), make_model()
    weak(root, row)

    def run(*argv: str) -> int:
        return main(["registry", "archive-policy", *argv, "--root", str(root.root)])

    assert run() == Exit.DONE
    shown = capsys.readouterr()
    assert [line.split()[:2] for line in shown.out.splitlines()] == [["MODEL", "RULING"], [row.label, "reject"]]
    assert "1 reject low_elo, 1 kept" in shown.err and find(root, row.label).stage == "development"
    assert run("--json", "--all") == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["due"], told["kept"]) == (1, 1) and told["models"][1]["label"] == fresh.label
    assert run("--config", "hex8_3p", "--json") == Exit.DONE
    assert json.loads(capsys.readouterr().out)["models"] == []
    assert run("--config", "hex9_2p") == Exit.USAGE
    capsys.readouterr()
    assert run("--apply", "--wait", "--json") == Exit.DONE
    assert json.loads(capsys.readouterr().out)["rejected"] == [row.label]
    assert run("--apply", "--wait") == Exit.DONE  # nothing is left to do
    assert find(root, row.label).stage == "rejected"


def test_by_hand_too_the_manifest_has_the_rating(root: Paths, make_model: Make) -> None:
    row = make_model()
    weak(root, row)
    plan = asyncio.run(plan_archive(root, model=row.label, reason="old"))
    assert plan.params["rating"]["games"] == 120 and plan.params["rating"]["high"] < 1400
