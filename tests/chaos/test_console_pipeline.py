"""A pipeline over eight hosts, started in the console by keys, ends with one registered model; all of it by SHA-256."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from backend.configs import parse_config
from backend.fleet.bundle import make_bundle
from backend.fleet.hosts import load_hosts
from backend.fleet.known_hosts import HostKey
from backend.fleet.plans import plan_bootstrap, plan_enrol
from backend.fleet.store import host_rows
from backend.jobs.rows import job_rows
from backend.paths import Paths
from backend.plans import Plan
from backend.registry.hashing import sha256_file
from backend.registry.store import find
from backend.snapshot import ENDED, JobRow
from backend.state.store import StateStore
from backend.supervisor import ensure_running
from backend.training.games_db import iterate_games
from ringrift_console.verbs.operations import wait_for
from tests.chaos.test_tmux_session import Terminal, terminal
from tests.lab.bed import some_hosts
from tests.lab.plant import plant_code
from tests.lab.sshd import Sshd

__all__ = ["terminal"]

CONFIG = parse_config("square8_2p")
SHARDS, JUDGES = 8, 3
GAMES = int(os.environ.get("RINGRIFT_PIPELINE_GAMES", "8"))
EPOCHS = 1 if GAMES < 100 else 2
GAUNTLET_GAMES = 6 if GAMES < 100 else 30
PATIENCE_S = 600.0 + 10.0 * GAMES  # only so that a test that will never pass ends


@pytest.fixture
def servers(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Sshd]]:
    """Eight hosts: one of them trains, three others play gauntlets."""
    home = tmp_path / "own-home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with some_hosts(tmp_path / "lab", 24, SHARDS) as made:
        hosts = yaml.safe_load((tmp_path / "lab" / "hosts.yaml").read_text())["hosts"]
        hosts["lab-h1"] |= {"training_enabled": True}
        for n in range(2, 2 + JUDGES):
            hosts[f"lab-h{n}"] |= {"gauntlet_enabled": True}
        nobody = {"training_enabled": False, "gauntlet_enabled": False}
        paths.root.mkdir()
        paths.hosts_yaml.write_text(yaml.safe_dump({"defaults": nobody, "hosts": hosts}, sort_keys=False))
        yield made


async def carried_out(store: StateStore, plans: list[Plan]) -> None:
    """Has the supervisor do what was planned, all at once."""
    names = [await store.submit(plan) for plan in plans]
    async with asyncio.timeout(PATIENCE_S):
        for name in names:
            outcome = await wait_for(store, name, None)
            assert outcome.operation.state == "done", outcome.operation.error


async def set_up(paths: Paths, store: StateStore, servers: dict[str, Sshd]) -> None:
    """Enrols the hosts by the fingerprint that each has on its disk, and bootstraps them."""
    plans = await asyncio.gather(*(plan_enrol(paths, host=name) for name in servers))
    for plan, server in zip(plans, servers.values(), strict=True):
        key = HostKey.parse(server.host_key.with_suffix(".pub").read_text())
        assert plan.params["fingerprint"] == key.fingerprint
    await carried_out(store, list(plans))
    bundle = await asyncio.to_thread(make_bundle, paths.console / "bundles")
    for server in servers.values():
        await asyncio.to_thread(plant_code, server.folder / "agent", bundle.sha256)
    await carried_out(store, [await plan_bootstrap(paths, host=name) for name in servers])
    rows = await host_rows(store, load_hosts(paths.hosts_yaml))
    assert [(row.name, row.state, row.ready) for row in rows] == [(name, "up", True) for name in servers]


async def ended(store: StateStore) -> list[JobRow]:
    """The pipeline's jobs once all have ended, in order."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            rows = list(reversed(await job_rows(store, last=-1)))
            if rows and all(row.state in ENDED for row in rows):
                return rows
            await asyncio.sleep(0.2)


async def hashes(store: StateStore, type: str) -> dict[str, dict[str, str]]:
    """Job -> the files that an event of its only attempt names, by their SHA-256 on the host."""
    events = await store.events(type=type, last=1000)
    assert len({event.subject for event in events}) == len(events)
    return {event.subject.removesuffix(".1"): event.payload["files"] for event in events}


@pytest.mark.serial
async def test_a_pipeline_over_eight_hosts_started_by_keys_ends_with_a_registered_model(
    terminal: Terminal,
    paths: Paths,
    servers: dict[str, Sshd],
) -> None:
    async with await StateStore.open(paths) as store:
        await asyncio.to_thread(ensure_running, paths)
        await set_up(paths, store, servers)
        await asyncio.to_thread(start_by_keys, terminal)
        rows = await ended(store)
        async with asyncio.timeout(PATIENCE_S):
            while left_on(servers):  # noqa: ASYNC110 - what is done is cleaned up there a moment later
                await asyncio.sleep(0.1)
        sent, collected = await hashes(store, "INPUTS_SENT"), await hashes(store, "OUTPUTS_COLLECTED")

    kinds = Counter(row.kind for row in rows)
    assert kinds == {"selfplay": SHARDS + 1, "export": 1, "train": 1, "gauntlet": JUDGES + 1}
    assert {row.state for row in rows} <= {"done", "skipped"}, [(row.title, row.state, row.why) for row in rows]
    shards = [row for row in rows if row.kind == "selfplay" and "shard" in row.title]
    judges = [row for row in rows if row.kind == "gauntlet" and "shard" in row.title]
    (export,), (train,) = ([row for row in rows if row.kind == kind] for kind in ("export", "train"))
    assert {row.state for row in (*shards, *judges, export, train)} == {"done"}
    assert {row.host for row in shards} == set(servers)  # eight shards, eight hosts
    assert train.host == "lab-h1"
    assert {row.host for row in judges} == {"lab-h2", "lab-h3", "lab-h4"}

    # what was made is here once and is what the hosts say that they made
    model, dataset = find(paths, "square8_2p:v1"), paths.dataset(CONFIG)
    (checkpoint,) = collected[train.id].values()
    assert checkpoint == model.sha256 == train.result["sha256"] == sha256_file(Path(train.result["path"]))
    assert list(collected[export.id].values()) == [sha256_file(dataset)] == list(sent[train.id].values())
    for row in judges:
        assert list(sent[row.id].values()) == [model.sha256]
        assert row.result["model_sha256"] == model.sha256
    assert list(sent[export.id]) == [f"data/games/canonical_{CONFIG.key}.db"]
    for row in rows:
        if row.state == "done":
            assert row.result["collected"] == collected[row.id] and row.result["host"] == row.host
            assert all(len(sha256) == 64 for sha256 in collected[row.id].values())
    games = [game.game_id for game in iterate_games(paths.games_db(CONFIG))]
    assert len(games) == len(set(games)) == sum(row.result["games_added"] for row in shards)
    last = rows[-1]
    assert [line["games"] for line in last.result["opponents"]] == [GAUNTLET_GAMES, GAUNTLET_GAMES]
    for row in rows:
        took = f"{(row.ended_at - row.started_at).total_seconds():.1f} s" if row.started_at and row.ended_at else "-"
        sys.stderr.write(f"{row.title:<32} {row.host or '-':<8} {took:>8}  {row.state}\n")


def left_on(servers: dict[str, Sshd]) -> list[Path]:
    return [path for server in servers.values() for path in (server.folder / "agent" / "work").glob("*/*")]


def start_by_keys(terminal: Terminal) -> None:
    terminal.open_console()
    terminal.press("p")
    terminal.until("config", "square8_2p", "gauntlet shards")
    for value in ("", GAMES, EPOCHS, GAUNTLET_GAMES, SHARDS, JUDGES):  # as the form has them, the config first
        terminal.press(*str(value), "Tab")
    terminal.press("Enter")
    terminal.until("Cancel", "yes, do it", "self-play in 8, gauntlet in 3")
    terminal.press("y")
    terminal.press("3")
    terminal.until("selfplay", "square8_2p")
