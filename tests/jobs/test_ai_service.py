"""Jobs on a host that runs a checkout of the reference installation: its commands, its files, and what it does not say.

The checkout is a stand-in whose programs take exactly the documented flags; agent, keeper, reader and files are real.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from backend.configs import parse_config
from backend.errors import UsageError
from backend.fleet.checkout import check_checkout
from backend.fleet.hosts import Host
from backend.fleet.plans import apply_bootstrap, plan_bootstrap
from backend.fleet.remote import ThisMachine
from backend.fleet.ssh import SshPool
from backend.fleet.store import record_code
from backend.jobs.rows import attempt_rows
from backend.jobs.submit import apply_submit, plan_submit
from backend.paths import Paths
from backend.registry.hashing import sha256_file
from backend.registry.store import model_rows
from backend.snapshot import JobRow
from backend.supervisor import ensure_running
from backend.training.checkpoint import Metadata, save_model
from backend.training.network import Architecture, Network
from tests.chaos.test_ssh_supervisor import opened, until
from tests.jobs.conftest import until as wait_for
from tests.lab.checkout import SAMPLES, make_checkout, set_trap
from tests.lab.kept import describe
from tests.lab.sshd import Sshd
from tests.lab.two_hosts import Bed, two_hosts

PYTHON = sys.executable


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A checkout, and what a bootstrap of its host stores."""
    folder = make_checkout(tmp_path_factory.mktemp("host") / "ai-service")
    host = Host("far", {"runtime": "ai-service", "ringrift_path": str(folder), "python_path": PYTHON})
    made, _ = asyncio.run(check_checkout(ThisMachine(), host))
    return folder, made


@pytest.fixture
async def bed(
    paths: Paths, tmp_path: Path, checkout: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bed]:
    folder, made = checkout
    set_trap(folder, "")
    async with two_hosts(paths, tmp_path / "far", monkeypatch) as one:
        monkeypatch.delenv("PYTHONPATH")  # such a host has none of this program
        one.transfer.env.pop("PYTHONPATH", None)
        paths.hosts_yaml.write_text(
            f"hosts:\n  local: {{}}\n  far: {{ssh_host: 127.0.0.1, runtime: ai-service, ringrift_path: {folder}}}\n"
        )
        await record_code(one.store, "far", made | {"root": str(one.far)})
        yield one


async def submit(bed: Bed, kind: str, *words: str, **more: Any) -> str:
    plan = await plan_submit(bed.paths, kind=kind, config="hex8_2p", host="far", args=list(words), **more)
    result = await apply_submit(bed.paths, plan, bed.store.bound(await bed.store.submit(plan)))
    return str(result["jobs"][0])


async def ended(bed: Bed, kind: str, *words: str) -> JobRow:
    return await bed.until(await submit(bed, kind, *words), "done", "failed", "blocked")


def foreign(paths: Paths, suffix: str) -> Path:
    (found,) = (paths.root / "data/foreign/ai-service/hex8_2p").glob(f"*{suffix}")
    return found


def relative(bed: Bed, path: Path) -> str:
    return str(path.relative_to(bed.paths.root))


async def test_from_its_games_to_its_gauntlet_with_its_own_commands(
    bed: Bed, checkout: tuple[Path, dict[str, Any]]
) -> None:
    folder = checkout[0]
    row = await ended(bed, "export")
    assert (row.state, row.host) == ("done", "far"), row.why
    root = bed.work / row.id
    assert row.argv == (
        PYTHON, "-I", f"{root}/.ringrift/reader.py", PYTHON, "scripts/export_replay_dataset.py", "--use-discovery",
        "--board-type", "hex8", "--num-players", "2", "--output", f"{root}/data/training/hex8_2p.npz",
    )  # fmt: skip
    data = foreign(bed.paths, ".npz")
    assert row.result["samples"] == SAMPLES and row.result["games"] == 2 and row.result["runtime"] == "ai-service"
    assert row.result["sha256"] == sha256_file(data) == sha256_file(folder / "made.npz")
    assert row.result["arrays"]["policy_indices"] == f"object {SAMPLES}"
    assert "training here does not read it" in row.result["note"]
    assert not bed.paths.dataset(parse_config("hex8_2p")).exists()

    row = await ended(bed, "train", "--epochs", "3", "--data-path", relative(bed, data), "--batch-size", "8")
    assert row.state == "done", row.why
    assert row.argv[3:6] == (PYTHON, "-m", "app.training.train")
    assert row.argv[-2:] == ("--batch-size", "8")
    assert row.progress is not None and (row.progress.done, row.progress.total, row.progress.unit) == (3, 3, "epochs")
    assert (row.result["train_loss"], row.result["val_loss"], row.result["epochs"]) == (0.6667, 1.5, 3)
    model = foreign(bed.paths, ".pth")
    assert row.result["sha256"] == sha256_file(model) == sha256_file(folder / "made.pth")
    assert (row.result["model_class"], row.result["parameters"], row.result["registered"]) == (
        "HexNeuralNet_v2", 8, False,
    )  # fmt: skip
    assert model_rows(bed.paths) == ()

    row = await ended(bed, "gauntlet", relative(bed, model), "--games", "4")
    assert row.state == "done", row.why
    assert row.argv[4:] == (
        "scripts/baseline_gauntlet.py", f"{bed.work / row.id}/{relative(bed, model)}",
        "--board", "hex8", "--games", "4",
    )  # fmt: skip
    assert row.result["foreign_opponents"] == {
        "random": {"games": 4, "wins": 3, "win_rate": 0.75},
        "heuristic": {"games": 4, "wins": 1, "win_rate": 0.25},
    }
    assert row.result["model_sha256"] == sha256_file(model)
    assert "no match record" in row.result["note"]
    assert not bed.paths.elo_db.exists()

    row = await ended(bed, "promote", relative(bed, model), "--games", "5")
    assert row.state == "done", row.why
    assert sha256_file(folder / "models/canonical_hex8_2p.pth") == row.result["model_sha256"]
    assert row.result["games_played"] == 10
    events = [event.type for event in await bed.store.events(last=1000)]
    assert not {"EXPORT_COMPLETED", "TRAINING_COMPLETED", "GAUNTLET_COMPLETED", "MODEL_PROMOTED"} & set(events)


async def test_training_falls_back_on_the_dataset_of_the_checkout(
    bed: Bed, checkout: tuple[Path, dict[str, Any]]
) -> None:
    row = await ended(bed, "train", "--epochs", "1")
    assert row.state == "failed"
    assert row.why == f"exit code 3: ringrift: the checkout at {checkout[0]} has no data/training/hex8_2p.npz"
    (checkout[0] / "data/training").mkdir(parents=True)
    (checkout[0] / "data/training/hex8_2p.npz").write_bytes(b"theirs")
    try:
        assert (await ended(bed, "train", "--epochs", "1")).state == "done"
    finally:
        (checkout[0] / "data/training/hex8_2p.npz").unlink()
        (checkout[0] / "data/training").rmdir()


@pytest.mark.parametrize(
    ("kind", "trap", "why"),
    [
        ("export", "no games", "ringrift: it found no games to make samples of"),
        ("export", "locked", "and left no data/training/hex8_2p.npz; it said last: [LOCKED]"),
        ("export", "another count", f"it told of 7 samples, and the dataset has {SAMPLES}"),
        ("train", "nothing", "it ended with exit code 0 and left no models/candidates/"),
        ("train", "empty", "it ended with exit code 0 and left an empty models/candidates/"),
        ("train", "code", "carries code or objects, not only weights"),
        ("gauntlet", "silent", "told no model file, games played, random percent, heuristic percent; it said nothing"),
        ("gauntlet", "replaced", "played Heuristic in its place, so its numbers are not the model's"),
        ("gauntlet", "short", "its games played is 7, not 8"),
        ("gauntlet", "told", "its players is 4, not 2"),
        ("promote", "rejected", "exit code 1: ringrift: its gauntlet rejected the model, nothing was promoted"),
        ("promote", "nothing", "models/canonical_hex8_2p.pth is not the model"),
    ],
)
async def test_an_exit_code_of_0_without_evidence_is_no_success(
    bed: Bed, checkout: tuple[Path, dict[str, Any]], kind: str, trap: str, why: str
) -> None:
    folder = checkout[0]
    set_trap(folder, trap)
    (folder / "models/canonical_hex8_2p.pth").unlink(missing_ok=True)
    for name in ("made.pth", "made.npz"):
        (bed.paths.root / name).write_bytes((folder / name).read_bytes())
    words = {"export": [], "train": ["--epochs", "1", "--data-path", "made.npz"]}.get(
        kind, ["made.pth", "--games", "4"]
    )
    row = await ended(bed, kind, *words)
    assert row.state == "failed" and why in row.why, row.why
    assert "\n" not in row.why
    assert "foreign_opponents" not in row.result
    assert not list((bed.paths.root / "data").rglob("foreign/**/*.np*"))
    assert len(await attempt_rows(bed.store, row.id)) == 1


async def test_a_command_that_was_changed_since_the_check_is_told_in_one_line(
    bed: Bed, checkout: tuple[Path, dict[str, Any]]
) -> None:
    script = checkout[0] / "scripts/export_replay_dataset.py"
    before = script.read_text()
    try:
        script.write_text(before.replace('parser.add_argument("--use-discovery", action="store_true")', "").replace(
            "assert args.use_discovery", ""))  # fmt: skip
        row = await ended(bed, "export")
        assert row.state == "failed" and "does not take what it was given" in row.why
        assert "unrecognized arguments: --use-discovery" in row.why
        script.unlink()
        row = await ended(bed, "export")
        assert row.why.endswith(f"the checkout at {checkout[0]} has no scripts/export_replay_dataset.py")
    finally:
        script.write_text(before)


async def test_progress_is_seen_while_it_runs_and_a_cancel_ends_all_of_it(
    bed: Bed, checkout: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (bed.paths.root / "made.npz").write_bytes((checkout[0] / "made.npz").read_bytes())
    monkeypatch.setenv("EPOCH_S", "0.4")
    name = await submit(bed, "train", "--epochs", "500", "--data-path", "made.npz")
    async with asyncio.timeout(90):
        while (row := await bed.row(name)).progress is None or row.progress.done < 2:
            await bed.keeper.tick()
            await asyncio.sleep(0.05)
    assert row.state == "running" and row.progress.total == 500
    async with bed.store.database.write() as db:
        await db.run("UPDATE jobs SET cancel = '{}' WHERE id = ?", (name,))
    assert (await bed.until(name, "cancelled", "failed")).state == "cancelled"


async def test_a_job_goes_to_the_runtime_that_it_asks_for(bed: Bed) -> None:
    plan = await plan_submit(bed.paths, kind="export", config="hex8_2p", runtime="ai-service")
    assert plan.params["params"] == {"runtime": "ai-service"} and plan.params["host"] is None
    assert "--runtime ai-service" in plan.command
    assert "the games of that host" in plan.warnings[0]
    ours = await bed.add("export", host=None)  # type: ignore[arg-type]
    bed.paths.hosts_yaml.write_text(bed.paths.hosts_yaml.read_text().replace("local: {}", "local: {status: retired}"))
    await bed.keeper.tick()
    await bed.until(ours, "waiting")
    while not (row := await bed.row(ours)).waits:
        await bed.keeper.tick()
        await asyncio.sleep(0.02)
    assert ("its runtime is ai-service, the job is for builtin", ("far",)) in row.waits


async def test_what_its_documentation_lacks_and_what_it_cannot_load_is_refused(bed: Bed) -> None:
    with pytest.raises(UsageError, match="gives no command for selfplay jobs"):
        await plan_submit(bed.paths, kind="selfplay", config="hex8_2p", host="far")
    with pytest.raises(UsageError, match="train jobs take no such option"):
        await plan_submit(bed.paths, kind="train", config="hex8_2p", host="far", args=["--allow-stale-data", "1"])
    with pytest.raises(UsageError, match="this program has no promote jobs"):
        await plan_submit(bed.paths, kind="promote", config="hex8_2p", host="local", args=["x"])
    with pytest.raises(UsageError, match="no such runtime"):
        await plan_submit(bed.paths, kind="export", config="hex8_2p", runtime="conda")


async def test_a_network_of_ours_is_not_sent_to_be_played_as_heuristic(bed: Bed) -> None:
    small = Architecture(1, 4, 2)
    save_model(bed.paths.root / "ours.pth", Network(small), Metadata("hex8_2p", asdict(small), "2026-01-01T00:00:00Z"))
    with pytest.raises(UsageError, match="would play Heuristic in its place"):
        await plan_submit(bed.paths, kind="gauntlet", config="hex8_2p", host="far", args=["ours.pth"])


async def test_a_recipe_of_the_file_runs_in_the_checkout(bed: Bed, checkout: tuple[Path, dict[str, Any]]) -> None:
    bed.paths.recipes_toml.write_text(
        "[where]\nruntime = 'ai-service'\nargv = ['{python}', '-c', "
        '\'import app, os; open("{root}/at-{board}", "w").write(os.getcwd()); print("at", app.__name__)\']\n'
        "outputs = ['at-{board}']\nresult = 'at (?P<module>\\w+)'\n"
    )
    row = await ended(bed, "where")
    assert (row.state, row.host) == ("done", "far"), row.why
    assert (bed.paths.root / "at-hex8").read_text() == str(checkout[0])
    assert (row.result["module"], row.result["runtime"]) == ("app", "ai-service")


async def test_a_host_whose_checkout_fails_gets_no_jobs_and_says_why(
    bed: Bed, checkout: tuple[Path, dict[str, Any]]
) -> None:
    async def waits(kind: str, **code: Any) -> dict[str, tuple[str, ...]]:
        await record_code(bed.store, "far", checkout[1] | {"root": str(bed.far)} | code)
        name = await submit(bed, kind, *(["--epochs", "1"] if kind == "train" else []))
        async with asyncio.timeout(60):
            while not (row := await bed.row(name)).waits:
                await bed.keeper.tick()
                await asyncio.sleep(0.02)
        return dict(row.waits)

    assert "its Python cannot import torch: no module" in await waits(
        "export", refused="its Python cannot import torch: no module", mend="pip"
    )
    lacks = checkout[1]["commands"] | {"train": "app/training/train.py takes no --epochs"}
    assert "app/training/train.py takes no --epochs" in await waits("train", commands=lacks)
    bad = {"commands": None, "runtime": None}
    assert "its checkout was not checked (ringrift hosts bootstrap far)" in await waits("export", **bad)


async def test_what_was_set_up_for_another_runtime_is_not_set_up(bed: Bed) -> None:
    bed.paths.hosts_yaml.write_text("hosts:\n  local: {status: retired}\n  far: {ssh_host: 127.0.0.1}\n")
    name = await bed.add("export")
    async with asyncio.timeout(60):
        while not (row := await bed.row(name)).waits:
            await bed.keeper.tick()
            await asyncio.sleep(0.02)
    assert "not set up (ringrift hosts bootstrap far)" in dict(row.waits)


async def test_over_ssh_from_the_check_to_the_kept_file(paths: Paths, make_sshd: Callable[..., Sshd]) -> None:
    server = make_sshd()
    folder = make_checkout(server.folder / "ai-service")
    describe(paths, server)
    with paths.hosts_yaml.open("a") as hosts:
        hosts.write(f"    runtime: ai-service\n    ringrift_path: {folder}\n    python_path: {PYTHON}\n")
    async with opened(paths) as store:
        async with SshPool(paths) as pool:
            pool.confirm_enrolment(await pool.enrol(server.host()))
        plan = await plan_bootstrap(paths, host=server.name)
        done = await apply_bootstrap(paths, plan, store.bound(await store.submit(plan)))
        assert done["checkout_path"] == str(folder) and done["root"] == str(server.folder / "agent")
        plan = await plan_submit(paths, kind="export", config="hex8_2p", runtime="ai-service")
        name = str((await apply_submit(paths, plan, store.bound(await store.submit(plan))))["jobs"][0])
        ensure_running(paths)
        row = await until(store, name, lambda row: row.state in ("done", "failed"))
        assert (row.state, row.host) == ("done", server.name), row.why
        assert sha256_file(foreign(paths, ".npz")) == sha256_file(folder / "made.npz") == row.result["sha256"]
        work = server.folder / "agent/work" / await store.owner() / name
        await asyncio.to_thread(wait_for, lambda: not work.exists(), "the job's folder is removed from the host")
