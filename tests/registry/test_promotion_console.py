"""Promotion, refusal and policies from the keyboard, over the real state: what a key leads to is done in the root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backend.paths import Paths
from backend.registry.policies import read_policies
from backend.registry.store import find
from ringrift_console.app import ConsoleApp
from screens.dialogs import PlanDialog
from screens.form import FormDialog
from tests.registry.conftest import Make
from tests.registry.synthetic import play

PATIENCE_S = 90.0


class Hand:
    """A clock that is moved by hand, for the guard against keys that were meant for something else."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def console(paths: Paths) -> AsyncIterator[tuple[Any, Hand]]:
    hand = Hand()
    app = ConsoleApp(paths, monotonic=hand)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: app.have_read)
        yield pilot, hand


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await asyncio.to_thread(what):
                return
            await asyncio.sleep(0.05)


async def press(pilot: Any, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await pilot.pause()


async def ask(pilot: Any, hand: Hand, *keys: str) -> bool:
    """Fills a form, and says yes to the plan; False when there was none."""
    await until(lambda: isinstance(pilot.app.screen, FormDialog))
    await press(pilot, *keys, "enter")
    await until(lambda: not isinstance(pilot.app.screen, FormDialog))
    await until(lambda: isinstance(pilot.app.screen, PlanDialog) or bool(getattr(pilot.app.screen, "notice", ())))
    if not isinstance(pilot.app.screen, PlanDialog):
        return False
    hand.now += 1.0
    name = pilot.app.screen.name_to_type
    await press(pilot, *([*name, "enter"] if name else ["y"]))
    await until(lambda: not isinstance(pilot.app.screen, PlanDialog))
    return True


@pytest.mark.parametrize("config", ["hex8_2p", "hex8_4p"])
async def test_a_strong_model_is_promoted_from_the_keyboard(root: Paths, make_model: Make, config: str) -> None:
    row = make_model(config)
    play(root, row.sha256, "heuristic:1", 240, wins=210, config=config)
    play(root, row.sha256, "random:1", 120, wins=118, config=config)
    async with console(root) as (pilot, hand):
        await press(pilot, "4", "P")
        assert await ask(pilot, hand)
        await until(lambda: find(root, row.label).stage == "staging")
        await pilot.app.look_again()
        await press(pilot, "P")
        assert await ask(pilot, hand)
        await until(lambda: find(root, row.label).stage == "production")


async def test_a_model_that_is_not_better_is_refused_on_screen(root: Paths, make_model: Make) -> None:
    equal = make_model()
    play(root, equal.sha256, "heuristic:1", 100, wins=50)
    async with console(root) as (pilot, hand):
        await press(pilot, "4", "P")
        assert not await ask(pilot, hand)
        said = pilot.app.screen.notice[0][0]
        assert "not promoted to staging" in said and "Elo delta" in said
    assert find(root, equal.label).stage == "development" and not root.state_db.exists()


async def test_a_policy_is_switched_from_the_keyboard(root: Paths, make_model: Make) -> None:
    make_model()
    async with console(root) as (pilot, hand):
        await press(pilot, "A", "e")
        await until(lambda: isinstance(pilot.app.screen, FormDialog))
        await press(pilot, "tab", "down")  # the mode, from off to dry-run
        assert await ask(pilot, hand)
        await until(lambda: read_policies(root).mode("archival") == "dry-run")
        await pilot.app.look_again()
        assert [(one.name, one.mode) for one in pilot.app.screen.policies.shown] == [
            ("archival", "dry-run"), ("promotion", "off"),
        ]  # fmt: skip
        await press(pilot, "A")
        await until(lambda: bool(pilot.app.screen.notice))
        assert "keeps every model" in pilot.app.screen.notice[0][0]
