"""What every test gets: a place of its own, and nothing of the machine it runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.paths import Paths


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the developer's shell, and no file of their home, reaches a test."""
    for name in (
        "RINGRIFT_ROOT", "RINGRIFT_HOSTS", "RINGRIFT_PROGRESS", "RINGRIFT_ATTEMPT", "NO_COLOR", "SSH_CONNECTION",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "xdg" / name.lower()))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An empty root."""
    return Paths(tmp_path / "root")
