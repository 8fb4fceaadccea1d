"""The training dataset of a config: an ``.npz`` without objects, with checksums and provenance inside.

Array names are the ai-service's where the meaning is the same. N samples, G games, box H x W:

======================  ==============================================================================================
features                uint8 (N, 9, H, W): packed positions of :mod:`backend.training.encoder`
globals                 float32 (N, GLOBALS)
players                 uint8 (N,): player to act, 1-based
winners                 uint8 (N,): who won, as seats lie at this position
values                  float32 (N,): 1 - 2 (rank - 1) / (n - 1) for the player to act
values_mp               float32 (N, 4): the same per player, 0 beyond n
num_players             int32 (N,)
policy_offsets          int64 (N + 1,): sample i has entries ``[i] : [i + 1]`` of the next two;
                        none where nobody chose (random openings)
policy_indices          int64: move codes of the engine, the legal list in its order
policy_values           float32: the target probability of each; they sum to 1 over a sample
move_numbers            int32 (N,): moves before this position
total_game_moves        int32 (N,)
phases                  uint8 (N,): index into phase_names
exchanged               uint8 (N,): 1 when sides are swapped later in the game
game_index              int32 (N,): row of the next three
final_cells             uint8 (G, H, W): owner of each cell in the end, 0 nobody, 255 off the board
final_scores            float32 (G, 4, 2): share of the ring goal and of the territory goal reached, by player
split                   uint8 (G,): 1 for games held out for validation
game_ids                S64 (G,)
phase_names             U16; board_type, encoder_version, engine_version, policy_encoding, export_version: 0-d text
board_size, spatial_size, in_channels   0-d int32
metadata, data_checksums   0-d text: JSON
======================  ==============================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.atomic import atomic_file
from backend.configs import Config
from backend.errors import SchemaError, UnverifiedError
from backend.rules.geometry import BOARDS
from backend.rules.layout import M_PLACE, MOVE_TYPES, PHASE_NAMES
from backend.training.encoder import box_of
from backend.training.npz import array_checksum, read_npz, write_npz
from backend.training.packing import ENCODER_VERSION, GLOBALS, KINDS, PACKED

EXPORT_VERSION = "console-1"
POLICY_ENCODING = "ringrift-moves-1"
_TEXTS = frozenset({"metadata", "data_checksums"})

_ARRAYS: dict[str, tuple[str, str]] = {
    "features": ("|u1", "NPHW"), "globals": ("<f4", "NA"), "players": ("|u1", "N"), "winners": ("|u1", "N"),
    "values": ("<f4", "N"), "values_mp": ("<f4", "N4"), "num_players": ("<i4", "N"), "policy_offsets": ("<i8", "O"),
    "policy_indices": ("<i8", "M"), "policy_values": ("<f4", "M"), "move_numbers": ("<i4", "N"),
    "total_game_moves": ("<i4", "N"), "phases": ("|u1", "N"), "exchanged": ("|u1", "N"), "game_index": ("<i4", "N"),
    "final_cells": ("|u1", "GHW"), "final_scores": ("<f4", "G42"), "split": ("|u1", "G"), "game_ids": ("|S64", "G"),
}  # fmt: skip
"""Dtype and shape of the arrays that training reads; a letter stands for a length, a digit for itself."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset in memory; the arrays are those of the module's table."""

    config: Config
    arrays: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, Any]
    content_digest: str

    @property
    def samples(self) -> int:
        return len(self.arrays["players"])

    def rows(self, split: int) -> NDArray[np.int64]:
        """Samples of training games (0) or of held-out games (1)."""
        return np.flatnonzero(self.arrays["split"][self.arrays["game_index"]] == split).astype(np.int64)


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a dataset file holds, read without keeping its arrays."""

    path: Path
    config: str
    samples: int
    games: int
    games_validation: int
    content_digest: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def content_digest(checksums: Mapping[str, str]) -> str:
    """One digest of everything but the provenance: equal for datasets made of the same games."""
    lines = "".join(f"{name} {checksums[name]}\n" for name in sorted(checksums) if name not in _TEXTS)
    return hashlib.sha256(lines.encode()).hexdigest()


def game_ids_digest(game_ids: Iterable[str]) -> str:
    """One digest of a set of games, whatever their order."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(set(game_ids))).encode()).hexdigest()


def write_dataset(path: Path, config: Config, arrays: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> DatasetInfo:
    """Writes the arrays of the table (the scalars, metadata and checksums are added here) atomically.

    Raises:
        ResourceError: the disk is full; what was at ``path`` before is untouched.
    """
    box = box_of(config.board)
    everything: dict[str, NDArray[Any]] = {
        **arrays,
        "phase_names": np.array(PHASE_NAMES, dtype="U16"),
        "board_type": np.array(config.board),
        "encoder_version": np.array(ENCODER_VERSION),
        "engine_version": np.array(str(metadata["engine_version"])),
        "policy_encoding": np.array(POLICY_ENCODING),
        "export_version": np.array(EXPORT_VERSION),
        "board_size": np.array(BOARDS[config.board].cells, dtype=np.int32),
        "spatial_size": np.array(box.side, dtype=np.int32),
        "in_channels": np.array(PACKED, dtype=np.int32),
    }
    checksums = {name: array_checksum(array) for name, array in everything.items()}
    digest = content_digest(checksums)
    metadata = metadata | {"content_digest": digest}
    everything["metadata"] = np.array(json.dumps(metadata, sort_keys=True))
    everything["data_checksums"] = np.array(json.dumps(checksums, sort_keys=True))
    _check_shapes(everything, config, str(path))
    with atomic_file(path) as stream:
        write_npz(stream, everything)
    return _info(path, config, metadata, digest)


def load_dataset(path: Path, *, config: Config | None = None) -> Dataset:
    """Reads a dataset with every checksum compared.

    Raises:
        NotFoundError: there is no such file.
        UntrustedError: it holds pickled objects.
        UnverifiedError: it is truncated or corrupted.
        SchemaError: it is of another program, encoder or config.
    """
    arrays, checksums = read_npz(path)
    found, metadata, digest = _check(path, arrays, checksums, config)
    _check_shapes(arrays, found, str(path))
    check_values(arrays, found, str(path))
    return Dataset(found, arrays, metadata, digest)


def verify_dataset(path: Path, *, config: Config | None = None) -> DatasetInfo:
    """Checks every byte of a dataset without keeping its arrays; errors as :func:`load_dataset`."""
    _, checksums = read_npz(path, keep=False)
    arrays, _ = read_npz(path, only=_TEXTS | {"board_type", "encoder_version", "policy_encoding"})
    found, metadata, digest = _check(path, arrays, checksums, config)
    return _info(path, found, metadata, digest)


def read_metadata(path: Path) -> dict[str, Any]:
    """The provenance of a dataset; cheap, and says nothing of its other arrays. Errors as :func:`load_dataset`."""
    arrays, _ = read_npz(path, only=frozenset({"metadata"}))
    return _json(arrays, "metadata", path)


def _json(arrays: Mapping[str, NDArray[Any]], name: str, path: Path) -> dict[str, Any]:
    array = arrays.get(name)
    if array is None or array.ndim != 0 or array.dtype.kind != "U":
        raise SchemaError("a dataset of another program (no provenance of ours inside)", where=str(path))
    try:
        value = json.loads(str(array))
    except (ValueError, RecursionError) as error:
        raise UnverifiedError(f"the dataset's {name} cannot be read", where=str(path)) from error
    if not isinstance(value, dict):
        raise UnverifiedError(f"the dataset's {name} cannot be read", where=str(path))
    return value


def _check(
    path: Path, arrays: Mapping[str, NDArray[Any]], checksums: Mapping[str, str], config: Config | None
) -> tuple[Config, dict[str, Any], str]:
    metadata, stated = _json(arrays, "metadata", path), _json(arrays, "data_checksums", path)
    for name in sorted(set(stated) | (set(checksums) - _TEXTS)):
        if stated.get(name) != checksums.get(name):
            raise UnverifiedError(
                "an array of the dataset does not match its checksum",
                where=f"{path} array {name}",
                hint="export it again",
            )
    missing = sorted((set(_ARRAYS) | {"encoder_version", "policy_encoding"}) - set(checksums))
    if missing:
        raise SchemaError(f"the dataset has no {', '.join(missing)}", where=str(path))
    for name, wanted in (("encoder_version", ENCODER_VERSION), ("policy_encoding", POLICY_ENCODING)):
        if str(arrays[name]) != wanted:
            raise SchemaError(
                f"the dataset's {name.replace('_', ' ')} is {arrays[name]}, this program's is {wanted}",
                where=str(path),
                hint="export it again",
            )
    board, _, players = str(metadata.get("config", "")).rpartition("_")
    if board not in BOARDS or players not in ("2p", "3p", "4p"):
        raise SchemaError("the dataset names no config", where=str(path))
    found = Config(board, int(players[0]))
    if config is not None and found != config:
        raise SchemaError(f"the dataset is of {found.key}, not {config.key}", where=str(path))
    return found, metadata, content_digest(checksums)


def _check_shapes(arrays: Mapping[str, NDArray[Any]], config: Config, where: str) -> None:
    """Every array has the shape that the table states.

    Raises:
        SchemaError: one has not.
    """
    side = box_of(config.board).side
    samples, games = len(arrays["players"]), len(arrays["game_ids"])
    offsets = arrays["policy_offsets"]
    lengths = {"N": samples, "G": games, "P": PACKED, "A": GLOBALS, "H": side, "W": side, "O": samples + 1}
    lengths["M"] = int(offsets[-1]) if offsets.ndim == 1 and len(offsets) else 0
    for name, (dtype, letters) in _ARRAYS.items():
        wanted = tuple(int(letter) if letter.isdigit() else lengths[letter] for letter in letters)
        array = arrays[name]
        if array.shape != wanted or array.dtype.str != dtype:
            raise SchemaError(
                f"the dataset's {name} is {array.dtype} {array.shape}, expected {dtype} {wanted}", where=where
            )
    if samples and (np.diff(offsets).min() < 0 or offsets[0] != 0):
        raise SchemaError("the dataset's index arrays point outside", where=where)


_CHUNK = 1 << 20
_Allowed = tuple[str, NDArray[Any], int, int]


def check_values(arrays: Mapping[str, NDArray[Any]], config: Config, where: str) -> None:
    """Every value lies where the compiled readers, which check no bounds, may follow it.

    Raises:
        SchemaError: one does not.
    """
    if not len(arrays["players"]):
        return
    seats, cells, packed = config.players, BOARDS[config.board].cells, arrays["features"]
    moves, owners = arrays["policy_indices"], arrays["final_cells"]
    allowed: list[_Allowed] = [
        ("features", packed[:, 0], 0, KINDS - 1),
        ("features", packed[:, 3], 0, 4),
        ("features", packed[:, 4], 0, 3),
        ("players", arrays["players"], 1, seats),
        ("winners", arrays["winners"], 1, seats),
        ("game_index", arrays["game_index"], 0, len(arrays["game_ids"]) - 1),
        ("split", arrays["split"], 0, 1),
        ("exchanged", arrays["exchanged"], 0, 1),
        ("final_cells", np.where(owners == 255, 0, owners), 0, seats),
    ]
    for start in range(0, len(moves), _CHUNK):
        part = moves[start : start + _CHUNK]
        kind, b = part & 31, (part >> 14) & 511
        allowed += [
            ("policy_indices", kind, 0, MOVE_TYPES - 1),
            ("policy_indices", (part >> 5) & 511, 0, cells - 1),
            ("policy_indices", b, 0, cells - 1),
            ("policy_indices", np.where(kind == M_PLACE, b, 0), 0, 3),
            ("policy_indices", part >> 23, 0, cells - 1),
        ]
        _check_ranges(allowed, where)
        allowed.clear()
    _check_ranges(allowed, where)
    for name in ("globals", "policy_values", "final_scores"):
        if not np.isfinite(arrays[name]).all():
            raise SchemaError(f"the dataset's {name} holds a value that is no number", where=where)


def _check_ranges(allowed: Iterable[_Allowed], where: str) -> None:
    for name, values, least, most in allowed:
        if values.size and (values.min() < least or values.max() > most):
            raise SchemaError(f"the dataset's {name} holds a value outside {least}..{most}", where=where)


def _info(path: Path, config: Config, metadata: Mapping[str, Any], digest: str) -> DatasetInfo:
    counts = [metadata.get(name, 0) for name in ("samples", "games", "games_validation")]
    if not all(isinstance(count, int) for count in counts):
        raise SchemaError("the dataset's provenance counts nothing", where=str(path))
    samples, games, games_validation = counts
    return DatasetInfo(path, config.key, samples, games, games_validation, digest, metadata)
