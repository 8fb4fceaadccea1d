"""Every number of the model lifecycle, with its source, overridable per config.

Sources: "contract" is the project's own statement of the lifecycle; "reference" is the public RingRift ai-service
documentation of March 2026.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from backend.configs import Config


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The lifecycle's numbers for one config. Rates are fractions of games, ages are days, ratings Elo."""

    ready_games: int = 200
    """Games from which a config's data counts as Ready (contract)."""
    gauntlet_random: float = 0.85
    """Gauntlet target against Random (contract)."""
    gauntlet_heuristic: float = 0.60
    """Gauntlet target against Heuristic (contract)."""
    staging_games: int = 50
    """Games before DEVELOPMENT -> STAGING (contract)."""
    production_games: int = 100
    """Games before STAGING -> PRODUCTION (contract)."""
    production_elo: float = 1650.0
    """Elo of a production model (contract); 70 % against Heuristic on our scale."""
    production_random: float = 0.90
    production_heuristic: float = 0.60
    reject_elo: float = 1400.0
    """Below this, after ``reject_games``, a model is REJECTED (contract)."""
    reject_games: int = 100
    anchor_elo: float = 1500.0
    """Rating of Heuristic, which pins the scale of every config (contract)."""
    archive_days: float = 7.0
    """Age without promotion after which a model is archived (contract)."""
    archive_experiment_days: float = 3.0
    """The same for experiment names (contract)."""
    torrent_bytes: int = 50_000_000
    """File size from which BitTorrent comes first (contract: 50 MB)."""


DEFAULT = Thresholds()

_OVERRIDES: dict[str, dict[str, float | int]] = {}


def thresholds(config: Config) -> Thresholds:
    """The numbers in force for ``config``."""
    return replace(DEFAULT, **_OVERRIDES.get(config.key, {}))  # type: ignore[arg-type]
