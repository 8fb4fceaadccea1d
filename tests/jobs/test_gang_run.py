"""A gang for real: two members under torchrun on two hosts' agents, one of which is killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.jobs.pipelines import add_gang
from backend.jobs.rows import attempt_rows
from backend.paths import Paths
from backend.registry.store import find
from backend.training.checkpoint import load_model
from backend.training.export import export
from tests.lab.two_hosts import CONFIG, HOSTS, PATIENCE_S, Bed, two_hosts
from tests.training.conftest import play_randomly, store_games

SAVE = "models/candidates/gang.pth"


@pytest.fixture
async def bed(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    async with two_hosts(paths, tmp_path / "far", monkeypatch) as made:
        store_games(paths.games_db(CONFIG), CONFIG, [play_randomly(CONFIG, index) for index in range(8)])
        export(paths, CONFIG)
        yield made


async def begun(bed: Bed, epochs: int) -> tuple[str, ...]:
    options = ["--blocks", "1", "--channels", "8", "--batch-size", "64", "--device", "cpu"]
    params = {"save": SAVE, "epochs": epochs, "seed": 1, "options": options}
    async with bed.store.database.write() as db:
        return await add_gang(db, "train", CONFIG.key, params, 2)


def kill_once_there(state: Path, attempt: Path) -> None:
    """Looks beside the keeper, whose look at the hosts may take longer than the training."""
    end = time.monotonic() + PATIENCE_S
    while not state.exists():
        assert time.monotonic() < end, "the training has saved no state"
        time.sleep(0.005)
    os.kill(json.loads((attempt / "child.json").read_text())["pid"], signal.SIGKILL)


async def test_a_gang_whose_member_is_killed_starts_anew_and_ends_as_one_model(bed: Bed) -> None:
    first, second = await begun(bed, 8)
    state = bed.work / first / f"{SAVE}.state"  # rank 0 is where the other can reach it, which this machine is not
    kill = asyncio.create_task(asyncio.to_thread(kill_once_there, state, bed.paths.jobs / f"{second}.1"))
    while not kill.done():
        await bed.keeper.tick()
        await asyncio.sleep(0.05)
    await kill
    seen: set[str] = set()
    for name in (first, second):
        row = await bed.until(name, "done", "failed", "unknown")
        assert row.state == "done", row.why
        seen.add(f"{row.id} {row.part} on {row.host}")
        ends = [(one["attempt"], (one["exit"] or {}).get("code")) for one in await attempt_rows(bed.store, name)]
        assert ends[-1] == (f"{name}.2", 0) and ends[0][0] == f"{name}.1" and ends[0][1] != 0
    assert seen == {f"{first} 1/2 on far", f"{second} 2/2 on local"}
    log = (bed.paths.jobs / f"{first}.2" / "log").read_text()
    assert "carrying on at epoch" in log and "2 processes train together; this one, rank 0, writes" in log
    result = (await bed.row(first)).result
    model = find(bed.paths, "hex8_2p:v1")
    assert (result["label"], result["processes"], result["sha256"]) == (model.label, 2, model.sha256)
    assert (load_model(bed.paths.root / SAVE).metadata.training_info or {})["processes"] == 2
    assert (await bed.row(second)).result["collected"] == {}
    assert len(await bed.store.events(type="MODEL_REGISTERED")) <= 1
    assert len(await bed.store.events(type="TRAINING_COMPLETED")) == 1
    assert [event.payload["attempt"] for event in await bed.store.events(type="GANG_RESTARTED")] == [f"{first}.2"]
    for root, name in ((bed.far, first), (bed.paths.console, second)):
        assert not (root / "work" / "head" / name).exists()  # cleaned up on both


async def test_a_gang_waits_until_there_is_a_place_on_every_host_it_needs(bed: Bed) -> None:
    bed.paths.hosts_yaml.write_text(HOSTS.replace("local: {}", "local: {training_enabled: false}"))
    names = await begun(bed, 1)
    for _ in range(5):
        await bed.keeper.tick()
    for name in names:
        row = await bed.row(name)
        assert (row.state, row.why) == ("waiting", "1 of 2 places")
        assert dict(row.waits) == {"takes no train jobs": ("local",)}
        assert await attempt_rows(bed.store, name) == []
