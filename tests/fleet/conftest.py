"""This machine as a host that is reached some other way, with a home folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.fleet.remote import ThisMachine
from backend.paths import Paths


@pytest.fixture
def here(tmp_path: Path) -> ThisMachine:
    home = tmp_path / "home"
    home.mkdir()
    return ThisMachine({"HOME": str(home), "LANG": "C.UTF-8"})


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.delenv("RINGRIFT_HOSTS", raising=False)
    return Paths(tmp_path / "root")
