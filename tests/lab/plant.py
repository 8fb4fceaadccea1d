"""The code on a host as a bootstrap leaves it, with the kernels that this machine has compiled already.

Compiling takes about a minute a host; on a bed of eight hosts that share two cores that is most of a test.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from backend.fleet.bootstrap_host import MARKER
from backend.fleet.bundle import PACKAGES
from backend.rules import warm
from tests.lab.two_hosts import CODE


def plant_code(agent_root: Path, sha256: str) -> None:
    """Puts the tree under ``bundles/<sha256>``; times are kept, because numba compares them with its index."""
    from backend.rules.jit import CACHE

    warm(quiet=True)
    target = agent_root / "bundles" / sha256
    for name in PACKAGES:
        shutil.copytree(Path(CODE) / name, target / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    kernels = target / "code" / "backend" / "rules" / "__pycache__" / CACHE.name
    shutil.copytree(CACHE, kernels)
    for package in (path for path in (Path(CODE) / "backend").iterdir() if path.is_dir()):
        here = kernels / _cache_name(package)  # numba names a folder after the place of the source
        if here.exists():
            here.rename(kernels / _cache_name(target / "code" / "backend" / package.name))
    (target / MARKER).write_text(sha256)


def _cache_name(package: Path) -> str:
    return f"{package.name}_{hashlib.sha1(str(package).encode()).hexdigest()}"
