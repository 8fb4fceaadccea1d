"""What a rating depends on besides the games: the rating spec, as data.

The same spec and the same games give the same ratings, today and in ten years; so the spec is stored beside whatever
was computed with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

ANCHOR = "heuristic:1"
"""The player that holds the scale: Heuristic in the version that stands in its identity, and without chance moves
(``heuristic:1:e0.05`` is another player). A later version of Heuristic is rated like everybody until the pin is moved
to it, which is a new version of the spec, because it moves every number."""

ANCHOR_ELO = 1500.0

_CODE = ("ratings.py", "ratings_choices.py", "ratings_newton.py", "ratings_check.py")


@dataclass(frozen=True, slots=True)
class RatingSpec:
    """How games become ratings.

    Attributes:
        version: of the meaning of these fields.
        pins: Elo of the players whose rating is fixed.
        virtual_draws: the prior: draws in all that each player is given, spread over the opponents it met in
            proportion to how often. They keep a player without a loss finite, and say nothing of the pool's level:
            an independent prior per player drags a pool of hundreds down by hundreds of Elo.
        seat_sd: Elo; standard deviation of the normal prior of the advantage of a seat.
        stages: ``winner`` uses who won, ``ranking`` also the order behind the winner. In RingRift only winning is
            played for, and what orders the losers (territory, rings, markers) is not what the rating measures.
    """

    version: int = 1
    pins: Mapping[str, float] = field(default_factory=lambda: {ANCHOR: ANCHOR_ELO})
    virtual_draws: float = 1.0
    seat_sd: float = 100.0
    stages: Literal["winner", "ranking"] = "winner"

    def to_json(self) -> str:
        """Canonical text, with the digest of the code that fits."""
        return json.dumps(asdict(self) | {"pins": dict(self.pins), "code": code_digest()}, sort_keys=True)

    @property
    def digest(self) -> str:
        """SHA-256 of :meth:`to_json`, hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 over the sources of the fit."""
    digest = hashlib.sha256()
    for name in _CODE:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()
