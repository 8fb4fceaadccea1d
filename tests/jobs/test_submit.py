"""One job by itself: what may be said, what comes of it, and that it is made once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.configs import parse_config
from backend.errors import NotFoundError, UsageError
from backend.fleet import reading
from backend.jobs.rows import job_row
from backend.jobs.store import load_work
from backend.jobs.submit import apply_submit, plan_submit
from backend.jobs.words import read_words
from backend.paths import Paths
from backend.plans import Plan
from backend.state.store import StateStore
from backend.supervisor import stop


@pytest.fixture
async def store(paths: Paths) -> AsyncIterator[StateStore]:
    async with await StateStore.open(paths) as opened:
        yield opened


async def submitted(store: StateStore, **given: Any) -> str:
    plan = await plan_submit(store.paths, **given)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    bound = store.bound(await store.submit(plan))
    result = await apply_submit(store.paths, again, bound)
    assert await apply_submit(store.paths, again, bound) == result  # as after a crash
    return str(result["jobs"][0])


def hosts(paths: Paths, text: str) -> None:
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.hosts_yaml.write_text(text)


async def test_a_job_is_added_once_with_all_that_was_said(store: StateStore) -> None:
    hosts(store.paths, "hosts:\n  local: {}\n  gpu1: {ssh_host: x, gpu_vram_gb: 24}\n")
    first = await submitted(store, kind="selfplay", config="hex8_2p", args="--games 20 --seed 3 --players random")
    second = await submitted(
        store, kind="train", config="hex8_2p", host="gpu1", priority=4, after=[first], gpu_gb=8.0, args=["--epochs=2"]
    )
    work = await load_work(store)
    jobs = {one.id: one for one in work.jobs}
    assert list(jobs) == [first, second] == ["s1", "t2"]
    assert work.params[first][1] == {"games": 20, "seed": 3, "options": ["--players", "random"]}
    assert jobs[second].needs == (first,)
    assert (jobs[second].priority, jobs[second].asks.host, jobs[second].asks.gpu_vram_gb) == (4, "gpu1", 8.0)
    assert work.params[second][1]["epochs"] == 2
    row = await job_row(store, second)
    assert row is not None and row.priority == 4


async def test_training_on_several_hosts_is_a_gang_of_jobs_added_once(store: StateStore) -> None:
    dataset = store.paths.root / "data/training/hex8_2p.npz"
    dataset.parent.mkdir(parents=True)
    dataset.touch()
    hosts(store.paths, "hosts:\n  local: {}\n  a: {ssh_host: x}\n  b: {ssh_host: y}\n")
    first = await submitted(store, kind="train", config="hex8_2p", nodes=3, gpus=1, priority=2, args="--epochs 4")
    jobs = (await load_work(store)).jobs
    assert [(one.id, one.gang, one.member, one.members) for one in jobs] == [
        ("t1", first, 1, 3), ("t2", first, 2, 3), ("t3", first, 3, 3),
    ]  # fmt: skip
    assert {(one.asks.gpus, one.priority) for one in jobs} == {(1, 2)}
    row = await job_row(store, "t2")
    assert row is not None and (row.gang, row.part, row.title) == ("t1", "2/3", "train hex8_2p 2/3")
    for given, what in (
        ({"kind": "export", "nodes": 2}, "only training"),
        ({"kind": "train", "nodes": 0}, "at least 1"),
        ({"kind": "train", "nodes": 2, "host": "a"}, "exclude each other"),
    ):
        with pytest.raises(UsageError, match=what):
            await plan_submit(store.paths, config="hex8_2p", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "words", "what"),
    [
        ("selfplay", ["--epochs", "2"], "no such option"),
        ("selfplay", ["--games", "0"], "not a value"),
        ("selfplay", ["--games", "many"], "not a value"),
        ("selfplay", ["--games"], "lacks its value"),
        ("train", ["data.npz"], "no word"),
        ("gauntlet", [], "1 word"),
        ("gauntlet", ["a", "b"], "1 word"),
    ],
)
def test_words_that_a_kind_does_not_take_are_named(kind: str, words: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_words(kind, words)


async def test_what_is_not_there_is_named(store: StateStore) -> None:
    hosts(store.paths, "hosts:\n  local: {}\n")
    with pytest.raises(UsageError, match="kind"):
        await plan_submit(store.paths, kind="bake", config="hex8_2p")
    with pytest.raises(NotFoundError, match="no such host: gpu9"):
        await plan_submit(store.paths, kind="export", config="hex8_2p", host="gpu9")
    with pytest.raises(NotFoundError, match="no such job: s9"):
        await plan_submit(store.paths, kind="export", config="hex8_2p", after=["s9"])
    with pytest.raises(NotFoundError, match="no such file"):
        await plan_submit(store.paths, kind="gauntlet", config="hex8_2p", args=["models/none.pth"])
    with pytest.raises(UsageError, match="no command"):
        await plan_submit(store.paths, kind="command", config="hex8_2p")


async def test_nothing_comes_after_a_job_that_failed(store: StateStore) -> None:
    name = await submitted(store, kind="command", config="hex8_2p", args=["false"])
    async with store.database.write() as db:
        await db.run("UPDATE jobs SET state = 'failed'")
    with pytest.raises(UsageError, match="it has ended"):
        await plan_submit(store.paths, kind="export", config="hex8_2p", after=[name])


async def test_a_job_that_no_host_takes_today_is_warned_of(store: StateStore) -> None:
    first = await submitted(store, kind="selfplay", config="hex8_2p")
    hosts(store.paths, "hosts:\n  local: {training_enabled: false}\n")
    plan = await plan_submit(store.paths, kind="train", config="hex8_2p", after=[first])
    assert plan.warnings == ("no host takes it as things are (local: takes no train jobs)",)
    assert (await plan_submit(store.paths, kind="export", config="hex8_2p", after=[first])).warnings == ()


async def test_what_a_job_reads_has_to_be_there_unless_another_job_comes_before(store: StateStore) -> None:
    paths, config = store.paths, parse_config("hex8_2p")
    for kind, path in (("export", paths.games_db(config)), ("train", paths.dataset(config))):
        with pytest.raises(NotFoundError, match=path.name):
            await plan_submit(paths, kind=kind, config="hex8_2p")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert (await plan_submit(paths, kind=kind, config="hex8_2p")).params["needs"] == []


async def test_a_host_that_the_supervisor_does_not_use_yet_is_warned_of(store: StateStore) -> None:
    reading.begin(store.paths)
    hosts(store.paths, "hosts:\n  local: {}\n  far: {ssh_host: nowhere.invalid}\n")
    plan = await plan_submit(store.paths, kind="command", config="hex8_2p", host="far", args=["true"])
    assert plan.warnings == ("far is new in the hosts file: the job waits until ringrift hosts reload",)


def ringrift(paths: Paths, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "ringrift_console.cli", "--root", str(paths.root), *words]
    return subprocess.run(argv, capture_output=True, text=True)


def test_the_verb_plans_submits_and_waits(paths: Paths) -> None:
    submit = ("jobs", "submit", "command", "hex8_2p", "--json", "--wait", "--priority", "2", "--")
    planned = ringrift(paths, *submit[:5], "--dry-run", "--", "echo", "--wait")
    assert json.loads(planned.stdout)["params"]["params"] == {"argv": ["echo", "--wait"]}
    try:
        done = ringrift(paths, *submit, sys.executable, "-I", "-S", "-c", "print('here')")
        assert done.returncode == 0, done.stderr
        job = json.loads(done.stdout)["jobs"][0]
        assert (job["id"], job["state"]) == ("c1", "done")
        assert ringrift(paths, "jobs", "logs", "c1").stdout == "here\n"
        assert "priority  2" in ringrift(paths, "jobs", "show", "c1").stdout
        failed = ringrift(paths, *submit, sys.executable, "-I", "-S", "-c", "raise SystemExit(3)")
        assert failed.returncode == 1
        paths.hosts_yaml.write_text("hosts:\n  local: {}\n  far: {ssh_host: nowhere.invalid}\n")
        assert ringrift(paths, "jobs", "submit", "command", "hex8_2p", "--host", "far", "--", "true").returncode == 0
        shown = ringrift(paths, "jobs", "show", "c3").stdout
        assert "waits     local: the job is bound to far" in shown or "waiting" in shown
    finally:
        stop(paths)
