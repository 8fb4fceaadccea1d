"""The state of a training run on disk, beside the checkpoint that it will write."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backend.atomic import write_bytes
from backend.errors import RingRiftError, SchemaError
from backend.training.checkpoint import read_container


@dataclass(frozen=True, slots=True)
class RunState:
    """Everything that a run needs to go on as if it had not stopped.

    Attributes:
        fingerprint: of the settings and the data; a state of another run is never used.
        epoch, step: the next step to do; the order of the data is a function of the seed and the epoch.
        network, averaged, optimiser: their state dicts.
    """

    fingerprint: str
    started_at: str
    epoch: int
    step: int
    train_loss: float
    network: dict[str, Any]
    averaged: dict[str, Any]
    optimiser: dict[str, Any]


def state_path(save_path: Path) -> Path:
    """``<checkpoint>.state``."""
    return save_path.with_name(save_path.name + ".state")


def save_state(path: Path, state: RunState) -> None:
    """Replaces the state atomically.

    Raises:
        ResourceError: the disk is full; the state saved before is kept.
    """
    write_bytes(path, pack_state(state))


def pack_state(state: RunState) -> bytes:
    """The state as the bytes of its file."""
    buffer = io.BytesIO()
    torch.save({name: getattr(state, name) for name in RunState.__dataclass_fields__}, buffer)
    return buffer.getvalue()


def unpack_state(data: bytes, fingerprint: str) -> RunState:
    """The state in bytes that another process of the same run has packed.

    Raises:
        SchemaError: that process trains with other settings or data.
    """
    state = RunState(**torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    if state.fingerprint != fingerprint:
        raise SchemaError("the members of the gang have other settings or data", hint="give all the same")
    return state


def load_state(path: Path, fingerprint: str, *, strict: bool = True) -> RunState | None:
    """The state at ``path`` when it is of the run with this fingerprint; None when there is none.

    Args:
        strict: whether the state of another run is an error; otherwise it counts as none.

    Raises:
        SchemaError: the state is of a run with other settings or data.
        UntrustedError, UnverifiedError: the file is not what it should be.
    """
    if not path.exists():
        return None
    content = read_container(path)
    try:
        state = RunState(**content)
    except TypeError as error:
        raise SchemaError("not a training state of this program", where=str(path), hint="remove it") from error
    if state.fingerprint != fingerprint:
        if not strict:
            return None
        raise SchemaError(
            "the training state is of a run with other settings or data",
            where=str(path),
            hint="remove it to start anew, or save under another name",
        )
    return state


def newest_state(folder: Path, prefix: str, fingerprint: str) -> Path | None:
    """The checkpoint path of the newest unfinished run with this fingerprint in ``folder``, or None."""
    if not folder.is_dir():
        return None
    found = sorted(folder.glob(f"{prefix}*.state"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        try:
            state = load_state(path, fingerprint, strict=False)
        except RingRiftError:  # another run's damaged state is no reason to refuse this one
            continue
        if state is not None:
            return path.with_name(path.name.removesuffix(".state"))
    return None
