"""Arrays on disk without pickle: every damaged byte is noticed, nothing in a file is ever run."""

from __future__ import annotations

import errno
import io
import math
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from backend.errors import NotFoundError, ResourceError, UntrustedError, UnverifiedError
from backend.training.npz import array_checksum, read_npz, write_npz

ARRAYS = {
    "numbers": np.arange(5000, dtype=np.int64).reshape(50, 100),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "text": np.array("some text"),
    "flags": np.array([True, False]),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    with path.open("wb") as stream:
        write_npz(stream, ARRAYS)
    return path


def test_arrays_come_back_with_their_checksums(file: Path) -> None:
    arrays, checksums = read_npz(file)
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert np.array_equal(arrays[name], array)
        assert checksums[name] == array_checksum(array)
    assert read_npz(file, keep=False) == ({}, checksums)
    assert set(read_npz(file, only=frozenset({"text"}))[0]) == {"text"}


def test_numpy_reads_the_file_too(file: Path) -> None:
    with np.load(file, allow_pickle=False) as loaded:
        assert np.array_equal(loaded["numbers"], ARRAYS["numbers"])
        assert str(loaded["text"]) == "some text"


def test_the_same_arrays_give_the_same_bytes(file: Path) -> None:
    again = io.BytesIO()
    write_npz(again, dict(reversed(ARRAYS.items())))
    assert again.getvalue() == file.read_bytes()


def test_checksums_tell_shape_and_type_apart() -> None:
    flat = np.zeros(6, dtype=np.int32)
    assert len({array_checksum(a) for a in (flat, flat.reshape(2, 3), flat.view(np.float32), flat[:0])}) == 4


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_noticed(file: Path, share: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnverifiedError):
        read_npz(file)


def test_a_flipped_byte_anywhere_in_the_data_is_noticed(file: Path) -> None:
    data = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo("numbers.npy")
    start = entry.header_offset + 30 + len(entry.filename) + 20
    for at in range(start, start + entry.compress_size, max(1, entry.compress_size // 25)):
        damaged = bytearray(data)
        damaged[at] ^= 0x5A
        file.write_bytes(bytes(damaged))
        with pytest.raises(UnverifiedError):
            read_npz(file)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.target,))


def test_pickled_objects_are_refused_and_never_run(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    path = tmp_path / "objects.npz"
    objects = np.array([Bomb(target)], dtype=object)
    np.savez(path, policy=objects)
    with pytest.raises(UntrustedError, match="pickled objects"):
        read_npz(path)
    path.write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(UntrustedError, match="bare pickle"):
        read_npz(path)
    assert not target.exists()


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UnverifiedError, match="no array"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY but not really")
    with pytest.raises(UnverifiedError, match="header"):
        read_npz(path)
    with pytest.raises(NotFoundError):
        read_npz(tmp_path / "none.npz")


def test_a_header_that_claims_too_much_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (900_000_000, 900_000_000)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", head.getvalue() + b"data")
    with pytest.raises(UnverifiedError, match="its header says"):
        read_npz(path)


def _claiming(path: Path, shape: tuple[int, ...], data: bytes) -> None:
    """An archive whose array and whose directory both claim the shape, whatever data there is."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", head.getvalue() + data)
        archive.filelist[0].file_size = len(head.getvalue()) + math.prod(shape)


def test_a_small_file_that_claims_ten_terabytes_is_no_dataset(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    _claiming(path, (100_000, 100_000_000), b"data")
    for keep in (True, False):
        with pytest.raises(UnverifiedError, match="claims 10000000000"):
            read_npz(path, keep=keep)


def test_what_memory_cannot_hold_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    with path.open("wb") as stream:
        write_npz(stream, {"a": np.zeros(3_000_000, dtype=np.uint8)})
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 500}[name])
    with pytest.raises(ResourceError, match="memory"):
        read_npz(path)
    assert read_npz(path, keep=False)[1].keys() == {"a"}


class FullDisk(io.BytesIO):
    """Takes a few bytes, then reports a full disk as the kernel does."""

    def write(self, data: object) -> int:
        if self.tell() > 2000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)  # type: ignore[arg-type]


def test_a_full_disk_is_reported_as_such() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        write_npz(FullDisk(), {"noise": np.random.default_rng(1).integers(0, 255, 100_000).astype(np.uint8)})
    assert caught.value.errno == errno.ENOSPC
