"""From a key to an operation: what a plan dialog shows, what cancels it, what goes on, and when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backend.errors import RefusedError
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.state.store import StateStore
from ringrift_console.actions import BY_NAME, Tier
from screens import dialogs
from screens.dialogs import PlanDialog
from tests.screens.conftest import until

PLAN = Plan(
    "jobs.cancel", "Cancel t12", {"jobs": ["t12"]}, (Change("t12", "running", "cancelled"),), ("ask it to stop",),
    "ringrift jobs cancel t12", "ringrift jobs retry t12", ("it has run for an hour",), 41, {"job t12": "open"},
)  # fmt: skip


class Hand:
    """Moves the clock of the guard by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Plans what ``planner["plan"]`` holds, and keeps what was submitted."""
    box: dict[str, Any] = {"plan": PLAN, "submitted": []}

    async def make_plan(action: Any, paths: Any, params: dict[str, Any]) -> Plan:
        if isinstance(box["plan"], Exception):
            raise box["plan"]
        return box["plan"]

    async def submit(plan: Plan, paths: Any) -> str:
        box["submitted"].append(plan)
        return "o7"

    monkeypatch.setattr(dialogs, "make_plan", make_plan)
    monkeypatch.setattr(dialogs, "submit", submit)
    return box


async def press(pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await pilot.pause()
    await pilot.pause()


async def open_dialog(pilot: Any, hand: Hand) -> None:
    await pilot.pause()
    await press(pilot, "3", "x")
    assert isinstance(pilot.app.screen, PlanDialog)
    hand.now += 1.0


async def open_named(pilot: Any, hand: Hand) -> None:
    """A dialog of the gravest kind: the name is to be typed."""
    await pilot.pause()
    pilot.app.ask(replace(BY_NAME["jobs.cancel"], tier=Tier.NAMED), "t12")
    await pilot.pause()
    await pilot.pause()
    hand.now += 1.0


async def test_the_dialog_shows_the_whole_plan(
    build: Callable[..., Any], planner: dict[str, Any], hand: Hand, text_of: Any
) -> None:
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dialog(pilot, hand)
        page = "\n".join(text_of(app))
        for text in ("Cancel t12", "running → cancelled", "ask it to stop", "it has run for an hour",
                     "ringrift jobs cancel t12", "ringrift jobs retry t12"):  # fmt: skip
            assert text in page


@pytest.mark.parametrize("key", ["enter", "escape", "n", "ctrl+c"])
async def test_cancelling_is_the_default(
    key: str, build: Callable[..., Any], planner: dict[str, Any], hand: Hand, text_of: Any
) -> None:
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dialog(pilot, hand)
        await press(pilot, key)
        assert not isinstance(app.screen, PlanDialog)
        assert planner["submitted"] == []
        assert "nothing was done" in text_of(app)[-2]


@pytest.mark.parametrize("key", ["x", "Y", "space", "tab", "d", "1"])
async def test_no_other_key_answers(key: str, build: Callable[..., Any], planner: dict[str, Any], hand: Hand) -> None:
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dialog(pilot, hand)
        await press(pilot, key)
        assert isinstance(app.screen, PlanDialog)
        assert planner["submitted"] == []


async def test_yes_submits_what_was_shown(
    build: Callable[..., Any], planner: dict[str, Any], hand: Hand, text_of: Any
) -> None:
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dialog(pilot, hand)
        await press(pilot, "y")
        assert planner["submitted"] == [PLAN]
        assert "operation o7" in text_of(app)[-2]


async def test_a_key_already_in_flight_cannot_answer(
    build: Callable[..., Any], planner: dict[str, Any], hand: Hand
) -> None:
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await press(pilot, "3", "x", "y", "enter")
        assert isinstance(app.screen, PlanDialog)
        assert planner["submitted"] == []
        hand.now += 0.3
        await press(pilot, "y")
        assert planner["submitted"] == [PLAN]


async def test_a_plan_that_moved_is_refused_and_shown(
    build: Callable[..., Any], planner: dict[str, Any], hand: Hand, text_of: Any
) -> None:
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dialog(pilot, hand)
        planner["plan"] = replace(PLAN, changes=(Change("t12", "running", "blocked"),), guard={"job t12": "lost"})
        await press(pilot, "y")
        assert "the state has moved" in "\n".join(text_of(app))
        hand.now += 1.0
        await press(pilot, "y")
        assert planner["submitted"] == []
        await press(pilot, "r")
        assert "running → blocked" in "\n".join(text_of(app))
        hand.now += 1.0
        await press(pilot, "y")
        assert planner["submitted"] == [planner["plan"]]


async def test_a_new_snapshot_alone_shows_that_a_plan_moved(
    build: Callable[..., Any], planner: dict[str, Any], hand: Hand, text_of: Any
) -> None:
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dialog(pilot, hand)
        planner["plan"] = RefusedError("it has ended (done)", where="t12")
        app.source = replace(app.source, revision=42)
        await app.look_again()
        await pilot.pause()
        await pilot.pause()
        assert "it has ended (done)" in "\n".join(text_of(app))
        assert planner["submitted"] == []


async def test_the_gravest_actions_want_the_name_typed(
    build: Callable[..., Any], planner: dict[str, Any], hand: Hand
) -> None:
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_named(pilot, hand)
        await press(pilot, "y", "enter")
        assert planner["submitted"] == []
        await open_named(pilot, hand)
        await press(pilot, *"t12", "enter")
        assert planner["submitted"] == [PLAN]


async def test_a_plan_with_a_name_to_type_is_looked_at_again(
    build: Callable[..., Any], planner: dict[str, Any], hand: Hand, text_of: Any
) -> None:
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_named(pilot, hand)
        await press(pilot, *"t1")
        planner["plan"] = replace(PLAN, changes=(Change("t12", "running", "blocked"),), guard={"job t12": "lost"})
        app.source = replace(app.source, revision=42)
        await app.look_again()
        await pilot.pause()
        await pilot.pause()
        assert "the state has moved" in "\n".join(text_of(app))
        await press(pilot, "2", "y", "r")
        page = "\n".join(text_of(app))
        assert "running → blocked" in page and "type t12 and enter to go on" in page
        assert planner["submitted"] == []
        await press(pilot, *"t12", "enter")
        assert planner["submitted"] == [planner["plan"]]


async def test_a_plan_that_cannot_be_made_is_one_line(
    build: Callable[..., Any], planner: dict[str, Any], hand: Hand, text_of: Any
) -> None:
    app = build(monotonic=hand)
    planner["plan"] = RefusedError("a staging model is protected", where="square8_2p:v1")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await press(pilot, "3", "x")
        assert "a staging model is protected" in text_of(app)[-2]


async def test_by_keys_alone_a_pipeline_becomes_an_operation(
    build: Callable[..., Any], paths: Paths, hand: Hand, monkeypatch: pytest.MonkeyPatch, text_of: Any
) -> None:
    started = []
    monkeypatch.setattr("backend.supervisor.ensure_running", lambda given: started.append(given) or 4711)
    app = build(monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await press(pilot, "p", "tab", *"25", "tab", *"2x", "enter")
        assert "must be a whole number" in "\n".join(text_of(app))
        await press(pilot, "backspace", "enter")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        page = "\n".join(text_of(app))
        assert "self-play until square8_2p has 25 games" in page
        assert "--epochs 2" in page
        hand.now += 1.0
        await press(pilot, "y")
        await until(pilot, lambda: bool(started))
    assert started == [paths]
    async with await StateStore.open(paths) as store:
        operation = await store.operation("o1")
    assert operation is not None
    assert operation.action == "pipeline.start"
    assert operation.state == "pending"


async def test_keys_typed_before_a_dialog_is_there_do_nothing(build: Callable[..., Any]) -> None:
    from textual import events

    from screens.picker import PickerDialog

    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        screen = app.screen
        for key in ("escape", "4", "q"):
            app.push_screen(PickerDialog("Keys and actions", ()))
            app.say("something happened")
            await screen.on_key(events.Key(key, key if len(key) == 1 else None))  # it was in front when that was typed
            await pilot.pause()
            assert isinstance(app.screen, PickerDialog)
            await pilot.press("escape")
            assert app.screen is screen


async def test_keys_typed_ahead_act_on_the_screen_that_they_lead_to(build: Callable[..., Any]) -> None:
    from textual import events

    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        behind = app.screen
        await pilot.press("4")
        await behind.on_key(events.Key("slash", "/"))
        await pilot.pause()
        assert app.screen.KIND == "models" and app.screen.query("LineInput")
