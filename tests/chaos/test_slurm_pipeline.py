"""The whole chain on a Slurm, by the keys of the console and by verbs: arrays, a gang on two nodes, cancel and retry.

Supervisor, console, verbs and Slurm are the real ones. The nodes are drained at first, so that what is cancelled waits.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.configs import parse_config
from backend.jobs.rows import job_rows
from backend.paths import Paths
from backend.registry.store import find
from backend.snapshot import ENDED, JobRow
from backend.state.store import StateStore
from backend.supervisor import stop
from backend.training.checkpoint import load_model
from backend.training.games_db import iterate_games
from ringrift_console.app import ConsoleApp
from screens.dialogs import PlanDialog
from screens.form import FormDialog
from tests.lab.slurm import Slurm
from tests.lab.two_hosts import CODE
from tests.registry.test_promotion_console import Hand, ask, press, until

CONFIG = parse_config("hex8_2p")
GAMES, GAUNTLET_GAMES, SHARDS, JUDGES, NODES = 12, 4, 3, 2, 2
PATIENCE_S = 600.0  # three processes at a time that import torch, on two loaded cores


@pytest.fixture
def slurm(paths: Paths, make_slurm: Callable[..., Slurm], monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A Slurm whose nodes are drained, as the only host of a root for all that a pool can do."""
    monkeypatch.setenv("PYTHONPATH", CODE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = make_slurm()
    nothing = dict.fromkeys(("selfplay_enabled", "training_enabled", "gauntlet_enabled"), False)
    hosts = {"local": nothing, "cluster": made.settings(max_parallel_jobs=50)}
    paths.root.mkdir(parents=True)
    paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}))
    turn(made, "DRAIN")
    yield made
    stop(paths)


def turn(slurm: Slurm, state: str) -> None:
    done = slurm.ask("scontrol", "update", "NodeName=n1,n2", f"State={state}", "Reason=test")
    assert done.returncode == 0, done.stderr


async def rows_when(store: StateStore, good: Callable[[list[JobRow]], bool]) -> list[JobRow]:
    """The jobs in order, once they are as they should be."""
    rows: list[JobRow] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                rows = list(reversed(await job_rows(store, last=-1)))
                if rows and good(rows):
                    return rows
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError([(row.id, row.title, row.state, row.why, row.waits) for row in rows]) from None


def of(rows: list[JobRow], kind: str, part: str) -> list[JobRow]:
    return [row for row in rows if row.kind == kind and part in row.title]


def waits_in_slurm(rows: list[JobRow]) -> bool:
    shards = of(rows, "selfplay", "shard")
    return len(shards) == SHARDS and all("pending (" in row.why and "at cluster" in row.why for row in shards)


def over(rows: list[JobRow]) -> bool:
    return all(row.state in ENDED for row in rows)


def check_outcome(paths: Paths, slurm: Slurm, rows: list[JobRow]) -> None:
    """Everything ran once on the pool, in arrays and as a gang, and one model came of it."""
    assert {row.state for row in rows} <= {"done", "skipped"}, [(row.title, row.state, row.why) for row in rows]
    kinds = Counter(row.kind for row in rows)
    assert kinds == {"selfplay": SHARDS + 1, "export": 1, "train": NODES, "gauntlet": JUDGES + 1}
    shards, judges = of(rows, "selfplay", "shard"), of(rows, "gauntlet", "shard")
    gang = of(rows, "train", "")
    assert {row.host for row in (*shards, *judges, *gang)} == {"cluster"}

    def notes(some: list[JobRow]) -> list[dict[str, Any]]:
        told = [slurm.root / "agent/jobs" / str(row.attempt) / "engine.json" for row in some]
        return [json.loads(path.read_text()) for path in told]

    for some, shape in ((shards[1:], "array"), (judges, "array"), (gang, "gang")):  # the first shard went again
        assert len({note["name"] for note in notes(some)}) == 1, "one job of Slurm for all of them"
        assert {note["shape"] for note in notes(some)} == {shape}
    games = [game.game_id for game in iterate_games(paths.games_db(CONFIG))]
    assert len(games) == len(set(games)) == sum(row.result["games_added"] for row in shards)
    model = find(paths, "hex8_2p:v1")
    assert model.sha256 == gang[0].result["sha256"]
    assert (load_model(Path(gang[0].result["path"])).metadata.training_info or {})["processes"] == NODES
    assert {row.result["model_sha256"] for row in judges} == {model.sha256}


async def on_screen(pilot: Any, *words: str) -> None:
    """Waits until the words stand on the screen."""
    shown = ""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not all(word in shown for word in words):
                await pilot.pause()
                await asyncio.sleep(0.1)
                shown = "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())
    except TimeoutError:
        raise AssertionError(f"never saw {words}; last:\n{shown}") from None


async def yes(pilot: Any, hand: Hand) -> None:
    """Confirms the plan that comes up."""
    await until(lambda: isinstance(pilot.app.screen, PlanDialog))
    hand.now += 1.0
    await press(pilot, "y")
    await until(lambda: not isinstance(pilot.app.screen, PlanDialog))


@pytest.mark.serial
async def test_by_keys_with_a_live_log_a_cancel_and_a_retry(paths: Paths, slurm: Slurm) -> None:
    hand = Hand()
    app = ConsoleApp(paths, monotonic=hand)
    async with app.run_test(size=(80, 24)) as pilot, await StateStore.open(paths) as store:
        await until(lambda: app.have_read)
        await press(pilot, "p")
        await until(lambda: isinstance(app.screen, FormDialog))
        values = [CONFIG.key, GAMES, 1, GAUNTLET_GAMES, SHARDS, JUDGES, NODES]  # as the form has them
        keys = [key for value in values for key in (*str(value), "tab")]
        assert await ask(pilot, hand, "ctrl+u", *keys)  # in place of the config under the cursor
        await press(pilot, "3")
        rows = await rows_when(store, waits_in_slurm)
        doomed = of(rows, "selfplay", "shard")[0].id
        await press(pilot, "/", *doomed, "enter")
        await on_screen(pilot, "pending (")  # the rest of the line is cut at 80 columns
        await press(pilot, "x")
        await yes(pilot, hand)
        await rows_when(store, lambda rows: rows[0].state == "cancelled")
        await on_screen(pilot, "cancelled")
        turn(slurm, "RESUME")
        await rows_when(store, lambda rows: over(rows) and {row.state for row in rows[1:SHARDS]} == {"done"})
        await press(pilot, "r")
        await yes(pilot, hand)
        await rows_when(store, lambda rows: rows[0].attempt == f"{doomed}.2")
        await app.look_again()
        await press(pilot, "l")  # nothing has been written yet, or it grows
        await on_screen(pilot, f"{doomed} › log", "games added")
        await press(pilot, "escape")
        rows = await rows_when(store, over)
    check_outcome(paths, slurm, rows)
    assert [row.attempt for row in rows[:SHARDS]] == [f"{doomed}.2", *(f"{row.id}.1" for row in rows[1:SHARDS])]


Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def begin(paths: Paths) -> Iterator[Begin]:
    """Starts verbs on the root; none outlives the test."""
    begun: list[subprocess.Popen[str]] = []

    def one(*words: str, errors: int = subprocess.STDOUT) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "ringrift_console.cli", *words, "--root", str(paths.root)]
        begun.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True))
        return begun[-1]

    yield one
    for process in begun:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output of a verb."""
    output, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
    return process.returncode, output


@pytest.mark.serial
async def test_by_verbs_with_a_live_log_a_cancel_and_a_retry(paths: Paths, slurm: Slurm, begin: Begin) -> None:
    numbers = {
        "--games": GAMES, "--epochs": 1, "--gauntlet-games": GAUNTLET_GAMES, "--shards": SHARDS,
        "--gauntlet-shards": JUDGES, "--nodes": NODES,
    }  # fmt: skip
    words = [str(word) for pair in numbers.items() for word in pair]
    waiting = begin("pipeline", CONFIG.key, *words, "--wait")
    async with await StateStore.open(paths) as store:
        rows = await rows_when(store, waits_in_slurm)
        doomed, train = rows[0].id, of(rows, "train", "")[0].id
        code, said = await ended(begin("jobs", "cancel", doomed, "--wait"))
        assert code == 0, said
        turn(slurm, "RESUME")
        code, said = await ended(waiting)
        assert code != 0 and f"{doomed} selfplay hex8_2p shard 1/{SHARDS}: cancelled" in said, said
        again = begin("jobs", "retry", doomed, "--wait")
        await rows_when(store, lambda rows: rows[0].attempt == f"{doomed}.2")
        follow = begin("jobs", "logs", train, "--follow", errors=subprocess.DEVNULL)  # it is not there yet
        code, said = await ended(again)
        assert code == 0, said
        rows = await rows_when(store, over)
        code, said = await ended(follow)
        assert code == 0, said
        log = paths.jobs / str(of(rows, "train", "")[0].attempt) / "log"
        assert "epoch" in said and said == log.read_text()
    check_outcome(paths, slurm, rows)
