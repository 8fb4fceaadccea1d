"""Where things lie under a root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from backend.configs import Config

ROOT_VARIABLE = "RINGRIFT_ROOT"
HOSTS_VARIABLE = "RINGRIFT_HOSTS"


@dataclass(frozen=True, slots=True)
class Paths:
    """Every place under one root; computing a path creates nothing."""

    root: Path

    @property
    def games(self) -> Path:
        return self.root / "data" / "games"

    def games_db(self, config: Config) -> Path:
        return self.games / f"canonical_{config.key}.db"

    @property
    def training(self) -> Path:
        return self.root / "data" / "training"

    def dataset(self, config: Config) -> Path:
        return self.training / f"{config.key}.npz"

    @property
    def registry_db(self) -> Path:
        return self.root / "data" / "model_registry" / "registry.db"

    @property
    def elo_db(self) -> Path:
        return self.root / "data" / "unified_elo.db"

    @property
    def console(self) -> Path:
        return self.root / "data" / "console"

    @property
    def state_db(self) -> Path:
        return self.console / "state.db"

    @property
    def jobs(self) -> Path:
        """One folder an attempt; also the agent's root on this machine, so that local logs need no mirror."""
        return self.console / "jobs"

    @property
    def supervisor_lock(self) -> Path:
        return self.console / "supervisor.lock"

    @property
    def supervisor_log(self) -> Path:
        return self.console / "supervisor.log"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def archive(self) -> Path:
        return self.models / "archive"

    @property
    def essential(self) -> Path:
        return self.root / "models_essential"

    @property
    def recipes_toml(self) -> Path:
        """Kinds of jobs that an operator wrote down."""
        return self.root / "recipes.toml"

    @property
    def hosts_yaml(self) -> Path:
        """The hosts file: ``RINGRIFT_HOSTS``, else the root's own."""
        override = os.environ.get(HOSTS_VARIABLE)
        return Path(override) if override else self.root / "hosts.yaml"


def resolve_root(given: str | os.PathLike[str] | None = None) -> Paths:
    """The root to work under: the ``--root`` option, else ``RINGRIFT_ROOT``, else the XDG data directory."""
    chosen = given or os.environ.get(ROOT_VARIABLE)
    if not chosen:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        chosen = Path(base) / "ringrift"
    return Paths(Path(chosen).expanduser().absolute())
