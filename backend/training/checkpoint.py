"""Checkpoints: one file with the weights and everything needed to know what they are.

The container is ``torch.save`` of plain data, readable with ``weights_only=True`` and in no other way here: a file
that would need more is refused. Field names of ``_versioning_metadata`` are those of the RingRift ai-service where
the meaning is the same.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
import zlib
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.atomic import write_bytes
from backend.configs import Config, make_config
from backend.errors import NotFoundError, RingRiftError, SchemaError, UntrustedError, UnverifiedError, UsageError
from backend.registry.hashing import verified_sha256, write_sidecar
from backend.rules import ENGINE_VERSION
from backend.training.network import ARCHITECTURE, Architecture, Network
from backend.training.packing import ENCODER_VERSION

METADATA = "_versioning_metadata"
MODEL_CLASS = "RingRiftConv"
POLICY_ENCODING = "ringrift-moves-1"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a checkpoint says of itself; every value is plain data.

    Attributes:
        config: config key, e.g. ``hex8_2p``.
        architecture: sizes of the network, :class:`~backend.training.network.Architecture` as a dict.
        created_at: ISO text, UTC.
        checksum: SHA-256 over the weights, see :func:`weights_checksum`.
        parent_checkpoint: SHA-256 of the file whose weights it started from, or None.
        data: dataset path, SHA-256, content digest, counts.
        training_info: settings of the training run.
        metrics: what was measured at the end of it.
    """

    config: str
    architecture: dict[str, int]
    created_at: str
    checksum: str = ""
    parent_checkpoint: str | None = None
    data: dict[str, Any] | None = None
    training_info: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    architecture_version: str = ARCHITECTURE
    model_class: str = MODEL_CLASS
    encoder_version: str = ENCODER_VERSION
    engine_version: str = ENGINE_VERSION
    policy_encoding: str = POLICY_ENCODING


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network ready to be asked, in evaluation mode on the CPU; ``sha256`` is that of its file."""

    network: Network
    config: Config
    metadata: Metadata
    sha256: str


def weights_checksum(weights: dict[str, Tensor]) -> str:
    """SHA-256 over the sorted names and raw bytes of the tensors (the ai-service's state-dict checksum)."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_model(path: Path, network: Network, metadata: Metadata) -> str:
    """Writes a checkpoint and its ``.sha256`` sidecar, atomically; returns the SHA-256 of the file.

    The same weights and metadata give the same bytes.

    Raises:
        ResourceError: the disk is full; what was at ``path`` before is untouched.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    stated = asdict(replace(metadata, checksum=weights_checksum(weights)))
    # A buffer gives the archive a fixed inner name; under a path torch would write the file's own name into it.
    buffer = io.BytesIO()
    torch.save({"model_state_dict": weights, METADATA: stated}, buffer)
    data = buffer.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    write_bytes(path, data)
    write_sidecar(path, sha256)
    return sha256


def read_container(path: Path) -> dict[str, Any]:
    """The dict inside a ``torch.save`` file, read without running anything in it.

    Raises:
        NotFoundError: there is no such file.
        UntrustedError: it carries code or objects other than tensors and plain data.
        UnverifiedError: it is truncated, corrupted or no checkpoint at all.
    """
    _check_zip(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UntrustedError(
            "the checkpoint carries code or objects, not only weights",
            where=str(path),
            hint="it was not loaded; take it from a source you trust and save it again as plain tensors",
        ) from error
    except Exception as error:  # made-up bytes let the restricted unpickler stumble in any way at all
        raise UnverifiedError("the checkpoint cannot be read", where=str(path), hint=_short(error)) from error
    if not isinstance(content, dict):
        raise SchemaError("the checkpoint holds no dictionary", where=str(path))
    return content


def load_model(path: Path, *, config: Config | None = None) -> LoadedModel:
    """Reads, checks and builds the network of a checkpoint.

    Raises:
        NotFoundError: there is no such file.
        UntrustedError: it carries code; nothing of it was run.
        UnverifiedError: it is truncated, corrupted, or differs from its ``.sha256`` or its own checksum.
        SchemaError: it is of another program, architecture, encoder or config.
    """
    sha256 = verified_sha256(path)
    content = read_container(path)
    metadata = _metadata(content, path)
    found = config_of(metadata, path)
    if config is not None and found != config:
        raise SchemaError(f"the model is for {found.key}, not {config.key}", where=str(path))
    weights = content.get("model_state_dict")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise SchemaError("the checkpoint holds no weights", where=str(path))
    _check_weights(weights, metadata, path)
    if weights_checksum(weights) != metadata.checksum:
        raise UnverifiedError("the weights differ from the checkpoint's own checksum", where=str(path))
    network = Network(Architecture(**metadata.architecture))
    network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    return LoadedModel(network, found, metadata, sha256)


def config_of(metadata: Metadata, path: Path) -> Config:
    """The config that a checkpoint was trained for.

    Raises:
        SchemaError: it names none that exists.
    """
    board, _, players = metadata.config.rpartition("_")
    try:
        return make_config(board, int(players.removesuffix("p")))
    except (UsageError, ValueError):
        raise SchemaError("the checkpoint names no config", where=str(path), hint=metadata.config) from None


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_weights(weights: dict[str, Tensor], metadata: Metadata, path: Path) -> None:
    """Compares names, sizes and types with the architecture's before a byte of memory is asked for.

    A tensor of one stored number may claim to be any size, and so may an architecture.

    Raises:
        SchemaError: they differ.
    """
    wrong = "the weights do not fit the architecture"
    try:
        with torch.device("meta"):
            wanted = Network(Architecture(**metadata.architecture)).state_dict()
    except (RuntimeError, TypeError, RingRiftError) as error:
        raise SchemaError(wrong, where=str(path), hint=_short(error)) from error
    if weights.keys() != wanted.keys():
        raise SchemaError(wrong, where=str(path), hint="it has other tensors")
    for name, like in wanted.items():
        given = weights[name]
        dense = given.layout == torch.strided and given.device.type == "cpu"
        if not dense or given.dtype != like.dtype or given.shape != like.shape:
            raise SchemaError(
                wrong,
                where=str(path),
                hint=f"{name} is {given.dtype} {tuple(given.shape)}, expected {tuple(like.shape)}",
            )


def _metadata(content: dict[str, Any], path: Path) -> Metadata:
    stated = content.get(METADATA)
    if not isinstance(stated, dict) or stated.get("model_class") != MODEL_CLASS:
        kind = stated.get("model_class") if isinstance(stated, dict) else None
        raise SchemaError(
            f"a checkpoint of another program ({kind or 'no metadata'})",
            where=str(path),
            hint="only networks trained here can play",
        )
    known = {name: stated[name] for name in Metadata.__dataclass_fields__ if name in stated}
    try:
        metadata = Metadata(**known)
    except TypeError as error:
        raise SchemaError("the checkpoint's metadata are incomplete", where=str(path), hint=_short(error)) from error
    wanted = {
        "architecture_version": ARCHITECTURE,
        "encoder_version": ENCODER_VERSION,
        "policy_encoding": POLICY_ENCODING,
    }
    for name, value in wanted.items():
        if getattr(metadata, name) != value:
            raise SchemaError(
                f"the model's {name.replace('_', ' ')} is {getattr(metadata, name)}, this program's is {value}",
                where=str(path),
                hint="train it anew",
            )
    notes = (metadata.data, metadata.training_info, metadata.metrics)
    told = all(note is None or isinstance(note, dict) for note in notes)
    if not isinstance(metadata.config, str) or not isinstance(metadata.architecture, dict) or not told:
        raise SchemaError("the checkpoint's metadata are malformed", where=str(path))
    return metadata


def _check_zip(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFoundError("no such checkpoint", where=str(path)) from None
    if start[:1] == b"\x80":
        raise UntrustedError(
            "the checkpoint is a bare pickle, which can carry code",
            where=str(path),
            hint="it was not loaded; save it again as plain tensors",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # torch stores its entries as they are: whatever unpacks to more than the file is no work of torch.save
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise zipfile.BadZipFile("its entries claim more than the file holds")
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UnverifiedError(
            "the checkpoint is truncated or no checkpoint at all", where=str(path), hint=_short(error)
        ) from error
    if broken is not None:
        raise UnverifiedError("the checkpoint is corrupted", where=str(path), hint=f"{broken} fails its CRC")


def _short(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
