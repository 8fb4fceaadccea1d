"""An alarm on Pulse: it is seen first, and one key with one confirmed plan brings the previous model back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend.monitoring.check import look
from backend.overview import read_snapshot
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.alarms import alarms
from backend.registry.schema import reading
from backend.registry.store import find
from backend.state.store import StateStore
from backend.supervisor import stop
from ringrift_console.app import ConsoleApp
from screens.dialogs import PlanDialog
from tests.monitoring.conftest import in_production, make_network  # noqa: F401
from tests.monitoring.test_alarms import Made, play
from tests.screens.conftest import make_snapshot

PATIENCE_S = 90.0


@pytest.fixture
def rung(paths: Paths, in_production: Made) -> Iterator[Paths]:  # noqa: F811
    """A root with an alarm about a champion that fell."""
    _, new = in_production()
    play(paths, new, 240, 0.75, run="gauntlet")
    look(paths, "hex8_2p")
    for seed in range(2, 22):
        play(paths, new, 24, 0.45, seed=seed)
    assert look(paths, "hex8_2p").raised == (1,)
    yield paths
    stop(paths)


async def until(good: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if good():
                return
            await asyncio.sleep(0.05)


async def test_one_key_and_one_confirmation_bring_the_previous_model_back(rung: Paths, text_of: Any) -> None:
    app = ConsoleApp(rung)
    async with app.run_test(size=(160, 50)) as pilot:
        await until(lambda: bool(app.snapshot.alarms))
        await pilot.pause()
        page = "\n".join(text_of(app))
        assert "hex8_2p:v2 in production, alarm 1: win rate" in page and "B roll back" in page
        await pilot.press("B")
        await until(lambda: isinstance(app.screen, PlanDialog))
        await pilot.pause()
        page = "\n".join(text_of(app))
        assert "Roll production of hex8_2p back to hex8_2p:v1" in page and "fell from" in page
        await pilot.press(*"hex8_2p", "enter")
        await until(lambda: not isinstance(app.screen, PlanDialog))
        await until(lambda: _production(rung) == "hex8_2p:v1")
        await until(lambda: find(rung, "hex8_2p:v2").path.startswith("models/archive/"))
        await until(lambda: not app.snapshot.alarms)
    assert find(rung, "hex8_2p:v2").stage == "archived" and alarms(rung)[0].state == "closed"
    async with await StateStore.open(rung) as store:
        (operation,) = await store.operations()
        assert operation.action == "registry.rollback"


def _production(paths: Paths) -> str | None:
    with reading(paths.registry_db) as db:
        assert db is not None
        return pointers.current(db, "hex8_2p").label


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
@pytest.mark.parametrize("theme", ["dark", "mono"])
async def test_an_open_alarm_is_the_first_thing_that_needs_you(
    rung: Paths, build: Callable[..., Any], text_of: Any, size: tuple[int, int], theme: str
) -> None:
    source = await read_snapshot(rung)
    assert source.needs[0].severity == "error" and source.needs[0].subject == "hex8_2p"
    app = build(source=source, theme=theme, ascii=theme == "mono")
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert any("alarm 1: win rate" in line for line in text_of(app))
        await pilot.press("a")
        await until(lambda: isinstance(app.screen, PlanDialog))
        await pilot.pause()
        assert any("Acknowledge alarm 1" in line for line in text_of(app))


async def test_without_an_alarm_the_keys_say_so(build: Callable[..., Any], text_of: Any) -> None:
    app = build(source=make_snapshot())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("B")
        await pilot.pause()
        assert "no alarm is open" in text_of(app)[-2]
