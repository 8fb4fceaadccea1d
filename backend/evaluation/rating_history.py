"""Ratings over time: after any match, the ratings that the games up to it give. A pure function of the records.

Reading never writes. Whoever has added matches calls :func:`publish`, which stores what was computed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from backend.configs import parse_config
from backend.databases import open_reader, sqlite_errors, tables, transaction
from backend.evaluation.rated_games import RatedGames, read_games
from backend.evaluation.rating_spec import RatingSpec
from backend.evaluation.rating_store import Snapshot, add_snapshot, open_rating_tables, snapshots
from backend.evaluation.rating_view import Band as Band
from backend.evaluation.rating_view import model_of
from backend.evaluation.rating_view import spec_of as spec_of
from backend.evaluation.ratings import Ratings
from backend.evaluation.reference_ratings import fill_reference
from backend.paths import Paths

POINTS = 100


@dataclass(frozen=True, slots=True)
class Point:
    """The ratings of one config after match ``seq``, stored at ``at`` (ISO text), with ``games`` until then."""

    seq: int
    at: str
    games: int
    run: str | None
    spec: str
    players: dict[str, Band]
    unrated: dict[str, int]


def bands(found: Ratings) -> dict[str, Band]:
    """The ratings by player, strongest lower bound first: the order in which one may rely on them."""
    made = {}
    for index, player in enumerate(found.players):
        low, high = found.band(index)
        made[player] = Band(
            float(found.elo[index]), float(found.se[index]), low, high, int(found.games[index]),
            bool(found.pinned[index]), bool(found.open_above[index]), bool(found.open_below[index]),
        )  # fmt: skip
    return dict(sorted(made.items(), key=lambda item: (-item[1].low, item[0])))


def configs_with_games(paths: Paths) -> list[str]:
    """Configs that have matches of ours, sorted; none without a database."""
    if not paths.elo_db.exists():
        return []
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        if "match_games" not in tables(db):
            return []
        return [row[0] for row in db.execute("SELECT DISTINCT config FROM match_games ORDER BY config")]


def load_games(paths: Paths, config: str) -> RatedGames:
    """The games of a config that ratings are made of.

    Raises:
        NotFoundError: there is no database.
        UnverifiedError, LockedError, ResourceError, SchemaError: it cannot be read.
    """
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        return read_games(db, config, parse_config(config).players, str(paths.elo_db))


def rate_at(games: RatedGames, spec: RatingSpec, seq: int) -> Ratings:
    """The ratings after match ``seq``, with the corrections known then."""
    return games.rate(spec, games.kept(seq, games.voids_at(seq)))


def current(paths: Paths, config: str) -> Ratings:
    """The ratings of a config as of now: the stored ones where they are up to date, else computed, and not stored.

    Raises:
        NotFoundError: there is no database.
        UnverifiedError, LockedError, ResourceError, SchemaError: it cannot be read.
    """
    spec = spec_of(config)
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        stored = _stored(db, config, spec)
        if stored is not None:
            return stored.ratings
        games = read_games(db, config, parse_config(config).players, str(paths.elo_db))
    return rate_at(games, spec, games.last)


def _stored(db: sqlite3.Connection, config: str, spec: RatingSpec) -> Snapshot | None:
    there = tables(db)
    if not {"match_games", "rating_snapshots", "match_voids"} <= there:
        return None
    (seq,) = db.execute(
        "SELECT max(seq) FROM match_games WHERE config = ? AND termination != 'crash'", (config,)
    ).fetchone()
    (voids,) = db.execute("SELECT coalesce(max(id), 0) FROM match_voids WHERE config = ?", (config,)).fetchone()
    found = snapshots(db, config, seq=seq or 0)
    return next((one for one in found if (one.voids, one.spec) == (voids, spec.digest) and one.has_covariance), None)


def publish(paths: Paths, config: str) -> Ratings:
    """Computes the ratings of a config from all its games and stores them as a snapshot.

    Where the reference's table ``elo_ratings`` is absent or of our making, it is filled, so that its tools see numbers.

    Raises:
        NotFoundError: there are no match records.
        LockedError, ResourceError, UnverifiedError, SchemaError: nothing was stored; the games are as they were.
    """
    spec, width = spec_of(config), parse_config(config).players
    with closing(open_rating_tables(paths)) as connection:
        with sqlite_errors(paths.elo_db):
            games = read_games(connection, config, width, str(paths.elo_db))
        voids = games.voids_at(games.last)
        kept = games.kept(games.last, voids)
        found = games.rate(spec, kept)
        with transaction(connection, paths.elo_db) as db:
            digest = games.inputs_digest(kept)
            add_snapshot(db, config, games.last, voids, spec, digest, len(kept), found)
            fill_reference(db, games, kept, found)
    return found


def history(paths: Paths, config: str, points: int = POINTS) -> list[Point]:
    """The ratings of a config at the end of its runs, oldest first; evenly thinned to at most ``points``.

    A point is the stored snapshot where there is one of the spec in force, else it is computed now: both give the
    same numbers, which :func:`backend.evaluation.rating_verify.verify` proves.

    Raises:
        UnverifiedError, LockedError, ResourceError, SchemaError: the records cannot be read.
    """
    if not paths.elo_db.exists():
        return []
    spec = spec_of(config)
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        games = read_games(db, config, parse_config(config).players, str(paths.elo_db))
        ends = _ends(db, config, games, points)
        stored = {(one.seq, one.voids): one for one in snapshots(db, config) if one.spec == spec.digest}
    made = []
    for seq, at, run in ends:
        voids = games.voids_at(seq)
        kept = games.kept(seq, voids)
        known = stored.get((seq, voids))
        found = known.ratings if known is not None else games.rate(spec, kept)
        made.append(Point(seq, at, len(kept), run, spec.digest, bands(found), found.unrated))
    return made


def fits(paths: Paths, config: str, points: int) -> Iterator[tuple[int, str, int, Ratings]]:
    """Ratings fitted now to the games of a config, at evenly thinned ends of its runs: match, time, games, ratings.

    Raises:
        NotFoundError: there is no database.
        UnverifiedError, LockedError, ResourceError, SchemaError: it cannot be read.
    """
    spec = spec_of(config)
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        games = read_games(db, config, parse_config(config).players, str(paths.elo_db))
        ends = _ends(db, config, games, points)
    for seq, at, _ in ends:
        kept = games.kept(seq, games.voids_at(seq))
        yield seq, at, len(kept), games.rate(spec, kept)


def _ends(db: sqlite3.Connection, config: str, games: RatedGames, points: int) -> list[tuple[int, str, str | None]]:
    """Ends of runs, and of the games, at most so many."""
    ends = _run_ends(db, config)
    if games.last and games.last not in {seq for seq, _, _ in ends}:
        ends.append((games.last, "", None))
    if len(ends) > points:
        step = (len(ends) - 1) / (points - 1) if points > 1 else 0.0
        ends = [ends[len(ends) - 1 - round(i * step)] for i in range(points)][::-1]
    return ends


def _run_ends(db: sqlite3.Connection, config: str) -> list[tuple[int, str, str | None]]:
    """The last match of every run with its time: (seq, ISO text, run)."""
    if not {"match_games", "match_slots"} <= tables(db):
        return []
    rows = db.execute(
        "SELECT max(g.seq), g.played_at, s.run_id FROM match_games g JOIN match_slots s ON s.game_id = g.game_id "
        "WHERE g.config = ? AND g.termination != 'crash' GROUP BY s.run_id ORDER BY 1",
        (config,),
    ).fetchall()
    return list({seq: (int(seq), str(at), str(run)) for seq, at, run in rows}.values())


def series(points: list[Point]) -> dict[str, list[tuple[int, str, Band]]]:
    """Per player its ratings over time, (seq, time, band): what a chart draws as a line with its error band."""
    lines: dict[str, list[tuple[int, str, Band]]] = {}
    for point in points:
        for player, band in point.players.items():
            lines.setdefault(player, []).append((point.seq, point.at, band))
    return lines


def by_model(found: Ratings) -> dict[str, Band]:
    """Per model (SHA-256) its rating; with several search settings that of the setting with the most games."""
    best: dict[str, Band] = {}
    for player, band in bands(found).items():
        sha256 = model_of(player)
        if sha256 is not None and (sha256 not in best or band.games > best[sha256].games):
            best[sha256] = band
    return best
