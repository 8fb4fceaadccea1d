"""Training a network on a dataset: one loop, resumable to the bit.

A run is a function of its settings and of the dataset's content. Its state is saved as it goes; a run that was killed
and started again with the same settings carries on from there and ends with the same weights (on the CPU).
"""

from __future__ import annotations

import copy
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from backend.configs import Config
from backend.errors import NoEvidenceError, NotFoundError, UsageError
from backend.locks import FileLock
from backend.progress import Progress
from backend.registry.hashing import sha256_file
from backend.training.batches import Batches, steps_of
from backend.training.checkpoint import LoadedModel, Metadata, load_model, now_text, save_model
from backend.training.dataset import Dataset, load_dataset
from backend.training.group import ALONE, Group
from backend.training.losses import Measures, counts_of, measure, total_loss
from backend.training.network import Architecture, Network
from backend.training.run_state import (
    RunState,
    load_state,
    newest_state,
    pack_state,
    save_state,
    state_path,
    unpack_state,
)
from backend.training.settings import Settings

MIN_SAMPLES = 64
SAVE_SECONDS = 15.0
"""Time after which the state is saved within an epoch; when it is saved changes nothing of the outcome."""
EMA = 0.999
"""Decay of the averaged weights, which are those that are kept; shorter at the start."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: its checkpoint, and what was measured."""

    path: Path
    sha256: str
    metadata: Metadata
    train_loss: float
    measures: Measures


def choose_device(name: str | None) -> torch.device:
    """The device asked for, or the best there is.

    Raises:
        UsageError: there is no such device here.
    """
    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name is None:
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if have[kind]))
    if not have.get(name.partition(":")[0], False):
        raise UsageError("this machine has no such device", where=name, hint="cpu always works")
    return torch.device(name)


def set_threads() -> None:
    """One thread on small machines: with two, OpenMP's spinning halves the speed as soon as anything else runs."""
    cores = os.cpu_count() or 1
    torch.set_num_threads(1 if cores <= 4 else cores // 2)


def train(
    dataset_path: Path,
    save_path: Path | None,
    config: Config,
    settings: Settings,
    *,
    candidates: Path,
    resume: bool = False,
    device: str | None = None,
    init_weights: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    echo: bool = False,
    group: Group = ALONE,
) -> Trained:
    """Trains and writes a checkpoint; carries on a run of the same settings and data that was stopped.

    Args:
        save_path: the checkpoint to write; by default a new name in ``candidates``, or with ``resume`` that of the
            newest run there that was stopped.
        resume: insist on carrying on.
        init_weights: a checkpoint to start from, whose sizes are taken over.
        tell: takes a line of narration.
        echo: print progress lines to standard output.
        group: where it is not alone, the process of rank 0 calls this and all others :func:`assist`.

    Raises:
        NotFoundError: ``resume`` was asked for and there is nothing to carry on.
        LockedError: another run writes the same checkpoint.
        NoEvidenceError: the dataset is too small or one-sided to learn from.
        UntrustedError, UnverifiedError, SchemaError: the dataset or ``init_weights`` cannot be used.
        ResourceError: the disk is full; what was saved before is kept.
        SystemExit: 143, on SIGTERM, after saving the state.
    """
    dataset, parent, fingerprint = _prepare(dataset_path, config, settings, init_weights)
    if save_path is None and resume:
        save_path = newest_state(candidates, config.key, fingerprint)
    save_path = save_path or candidates / f"{config.key}_{datetime.now(UTC):%Y%m%d_%H%M%S}.pth"
    with FileLock(lock_path(save_path), f"training of {config.key}"):
        return _train(
            dataset, dataset_path, save_path, config, settings, parent, fingerprint, resume, device, tell, echo, group
        )


def assist(
    dataset_path: Path, config: Config, settings: Settings, group: Group, *, device: str | None = None,
    init_weights: Path | None = None,
) -> None:  # fmt: skip
    """The part of a process of another rank than 0: its share of every batch, and no file. Errors as :func:`train`."""
    dataset, parent, fingerprint = _prepare(dataset_path, config, settings, init_weights)
    run = _Run(dataset, settings, group.device(choose_device(device)), parent, fingerprint, False, group)
    begun = group.broadcast(b"", run.device)
    if begun:
        run.restore(unpack_state(begun, fingerprint))
        with _stop_request() as stop:
            run.loop(None, stop)


def _prepare(
    dataset_path: Path, config: Config, settings: Settings, init_weights: Path | None
) -> tuple[Dataset, LoadedModel | None, str]:
    """The data, the weights to start from and the run's fingerprint."""
    set_threads()
    dataset = load_dataset(dataset_path, config=config)
    _check_evidence(dataset, dataset_path)
    parent = load_model(init_weights, config=config) if init_weights else None
    return dataset, parent, settings.fingerprint(config, dataset.content_digest, parent.sha256 if parent else None)


def lock_path(save_path: Path) -> Path:
    """What a run holds while it writes ``save_path`` and its state: ``.<name>.lock`` beside it."""
    return save_path.with_name(f".{save_path.name}.lock")


def _train(
    dataset: Dataset,
    dataset_path: Path,
    save_path: Path,
    config: Config,
    settings: Settings,
    parent: LoadedModel | None,
    fingerprint: str,
    resume: bool,
    device: str | None,
    tell: Callable[[str], None],
    echo: bool,
    group: Group,
) -> Trained:
    place = group.device(choose_device(device))
    done = _finished(save_path, fingerprint)
    if done is not None:
        tell(f"{save_path} is the result of this very run")
        group.broadcast(b"", place)  # nothing is to be done
        return done
    run = _Run(dataset, settings, place, parent, fingerprint, echo, group)
    state = load_state(state_path(save_path), fingerprint, strict=resume)
    if resume and state is None:
        raise NotFoundError(
            "no stopped training run with these settings and this data", where=str(state_path(save_path))
        )
    if state is not None:
        run.restore(state)
        tell(f"carrying on at epoch {run.epoch + 1}, step {run.step} ({state_path(save_path).name})")
    if group.size > 1:
        tell(f"{group.size} processes train together; this one, rank 0, writes")
        group.broadcast(pack_state(run.state()), place)  # all begin with the same weights
    with _stop_request() as stop:
        run.loop(state_path(save_path), stop)
    measures = run.measure()
    metadata = Metadata(
        config=config.key,
        architecture=asdict(run.network.architecture),
        created_at=run.started_at,
        parent_checkpoint=parent.sha256 if parent else None,
        data={
            "path": dataset_path.name,
            "sha256": sha256_file(dataset_path),
            "content_digest": dataset.content_digest,
            "samples": dataset.samples,
            "games": dataset.metadata.get("games"),
            "game_ids_digest": dataset.metadata.get("game_ids_digest"),
        },
        training_info={
            "settings": asdict(settings),
            "fingerprint": fingerprint,
            "device": run.device.type,
            "processes": group.size,
        },
        metrics={"train_loss": run.train_loss, **{f"val_{k}": v for k, v in asdict(measures).items()}},
    )
    sha256 = save_model(save_path, run.averaged, metadata)
    state_path(save_path).unlink(missing_ok=True)
    return Trained(save_path, sha256, metadata, run.train_loss, measures)


class _Run:
    """The moving parts of a run."""

    def __init__(
        self,
        dataset: Dataset,
        settings: Settings,
        device: torch.device,
        parent: LoadedModel | None,
        fingerprint: str,
        echo: bool,
        group: Group,
    ) -> None:
        torch.manual_seed(settings.seed)
        architecture = Architecture(settings.blocks, settings.channels)
        self.network = parent.network if parent else Network(architecture)
        self.network.requires_grad_(True).train().to(device)
        self.averaged = copy.deepcopy(self.network)
        self.optimiser = torch.optim.AdamW(
            _groups(self.network, settings.weight_decay), lr=settings.learning_rate, betas=(0.9, 0.98)
        )
        self.settings, self.device, self.fingerprint, self.group = settings, device, fingerprint, group
        self.batches = Batches(dataset)
        self.rows, self.held_out = dataset.rows(0), dataset.rows(1)
        self.steps = steps_of(len(self.rows), settings.batch_size)
        self.epoch = self.step = 0
        self.train_loss = math.nan
        self.started_at = now_text()
        self.progress = Progress(settings.epochs * len(self.rows), "samples", echo=echo) if group.first else None

    def loop(self, saved: Path | None, stop: threading.Event) -> None:
        """Runs to the end; rank 0 saves the state to ``saved`` at every epoch and several times a minute."""
        last_save = time.monotonic()
        for epoch in range(self.epoch, self.settings.epochs):
            self.epoch = epoch
            for batch in self.batches.epoch(
                self.rows, self.settings.batch_size, self.settings.seed, epoch, first=self.step,
                rank=self.group.rank, of=self.group.size,
            ):  # fmt: skip
                self._step(batch)
                if saved is not None and (stop.is_set() or time.monotonic() - last_save >= SAVE_SECONDS):
                    save_state(saved, self.state())
                    last_save = time.monotonic()
                if stop.is_set():
                    raise SystemExit(128 + signal.SIGTERM)
            self.epoch, self.step = epoch + 1, 0
            if saved is not None:
                self._report(self.measure(), force=True)
                save_state(saved, self.state())
                last_save = time.monotonic()

    def _step(self, batch: Any) -> None:
        done = self.epoch * self.steps + self.step
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(done, self.steps * self.settings.epochs)
        batch = batch.to(self.device)
        counts = self.group.add(counts_of(batch))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            output = self.network(batch.planes, batch.scalars, batch.moves, batch.rows)
        loss = total_loss(output, batch, counts)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        value = self.group.add_gradients(self.network.parameters(), loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimiser.step()
        decay = min(EMA, (1 + done) / (10 + done))
        with torch.no_grad():
            kept: list[torch.Tensor] = list(self.averaged.parameters())
            torch._foreach_lerp_(kept, list(self.network.parameters()), 1.0 - decay)
        self.train_loss = value if math.isnan(self.train_loss) else 0.98 * self.train_loss + 0.02 * value
        self.step += 1
        self._report(None)

    def measure(self) -> Measures:
        """Losses and accuracies of the averaged weights on the held-out games."""
        return measure(self.averaged, self.batches.plain(self.held_out, 256), self.device)

    def _report(self, measures: Measures | None, *, force: bool = False) -> None:
        if self.progress is None:
            return
        size = self.settings.batch_size
        done = self.epoch * len(self.rows) + min(self.step * size, len(self.rows))
        epoch = min(self.epoch + (0 if self.step == 0 and force else 1), self.settings.epochs)
        metrics: dict[str, float] = {"loss": round(self.train_loss, 4), "epoch": epoch}
        if measures is not None:
            named = {"val_policy_accuracy": measures.policy_accuracy, "val_value_accuracy": measures.value_accuracy}
            metrics |= {name: round(value, 4) for name, value in named.items() if value is not None}
        text = "  ".join(f"{name} {value}" for name, value in metrics.items() if name != "epoch")
        self.progress.update(done, f"epoch {epoch}/{self.settings.epochs}  {text}", force=force, **metrics)

    def state(self) -> RunState:
        return RunState(
            fingerprint=self.fingerprint,
            started_at=self.started_at,
            epoch=self.epoch,
            step=self.step,
            train_loss=self.train_loss,
            network=self.network.state_dict(),
            averaged=self.averaged.state_dict(),
            optimiser=self.optimiser.state_dict(),
        )

    def restore(self, state: RunState) -> None:
        self.started_at, self.train_loss = state.started_at, state.train_loss
        self.epoch, self.step = state.epoch, state.step
        if self.step >= self.steps:
            self.epoch, self.step = self.epoch + 1, 0
        self.network.load_state_dict(state.network)
        self.averaged.load_state_dict(state.averaged)
        self.optimiser.load_state_dict(state.optimiser)


def _groups(network: Network, weight_decay: float) -> list[dict[str, Any]]:
    """Weights are decayed, biases are not."""
    tensors = list(network.parameters())
    return [
        {"params": [tensor for tensor in tensors if tensor.ndim > 1], "weight_decay": weight_decay},
        {"params": [tensor for tensor in tensors if tensor.ndim <= 1], "weight_decay": 0.0},
    ]


def _finished(save_path: Path, fingerprint: str) -> Trained | None:
    """The result that an earlier, killed process of the same run left complete."""
    if not save_path.exists() or state_path(save_path).exists():
        return None
    model = load_model(save_path)
    metrics = model.metadata.metrics or {}
    if (model.metadata.training_info or {}).get("fingerprint") != fingerprint:
        return None
    found: dict[str, Any] = {name: metrics.get(f"val_{name}") for name in Measures.__dataclass_fields__}
    return Trained(save_path, model.sha256, model.metadata, float(metrics["train_loss"]), Measures(**found))


def _check_evidence(dataset: Dataset, path: Path) -> None:
    rows = dataset.rows(0)
    hint = "record more games and export again"
    if len(rows) < MIN_SAMPLES:
        raise NoEvidenceError(
            f"{len(rows)} training samples are too few ({MIN_SAMPLES} at least)", where=str(path), hint=hint
        )
    if len(set(dataset.arrays["winners"][rows].tolist())) < 2:
        raise NoEvidenceError("the same seat won every game; there is nothing to learn", where=str(path), hint=hint)
    if not len(dataset.arrays["policy_indices"]):
        raise NoEvidenceError("no game holds a chosen move; there is nothing to learn", where=str(path), hint=hint)


@contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that a run stops between two steps and never in the middle of one."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda signum, frame: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
