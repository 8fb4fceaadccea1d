"""Ratings of an ai-service's players from its own match records, beside those that it stored."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from backend.configs import parse_config
from backend.databases import open_reader, sqlite_errors
from backend.evaluation.rating_spec import RatingSpec
from backend.evaluation.ratings import Ratings, rate
from backend.evaluation.reference_ratings import StoredRating, stored_ratings
from backend.paths import Paths
from backend.reference.identities import Identities, read_identities
from backend.reference.matches import EXCLUDED, Match, read_matches
from backend.reference.names import HEURISTIC, NOMINAL, participant
from backend.registry.aliases import known_names
from backend.thresholds import thresholds


@dataclass(frozen=True, slots=True)
class Beside:
    """One player: recomputed, and what was stored under each of its names.

    Attributes:
        player: who is rated: SHA-256 or name, with its search; ``heuristic``, ``random``.
        names: participant ids that mean it.
        elo, low, high: recomputed, with the interval at 95 %; None when no chain of games leads to Heuristic.
        stored: as the ai-service has them, each on its own scale.
        difference: recomputed minus the stored rating of the most games, moved to our scale; None without both.
    """

    player: str
    names: tuple[str, ...]
    games: int
    elo: float | None
    low: float | None
    high: float | None
    pinned: bool
    stored: tuple[StoredRating, ...]
    difference: float | None


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A config's players, strongest first; ``left_out`` counts the matches that are no evidence, by flaw.

    ``shift`` is what has to be added to a stored rating to bring it to our scale.
    """

    config: str
    players: tuple[Beside, ...]
    used: int
    left_out: dict[str, int]
    shift: float


def recompute(paths: Paths, config: str) -> Recomputed | None:
    """Rates a config from the foreign match records; None when there is nothing of an ai-service about it.

    Raises:
        UnverifiedError, LockedError, ResourceError: the records cannot be read.
    """
    if not paths.elo_db.exists():
        return None
    anchor = thresholds(parse_config(config)).anchor_elo
    stored = stored_ratings(paths, config)
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        matches = list(read_matches(db, config))
        if not matches and not stored:
            return None
        identities = read_identities(db, paths, known_names(paths))
    counting = [match for match in matches if match.counts]
    names, found = _rate(counting, identities, RatingSpec(pins={HEURISTIC: anchor}))
    shift = anchor - NOMINAL[HEURISTIC]
    by_player: dict[str, list[StoredRating]] = {}
    for one in stored:
        key = identities.key(participant(one.participant))
        by_player.setdefault(key, []).append(one)
        names.setdefault(key, set()).add(one.participant)
    rows = [_beside(player, sorted(ids), found, by_player.get(player, []), shift) for player, ids in names.items()]
    rows.sort(key=lambda row: (-(row.low if row.low is not None else -1e9), row.player))
    left_out = Counter(flaw for match in matches if not match.counts for flaw in match.flaws if flaw in EXCLUDED)
    return Recomputed(config, tuple(rows), len(counting), dict(sorted(left_out.items())), shift)


def _rate(matches: list[Match], identities: Identities, spec: RatingSpec) -> tuple[dict[str, set[str]], Ratings | None]:
    """The names by player, and the ratings; None without a match."""
    names: dict[str, set[str]] = {}
    index: dict[str, int] = {}
    keys: dict[str, str] = {}
    seats: list[list[int]] = []
    ranks: list[list[int]] = []
    for match in matches:
        lineup = []
        for text in match.players:
            if text not in keys:
                keys[text] = identities.key(participant(text))
                names.setdefault(keys[text], set()).add(text)
            lineup.append(index.setdefault(keys[text], len(index)))
        seats.append(lineup)
        ranks.append([1 if place == match.winner else 2 for place in range(len(lineup))])
    if not seats:
        return names, None
    return names, rate(tuple(index), np.array(seats, dtype=np.int64), np.array(ranks, dtype=np.int64), spec)


def _beside(
    player: str, ids: list[str], found: Ratings | None, stored: list[StoredRating], shift: float
) -> Beside:  # fmt: skip
    at = found.index(player) if found is not None else None
    most = max(stored, key=lambda one: one.games, default=None)
    if found is None or at is None:
        games = found.unrated.get(player, 0) if found is not None else 0
        return Beside(player, tuple(ids), games, None, None, None, False, tuple(stored), None)
    elo, (low, high) = float(found.elo[at]), found.band(at)
    return Beside(
        player, tuple(ids), int(found.games[at]), elo, low, high, bool(found.pinned[at]), tuple(stored),
        elo - (most.rating + shift) if most is not None else None,
    )  # fmt: skip
