"""Proof that stored ratings follow from the stored games, and that the games are what was stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from backend.configs import parse_config
from backend.databases import open_reader, sqlite_errors, tables
from backend.errors import UnverifiedError, UsageError
from backend.evaluation.match_record import MatchRecord
from backend.evaluation.rated_games import RatedGames, read_games
from backend.evaluation.rating_history import spec_of
from backend.evaluation.rating_spec import RatingSpec
from backend.evaluation.rating_store import Snapshot, snapshots
from backend.evaluation.records import check_matches
from backend.paths import Paths

TOLERANCE = 1e-6
"""Elo; by how much recomputed ratings may differ."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at: matches, snapshots, and snapshots of a spec whose code is no longer here that still fit."""

    config: str
    matches: int
    snapshots: int
    other_code: int
    largest_difference: float


def verify(paths: Paths, config: str, *, replay: bool = False) -> Verified:
    """Checks every match of a config against its own hashes, and every snapshot against the games.

    Args:
        replay: play the matches again too, and compare how they end; takes a minute per 100,000.

    Raises:
        UnverifiedError: a match or a snapshot is not what it should be; says which.
        NotFoundError, LockedError, ResourceError, SchemaError: the records cannot be read.
    """
    matches = check_matches(paths.elo_db, config, _replayer(paths, config) if replay else None)
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        games = read_games(db, config, parse_config(config).players, str(paths.elo_db))
        stored = snapshots(db, config)
        texts = dict(db.execute("SELECT digest, spec FROM rating_specs")) if "rating_specs" in tables(db) else {}
    largest, other = 0.0, 0
    for one in stored:
        spec = _spec(texts, one, f"{paths.elo_db} {config}")
        other += spec.digest != one.spec
        largest = max(largest, _compare(games, one, spec, f"{paths.elo_db} {config}"))
    return Verified(config, matches, len(stored), other, largest)


def _replayer(paths: Paths, config: str) -> Callable[[str, MatchRecord], None]:
    from backend.rules import ENGINE_VERSION, load

    rules = load(parse_config(config))

    def look(game_id: str, match: MatchRecord) -> None:
        if match.engine_version != ENGINE_VERSION or match.termination == "crash":
            return  # other rules, or no end to compare
        state = rules.new()
        try:
            for move in match.moves.tolist():
                rules.apply(state, move)
        except UsageError:
            raise UnverifiedError("a match has an illegal move", where=f"{paths.elo_db} match {game_id}") from None
        over = rules.over(state)
        natural = match.termination == "natural"
        winner = rules.winner(state) if natural else 0
        ranking = tuple(int(rank) for rank in rules.ranking(state)) if natural else ()
        if natural != over or (winner, ranking) != (match.winner, match.ranking):
            raise UnverifiedError("a match did not end as stored", where=f"{paths.elo_db} match {game_id}")

    return look


def _spec(texts: dict[str, str], one: Snapshot, where: str) -> RatingSpec:
    if one.spec == spec_of(one.config).digest:
        return spec_of(one.config)
    try:
        data = json.loads(texts[one.spec])
        data.pop("code")
        return RatingSpec(**data)
    except (KeyError, ValueError, TypeError):
        raise UnverifiedError("a rating snapshot has no readable spec", where=f"{where} match {one.seq}") from None


def _compare(games: RatedGames, one: Snapshot, spec: RatingSpec, where: str) -> float:
    """The largest difference of the ratings, in Elo."""
    where = f"{where} after match {one.seq}"
    kept = games.kept(one.seq, one.voids)
    if games.inputs_digest(kept) != one.inputs or len(kept) != one.games:
        raise UnverifiedError(
            f"the games are not those that were rated ({len(kept)} now, {one.games} then)", where=where
        )
    found, had = games.rate(spec, kept), one.ratings
    if (found.players, found.unrated) != (had.players, had.unrated):
        raise UnverifiedError("the stored ratings are of other players", where=where)
    gap = float(np.abs(found.elo - had.elo).max(initial=0.0))
    spread = float(np.abs(found.se - had.se).max(initial=0.0))
    if max(gap, spread) >= TOLERANCE or (found.games != had.games).any():
        raise UnverifiedError(f"the stored ratings are off by {max(gap, spread):.6g} Elo", where=where)
    if one.has_covariance:
        scale = max(1.0, float(np.abs(found.covariance).max(initial=0.0)))
        if float(np.abs(found.covariance - had.covariance).max(initial=0.0)) > 1e-6 * scale:
            raise UnverifiedError("the stored covariance is another", where=where)
    return gap
