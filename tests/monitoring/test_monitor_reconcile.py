"""When the monitor looks, plays and ends what it began: facts in, actions out."""

from __future__ import annotations

from typing import Any

import pytest

from backend.monitoring.reconcile import (
    AGAIN_S,
    DAY_S,
    LOOK_S,
    ROUND_GAMES,
    Background,
    Cancel,
    Champion,
    Facts,
    Look,
    Play,
    decide,
)

NOW = 1_000_000.0
PREFIXES = {"hex8_2p": "monitor-hex8_2p-aa-", "square8_4p": "monitor-square8_4p-bb-"}


def champion(config: str = "hex8_2p", **changes: Any) -> Champion:
    values: dict[str, Any] = {"looked_at": NOW - 60, "fit": True, "alarmed": False}
    return Champion(config, int(config[-2]), "aa" * 32, "models/x.pth", **(values | changes))


def job(state: str = "done", *, age: float = 3600, config: str = "hex8_2p", **changes: Any) -> Background:
    ended = NOW - age + 60 if state in ("done", "failed", "cancelled") else None
    values: dict[str, Any] = {"run": PREFIXES[config] + "1", "games": ROUND_GAMES, "ended_at": ended}
    return Background("g1", config, state=state, created_at=NOW - age, **(values | changes))


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "now": NOW, "on": True, "games_per_day": 96, "champions": (champion(),), "jobs": (),
        "looking": None, "tried": {},
    }  # fmt: skip
    return Facts(**(values | changes))


PLAY = Play("hex8_2p", "aa" * 32, "models/x.pth", ROUND_GAMES)


@pytest.mark.parametrize(
    ("changes", "actions"),
    [
        ({}, (PLAY,)),
        ({"on": False}, ()),
        ({"champions": ()}, ()),
        ({"champions": (champion(looked_at=None),)}, (Look("hex8_2p"),)),
        ({"champions": (champion(looked_at=NOW - LOOK_S),)}, (Look("hex8_2p"),)),
        ({"champions": (champion(looked_at=NOW + 500),)}, (Look("hex8_2p"),)),
        ({"champions": (champion(looked_at=None),), "looking": "hex8_2p"}, ()),
        ({"champions": (champion(looked_at=None),), "tried": {"hex8_2p": NOW - 1}}, ()),
        ({"champions": (champion(looked_at=None),), "tried": {"hex8_2p": NOW - AGAIN_S}}, (Look("hex8_2p"),)),
        ({"champions": (champion(alarmed=True),)}, ()),
        ({"champions": (champion(fit=False),)}, ()),
        ({"looking": "hex8_2p"}, ()),
        ({"jobs": (job("running"),)}, ()),
        ({"jobs": (job("waiting"),)}, ()),
        ({"jobs": (job(),)}, (PLAY,)),
        ({"jobs": (job(age=90),)}, (Look("hex8_2p"),)),
        ({"jobs": (job("failed", age=200),)}, ()),
        ({"jobs": (job("failed", age=AGAIN_S + 100),)}, (PLAY,)),
        ({"jobs": (job(),) * 4}, ()),
        ({"jobs": (job(),) * 3}, (PLAY,)),
        ({"jobs": (job(age=DAY_S),) * 4}, (PLAY,)),
        ({"games_per_day": ROUND_GAMES - 1}, (Play("hex8_2p", "aa" * 32, "models/x.pth", ROUND_GAMES - 2),)),
        ({"games_per_day": 1}, ()),
        ({"games_per_day": 0}, ()),
        ({"jobs": (job("waiting"),), "on": False}, (Cancel("g1", "the monitor was switched off"),)),
        ({"jobs": (job("running"),), "on": False}, ()),
        ({"jobs": (job("running", run="monitor-hex8_2p-old-1"),)}, (Cancel("g1", "its model is out of production"),)),
    ],
)  # fmt: skip
def test_decisions(changes: dict[str, Any], actions: tuple[Any, ...]) -> None:
    assert decide(facts(**changes), PREFIXES) == actions


def test_one_look_at_a_time_the_longest_waiting_first_and_the_budget_is_each_configs_own() -> None:
    both = (champion(looked_at=NOW - 2 * LOOK_S), champion("square8_4p", looked_at=None))
    assert decide(facts(champions=both), PREFIXES) == (Look("square8_4p"),)
    both = (champion(), champion("square8_4p"))
    actions = decide(facts(champions=both, jobs=(job(),) * 4), PREFIXES)
    assert [action.config for action in actions if isinstance(action, Play)] == ["square8_4p"]
