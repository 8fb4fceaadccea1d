"""Jobs on another host: inputs there, outputs here, whatever is cut or killed in between.

The other host is this machine with an agent root and a data root of its own; agent, verbs and files are the real ones.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.store import record_code, set_drained
from backend.jobs.launchers.base import UnreachableError
from backend.jobs.pipelines import PipelineParams, add_chain, add_job, stages
from backend.jobs.rows import attempt_rows, job_row
from backend.jobs.staging import Site, merge_outputs
from backend.paths import Paths
from backend.registry.hashing import sha256_file
from backend.registry.store import find
from backend.state.store import StateStore
from backend.training.games_db import iterate_games
from backend.training.volume import volume
from tests.lab.two_hosts import CODE, CONFIG, HOSTS, OWNER, PATIENCE_S, Bed, end_all, prepared, two_hosts


@pytest.fixture
async def bed(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    async with two_hosts(paths, tmp_path / "far", monkeypatch) as made:
        yield made


async def test_self_play_there_ends_as_games_here(bed: Bed) -> None:
    name = await bed.add("selfplay", games=4, seed=5, options=["--players", "random", "--workers", "1"])
    row = await bed.until(name, "done", "failed")
    assert (row.state, row.host) == ("done", "far"), row.why
    assert volume(bed.paths, CONFIG).games == row.result["games_total"] == 4
    assert row.result["collected"] and row.result["host"] == "far"
    async with asyncio.timeout(PATIENCE_S):  # its folder there is cleaned up, after it is done
        while (bed.work / name).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert not (bed.paths.console / "staging" / f"{name}.1").exists()
    assert "games" in (bed.paths.jobs / f"{name}.1" / "log").read_text()  # its log was brought here
    again = await bed.add("selfplay", games=6, seed=5, options=["--players", "random", "--workers", "1"])
    assert (await bed.until(again, "done", "failed")).result["games_added"] >= 2
    assert len({game.game_id for game in iterate_games(bed.paths.games_db(CONFIG))}) == 6


async def test_a_pipeline_goes_through_another_host_and_ends_as_a_registered_model(bed: Bed) -> None:
    bed.paths.hosts_yaml.write_text(HOSTS.replace("local: {}", "local: {status: retired}"))
    params = PipelineParams(games=6, epochs=1, gauntlet_games=2, seed=3)
    wanted = stages(CONFIG, params)
    wanted[0][1]["options"] = ["--players", "random"]
    wanted[2][1]["options"] = ["--blocks", "1", "--channels", "8"]
    wanted[3][1]["options"] = ["--simulations", "0"]
    async with bed.store.database.write() as db:
        _, jobs = await add_chain(db, CONFIG.key, wanted, {}, None)
    for name in jobs:
        row = await bed.until(name, "done", "failed", "blocked")
        assert (row.state, row.host) == ("done", "far"), row.why
    train, gauntlet = await bed.row(jobs[2]), await bed.row(jobs[3])
    model = find(bed.paths, "hex8_2p:v1")
    assert model.sha256 == train.result["sha256"] == gauntlet.result["model_sha256"]
    assert sha256_file(bed.paths.root / params.save_path(CONFIG)) == model.sha256
    assert train.result["label"] == gauntlet.result["label"] == "hex8_2p:v1"
    assert {line["games"] for line in gauntlet.result["opponents"]} == {2}
    assert gauntlet.result["matches"] == 4


async def test_a_link_that_is_cut_at_every_step_delays_and_changes_nothing(bed: Bed) -> None:
    (bed.paths.root / "data.txt").write_text("in")
    code = "open('out.txt', 'w').write(open('data.txt').read() + ' and out'); open('runs', 'a').write('x')"
    argv = [sys.executable, "-I", "-S", "-c", code]
    name = await bed.add("command", argv=argv, inputs=["data.txt"], outputs=["out.txt"])
    bed.transfer.cuts = [cut for _ in range(5) for cut in (False, True)]
    row = await bed.until(name, "done", "failed")
    assert row.state == "done", row.why
    assert (bed.paths.root / "out.txt").read_text() == "in and out"
    assert [one["attempt"] for one in await attempt_rows(bed.store, name)] == [f"{name}.1"]
    assert {"prepare", "put", "seal", "get", "clean"} <= set(bed.transfer.calls)


async def test_what_ended_there_and_is_not_here_yet_is_collecting(bed: Bed) -> None:
    name = await bed.add("command", argv=[sys.executable, "-c", "open('o', 'w').write('1')"], outputs=["o"])
    await bed.until(name, "running", "collecting")
    bed.transfer.cuts = [False] * 3
    row = await bed.until(name, "collecting")
    async with asyncio.timeout(PATIENCE_S):
        while not (row := await bed.row(name)).why:
            await bed.keeper.tick()
            await asyncio.sleep(0.01)
    assert row.why == "the link was cut: far"
    assert row.ended_at is None
    assert (await bed.until(name, "done", "failed")).state == "done"


async def test_cancelling_while_collecting_leaves_the_outputs_where_they_are(bed: Bed) -> None:
    name = await bed.add("command", argv=[sys.executable, "-c", "open('o', 'w').write('1')"], outputs=["o"])
    bed.transfer.cuts = []
    await bed.until(name, "running", "collecting")
    bed.transfer.cuts = [False] * 1000
    await bed.until(name, "collecting")
    async with bed.store.database.write() as db:
        await db.run("UPDATE jobs SET cancel = '{}' WHERE id = ?", (name,))
    assert (await bed.until(name, "cancelled", "failed")).state == "cancelled"
    assert (bed.work / name / "o").exists()
    assert not (bed.paths.root / "o").exists()


async def test_an_input_that_is_not_here_fails_the_job_before_it_starts(bed: Bed) -> None:
    name = await bed.add("command", argv=["true"], inputs=["nothing"])
    row = await bed.until(name, "failed", "done")
    assert (row.state, row.why.startswith("an input is not there: ")) == ("failed", True)


@pytest.mark.parametrize("kept", [b"in", b"no longer it"])
async def test_what_was_distributed_to_a_host_is_not_sent_again_if_it_is_still_right(bed: Bed, kept: bytes) -> None:
    (bed.paths.root / "data.txt").write_bytes(b"in")
    place = bed.far / ".distribution" / OWNER / "store" / sha256_file(bed.paths.root / "data.txt")
    place.parent.mkdir(parents=True)
    place.write_bytes(kept)
    place.chmod(0o444)
    name = await bed.add("command", argv=["sh", "-c", "cat data.txt; echo changed >> data.txt"], inputs=["data.txt"])
    row = await bed.until(name, "failed", "done")
    assert row.state == "done", row.why
    assert bed.transfer.calls.count("put") == (0 if kept == b"in" else 1)
    assert (bed.paths.jobs / f"{name}.1" / "log").read_bytes() == b"in"
    assert place.read_bytes() == kept, "a job has a copy of its own"


async def test_an_attempt_that_leaves_no_output_has_failed(bed: Bed) -> None:
    name = await bed.add("command", argv=["true"], outputs=["promised"])
    row = await bed.until(name, "failed", "done")
    assert (row.state, row.why) == ("failed", "it ended well and left no promised")


async def test_outputs_that_are_not_what_they_claim_are_not_taken_in(paths: Paths, tmp_path: Path) -> None:
    for kind, name, error in (
        ("train", "models/candidates/m.pth", "cannot be used"),
        ("export", "data/training/hex8_2p.npz", "cannot be used"),
        ("selfplay", "data/games/canonical_hex8_2p.db", "cannot be used"),
        ("gauntlet", "data/unified_elo.db", "cannot be used"),
    ):
        (tmp_path / "left" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "left" / name).write_bytes(b"not what it should be")
        params = {"save": name, "games": 1}
        merged = await merge_outputs(paths, kind, CONFIG.key, params, tmp_path / "left", {})
        assert merged.result is None
        assert error in merged.failure
        assert not (paths.root / name).exists() or kind in ("selfplay", "gauntlet")
    assert not paths.registry_db.exists()


async def test_no_job_goes_to_a_host_that_is_drained_or_not_set_up(bed: Bed) -> None:
    name = await bed.add("command", argv=["true"])
    await set_drained(bed.store, "far", True, reason="new disk")
    for _ in range(20):
        await bed.keeper.tick()
        await asyncio.sleep(0.01)
    row = await bed.row(name)
    assert (row.state, row.why) == ("waiting", "for a host: far is drained (new disk)")
    assert dict(row.waits)["the job is bound to far"] == ("local",)
    await set_drained(bed.store, "far", False)
    await record_code(bed.store, "far", {})
    await bed.keeper.tick()
    assert (await bed.row(name)).why == "for a host: far is not set up (ringrift hosts bootstrap far)"
    await record_code(bed.store, "far", {"python": sys.executable, "root": str(bed.far)})
    assert (await bed.until(name, "done", "failed")).state == "done"


async def test_names_that_lead_out_of_a_jobs_folder_are_refused(bed: Bed) -> None:
    site = Site(Host("far"), bed.transfer, sys.executable, str(bed.far))
    for name in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(RingRiftError, match="not inside"):
            await site.ask("seal", {"root": str(bed.far / "w"), "outputs": {name: "file"}})
    bed.far.mkdir(exist_ok=True)
    assert (await site.ask("clean", {"root": str(bed.far), "owner": OWNER})) == {"removed": False}
    assert bed.far.exists()


async def _serve(root: str, far: str) -> None:
    paths = Paths(Path(root))
    async with await StateStore.open(paths) as store:
        epoch = await store.begin_supervision()
        made = Bed(paths, Path(far), store)
        made.open(epoch)
        while True:
            made.keeper._not_before.clear()
            made.keeper.porter._not_before.clear()
            await made.keeper.tick()
            await asyncio.sleep(0.02)


async def test_a_supervisor_killed_at_any_moment_repeats_no_run_and_loses_no_output(
    paths: Paths, tmp_path: Path
) -> None:
    far, count = tmp_path / "far", int(os.environ.get("RINGRIFT_CHAOS", "6"))
    chance = random.Random(11)
    store = await prepared(paths, far)
    runs = tmp_path / "runs"
    (paths.root / "in").write_text("x" * 100_000)
    code = (
        f"import time; open({str(runs)!r}, 'a').write(open('in').read()[:1]); time.sleep(0.2); "
        "open('OUT', 'w').write('1')"
    )
    names = []
    async with store.database.write() as db:
        for n in range(4):
            argv = [sys.executable, "-I", "-S", "-c", code.replace("OUT", f"out{n}")]
            params = {"argv": argv, "inputs": ["in"], "outputs": [f"out{n}"]}
            names.append(await add_job(db, "command", CONFIG.key, params, host="far"))
    environment = os.environ | {"PYTHONPATH": CODE}
    argv = [sys.executable, __file__, str(paths.root), str(far)]
    kills = 0
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                process = subprocess.Popen(argv, env=environment)  # noqa: ASYNC220
                lifetime = 0.6 + chance.random() * 1.2 if kills < count else 30.0
                end = asyncio.get_running_loop().time() + lifetime
                done = False
                while not done and asyncio.get_running_loop().time() < end:
                    rows = [await job_row(store, name) for name in names]
                    done = all(row is not None and row.state == "done" for row in rows)
                    await asyncio.sleep(0.02)
                process.kill()
                process.wait()
                kills += 1
                if done:
                    break
        assert runs.read_text() == "x" * 4  # one execution each
        for n, name in enumerate(names):
            assert (paths.root / f"out{n}").read_text() == "1"
            assert [one["attempt"] for one in await attempt_rows(store, name)] == [f"{name}.1"]
        assert len(await store.events(type="OUTPUTS_COLLECTED")) == 4
    finally:
        await store.close()
        end_all([paths.console, far / "agent" / "data" / "console"])
        shutil.rmtree(far, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))


async def test_a_host_may_forget_a_failed_job_only_when_its_whole_log_is_here(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [sys.executable, "-I", "-S", "-c", "print('why it failed'); raise SystemExit(3)"]

    async def silence(*_: Any, **__: Any) -> Any:
        raise UnreachableError("cut", where="far")

    def log(name: str) -> str:
        return (bed.paths.jobs / f"{name}.1" / "log").read_text()

    def acked(name: str) -> bool:
        return (bed.far / "agent" / "data" / "console" / "jobs" / f"{name}.1" / "acked").exists()

    with monkeypatch.context() as patch:
        patch.setattr(bed.keeper.launchers["far"], "read_log", silence)
        name = await bed.add("command", argv=argv)
        await bed.until(name, "failed")
        for _ in range(5):
            bed.keeper.porter._not_before.clear()
            await bed.keeper.tick()
            await asyncio.sleep(0.02)
        assert not acked(name)
    await bed.close()
    bed.open(2)  # a supervisor that has forgotten what it owes
    async with asyncio.timeout(60):
        while not acked(name):
            await bed.keeper.tick()
            await asyncio.sleep(0.05)
    assert log(name) == "why it failed\n"
    second = await bed.add("command", argv=argv)
    await bed.until(second, "failed")
    assert log(second) == "why it failed\n", "it is here when the end is told"
