"""Production pointers: compare-and-swap, where a rollback goes, what was in production when."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import pytest

from backend.errors import LockedError, NotFoundError, RefusedError
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.changes import Author, Decision
from backend.registry.pointers import Move, previous_of, production_on
from backend.registry.schema import reading
from backend.registry.store import find, info
from backend.registry.switch import Ground, Planned, change_stage, protected, switch, was_done
from backend.snapshot import ModelRow
from tests.registry.conftest import Make

CONFIG = "hex8_2p"
NUMBERS = itertools.count()


def author(name: str | None = None) -> Author:
    return Author("tester", name or f"o{next(NUMBERS)}")


def stage(paths: Paths, row: ModelRow, after: str = "staging") -> ModelRow:
    change_stage(paths, Planned(row.label, row.sha256, row.stage), after, Decision("promote", "t"), author())
    return find(paths, row.label)


def ground(paths: Paths) -> Ground:
    with reading(paths.registry_db) as db:
        assert db is not None
        now = pointers.current(db, CONFIG)
    return Ground(CONFIG, now.label, now.revision)


def put(paths: Paths, row: ModelRow, *, on: Ground | None = None, by: Author | None = None, action: str = "promote"):
    model = Planned(row.label, row.sha256, row.stage)
    return switch(paths, on or ground(paths), model, Decision(action, "t"), by or author(), left="superseded")


def in_production(paths: Paths) -> list[str]:
    with reading(paths.registry_db) as db:
        assert db is not None
        return [row.label for row in pointers.in_production(db, CONFIG)]


def test_a_switch_moves_pointer_stages_decision_audit_and_event_together(paths: Paths, make_model: Make) -> None:
    first, second = stage(paths, make_model()), stage(paths, make_model())
    put(paths, first)
    told = put(paths, second)
    assert (told["revision"], told["previous"], told["replaced"]) == (2, first.label, first.label)
    assert in_production(paths) == [second.label]
    assert find(paths, first.label).stage == "archived" and find(paths, first.label).path == first.path
    db = sqlite3.connect(paths.registry_db)
    events = db.execute("SELECT type, subject FROM outbox ORDER BY seq").fetchall()
    assert events[-2:] == [("MODEL_PROMOTED", first.label), ("MODEL_PROMOTED", second.label)]
    assert db.execute("SELECT count(*) FROM decisions").fetchone() == (4,)
    assert db.execute("SELECT count(*) FROM audit").fetchone() == (4,)
    db.close()


def test_the_same_operation_again_changes_nothing(paths: Paths, make_model: Make) -> None:
    row, by = stage(paths, make_model()), author("o-same")
    on = ground(paths)
    first = put(paths, row, on=on, by=by)
    assert put(paths, row, on=on, by=by) == first == was_done(paths, by, "MODEL_PROMOTED", row.label)
    assert ground(paths).revision == 1


def test_of_32_writers_one_wins_and_the_others_are_told_who(paths: Paths, make_model: Make) -> None:
    rows = [stage(paths, make_model()) for _ in range(32)]
    on, barrier = ground(paths), threading.Barrier(32)
    won: list[str] = []
    lost: list[str] = []

    def write(row: ModelRow, n: int) -> None:
        barrier.wait()
        try:
            put(paths, row, on=on, by=Author(f"writer-{n}", f"w{n}"))
            won.append(row.label)
        except LockedError as error:
            lost.append(error.line())

    threads = [threading.Thread(target=write, args=(row, n)) for n, row in enumerate(rows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(lost) == 31
    assert in_production(paths) == won
    assert all(won[0] in line and "by writer-" in line and "plan it again" in line for line in lost)
    assert [find(paths, row.label).stage for row in rows].count("staging") == 31


@pytest.mark.parametrize("moved", ["stage", "file", "gone"])
def test_a_model_that_has_changed_is_not_promoted(paths: Paths, make_model: Make, moved: str) -> None:
    row = stage(paths, make_model())
    if moved == "stage":
        stage(paths, row, "development")
    db = sqlite3.connect(paths.registry_db)
    if moved == "file":
        db.execute("UPDATE versions SET file_hash = ?", ("0" * 64,))
    if moved == "gone":
        db.execute("DELETE FROM versions")
    db.commit()
    db.close()
    with pytest.raises(NotFoundError if moved == "gone" else LockedError):
        put(paths, row)
    with reading(paths.registry_db) as db:
        assert db is not None and pointers.current(db, CONFIG).revision == 0


def test_the_production_model_leaves_only_for_another(paths: Paths, make_model: Make) -> None:
    row = stage(paths, make_model())
    put(paths, row)
    now = find(paths, row.label)
    for after in ("archived", "rejected", "staging"):
        with pytest.raises(RefusedError, match="production model"):
            change_stage(paths, Planned(now.label, now.sha256, now.stage), after, Decision("x", "t"), author())
    with pytest.raises(RefusedError, match="already"):
        put(paths, now)
    assert in_production(paths) == [row.label]


def test_a_rollback_goes_back_and_protects_what_it_may_go_to_next(paths: Paths, make_model: Make) -> None:
    one, two, three = (stage(paths, make_model()) for _ in range(3))
    for row in (one, two, three):
        put(paths, row)
    assert protected(paths) == {
        three.label: "it is in production", two.label: f"a rollback of {CONFIG} goes to it",
    }  # fmt: skip
    put(paths, find(paths, two.label), action="rollback")
    assert in_production(paths) == [two.label] and find(paths, three.label).stage == "archived"
    with reading(paths.registry_db) as db:
        assert db is not None and pointers.current(db, CONFIG).previous == one.label
    steps = [(step.before, step.after) for step in info(paths, two.label).transitions]
    assert steps[-3:] == [("archived", "development"), ("development", "staging"), ("staging", "production")]


def test_a_foreign_registry_tells_its_production_by_the_stage(paths: Paths, make_model: Make) -> None:
    old, new = make_model(), stage(paths, make_model())
    db = sqlite3.connect(paths.registry_db)
    db.execute("UPDATE versions SET stage = 'production' WHERE version = ?", (old.version,))
    db.commit()
    db.close()
    assert ground(paths) == Ground(CONFIG, old.label, 0)
    assert put(paths, new)["previous"] == old.label
    assert in_production(paths) == [new.label]


def move(action: str, after: str, n: int, before: str | None = None) -> Move:
    at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=n)
    return Move(CONFIG, n + 1, action, before, after, "", "", "", at, f"o{n}")


@pytest.mark.parametrize(
    ("history", "previous"),
    [
        ("+a", None),
        ("+a +b", "a"),
        ("+a +b -a", None),
        ("+a +b +c -b", "a"),
        ("+a +b +c -a", None),  # b came after what was gone back to
        ("+a +b -a +c", "a"),
        ("+a +b -a +c +b", "c"),  # b was mended and promoted again
        ("+a +b -a +c -a", None),
        ("+a +b -a -b", "a"),  # the rollback was taken back: nothing is wrong with a
        ("+a +b -a -b -a", None),
        ("+a +b +c -a -b", "a"),
    ],
)
def test_a_rollback_never_goes_to_what_was_left_behind(history: str, previous: str | None) -> None:
    words = history.split()
    made = [move("promote" if word[0] == "+" else "rollback", word[1], n) for n, word in enumerate(words)]
    assert previous_of(made, made[-1].after) == previous


def test_what_was_in_production_at_a_moment(paths: Paths) -> None:
    made = [move("promote", "a", 0), move("promote", "b", 5)]
    at = made[0].at
    assert production_on(made, at - timedelta(seconds=1)) is None
    assert [production_on(made, at + timedelta(hours=h)).after for h in (0, 4, 5, 9)] == ["a", "a", "b", "b"]  # type: ignore[union-attr]


def test_any_order_of_changes_leaves_one_production_and_a_whole_chain(paths: Paths, make_model: Make) -> None:
    from backend.registry import audit

    chance = random.Random(11)
    rows = [make_model() for _ in range(6)]
    for _ in range(60):
        row = find(paths, chance.choice(rows).label)
        planned = Planned(row.label, row.sha256, row.stage)
        try:
            match chance.choice(["staging", "production", "rollback", "archived", "rejected", "development"]):
                case "production" | "rollback" as action:
                    if row.stage == "staging":
                        switch(
                            paths, ground(paths), planned,
                            Decision("promote" if action == "production" else action, "t"), author(), left="left",
                        )  # fmt: skip
                case after:
                    change_stage(paths, planned, after, Decision("by hand", "t"), author())
        except (RefusedError, ValueError):
            continue
        now = ground(paths)
        assert in_production(paths) == ([now.label] if now.label else [])
    with reading(paths.registry_db) as db:
        assert db is not None
        count, _ = audit.verify(audit.entries(db))
        assert count == db.execute("SELECT count(*) FROM decisions").fetchone()[0] > 20
        told = [json.loads(row["payload"])["audit"] for row in db.execute("SELECT payload FROM outbox")]
        assert audit.verify(audit.entries(db), told)[0] == count
