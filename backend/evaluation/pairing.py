"""Who should play whom next, so that the ratings become sure with few games. A pure function.

The reference of a pairing is drawn from three: whoever may be the best, whoever is least known, whoever played least.
Its opponent is drawn in proportion to what a game between them tells, p(1 - p); and every model plays a fixed share of
its games against the anchors, because a chain of neighbours drifts away from the scale that they hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backend.evaluation.ratings import SCALE, Ratings, win_chance
from backend.evaluation.ratings_choices import Floats

ANCHOR_SHARE = 0.25
"""Least share of a model's games that are against anchors."""
UNKNOWN_SE = 350.0
"""Elo; taken for the standard error of a player without a rating."""

Reason = Literal["upper bound", "standard error", "fewest games"]
_REASONS: tuple[Reason, ...] = ("upper bound", "standard error", "fewest games")


@dataclass(frozen=True, slots=True)
class Pairing:
    """The reference sits in one seat, the opponent in all others; ``information`` is p(1 - p) of a game of theirs."""

    reference: str
    opponent: str
    reason: Reason
    information: float


def next_pairings(
    found: Ratings,
    models: Sequence[str],
    anchors: Sequence[str],
    played: Mapping[frozenset[str], int],
    count: int,
    rng: np.random.Generator,
    *,
    games: int = 2,
    width: int = 2,
) -> list[Pairing]:
    """The next pairings, each drawn as if those before it had been played.

    Args:
        found: the ratings so far; who is not in them counts as unknown, at the level of the pinned player.
        models: who is to be measured; all are references.
        anchors: frozen players; opponents only.
        played: games so far by pair.
        count: pairings wanted.
        games: games that each pairing will have.
        width: seats of a game.

    Raises:
        ValueError: there is no model, or nobody to play it.
    """
    names = list(dict.fromkeys([*models, *anchors]))
    if not models or len(names) < 2:
        raise ValueError("a tournament needs a model and somebody else")
    elo, covariance = _state(found, names)
    met = np.array([[played.get(frozenset((a, b)), 0) if a != b else 0 for b in names] for a in names], dtype=float)
    anchored = np.array([name in set(anchors) for name in names])
    references = np.array([names.index(name) for name in dict.fromkeys(models)])
    made = []
    for _ in range(count):
        reason = _REASONS[int(rng.integers(len(_REASONS)))]
        spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        score = {
            "upper bound": elo + 1.96 * spread, "standard error": spread, "fewest games": -met.sum(1),
        }[reason][references]  # fmt: skip
        ties = np.flatnonzero(score >= score.max() - 1e-9)
        one = int(references[ties[int(rng.integers(len(ties)))]])
        guess = elo[one] + spread[one] * rng.standard_normal()
        weights = np.array([_information(guess - rating, width) for rating in elo])
        weights[one] = 0.0
        if anchored.any() and not anchored[one] and met[one, anchored].sum() < ANCHOR_SHARE * (met[one].sum() + games):
            weights = weights * anchored
        other = int(rng.choice(len(names), p=weights / weights.sum()))
        information = _information(float(elo[one] - elo[other]), width)
        covariance = _after(covariance, one, other, games * information)
        met[one, other] += games
        met[other, one] += games
        made.append(Pairing(names[one], names[other], reason, information))
    return made


def _state(found: Ratings, names: Sequence[str]) -> tuple[Floats, Floats]:
    at = [found.index(name) for name in names]
    known = [i for i in at if i is not None]
    level = float(found.elo[found.pinned].mean()) if found.pinned.any() else 1500.0
    elo = np.array([level if i is None else float(found.elo[i]) for i in at])
    covariance = np.diag([UNKNOWN_SE**2 if i is None else 0.0 for i in at])
    places = [place for place, i in enumerate(at) if i is not None]
    covariance[np.ix_(places, places)] = found.covariance[np.ix_(known, known)]
    return elo, covariance


def _information(difference: float, width: int) -> float:
    """p(1 - p) of a game; never quite 0, so that everybody can be drawn."""
    p = win_chance(max(-4000.0, min(4000.0, difference)), width)
    return max(p * (1.0 - p), 1e-9)


def _after(covariance: Floats, one: int, other: int, information: float) -> Floats:
    """The covariance after games of so much information on a difference (a rank-one update)."""
    direction = covariance[:, one] - covariance[:, other]
    variance = float(direction[one] - direction[other])
    weight = information / SCALE**2
    shrunk: Floats = covariance - np.outer(direction, direction) * (weight / (1.0 + weight * variance))
    return shrunk


def games_for(se: float, information: float) -> int:
    """Games of so much information each until a difference has standard error ``se``, in Elo, from nothing."""
    return math.ceil((SCALE / se) ** 2 / information)
