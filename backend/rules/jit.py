"""The decorator of all compiled kernels, and where their machine code is kept.

numba's disk cache looks only at the file of a kernel, not at the files of the kernels it calls, and would run stale
code after a change elsewhere. So the cache folder carries a digest of all kernel sources of the rules: another
source, another folder.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding
import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_HERE = Path(__file__).resolve().parent


def source_digest() -> str:
    """Digest of every kernel source of this package, with the processor and the versions of numba and Python."""
    processor = llvmlite.binding.get_host_cpu_name()
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:3]} {processor}".encode())
    for path in sorted(_HERE.glob("*.py")):
        source = path.read_bytes()
        if b"@kernel" in source or path.name in ("layout.py", "jit.py"):
            digest.update(path.name.encode() + b"\0" + source)
    return digest.hexdigest()[:16]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _cache_base() -> Path:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen)
    local = _HERE / "__pycache__"
    if _writable(local):
        return local
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    shared = Path(home) / "ringrift"
    return shared if _writable(shared) else Path(tempfile.gettempdir()) / f"ringrift-{os.getuid()}"


CACHE: Path = _cache_base() / f"kernels-{source_digest()}"
"""Folder of the compiled kernels of these sources."""

numba.config.CACHE_DIR = str(CACHE)  # type: ignore[attr-defined]


def kernel(function: Function) -> Function:
    """Compiles ``function`` in nopython mode and keeps the machine code in :data:`CACHE`.

    Kernels elsewhere that call kernels of the rules use this decorator too, so that a change of the rules reaches them.
    """
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
