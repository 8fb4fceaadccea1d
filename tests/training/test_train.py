"""Training: it learns, it can be killed and carried on to the same bits, and it says no to data that teach nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.configs import Config, parse_config
from backend.errors import (
    LockedError,
    NoEvidenceError,
    NotFoundError,
    ResourceError,
    SchemaError,
    UnverifiedError,
    UsageError,
)
from backend.locks import FileLock
from backend.paths import Paths
from backend.progress import read_progress
from backend.registry.store import Registry
from backend.training import train as training
from backend.training.batches import Batches
from backend.training.checkpoint import load_model
from backend.training.dataset import load_dataset, read_metadata, write_dataset
from backend.training.export import export
from backend.training.game_record import GameRecord
from backend.training.losses import measure
from backend.training.network import Architecture, Network
from backend.training.register import candidate_of
from backend.training.run_state import load_state, state_path
from backend.training.settings import Settings
from backend.training.train import Trained, lock_path, train

Make = Callable[..., GameRecord]
Save = Callable[[Path, Config, list[GameRecord]], None]

QUICK = Settings(epochs=2, batch_size=64, blocks=1, channels=8)
REPO = Path(__file__).parents[2]


def run(played: Paths, config: Config, save: Path, settings: Settings = QUICK, **named: object) -> Trained:
    candidates = save.parent / "candidates"
    return train(played.dataset(config), save, config, settings, candidates=candidates, device="cpu", **named)  # type: ignore[arg-type]


def test_a_batch_seen_through_a_symmetry_is_the_batch_of_the_turned_positions(played: Paths, square8: Config) -> None:
    batches = Batches(load_dataset(played.dataset(square8)))
    rows = np.arange(0, 200, 7, dtype=np.int64)
    plain = batches.make(rows, np.zeros(len(rows), dtype=np.int64))
    for k in range(1, batches.symmetries):
        seen = batches.make(rows, np.full(len(rows), k, dtype=np.int64))
        turned = torch.from_numpy(batches.box.sources[k].astype(np.int64))
        assert torch.equal(seen.planes.flatten(2), plain.planes.flatten(2)[:, :, turned])
        assert torch.equal(seen.ownership.flatten(1), plain.ownership.flatten(1)[:, turned])
        for name in ("scalars", "rows", "policy", "winner", "scores", "present", "chosen"):
            assert torch.equal(getattr(seen, name), getattr(plain, name))
        assert torch.equal(seen.moves[:, 0], plain.moves[:, 0])
        assert not torch.equal(seen.moves, plain.moves)


def test_targets_are_turned_to_the_player_to_act(played: Paths, square8: Config) -> None:
    dataset = load_dataset(played.dataset(square8))
    batches = Batches(dataset)
    rows = np.arange(0, 300, dtype=np.int64)
    batch = batches.make(rows, np.zeros(len(rows), dtype=np.int64))
    arrays = dataset.arrays
    assert torch.equal(batch.winner == 0, torch.from_numpy(arrays["winners"][rows] == arrays["players"][rows]))
    cells = arrays["final_cells"][arrays["game_index"][rows]]
    own = torch.from_numpy(cells == arrays["players"][rows][:, None, None])
    assert torch.equal(batch.ownership == 1, own)
    first = arrays["final_scores"][arrays["game_index"][0], arrays["players"][0] - 1]
    assert np.array_equal(batch.scores[0, 0].numpy(), first)


def test_training_learns_what_it_is_shown(played: Paths, square8: Config, tmp_path: Path) -> None:
    dataset = load_dataset(played.dataset(square8))
    batches = Batches(dataset)
    torch.manual_seed(0)
    before = measure(Network(Architecture(1, 8)), batches.plain(dataset.rows(0), 256), torch.device("cpu"))
    done = run(played, square8, tmp_path / "m.pth", replace(QUICK, epochs=6, learning_rate=5e-3))
    after = measure(load_model(done.path).network, batches.plain(dataset.rows(0), 256), torch.device("cpu"))
    assert before.value_loss is not None and after.value_loss is not None
    assert after.value_loss < before.value_loss - 0.02
    assert done.measures.samples == len(dataset.rows(1))
    assert 0 <= done.measures.policy_accuracy <= 1 and 0 <= done.measures.value_accuracy <= 1  # type: ignore[operator]


def test_a_checkpoint_carries_where_it_comes_from(played: Paths, square8: Config, tmp_path: Path) -> None:
    done = run(played, square8, tmp_path / "m.pth")
    loaded = load_model(done.path, config=square8)
    data = loaded.metadata.data or {}
    metadata = read_metadata(played.dataset(square8))
    assert data["content_digest"] == metadata["content_digest"]
    assert (loaded.metadata.training_info or {})["settings"]["epochs"] == 2
    assert loaded.metadata.parent_checkpoint is None
    child = run(played, square8, tmp_path / "child.pth", init_weights=done.path)
    assert load_model(child.path).metadata.parent_checkpoint == done.sha256
    assert not state_path(done.path).exists()


def test_the_same_run_gives_the_same_weights_and_another_seed_others(
    played: Paths, square8: Config, tmp_path: Path
) -> None:
    sums = [
        run(played, square8, tmp_path / f"{name}.pth", replace(QUICK, seed=seed)).metadata.checksum
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert [load_model(tmp_path / f"{name}.pth").metadata.checksum for name in "ab"] == [
        load_model(tmp_path / "a.pth").metadata.checksum
    ] * 2
    assert load_model(tmp_path / "c.pth").metadata.checksum != load_model(tmp_path / "a.pth").metadata.checksum
    assert len(sums) == 3


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 5, 11])
def test_a_run_killed_at_any_step_carries_on_to_the_same_bits(
    played: Paths, square8: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole = run(played, square8, tmp_path / "whole.pth")
    saves = 0
    real = training.save_state

    def save_then_die(*args: object) -> None:
        nonlocal saves
        real(*args)  # type: ignore[arg-type]
        saves += 1
        if saves == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_state", save_then_die)
        patch.setattr(training, "SAVE_SECONDS", 0.0)  # save at every step
        with pytest.raises(Killed):
            run(played, square8, tmp_path / "cut.pth")
    assert not (tmp_path / "cut.pth").exists() and state_path(tmp_path / "cut.pth").exists()
    said: list[str] = []
    done = run(played, square8, tmp_path / "cut.pth", resume=True, tell=said.append)
    assert "carrying on" in said[0]
    assert load_model(done.path).metadata.checksum == load_model(whole.path).metadata.checksum
    assert done.train_loss == whole.train_loss


VERB = [sys.executable, "-m", "ringrift_console.cli", "train", "--config", "square8_2p", "--device", "cpu", "--json"]


def test_sigterm_saves_the_state_and_the_verb_carries_on(played: Paths, square8: Config, tmp_path: Path) -> None:
    argv = [
        *VERB, "--root", str(tmp_path), "--data-path", str(played.dataset(square8)), "--epochs", "3", "--blocks", "1",
        "--channels", "8", "--batch-size", "32", "--save-path", str(tmp_path / "m.pth"),
    ]  # fmt: skip
    progress = tmp_path / "progress.jsonl"
    environment = os.environ | {"RINGRIFT_PROGRESS": str(progress)}
    first = subprocess.Popen(argv, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not read_progress(progress) and first.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, error = first.communicate()
    assert first.returncode == 143, error
    assert state_path(tmp_path / "m.pth").exists() and not (tmp_path / "m.pth").exists()
    second = subprocess.run(argv, cwd=REPO, env=environment, capture_output=True, text=True, check=True)
    assert "carrying on" in second.stderr
    rows = read_progress(progress)
    assert rows[-1]["result"]["label"] == "square8_2p:v1"
    assert any("val_policy_accuracy" in row.get("metrics", {}) for row in rows)
    again = subprocess.run(argv, cwd=REPO, env=environment, capture_output=True, text=True, check=True)
    assert "the result of this very run" in again.stderr
    assert read_progress(progress)[-1]["result"] == rows[-1]["result"]


async def test_a_finished_run_is_registered_with_its_data_and_parent(
    played: Paths, paths: Paths, square8: Config, tmp_path: Path
) -> None:
    parent = run(played, square8, tmp_path / "p.pth")
    done = run(played, square8, tmp_path / "m.pth", init_weights=parent.path)
    registry = await Registry.open(paths)
    registered = await registry.register(candidate_of(done))
    row = (await registry.info(registered.label)).row
    assert row.sha256 == done.sha256 and row.parent == parent.sha256
    assert row.architecture == "ringrift-conv-1-b1c8"
    assert row.metadata["data"]["content_digest"] == read_metadata(played.dataset(square8))["content_digest"]
    assert load_model(registered.path, config=square8).sha256 == done.sha256


def test_a_state_of_another_run_is_never_used(played: Paths, square8: Config, tmp_path: Path) -> None:
    save = tmp_path / "m.pth"
    with pytest.raises(NotFoundError, match="no stopped training run"):
        run(played, square8, save, resume=True)
    stop_after_one_save(played, square8, save, QUICK)
    other = replace(QUICK, seed=5)
    with pytest.raises(SchemaError, match="other settings or data"):
        run(played, square8, save, other, resume=True)
    said: list[str] = []
    done = run(played, square8, save, other, tell=said.append)
    assert not said and load_model(done.path).metadata.checksum


def stop_after_one_save(played: Paths, config: Config, save: Path | None, settings: Settings) -> None:
    real = training.save_state

    def save_then_die(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "save_state", save_then_die)
        with pytest.raises(Killed):
            candidates = (save.parent if save else played.models) / "candidates"
            train(played.dataset(config), save, config, settings, candidates=candidates, device="cpu")


def test_resume_without_a_name_finds_the_newest_stopped_run(played: Paths, square8: Config, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.training.mkdir(parents=True)
    paths.dataset(square8).write_bytes(played.dataset(square8).read_bytes())
    stop_after_one_save(paths, square8, None, QUICK)
    candidates = paths.models / "candidates"
    left = next(candidates.glob("square8_2p_*.state"))
    done = train(paths.dataset(square8), None, square8, QUICK, candidates=candidates, resume=True, device="cpu")
    assert done.path == left.with_name(left.name.removesuffix(".state")) and done.path.exists() and not left.exists()


def test_a_full_disk_ends_the_run_with_the_last_state_intact(
    played: Paths, square8: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = tmp_path / "m.pth"
    stop_after_one_save(played, square8, save, QUICK)
    before = state_path(save).read_bytes()
    with monkeypatch.context() as patch:

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(ResourceError):
            run(played, square8, save)
    assert state_path(save).read_bytes() == before and not save.exists()
    assert run(played, square8, save).path == save


def test_data_that_teach_nothing_are_refused(
    played: Paths, paths: Paths, square8: Config, tmp_path: Path, make_game: Make, save_games: Save
) -> None:
    save = tmp_path / "m.pth"
    with pytest.raises(NotFoundError):
        run(paths, square8, save)
    arrays = dict(load_dataset(played.dataset(square8)).arrays)
    arrays["winners"] = np.ones_like(arrays["winners"])
    names = {"features", "globals", "players", "winners", "values", "values_mp", "num_players", "move_numbers"}
    names |= {"total_game_moves", "phases", "exchanged", "game_index", "final_cells", "final_scores", "split"}
    names |= {"game_ids", "policy_offsets", "policy_indices", "policy_values"}
    metadata = read_metadata(played.dataset(square8))
    write_dataset(paths.dataset(square8), square8, {name: arrays[name] for name in names}, metadata)
    with pytest.raises(NoEvidenceError, match="same seat won"):
        run(paths, square8, save)
    arrays["split"] = np.ones_like(arrays["split"])
    write_dataset(paths.dataset(square8), square8, {name: arrays[name] for name in names}, metadata)
    with pytest.raises(NoEvidenceError, match="too few"):
        run(paths, square8, save)
    fake = tmp_path / "fake.pth"
    fake.write_bytes(b"not a checkpoint")
    with pytest.raises(UnverifiedError, match="no checkpoint at all"):
        run(played, square8, save, init_weights=fake)
    with pytest.raises(SchemaError, match="square8_2p, not hex8_2p"):
        train(played.dataset(square8), save, parse_config("hex8_2p"), QUICK, candidates=tmp_path)
    assert not save.exists()


@pytest.mark.parametrize("changed", [{"epochs": 0}, {"batch_size": -1}, {"learning_rate": 0.0}, {"blocks": 0}], ids=str)
def test_settings_that_make_no_sense_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(QUICK, **changed)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="no such device"):
        training.choose_device("tpu")


@pytest.mark.parametrize("key", ["hex8_3p", "hex8_4p"])
def test_other_boards_and_player_counts_train_as_well(
    key: str, paths: Paths, tmp_path: Path, make_game: Make, save_games: Save
) -> None:
    config = parse_config(key)
    save_games(paths.games_db(config), config, [make_game(config, index) for index in range(5)])
    export(paths, config)
    done = run(paths, config, tmp_path / "m.pth", replace(QUICK, epochs=1))
    assert load_model(done.path, config=config).network.architecture.channels == 8


def test_a_damaged_state_is_refused_by_name(played: Paths, square8: Config, tmp_path: Path) -> None:
    save = tmp_path / "m.pth"
    stop_after_one_save(played, square8, save, QUICK)
    fingerprint = QUICK.fingerprint(square8, load_dataset(played.dataset(square8)).content_digest, None)
    assert load_state(state_path(save), fingerprint) is not None
    torch.save({"anything": 1}, state_path(save))
    with pytest.raises(SchemaError, match="not a training state"):
        run(played, square8, save)


def test_a_second_run_to_the_same_checkpoint_is_refused_with_the_owners_name(
    played: Paths, square8: Config, tmp_path: Path
) -> None:
    save = tmp_path / "m.pth"
    with (
        FileLock(lock_path(save), "training of square8_2p"),
        pytest.raises(LockedError, match="training of square8_2p"),
    ):
        train(played.dataset(square8), save, square8, QUICK, candidates=tmp_path)
    assert not save.exists()
    assert train(played.dataset(square8), save, square8, QUICK, candidates=tmp_path).path == save
