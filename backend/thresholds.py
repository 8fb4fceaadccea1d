"""Every number of the model lifecycle, with its source, overridable per config.

Sources: "contract" is the project's own statement of the lifecycle; "reference" is the public RingRift ai-service
documentation of March 2026; "ours" are the numbers that statistics need and neither gives.
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
    gauntlet_random_clear: float = 0.94
    """Rate that the sequential test sets against ``gauntlet_random``: so good a model passes with 95 % (ours)."""
    gauntlet_heuristic_clear: float = 0.70
    """The same against ``gauntlet_heuristic`` (ours)."""
    production_random_clear: float = 0.97
    production_heuristic_clear: float = 0.70
    staging_elo_clear: float = 50.0
    """Elo above the champion that the sequential test sets against equality (ours)."""
    sequential_error: float = 0.05
    """Both error probabilities of a sequential test (ours)."""
    sequential_games: int = 400
    """Games at which a sequential test ends; undecided is not passed (ours)."""
    crash_share: float = 0.01
    """Share of crashed games above which a verdict is invalid (ours)."""
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
