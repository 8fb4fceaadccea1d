"""This program's code as one file whose name is its hash, the same bytes for the same code wherever it is made."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import backend
from backend.atomic import write_bytes

PACKAGES = ("backend", "ringrift_console", "screens")
KEPT = (".py", ".tcss")
NEEDED = ("torch", "numpy", "numba", "psutil", "PyYAML", "aiosqlite")
"""What jobs need; the console's own packages stay here."""
OPTIONAL = ("libtorrent",)
"""What a host is given where there is a wheel for it; without it files reach the host in another way."""


@dataclass(frozen=True, slots=True)
class Bundle:
    path: Path
    sha256: str


def make_bundle(folder: Path, source: Path | None = None) -> Bundle:
    """Packs the code that this process runs (or that under ``source``) into ``folder/<sha256>.tar.gz``.

    Times, owners and the order of a file system leave no trace in it, so unchanged code keeps its hash.
    """
    root = source or Path(backend.__file__).parents[1]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(_files(root)):
            about = tarfile.TarInfo(path.relative_to(root).as_posix())
            data = path.read_bytes()
            about.size, about.mode = len(data), 0o644
            archive.addfile(about, io.BytesIO(data))
    data = gzip.compress(packed.getvalue(), compresslevel=6, mtime=0)
    sha256 = hashlib.sha256(data).hexdigest()
    target = folder / f"{sha256}.tar.gz"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(target, data)
    return Bundle(target, sha256)


def _files(root: Path) -> list[Path]:
    return [path for name in PACKAGES for path in (root / name).rglob("*") if path.suffix in KEPT and path.is_file()]


def pins(names: Sequence[str] = NEEDED) -> tuple[str, ...]:
    """What an environment on a host is to hold, in the versions that run here: ``torch==2.13.0``, ...

    Packages of :data:`OPTIONAL` that this machine lacks itself are left out.
    """
    found = []
    for name in names:
        try:
            found.append(f"{name}=={metadata.version(name).partition('+')[0]}")
        except metadata.PackageNotFoundError:
            if name not in OPTIONAL:
                raise
    return tuple(found)
