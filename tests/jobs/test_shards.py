"""Self-play and gauntlets in parts, on several hosts."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.configs import CONFIGS, Config
from backend.errors import UsageError
from backend.jobs import agent
from backend.jobs.pipelines import PipelineParams, add_pipeline, find_active, sharded_stages
from backend.jobs.plans import apply_pipeline, plan_pipeline
from backend.jobs.rows import attempt_rows
from backend.jobs.shards import FIRST_INDEX, INDICES, first_free, gauntlet_shards, selfplay_shards, split
from backend.paths import Paths
from backend.registry.store import find
from backend.state.store import StateStore
from backend.training.games_db import iterate_games
from backend.training.volume import highest_index, volume
from tests.lab.two_hosts import CONFIG, Bed, two_hosts


@given(st.integers(1, 10_000), st.integers(1, 512))
def test_parts_are_even_and_make_up_the_whole(total: int, parts: int) -> None:
    found = split(total, parts)
    assert sum(found) == total and len(found) == min(parts, total)
    assert max(found) - min(found) <= 1 and min(found) >= 1


@given(st.integers(0, 5000), st.integers(1, 64), st.integers(0, 9), st.none() | st.integers(0, 10**12))
def test_no_two_shards_play_the_same_game_nor_one_that_is_there(
    missing: int, shards: int, seed: int, highest: int | None
) -> None:
    first = first_free(highest)
    assert highest is None or first > highest
    made = selfplay_shards(missing, shards, seed, first)
    assert sum(stage.params["games"] for stage in made) == missing
    starts = [stage.params["first"] for stage in made]
    assert starts == [first + n * INDICES for n in range(len(made))]
    assert all(stage.params["games"] * 1000 <= INDICES for stage in made)


@given(st.sampled_from(CONFIGS), st.integers(1, 500), st.integers(1, 40))
def test_the_shards_of_a_gauntlet_play_every_block_once(config: Config, games: int, shards: int) -> None:
    blocks: list[int] = []
    for stage in gauntlet_shards(config, "m", games, shards, 1, "r"):
        count, rest = divmod(stage.params["games"], config.players)
        assert rest == 0
        blocks += range(stage.params["first_block"], stage.params["first_block"] + count)
    assert blocks == list(range(-(-games // config.players)))


def test_a_sharded_pipeline_needs_its_parts_and_nothing_else() -> None:
    params = PipelineParams(games=10, gauntlet_games=4, shards=3)
    made = sharded_stages(CONFIG, params, 0, FIRST_INDEX, "r")
    assert [stage.kind for stage in made] == [*["selfplay"] * 4, "export", "train", *["gauntlet"] * 3]
    assert [stage.needs for stage in made] == [(), (), (), (0, 1, 2), (3,), (4,), (5,), (5,), (6, 7)]
    there = sharded_stages(CONFIG, params, 10, FIRST_INDEX, "r")
    assert [stage.kind for stage in there][:2] == ["selfplay", "export"]
    with pytest.raises(UsageError, match="--shards"):
        PipelineParams(shards=0)


async def test_the_plan_says_how_many_parts_and_joins_the_same_pipeline(paths: Paths) -> None:
    plan = await plan_pipeline(paths, config="hex8_2p", games=6, shards=2)
    assert plan.command.startswith("ringrift pipeline hex8_2p") and "--shards 2" in plan.command
    async with await StateStore.open(paths) as store:
        first = await apply_pipeline(paths, plan, store.bound(await store.submit(plan)))
        second = await apply_pipeline(paths, plan, store.bound(await store.submit(plan)))
        assert (first["joined"], second["joined"], second["pipeline"]) == (False, True, first["pipeline"])
        assert len(first["jobs"]) == 2 + 1 + 1 + 1 + 2 + 1
        async with store.database.read() as db:
            assert await find_active(db, CONFIG, PipelineParams(games=6)) is None


@pytest.fixture
async def bed(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    async with two_hosts(paths, tmp_path / "far", monkeypatch) as made:
        yield made


async def test_a_sharded_pipeline_over_two_hosts_ends_as_a_registered_model(bed: Bed) -> None:
    params = PipelineParams(games=6, epochs=1, gauntlet_games=4, seed=2, shards=2)
    stages = sharded_stages(CONFIG, params, 0, FIRST_INDEX, "p1-gauntlet")
    for stage in stages:
        if stage.kind == "selfplay":
            stage.params["options"] = ["--players", "random", "--workers", "1"]
        if stage.kind == "train":
            stage.params["options"] = ["--blocks", "1", "--channels", "8"]
    async with bed.store.database.write() as db:
        _, jobs = await add_pipeline(db, CONFIG.key, lambda name: stages, {}, None)
    rows = [await bed.until(name, "done", "skipped", "failed", "blocked") for name in jobs]
    assert [row.state for row in rows] == ["done", "done", "skipped", "done", "done", "done", "done", "done"], [
        row.why for row in rows
    ]
    assert {rows[0].host, rows[1].host} == {rows[5].host, rows[6].host} == {"local", "far"}
    games = list(iterate_games(bed.paths.games_db(CONFIG)))
    assert volume(bed.paths, CONFIG).games == 6
    assert {game.index // INDICES for game in games} == {FIRST_INDEX // INDICES, FIRST_INDEX // INDICES + 1}
    assert (highest_index(bed.paths.games_db(CONFIG), 2) or 0) >= FIRST_INDEX + INDICES
    assert find(bed.paths, "hex8_2p:v1").sha256 == rows[4].result["sha256"]
    assert rows[7].result["run_id"] == "p1-gauntlet"
    assert [line["games"] for line in rows[7].result["opponents"]] == [4, 4]
    assert rows[7].host == "local"
    assert rows[5].title == "gauntlet hex8_2p shard 1/2"


async def test_a_lost_shard_alone_is_repeated_and_its_games_are_there_once(bed: Bed) -> None:
    stages = selfplay_shards(4, 2, 7, FIRST_INDEX)
    for stage in stages:
        stage.params["options"] = ["--players", "random", "--workers", "1"]
    async with bed.store.database.write() as db:
        _, jobs = await add_pipeline(db, CONFIG.key, lambda name: stages, {}, None)
    agents = {"local": bed.paths.console, "far": bed.far / "agent" / "data" / "console"}
    lost = await bed.until(jobs[1], "running", "failed")
    root = agents[str(lost.host)]
    runner = agent.read_json(str(root / "jobs" / f"{lost.id}.1" / "runner.json"))
    assert runner is not None
    os.kill(runner["pid"], signal.SIGKILL)
    for pid in agent.holders(agent.cookie_of(str(root), f"{lost.id}.1")):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    rows = [await bed.until(name, "done", "failed", "unknown") for name in jobs]
    assert [row.state for row in rows] == ["done", "done"], [row.why for row in rows]
    assert [len(await attempt_rows(bed.store, name)) for name in jobs] == [1, 2]
    games = [game.game_id for game in iterate_games(bed.paths.games_db(CONFIG))]
    assert len(games) == len(set(games)) == sum(row.result["games_added"] for row in rows)
    assert volume(bed.paths, CONFIG).games == 4
