"""Checkpoints: the same weights the same bytes, everything else refused with the right reason."""

from __future__ import annotations

import copy
import os
import pickle
import resource
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from backend.configs import parse_config
from backend.errors import NotFoundError, ResourceError, RingRiftError, SchemaError, UntrustedError, UnverifiedError
from backend.registry.hashing import read_sidecar, sha256_file, sidecar_path
from backend.training import checkpoint
from backend.training.checkpoint import METADATA, Metadata, load_model, save_model, weights_checksum
from backend.training.network import Architecture, Network

CONFIG = parse_config("hex8_3p")
SMALL = Architecture(1, 4, 2)


def network(seed: int = 1) -> Network:
    torch.manual_seed(seed)
    return Network(SMALL)


def metadata() -> Metadata:
    return Metadata(config=CONFIG.key, architecture=asdict(SMALL), created_at="2026-01-01T00:00:00+00:00")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "m.pth"
    save_model(path, network(), replace(metadata(), parent_checkpoint="ab" * 32, data={"samples": 5}))
    return path


def test_a_checkpoint_gives_its_network_and_metadata_back(saved: Path) -> None:
    loaded = load_model(saved, config=CONFIG)
    assert loaded.config == CONFIG and not loaded.network.training
    assert loaded.metadata.parent_checkpoint == "ab" * 32 and loaded.metadata.data == {"samples": 5}
    for name, tensor in network().state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)
    assert loaded.metadata.checksum == weights_checksum(network().state_dict())


def test_the_same_weights_give_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    first = save_model(tmp_path / "a.pth", network(), metadata())
    second = save_model(tmp_path / "other name.pt", network(), metadata())
    assert first == second == sha256_file(tmp_path / "a.pth") == read_sidecar(tmp_path / "a.pth")
    assert save_model(tmp_path / "c.pth", network(2), metadata()) != first


def test_it_is_readable_as_plain_data(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    assert content[METADATA]["config"] == "hex8_3p"
    assert content[METADATA]["encoder_version"] == checkpoint.ENCODER_VERSION
    assert set(content) == {"model_state_dict", METADATA}


class Bomb:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (os.mkdir, (self.target,))


def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path) -> None:
    path, target = tmp_path / "m.pth", tmp_path / "ran"
    torch.save({"model_state_dict": {}, METADATA: Bomb(str(target))}, path)
    with pytest.raises(UntrustedError):
        load_model(path)
    path.write_bytes(pickle.dumps(Bomb(str(target))))
    with pytest.raises(UntrustedError):
        load_model(path)
    torch.save(network(), path)
    with pytest.raises(UntrustedError):
        load_model(path)
    assert not target.exists()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.99])
def test_a_truncated_checkpoint_is_refused(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    sidecar_path(saved).unlink()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnverifiedError):
        load_model(saved)


def test_a_flipped_byte_is_noticed_with_and_without_the_sidecar(saved: Path) -> None:
    data = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    damaged = bytearray(data)
    damaged[largest.header_offset + 200] ^= 1
    saved.write_bytes(bytes(damaged))
    with pytest.raises(UnverifiedError, match="stated"):
        load_model(saved)
    sidecar_path(saved).unlink()
    with pytest.raises(UnverifiedError):
        load_model(saved)


def _resaved(path: Path, **changed: object) -> None:
    content = torch.load(path, weights_only=True)
    content[METADATA] |= changed
    torch.save(content, path)
    sidecar_path(path).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"architecture_version": "v2.0.0"}, SchemaError),
        ({"encoder_version": "0"}, SchemaError),
        ({"policy_encoding": "board_aware"}, SchemaError),
        ({"model_class": "RingRiftCNN_v2"}, SchemaError),
        ({"config": "hex9_2p"}, SchemaError),
        ({"config": None}, SchemaError),
        ({"architecture": {"blocks": 2, "channels": 4, "pair": 2}}, SchemaError),
        ({"architecture": {"blocks": 10**9, "channels": 4, "pair": 2}}, SchemaError),
        ({"architecture": {"layers": 1}}, SchemaError),
        ({"checksum": "0" * 64}, UnverifiedError),
    ],
    ids=str,
)
def test_what_does_not_fit_this_program_is_refused(
    saved: Path, changed: dict[str, object], error: type[RingRiftError]
) -> None:
    _resaved(saved, **changed)
    with pytest.raises(error):
        load_model(saved)


def test_a_checkpoint_of_another_config_or_none_at_all_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="hex8_3p, not square8_2p"):
        load_model(saved, config=parse_config("square8_2p"))
    with pytest.raises(NotFoundError):
        load_model(tmp_path / "none.pth")
    torch.save({"model_state_dict": {}}, saved)
    sidecar_path(saved).unlink()
    with pytest.raises(SchemaError, match="another program"):
        load_model(saved)


def _with_weight(path: Path, name: object, value: torch.Tensor) -> None:
    content = torch.load(path, weights_only=True)
    content["model_state_dict"][name] = value
    torch.save(content, path)
    sidecar_path(path).unlink()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stem.bias", torch.zeros(1).expand(10**13)),  # 40 TB of one stored number
        ("stem.bias", torch.zeros(1).expand(10**9)),
        ("stem.bias", torch.zeros(4, dtype=torch.bfloat16)),
        ("stem.bias", torch.zeros(4).to_sparse()),
        ("stem.bias", torch.zeros(4, device="meta")),
        (3, torch.zeros(3)),
    ],
    ids=["40 TB", "4 GB", "bfloat16", "sparse", "meta", "number for a name"],
)
def test_weights_of_another_size_or_kind_are_refused_before_they_are_touched(
    saved: Path, name: object, value: torch.Tensor
) -> None:
    _with_weight(saved, name, value)
    with pytest.raises(SchemaError, match="do not fit"):
        load_model(saved)


def test_an_architecture_of_gigabytes_is_compared_and_not_built(saved: Path) -> None:
    _resaved(saved, architecture={"blocks": 64, "channels": 1024, "pair": 256})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SchemaError, match="do not fit"):
        load_model(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB; the network would take 5 GB


def test_notes_that_are_no_dictionaries_are_refused(saved: Path) -> None:
    _resaved(saved, training_info=["seed"])
    with pytest.raises(SchemaError, match="malformed"):
        load_model(saved)


def test_a_packed_checkpoint_that_unpacks_to_more_than_its_size_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data + bytes(1 << 20))
    sidecar_path(saved).unlink()
    with pytest.raises(UnverifiedError, match="claim more"):
        load_model(saved)


@pytest.mark.parametrize(
    "pickled", [b"\x80\x02.", b"\x80\x02K\x01K\x02s.", b"\x80\x02h\x05.", b"\x80\x02X\xff\xff\xff\x7fa.", b""], ids=repr
)
def test_a_pickle_made_to_trip_the_reader_is_refused(saved: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    sidecar_path(saved).unlink()
    with pytest.raises(UnverifiedError):
        load_model(saved)


def test_a_full_disk_leaves_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = copy.copy(saved.read_bytes())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError):
        save_model(saved, network(2), metadata())
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["m.pth", "m.pth.sha256"]
