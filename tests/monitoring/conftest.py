"""Models that can be played with, in production of a root."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from backend.configs import parse_config
from backend.paths import Paths
from backend.registry.changes import Author, Decision
from backend.registry.deployment import deploy
from backend.registry.promotion import ground_of
from backend.registry.store import Candidate, find, register
from backend.registry.switch import Planned, switch
from backend.snapshot import ModelRow
from backend.supervisor import stop
from backend.training.checkpoint import Metadata, save_model
from backend.training.network import Architecture, Network

MakeModel = Callable[..., ModelRow]


def save(path: Path, config: str, seed: int) -> str:
    """Writes a tiny untrained network with opinions; returns the SHA-256 of the file."""
    torch.manual_seed(seed)
    architecture = Architecture(1, 8, 4)
    network = Network(architecture)
    for tensor in network.parameters():
        if tensor.ndim > 1:
            torch.nn.init.normal_(tensor, std=0.15)
    metadata = Metadata(config=config, architecture=asdict(architecture), created_at="2026-01-01T00:00:00+00:00")
    return save_model(path, network, metadata)


@pytest.fixture
def make_network(paths: Paths) -> MakeModel:
    """Registers a network that plays: ``make_network("hex8_2p")``."""
    count = 0

    def make(config: str = "hex8_2p") -> ModelRow:
        nonlocal count
        count += 1
        file = paths.root / "made" / f"m{count}.pth"
        file.parent.mkdir(parents=True, exist_ok=True)
        save(file, config, count)
        return find(paths, register(paths, Candidate(file=file, config=parse_config(config))).label)

    return make


@pytest.fixture
def in_production(paths: Paths, make_network: MakeModel) -> Callable[..., list[ModelRow]]:
    """Makes networks that come into production of a config one after the other."""

    def make(count: int = 2, config: str = "hex8_2p") -> list[ModelRow]:
        rows = [make_network(config) for _ in range(count)]
        for row in rows:
            promote(paths, row)
        return rows

    return make


def promote(paths: Paths, row: ModelRow) -> None:
    """Brings a model into production, without a supervisor."""
    row = find(paths, row.label)
    assert row.config is not None
    author = Author("tester", f"promote {row.label}")
    ground, model = ground_of(paths, row.config), Planned(row.label, row.sha256, row.stage)
    switch(paths, ground, model, Decision("promote", "a test"), author, left="superseded")
    deploy(paths)


@pytest.fixture
def supervised(paths: Paths) -> Iterator[Paths]:
    """A root whose supervisor is stopped in the end."""
    paths.root.mkdir(parents=True, exist_ok=True)
    yield paths
    stop(paths)
