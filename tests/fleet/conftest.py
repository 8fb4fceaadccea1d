"""This machine as a host that is reached some other way, with a home folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.fleet.remote import ThisMachine


@pytest.fixture
def here(tmp_path: Path) -> ThisMachine:
    home = tmp_path / "home"
    home.mkdir()
    return ThisMachine({"HOME": str(home), "LANG": "C.UTF-8"})
