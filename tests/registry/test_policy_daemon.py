"""Policies carried out: when to look, what to promote, and whole roots under a supervisor."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable

import pytest

from backend.overview import read_snapshot
from backend.paths import Paths
from backend.registry.policy_daemon import BY, FAILED, Clockwork, Mark, Pace, Passed, PolicyDaemon, choose, mark_of
from backend.registry.store import find
from backend.snapshot import EventRow, OperationRow
from backend.state.store import StateStore
from backend.supervisor import ensure_running, stop
from tests.registry.conftest import Make
from tests.registry.synthetic import play
from tests.registry.test_archival import age, weak
from tests.registry.test_policies import put
from tests.registry.test_promotion_crashes import PATIENCE_S, check_one_production, promoted


def mark(n: int) -> Mark:
    return ((n, n),)


def test_a_look_comes_when_it_is_quiet_and_at_last_in_any_case() -> None:
    clock = Clockwork(Pace(quiet=4, longest=20, age=100))
    assert clock.due(mark(0), 0)  # the first
    clock.done(mark(0), 0)
    assert not clock.due(mark(0), 50)
    assert not clock.due(mark(1), 51) and not clock.due(mark(1), 54) and clock.due(mark(1), 55)
    clock.done(mark(1), 55)
    looks = []
    for second in range(60, 101):  # records come in every second
        if clock.due(mark(second), second):
            clock.done(mark(second), second)
            looks.append(second)
    assert looks == [80]
    clock.done(mark(100), 100)
    assert not clock.due(mark(100), 199) and clock.due(mark(100), 200)


def test_production_comes_first_then_the_surest() -> None:
    one, two = Passed("a", 1, "staging", 1600.0), Passed("b", 2, "staging", 1500.0)
    three = Passed("c", 3, "production", None)
    assert choose([]) is None and choose([one, two]) == one and choose([one, two, three]) == three


def look(paths: Paths) -> tuple[list[OperationRow], list[EventRow]]:
    """One look by a daemon in this process, with nobody to carry out what it submits."""

    async def work() -> tuple[list[OperationRow], list[EventRow]]:
        async with await StateStore.open(paths) as store:
            await PolicyDaemon(paths, store).look()
            return list(await store.operations()), list(await store.events(type="ARCHIVAL_DUE"))

    return asyncio.run(work())


def test_what_is_off_does_nothing(root: Paths, make_model: Make) -> None:
    weak(root, make_model())
    strong = make_model()
    play(root, strong.sha256, "heuristic:1", 200, wins=180)
    assert look(root) == ([], [])


def test_a_dry_run_of_archival_tells_once_what_it_would_do(root: Paths, make_model: Make) -> None:
    row = make_model()
    weak(root, row)
    put(root, "archival", "dry-run", operation="a")
    for _ in range(2):
        operations, events = look(root)
        assert operations == [] and len(events) == 1
    assert events[0].payload["by_rule"] == {"reject low_elo": 1} and row.label in events[0].payload["first"][0]
    weak(root, make_model())
    assert len(look(root)[1]) == 2
    assert find(root, row.label).stage == "development"


def test_archival_of_one_config_leaves_the_others(root: Paths, make_model: Make) -> None:
    two, three = make_model(), make_model("hex8_3p")
    age(root)
    put(root, "archival", "on", "hex8_3p", operation="a")
    for _ in range(2):
        ((operation,), _) = look(root)
        assert operation.by == BY and operation.title == "Archive 1 model by policy (1 archive aged_out)"
    assert two.label not in operation.title and three.present


def test_one_promotion_at_a_time_and_nothing_is_judged_twice(
    root: Paths, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.registry import policy_daemon

    good, better, equal = (make_model() for _ in range(3))
    for row, wins in ((good, 160), (better, 190), (equal, 100)):
        play(root, row.sha256, "heuristic:1", 200, wins=wins)
    put(root, "promotion", "on", "hex8_2p", operation="a")
    judged: list[str] = []
    real = policy_daemon.assess
    monkeypatch.setattr(
        policy_daemon, "assess", lambda p, row, stage: (judged.append(row.label), real(p, row, stage))[1]
    )

    async def work() -> list[OperationRow]:
        async with await StateStore.open(root) as store:
            daemon = PolicyDaemon(root, store)
            await daemon.look()
            await daemon.look()  # the first promotion is under way
            return list(await store.operations())

    (operation,) = asyncio.run(work())
    assert operation.title == f"Promote {better.label} to staging" and operation.by == BY
    assert sorted(judged) == sorted([good.label, better.label, equal.label])


def test_a_staged_model_has_to_beat_the_production_model_of_now(root: Paths, make_model: Make) -> None:
    champion, staged = make_model(), make_model()
    play(root, staged.sha256, "heuristic:1", 240, wins=210)
    play(root, staged.sha256, "random:1", 120, wins=118)
    put(root, "promotion", "on", operation="a")
    promoted(root, champion)
    stop(root)
    with sqlite3.connect(root.registry_db) as db:
        db.execute("UPDATE versions SET stage = 'staging' WHERE version = ?", (staged.version,))
    db.close()
    before = len(look(root)[0])
    identity = f"neural:{champion.sha256[:16]}:s16"
    play(root, staged.sha256, identity, 100, wins=80, opponent_sha256=champion.sha256)
    operations = look(root)[0]
    assert len(operations) == before + 1 and operations[-1].title == f"Promote {staged.label} to production"


def test_a_damaged_registry_is_said_once_and_the_daemon_lives(
    root: Paths, make_model: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model()

    async def work() -> None:
        async with await StateStore.open(root) as store:
            daemon = PolicyDaemon(root, store, Pace(glance=0.01, quiet=0.0, age=0.0))
            root.registry_db.write_bytes(b"no database" * 20)
            looks = 0
            real = PolicyDaemon.look
            enough = asyncio.Event()

            async def look(self: PolicyDaemon) -> None:
                nonlocal looks
                looks += 1
                if looks == 4:
                    enough.set()
                await real(self)

            monkeypatch.setattr(PolicyDaemon, "look", look)
            task = asyncio.create_task(daemon.run())
            async with asyncio.timeout(PATIENCE_S):
                await enough.wait()
            assert not task.done()
            task.cancel()

    asyncio.run(work())
    assert [record.getMessage().count("not a database") for record in caplog.records] == [1]


def test_a_model_whose_file_is_broken_holds_nothing_else_up(root: Paths, make_model: Make) -> None:
    broken, next_best, other = make_model(), make_model(), make_model("hex8_4p")
    play(root, broken.sha256, "heuristic:1", 200, wins=190)
    play(root, next_best.sha256, "heuristic:1", 200, wins=180)
    play(root, other.sha256, "heuristic:1", 400, wins=300, config="hex8_4p")
    file = root.root / broken.path
    file.chmod(0o644)
    file.write_bytes(b"no checkpoint")
    put(root, "promotion", "on")

    async def work() -> tuple[list[str], list[str], list[str]]:
        async with await StateStore.open(root) as store:
            daemon = PolicyDaemon(root, store)
            await daemon.look()
            first = (await read_snapshot(root)).needs
            await daemon.look()  # the same trouble is told once
            events = await store.events(type=FAILED)
            titles = [row.title for row in await store.operations()]
            file.unlink()
            for name, _ in await store.open_operations():
                await store.end_operation(name, "refused")
            await daemon.look()
            over = (await read_snapshot(root)).needs
            return (
                titles,
                [event.subject for event in events],
                [n.text for n in first if "policy" in n.text] + [n.text for n in over if "policy" in n.text],
            )

    titles, told, needs = asyncio.run(work())
    assert sorted(titles) == [f"Promote {next_best.label} to staging", f"Promote {other.label} to staging"]
    assert told == ["promotion hex8_2p"]
    assert len(needs) == 1 and needs[0].startswith("policy of promotion hex8_2p: ") and broken.path in needs[0]


def wait_until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 2 * PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)


def test_under_a_supervisor_the_good_rise_and_the_bad_go(root: Paths, make_model: Make) -> None:
    good, bad, equal = make_model(), make_model(), make_model("hex8_4p")
    play(root, good.sha256, "heuristic:1", 240, wins=210)
    play(root, good.sha256, "random:1", 120, wins=118)
    weak(root, bad)
    play(root, equal.sha256, "heuristic:1", 240, wins=60, config="hex8_4p")
    put(root, "promotion", "on", operation="a")
    put(root, "archival", "on", operation="b")
    ensure_running(root)
    wait_until(lambda: find(root, good.label).stage == "production" and find(root, bad.label).stage == "rejected")
    wait_until(lambda: (root.essential / "canonical_hex8_2p.pth").exists())
    wait_until(lambda: "archive" in find(root, bad.label).path)

    async def ended() -> list[OperationRow]:
        async with await StateStore.open(root) as store:
            return list(await store.operations())

    wait_until(lambda: all(row.state in ("done", "refused", "failed") for row in asyncio.run(ended())))
    check_one_production(root, good.label, {"MODEL_STAGED": 1, "MODEL_PROMOTED": 1, "MODEL_REJECTED": 1})
    assert {row.by for row in asyncio.run(ended())} == {BY} and all(row.state == "done" for row in asyncio.run(ended()))
    assert find(root, equal.label).stage == "development"


def test_a_mark_changes_with_records_and_registry(root: Paths, make_model: Make) -> None:
    empty = mark_of(root)
    row = make_model()
    one = mark_of(root)
    play(root, row.sha256, "heuristic:1", 2, wins=1)
    assert len({empty, one, mark_of(root)}) == 3 and mark_of(root) == mark_of(root)
