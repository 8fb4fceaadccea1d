"""Models in a registry, made without training any."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from backend.configs import parse_config
from backend.paths import Paths
from backend.registry.store import Candidate, register
from backend.snapshot import ModelRow
from backend.supervisor import stop

Make = Callable[..., ModelRow]


@pytest.fixture
def root(paths: Paths) -> Iterator[Paths]:
    """A root whose supervisor, if the test starts one, ends with it."""
    paths.root.mkdir(parents=True, exist_ok=True)
    yield paths
    stop(paths)


@pytest.fixture
def make_model(paths: Paths) -> Make:
    """Registers a file of made-up weights: ``make_model("hex8_2p")``."""
    from backend.registry.store import find

    count = 0

    def make(config: str = "hex8_2p", *, parent: str | None = None) -> ModelRow:
        nonlocal count
        count += 1
        paths.root.mkdir(parents=True, exist_ok=True)
        file = paths.root / f"m{count}.pth"
        file.write_bytes(f"weights {count}".encode())
        made = register(paths, Candidate(file=file, config=parse_config(config), parent_sha256=parent))
        return find(paths, made.label)

    return make
