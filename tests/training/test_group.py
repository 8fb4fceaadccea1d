"""Processes that train together: they end with the weights that one alone would have, and go on after a stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.configs import Config
from backend.paths import Paths
from backend.progress import read_progress
from backend.training import train as training
from backend.training.batches import Batches
from backend.training.checkpoint import load_model
from backend.training.dataset import load_dataset
from backend.training.group import interface_towards
from backend.training.losses import counts_of, total_loss
from backend.training.network import Architecture, Network
from backend.training.run_state import load_state, state_path
from backend.training.settings import Settings
from backend.training.train import train
from tests.lab.sshd import free_port

QUICK = Settings(epochs=2, batch_size=64, blocks=1, channels=8)
REPO = Path(__file__).parents[2]
WORDS = ["--epochs", "2", "--batch-size", "64", "--blocks", "1", "--channels", "8", "--seed", "0", "--device", "cpu"]


def together(size: int, data: Path, folder: Path, *more: str) -> list[subprocess.CompletedProcess[str]]:
    """The verb in ``size`` processes, as torchrun would start them, each in a root of its own."""
    port = str(free_port())
    running = []
    for rank in range(size):
        argv = [
            sys.executable, "-m", "ringrift_console.cli", "train", "--config", "square8_2p", "--root",
            str(folder / f"r{rank}"), "--data-path", str(data), "--save-path", str(folder / f"r{rank}" / "m.pth"),
            *WORDS, *more, "--json",
        ]  # fmt: skip
        environment = os.environ | {
            "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "RINGRIFT_PROGRESS": str(folder / f"progress{rank}"),
        }  # fmt: skip
        running.append(
            subprocess.Popen(argv, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    ended = [process.communicate(timeout=300) for process in running]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *said)
        for process, said in zip(running, ended, strict=True)
    ]


def distance(one: Path, other: Path) -> float:
    """How far two runs ended from one another, in terms of the way that the first has gone.

    As one norm: where a gradient is nearly nothing, AdamW makes a step of any sign out of a rounding error.
    """
    torch.manual_seed(0)
    start, first, second = (
        torch.cat([tensor.flatten() for tensor in network.state_dict().values()])
        for network in (Network(Architecture(1, 8)), load_model(one).network, load_model(other).network)
    )
    return float((second - first).norm() / (first - start).norm())


@pytest.mark.parametrize("size", [2, 3])
def test_processes_together_end_with_the_weights_of_one_alone(
    played: Paths, square8: Config, tmp_path: Path, size: int
) -> None:
    data = played.dataset(square8)
    alone = train(data, tmp_path / "alone.pth", square8, QUICK, candidates=tmp_path, device="cpu")
    done = together(size, data, tmp_path)
    assert [process.returncode for process in done] == [0] * size, [process.stderr for process in done]
    result = json.loads(done[0].stdout)
    assert (result["processes"], result["label"]) == (size, "square8_2p:v1")
    train(data, tmp_path / "other.pth", square8, replace(QUICK, batch_size=32), candidates=tmp_path, device="cpu")
    assert distance(tmp_path / "alone.pth", tmp_path / "other.pth") > 0.1  # what a share alone as a batch would give
    assert distance(tmp_path / "alone.pth", tmp_path / "r0/m.pth") < 1e-2
    assert result["train_loss"] == pytest.approx(alone.train_loss, rel=1e-4)
    rows = read_progress(tmp_path / "progress0")
    assert rows[-1]["result"]["sha256"] == result["sha256"]
    for rank in range(1, size):  # no file, no progress, no model of any other rank
        assert not (tmp_path / f"progress{rank}").exists()
        assert not list((tmp_path / f"r{rank}").rglob("*.pth*"))
    again = together(size, data, tmp_path)
    assert [process.returncode for process in again] == [0] * size
    assert "the result of this very run" in again[0].stderr


def test_a_stopped_run_is_carried_on_together_from_rank_0s_state(
    played: Paths, square8: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = played.dataset(square8)
    alone = train(data, tmp_path / "alone.pth", square8, QUICK, candidates=tmp_path, device="cpu")
    save = tmp_path / "r0" / "m.pth"
    saves = 0
    real = training.save_state

    def save_then_die(*args: object) -> None:
        nonlocal saves
        real(*args)  # type: ignore[arg-type]
        saves += 1
        if saves == 7:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_state", save_then_die)
        patch.setattr(training, "SAVE_SECONDS", 0.0)
        with pytest.raises(InterruptedError):
            train(data, save, square8, QUICK, candidates=tmp_path, device="cpu")
    fingerprint = (alone.metadata.training_info or {})["fingerprint"]
    state = load_state(state_path(save), fingerprint)
    assert state is not None and (state.epoch, state.step) != (0, 0)
    done = together(2, data, tmp_path)
    assert [process.returncode for process in done] == [0, 0], [process.stderr for process in done]
    assert "carrying on" in done[0].stderr
    assert distance(tmp_path / "alone.pth", save) < 1e-2


def test_members_with_other_settings_do_not_train_together(played: Paths, square8: Config, tmp_path: Path) -> None:
    port = str(free_port())
    running = []
    for rank, seed in enumerate(("1", "2")):
        argv = [
            sys.executable, "-m", "ringrift_console.cli", "train", "--config", "square8_2p", "--root",
            str(tmp_path / f"r{rank}"), "--data-path", str(played.dataset(square8)), *WORDS[:-4], "--seed", seed,
            "--device", "cpu", "--no-register",
        ]  # fmt: skip
        environment = os.environ | {
            "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        running.append(
            subprocess.Popen(argv, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode != 0 for process in running] == [True, True]
    assert "other settings or data" in said[1]
    assert "a member of the gang is gone" in said[0] and "Traceback" not in said[0]


@pytest.mark.parametrize(("count", "of"), [(64, 2), (64, 3), (2, 3)])
def test_the_shares_of_a_batch_give_its_loss_and_gradients(played: Paths, square8: Config, count: int, of: int) -> None:
    dataset = load_dataset(played.dataset(square8))
    batches = Batches(dataset)
    rows = dataset.rows(0)[:count]
    torch.manual_seed(1)
    network = Network(Architecture(1, 8))

    def gradients(parts: list[tuple[int, int]]) -> tuple[float, torch.Tensor]:
        network.zero_grad()
        made = [next(batches.epoch(rows, count, 5, 0, rank=rank, of=shares)) for rank, shares in parts]
        counts = sum((counts_of(batch) for batch in made), torch.zeros(4))
        loss = sum(
            (total_loss(network(one.planes, one.scalars, one.moves, one.rows), one, counts) for one in made),
            torch.zeros(()),
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), torch.cat([tensor.grad.flatten() for tensor in network.parameters()])  # type: ignore[union-attr]

    whole, grads = gradients([(0, 1)])
    shared, summed = gradients([(rank, of) for rank in range(of)])
    assert shared == pytest.approx(whole, rel=1e-5)
    assert np.allclose(summed.numpy(), grads.numpy(), rtol=1e-3, atol=1e-6)


def test_the_interface_towards_an_address_is_the_one_that_has_ours() -> None:
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("not an address") is None
