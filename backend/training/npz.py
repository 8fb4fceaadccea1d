"""NumPy archives without pickle: written with the same bytes for the same arrays, read with every byte checked."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from backend.errors import NotFoundError, ResourceError, UntrustedError, UnverifiedError

CHUNK = 1 << 20
MOST_WORD = 4096
"""Bytes of a single word that is read, e.g. the name of a board."""
MAX_DIMENSION = 1_000_000_000
"""Longest dimension believed; a corrupted header once claimed 22 billion elements."""
MOST_EXPANSION = 1032
"""What deflate can make of a byte at most (zlib.net, "Technical details"): larger claims are lies."""


def array_checksum(array: NDArray[Any]) -> str:
    """SHA-256 over dtype, shape and bytes in C order."""
    whole = np.ascontiguousarray(array)
    digest = _header_digest(array.dtype, array.shape)
    digest.update(whole.reshape(-1).view(np.uint8).data if whole.size else b"")
    return digest.hexdigest()


def _header_digest(dtype: np.dtype[Any], shape: tuple[int, ...]) -> hashlib._Hash:
    return hashlib.sha256(f"{dtype.str} {','.join(map(str, shape))}\n".encode())


def write_npz(stream: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes ``arrays`` as ``<name>.npy`` entries, in the order of their names, deflated, with fixed times.

    Raises:
        OSError: the disk is full, as the write itself reported it.
    """
    archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=3)
    try:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as target:
                npy.write_array(target, np.ascontiguousarray(arrays[name]).reshape(arrays[name].shape), version=(1, 0))
    except OSError:
        archive.fp = None  # otherwise closing would write a directory to the same full disk and hide the cause
        raise
    archive.close()


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what its bytes are wrong about becomes an :class:`UnverifiedError`."""
    try:
        with path.open("rb") as stream:
            start = stream.read(6)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFoundError("no such dataset", where=str(path)) from None
    if start[:1] == b"\x80":
        raise UntrustedError(
            "the dataset is a bare pickle, which can carry code", where=str(path), hint="it was not loaded"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UnverifiedError(
            "the dataset is truncated or corrupted", where=str(path), hint=f"export it again; {error}"
        ) from error


def _read_header(stream: IO[bytes], where: str, *, objects: bool = False) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(stream)
        else:
            raise ValueError(f"array format {version}")
    except ValueError as error:
        raise UnverifiedError("an array of the dataset has no readable header", where=where, hint=str(error)) from error
    if dtype.hasobject and not objects:
        raise UntrustedError(
            "the dataset holds pickled objects, which can carry code",
            where=where,
            hint="it was not loaded; export it again",
        )
    if fortran and len(shape) > 1:
        raise UnverifiedError("an array of the dataset is not in C order", where=where)
    if any(not 0 <= side <= MAX_DIMENSION for side in shape):
        raise UnverifiedError(f"an array of the dataset claims the shape {shape}", where=where)
    return shape, dtype


def read_npz(
    path: Path, *, keep: bool = True, only: frozenset[str] | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and their checksums, with each entry's size and CRC checked and nothing unpickled.

    Args:
        keep: False reads and checks every byte but returns no arrays.
        only: names to read; all by default.

    Raises:
        NotFoundError: there is no such file.
        UntrustedError: it holds pickled objects.
        UnverifiedError: it is truncated or corrupted, or holds something other than arrays.
        ResourceError: it would not fit into memory.
    """
    arrays: dict[str, NDArray[Any]] = {}
    checksums: dict[str, str] = {}
    with _opened(path) as archive:
        _check_claims(archive, path, keep=keep, only=only)
        for entry in archive.infolist():
            name, dot, kind = entry.filename.rpartition(".")
            where = f"{path} array {name or entry.filename}"
            if not dot or kind != "npy" or name in checksums:
                raise UnverifiedError("the dataset holds something that is no array", where=where)
            if only is not None and name not in only:
                continue
            with archive.open(entry) as stream:
                shape, dtype = _read_header(stream, where)
                size = math.prod(shape) * dtype.itemsize
                if entry.file_size - stream.tell() != size:
                    raise UnverifiedError(
                        f"an array of the dataset has {entry.file_size - stream.tell()} bytes, its header says {size}",
                        where=where,
                    )
                target = np.empty(shape, dtype=dtype) if keep else None
                checksums[name] = _read_data(stream, size, shape, dtype, target)
            if target is not None:
                arrays[name] = target
    return arrays, checksums


def read_headers(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype[Any]]], dict[str, str]]:
    """Shapes and types of the arrays of somebody else's dataset, and its single words; every byte is checked.

    Pickled objects are counted by their headers and never read into anything.

    Raises:
        NotFoundError: there is no such file.
        UntrustedError: it is a bare pickle.
        UnverifiedError: it is truncated or corrupted, or holds something other than arrays.
    """
    headers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    words: dict[str, str] = {}
    with _opened(path) as archive:
        _check_claims(archive, path, keep=False, only=None)
        for entry in archive.infolist():
            name, dot, kind = entry.filename.rpartition(".")
            where = f"{path} array {name or entry.filename}"
            if not dot or kind != "npy" or name in headers:
                raise UnverifiedError("the dataset holds something that is no array", where=where)
            with archive.open(entry) as stream:
                shape, dtype = headers[name] = _read_header(stream, where, objects=True)
                size = math.prod(shape) * dtype.itemsize
                if not dtype.hasobject and entry.file_size - stream.tell() != size:
                    raise UnverifiedError("an array of the dataset has not the size that its header says", where=where)
                if shape == () and dtype.kind == "U" and size <= MOST_WORD:
                    words[name] = str(np.frombuffer(stream.read(size), dtype=dtype)[0])
                while stream.read(CHUNK):  # to the end, where the checksum of the archive is compared
                    pass
    return headers, words


def _check_claims(archive: zipfile.ZipFile, path: Path, *, keep: bool, only: frozenset[str] | None) -> None:
    """Refuses sizes that cannot be true, and those that this machine cannot hold, before any memory is asked for."""
    size = path.stat().st_size
    claimed = 0
    for entry in archive.infolist():
        if only is None or entry.filename.removesuffix(".npy") in only:
            claimed += entry.file_size
    if claimed > MOST_EXPANSION * size:
        raise UnverifiedError(f"the dataset claims {claimed} bytes in a file of {size}", where=str(path))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if keep and claimed > memory:
        raise ResourceError(
            f"the dataset takes {claimed >> 20} MiB of memory, this machine has {memory >> 20}",
            where=str(path),
            hint="export fewer games with --max-games",
        )


def _read_data(
    stream: IO[bytes], size: int, shape: tuple[int, ...], dtype: np.dtype[Any], target: NDArray[Any] | None
) -> str:
    digest = _header_digest(dtype, shape)
    view = target.reshape(-1).view(np.uint8) if target is not None and size else None
    done = 0
    while data := stream.read(CHUNK):
        if view is not None:
            view[done : done + len(data)] = np.frombuffer(data, dtype=np.uint8)
        digest.update(data)
        done += len(data)
    if done != size:
        raise zipfile.BadZipFile(f"{size - done} bytes are missing")
    return digest.hexdigest()
