"""From games of known strength to an alarm, and from the alarm to the previous model, on the command line."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from backend.configs import parse_config
from backend.errors import Exit, NotFoundError, RefusedError
from backend.evaluation.match_record import MatchRecord, MatchSeat
from backend.evaluation.openings import opening_id
from backend.evaluation.records import Records
from backend.monitoring.check import look, watched
from backend.monitoring.plans import plan_ack, plan_alarm_rollback
from backend.monitoring.records import run_prefix
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.alarms import alarms, find_alarm
from backend.registry.deployment import production_file
from backend.registry.hashing import sha256_file
from backend.registry.schema import reading, writing
from backend.registry.store import find
from backend.snapshot import ModelRow
from ringrift_console.cli import main

Made = Callable[..., list[ModelRow]]


def play(
    paths: Paths, row: ModelRow, games: int, rate: float, *, run: str = "", seed: int = 1, crashes: int = 0,
    search: str = "s32",
) -> None:  # fmt: skip
    """Stores games of a model that wins each with the chance ``rate``, block by block.

    Args:
        run: empty for a background run of the monitor.
        crashes: so many more games, in which the model's player crashed.
    """
    config = str(row.config)
    players, chance = parse_config(config).players, random.Random(seed)
    run = run or f"{run_prefix(config, row.sha256)}{seed}"
    records: list[tuple[str, MatchRecord]] = []
    for n in range(games + crashes):
        block, seat = divmod(n, players)
        crashed = n >= games
        winner = 0 if crashed else seat + 1 if chance.random() < rate else (seat + 1) % players + 1
        own, other = MatchSeat(f"neural:{row.sha256[:16]}:{search}", row.sha256), MatchSeat("heuristic:1")
        record = MatchRecord(
            config=config,
            seats=tuple(own if place == seat else other for place in range(players)),
            candidate=seat + 1,
            winner=winner,
            ranking=() if crashed else tuple(1 if other == winner else 2 for other in range(1, players + 1)),
            reason="crash" if crashed else "rings",
            termination="crash" if crashed else "natural",
            opening=opening_id(seed, block),
            opening_moves=2,
            seed=seed,
            moves=np.array([chance.getrandbits(31) for _ in range(12)], dtype=np.int64),
            engine_version="test",
            wall_s=0.1,
            worker="made-up",
            crashed=seat + 1 if crashed else 0,
        )
        records.append((f"heuristic/{block}/{seat + 1}", record))
    with Records.open(paths) as store:
        store.begin_run(run, config, {"candidate": row.sha256, "seed": seed, "run": run})
        store.add(run, records)


def ringrift(paths: Paths, *words: str) -> int:
    return main([*words, "--root", str(paths.root)])


@pytest.mark.parametrize(
    ("key", "before", "after"), [("hex8_2p", 0.75, 0.50), ("square8_3p", 0.60, 0.35), ("hex8_4p", 0.50, 0.25)]
)
def test_a_champion_that_fell_raises_one_alarm_with_its_cause_and_a_target(
    paths: Paths, in_production: Made, key: str, before: float, after: float
) -> None:
    old, new = in_production(config=key)
    play(paths, new, 240, before, run="gauntlet")
    assert look(paths, key).raised == ()
    raised: list[int] = []
    for seed in range(2, 22):
        play(paths, new, 24, after, seed=seed)
        raised += look(paths, key).raised
    assert len(raised) == 1
    (alarm,) = alarms(paths)
    assert (alarm.state, alarm.cause, alarm.model, alarm.target) == ("open", "win rate", new.label, old.label)
    assert "fell from" in alarm.detail and "240 games" in alarm.detail
    chart = alarm.evidence
    assert chart["total"] >= chart["h"] and chart["baseline"]["games"] == 240
    low, _ = chart["p0"], chart["p1"]
    assert low < before and chart["wins"] / chart["games"] < low


@pytest.mark.parametrize(("key", "rate"), [("hex8_2p", 0.75), ("square8_3p", 0.60), ("hex8_4p", 0.50)])
def test_a_healthy_champion_raises_none_in_ten_days_of_its_budget(
    paths: Paths, in_production: Made, key: str, rate: float
) -> None:
    (row,) = in_production(1, key)
    play(paths, row, 240, rate, run="gauntlet")
    look(paths, key)
    for seed in range(2, 12):
        play(paths, row, 96, rate, seed=seed)
        assert look(paths, key).raised == ()
    chart = watched(paths)[key].chart
    assert chart is not None and chart["games"] == 960 and chart["total"] < chart["h"]


def test_of_a_champion_without_a_past_the_first_games_are_the_baseline(paths: Paths, in_production: Made) -> None:
    (row,) = in_production(1)
    play(paths, row, 200, 0.1, run="gauntlet", search="s0")  # another search is another player
    look(paths, "hex8_2p")
    play(paths, row, 48, 0.7, seed=2)
    found = look(paths, "hex8_2p").chart
    assert found is not None and found.h is None and found.baseline.games == 48
    play(paths, row, 24, 0.7, seed=3)
    found = look(paths, "hex8_2p").chart
    assert found is not None and found.baseline.games == 50 and found.games == 22 and not found.rings


def test_a_player_that_crashes_raises_an_alarm_of_its_own(paths: Paths, in_production: Made) -> None:
    _, row = in_production()
    play(paths, row, 100, 0.7, run="gauntlet")
    look(paths, "hex8_2p")
    play(paths, row, 24, 0.7, seed=2, crashes=2)
    assert look(paths, "hex8_2p").raised == ()
    play(paths, row, 24, 0.7, seed=3, crashes=2)
    assert len(look(paths, "hex8_2p").raised) == 1
    assert alarms(paths)[0].cause == "crashes" and "4 of 52" in alarms(paths)[0].detail


def test_a_fault_of_the_file_is_told_once_and_again_after_it_was_gone(paths: Paths, in_production: Made) -> None:
    old, new = in_production()
    assert look(paths, "hex8_2p").raised == ()
    path = paths.root / new.path
    kept = path.rename(path.with_suffix(".away"))
    assert len(look(paths, "hex8_2p").raised) == 1 and look(paths, "hex8_2p").raised == ()
    (alarm,) = alarms(paths)
    assert (alarm.cause, alarm.target) == ("missing", old.label)
    with writing(paths.registry_db) as db:
        db.execute("UPDATE alarms SET acked_at = raised_at, acked_by = 'me', ack_reason = 'known'")
    assert look(paths, "hex8_2p").raised == ()
    kept.rename(path)
    assert look(paths, "hex8_2p").raised == ()
    path.rename(kept)
    assert len(look(paths, "hex8_2p").raised) == 1


def test_a_deployed_copy_that_is_not_the_production_model_is_a_fault_of_its_own(
    paths: Paths, in_production: Made
) -> None:
    _, new = in_production()
    look(paths, "hex8_2p")
    copy = paths.essential / production_file("hex8_2p")
    copy.unlink()
    copy.write_bytes(b"other")
    assert len(look(paths, "hex8_2p").raised) == 1
    assert alarms(paths)[0].cause == "serving" and find(paths, new.label).present


def test_a_target_that_is_not_sound_is_passed_over(paths: Paths, in_production: Made) -> None:
    oldest, old, new = in_production(3)
    look(paths, "hex8_2p")
    damaged = paths.root / old.path
    damaged.unlink()
    damaged.write_bytes(b"damaged")
    (paths.root / new.path).unlink()
    look(paths, "hex8_2p")
    alarm = find_alarm(paths, "a1")
    assert alarm.target == oldest.label
    plan = asyncio.run(plan_alarm_rollback(paths, alarm="1"))
    assert plan.params["model"] == oldest.label and any(old.label in warning for warning in plan.warnings)
    (paths.root / oldest.path).unlink()
    with pytest.raises(NotFoundError, match="no earlier production model is sound"):
        asyncio.run(plan_alarm_rollback(paths, alarm="1"))


def test_an_alarm_is_taken_up_by_the_command_line(
    supervised: Paths, in_production: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = supervised
    old, new = in_production()
    play(paths, old, 100, 0.75, run="gauntlet-old", seed=7)
    play(paths, new, 240, 0.75, run="gauntlet")
    assert ringrift(paths, "monitor", "check", "--config", "hex8_2p") == Exit.DONE
    for seed in range(2, 22):
        play(paths, new, 24, 0.45, seed=seed)
    capsys.readouterr()
    assert ringrift(paths, "monitor", "check", "--json") == Exit.UNVERIFIED
    assert json.loads(capsys.readouterr().out)["open"] == [1]
    assert ringrift(paths, "monitor", "list", "--json") == Exit.DONE
    assert json.loads(capsys.readouterr().out)[0]["target"] == old.label
    assert ringrift(paths, "monitor", "show", "1", "--json") == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["command"] == "ringrift monitor rollback 1"
    assert ringrift(paths, "monitor", "show", "1") == Exit.DONE
    assert "fell from" in capsys.readouterr().out

    assert ringrift(paths, "monitor", "rollback", "1", "--wait", "--json") == Exit.DONE
    done = json.loads(capsys.readouterr().out)
    assert done["state"] == "done" and done["model"] == old.label and done["archived"]
    with reading(paths.registry_db) as db:
        assert db is not None
        assert pointers.current(db, "hex8_2p").label == old.label
        assert [row.label for row in pointers.in_production(db, "hex8_2p")] == [old.label]
        assert "alarm 1, win rate: win rate against heuristic" in pointers.moves(db, "hex8_2p")[-1].reason
    left = find(paths, new.label)
    assert left.stage == "archived" and left.path.startswith("models/archive/")
    assert sha256_file(paths.essential / production_file("hex8_2p")) == old.sha256
    assert alarms(paths)[0].state == "closed"
    assert ringrift(paths, "monitor", "rollback", "1") == Exit.REFUSED
    assert ringrift(paths, "audit", "verify") == Exit.DONE
    with closing(sqlite3.connect(paths.state_db)) as db:
        events = db.execute("SELECT type, count(*) FROM events GROUP BY type").fetchall()
    assert dict(events)["REGRESSION_DETECTED"] == 1 and dict(events)["MODEL_ROLLED_BACK"] == 1
    assert ringrift(paths, "monitor", "status", "--json") == Exit.DONE


def test_acknowledging_leaves_the_model_and_starts_the_chart_anew(
    supervised: Paths, in_production: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = supervised
    _, new = in_production()
    play(paths, new, 240, 0.75, run="gauntlet")
    look(paths, "hex8_2p")
    for seed in range(2, 22):
        play(paths, new, 24, 0.45, seed=seed)
    look(paths, "hex8_2p")
    assert ringrift(paths, "monitor", "ack", "1", "--reason", "the host was hot", "--wait") == Exit.DONE
    assert find_alarm(paths, "1").state == "acknowledged" and find(paths, new.label).stage == "production"
    found = look(paths, "hex8_2p")
    assert found.chart is not None and found.chart.seq > find_alarm(paths, "1").evidence["seq"]
    with pytest.raises(RefusedError, match="the host was hot"):
        asyncio.run(plan_ack(paths, alarm="1"))
    assert ringrift(paths, "monitor", "ack", "9") == Exit.NOT_FOUND
    assert ringrift(paths, "monitor", "list") == Exit.DONE


def test_the_mode_is_off_until_it_is_switched_on(supervised: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    def told() -> Any:
        assert ringrift(supervised, "monitor", "status", "--json") == Exit.DONE
        return json.loads(capsys.readouterr().out)["mode"]

    assert told()["on"] is False
    assert ringrift(supervised, "monitor", "set", "off") == Exit.REFUSED
    assert ringrift(supervised, "monitor", "set", "on", "--games-per-day", "-1") == Exit.USAGE
    assert ringrift(supervised, "monitor", "set", "on", "--games-per-day", "0", "--wait") == Exit.DONE
    capsys.readouterr()
    assert told()["on"] is True and told()["games_per_day"] == 0
    assert ringrift(supervised, "audit", "verify") == Exit.DONE
