"""Stored ratings as a screen reads them: fast at any size, without numpy, and nothing is written.

A stored snapshot never changes, so each is decoded once. What was not stored (no snapshot yet) is computed from the
matches, which takes as long as it takes: readers belong on a thread.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import struct
import threading
import zlib
from bisect import bisect_left
from contextlib import closing
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from backend.configs import parse_config
from backend.databases import Stamp, columns, file_stamp, open_reader, sqlite_errors, tables
from backend.errors import UnverifiedError
from backend.evaluation.rating_spec import ANCHOR, RatingSpec
from backend.paths import Paths
from backend.thresholds import thresholds

POINTS = 40
"""Points of a history, at most: a chart of 80 columns shows no more."""
_COMPUTED_POINTS = 8
_HALF = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Band:
    """A rating at a point of the history, in Elo; the interval is at 95 %. See ``Ratings`` for what *open* means."""

    elo: float
    se: float
    low: float
    high: float
    games: int
    pinned: bool
    open_above: bool
    open_below: bool

    def words(self, between: str = "..") -> str:
        """The interval in words; an end that no result bounds is left open."""
        if self.pinned:
            return "pinned"
        if self.open_above and self.open_below:
            return "open"
        if self.open_above:
            return f"above {self.low:.0f}"
        if self.open_below:
            return f"below {self.high:.0f}"
        return f"{self.low:.0f}{between}{self.high:.0f}"


def spec_of(config: str) -> RatingSpec:
    """The spec in force for a config."""
    return RatingSpec(pins={ANCHOR: thresholds(parse_config(config)).anchor_elo})


@dataclass(frozen=True, slots=True)
class RatingPoint:
    """The ratings of a config after match ``seq``, played at ``at`` (ISO text), with ``games`` until then.

    Attributes:
        players: names, sorted; the lists beside it are in their order.
        variance: Elo squared.
        current: whether the rating spec is the one in force.
    """

    seq: int
    at: str
    games: int
    current: bool
    players: tuple[str, ...]
    elo: list[float]
    variance: list[float]
    played: list[int]
    pinned: list[bool]
    open_above: list[bool]
    open_below: list[bool]
    unrated: dict[str, int]

    def index(self, player: str) -> int | None:
        """Place of a player in the lists; None when it had no rating."""
        at = bisect_left(self.players, player)
        return at if at < len(self.players) and self.players[at] == player else None

    def band(self, player: str) -> Band | None:
        """A player's rating; None when it had none."""
        at = self.index(player)
        return None if at is None else self.at_index(at)

    def at_index(self, at: int) -> Band:
        """The rating of the player at a place."""
        se = math.sqrt(max(self.variance[at], 0.0))
        elo = self.elo[at]
        return Band(
            elo, se, elo - _HALF * se, elo + _HALF * se, self.played[at], self.pinned[at], self.open_above[at],
            self.open_below[at],
        )  # fmt: skip

    def best(self) -> str | None:
        """The player with the highest lower end that is not pinned; None without one."""
        ends = [(self.elo[i] - _HALF * math.sqrt(max(self.variance[i], 0.0)), i) for i in range(len(self.players))]
        free = [(low, -i) for low, i in ends if not self.pinned[i]]
        return self.players[-max(free)[1]] if free else None


@dataclass(frozen=True, slots=True)
class RatingView:
    """What is known of the ratings of a config.

    Attributes:
        points: oldest first; empty when nobody is rated.
        covariance: of the newest point, the lower triangle by rows as little-endian float32; empty when not known.
        behind: matches that were stored after the newest point.
        computed: whether the points were computed just now, because none were stored.
    """

    config: str
    points: tuple[RatingPoint, ...] = ()
    covariance: bytes = b""
    behind: int = 0
    computed: bool = False

    @property
    def newest(self) -> RatingPoint | None:
        return self.points[-1] if self.points else None

    def superiority(self, one: str, other: str) -> float | None:
        """P(one is better than the other) by the newest ratings and their covariance; None when that is not known."""
        newest = self.newest
        a, b = (newest.index(one), newest.index(other)) if newest else (None, None)
        if newest is None or a is None or b is None:
            return None
        if a == b:
            return 0.5
        if not self.covariance and not (newest.pinned[a] or newest.pinned[b]):
            return None
        variance = newest.variance[a] + newest.variance[b] - 2 * self._covariance(max(a, b), min(a, b))
        gap = newest.elo[a] - newest.elo[b]
        if variance <= 0:
            return 0.5 if gap == 0 else float(gap > 0)
        return NormalDist().cdf(gap / math.sqrt(variance))

    def _covariance(self, row: int, column: int) -> float:
        at = 4 * (row * (row + 1) // 2 + column)
        return float(struct.unpack_from("<f", self.covariance, at)[0]) if self.covariance else 0.0

    def series(self, player: str) -> list[tuple[int, Band]]:
        """A player's ratings over time, by the place of their point."""
        found = ((n, point.band(player)) for n, point in enumerate(self.points))
        return [(n, band) for n, band in found if band is not None]


_MODEL = re.compile(r"([0-9a-f]{64})(?::|\Z)")


def model_of(player: str) -> str | None:
    """The SHA-256 in a player's key; None for a baseline."""
    found = _MODEL.match(player)
    return found[1] if found else None


def identity_of(player: str) -> str:
    """The identity under which matches name a player."""
    sha256 = model_of(player)
    return player if sha256 is None else f"neural:{sha256[:16]}{player[64:]}"


class RatingReader:
    """Reads the ratings of configs, from any thread; keeps the views and what was decoded."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._lock = threading.Lock()
        self._views: dict[tuple[str, int], tuple[Stamp, RatingView]] = {}
        self._decoded: dict[int, RatingPoint] = {}

    def view(self, config: str, points: int = POINTS) -> RatingView:
        """The ratings of a config, with at most so many points, evenly thinned.

        Raises:
            UnverifiedError, LockedError, ResourceError, SchemaError: the records cannot be read.
        """
        with self._lock:
            now = file_stamp(self.paths.elo_db)
            known = self._views.get((config, points))
            if known is None or known[0] != now:
                known = self._views[config, points] = (now, self._read(config, points))
            return known[1]

    def _read(self, config: str, points: int) -> RatingView:
        path = self.paths.elo_db
        if not path.exists():
            return RatingView(config)
        with closing(open_reader(path)) as db, sqlite_errors(path):
            there = tables(db)
            if "match_games" not in there:
                return RatingView(config)
            if "rating_snapshots" in there:
                chosen = _choose(db, config, points, spec_of(config).digest)
                if chosen:
                    return self._stored(db, config, chosen)
            if db.execute("SELECT 1 FROM match_games WHERE config = ? LIMIT 1", (config,)).fetchone() is None:
                return RatingView(config)
        return _computed(self.paths, config)

    def _stored(self, db: sqlite3.Connection, config: str, chosen: list[tuple[int, int, bool]]) -> RatingView:
        made = []
        for number, seq, current in chosen:
            if number not in self._decoded:
                self._decoded[number] = _decode(db, number, seq, current, config)
            made.append(self._decoded[number])
        row = db.execute("SELECT covariance FROM rating_snapshots WHERE id = ?", (chosen[-1][0],)).fetchone()
        (behind,) = db.execute(
            "SELECT count(*) FROM match_games WHERE config = ? AND seq > ? AND termination != 'crash'",
            (config, chosen[-1][1]),
        ).fetchone()
        return RatingView(config, tuple(made), zlib.decompress(row[0]) if row and row[0] else b"", behind)


def _choose(db: sqlite3.Connection, config: str, points: int, spec: str) -> list[tuple[int, int, bool]]:
    """The snapshots to show as (id, match, of the spec in force): one a match, evenly thinned, always the newest."""
    latest: dict[int, tuple[int, bool, int]] = {}
    # Covered by the table's UNIQUE index: the blobs are not touched.
    for number, seq, voids, digest in db.execute(
        "SELECT id, seq, voids, spec FROM rating_snapshots WHERE config = ? ORDER BY seq", (config,)
    ):
        rank = (digest == spec, voids, number)
        if seq not in latest or rank > (latest[seq][1], latest[seq][2], latest[seq][0]):
            latest[seq] = (number, digest == spec, voids)
    found = [(number, seq, current) for seq, (number, current, _) in latest.items()]
    if len(found) > points:
        step = (len(found) - 1) / (points - 1) if points > 1 else 0.0
        found = [found[len(found) - 1 - round(i * step)] for i in range(points)][::-1]
    return found


def _decode(db: sqlite3.Connection, number: int, seq: int, current: bool, config: str) -> RatingPoint:
    games, blob = db.execute("SELECT games, ratings FROM rating_snapshots WHERE id = ?", (number,)).fetchone()
    row = db.execute("SELECT played_at FROM match_games WHERE seq = ?", (seq,)).fetchone()
    try:
        return _point(json.loads(zlib.decompress(blob)), seq, str(row[0]) if row else "", games, current)
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise UnverifiedError("a stored rating snapshot is damaged", where=f"{config} match {seq}: {error}") from None


def _point(data: dict[str, Any], seq: int, at: str, games: int, current: bool) -> RatingPoint:
    return RatingPoint(
        seq, at, games, current, tuple(data["players"]), data["elo"], data["variance"], data["games"], data["pinned"],
        data["open_above"], data["open_below"], data["unrated"],
    )  # fmt: skip


def _computed(paths: Paths, config: str) -> RatingView:
    """A view of matches without stored ratings, by the fit itself."""
    from backend.evaluation.rating_history import fits
    from backend.evaluation.rating_store import pack_covariance, pack_ratings

    made, newest = [], None
    for seq, at, games, newest in fits(paths, config, _COMPUTED_POINTS):
        made.append(_point(json.loads(zlib.decompress(pack_ratings(newest))), seq, at, games, True))
    covariance = zlib.decompress(pack_covariance(newest.covariance)) if newest is not None else b""
    return RatingView(config, tuple(made), covariance, 0, computed=True)


@dataclass(frozen=True, slots=True)
class Meeting:
    """Games of one player against another: won, lost by it, stopped at the cap; ``games`` is their sum."""

    games: int
    won: int
    caps: int


def head_to_head(paths: Paths, config: str, players: list[str]) -> dict[tuple[str, str], Meeting]:
    """What some players of a config scored against one another, by (player, opponent).

    In games of two both sides are counted whoever was the candidate; in games of three and four the candidate stands
    alone against copies of one opponent, so only its own side is.

    Raises:
        UnverifiedError, LockedError, ResourceError: the records cannot be read.
    """
    path, models = paths.elo_db, [sha256 for sha256 in map(model_of, players) if sha256]
    if not path.exists() or not models:
        return {}
    by_identity = {identity_of(player): player for player in players}
    with closing(open_reader(path)) as db, sqlite_errors(path):
        if "candidate_sha256" not in columns(db, "match_games"):
            return {}
        marks = [",".join("?" * len(names)) for names in (models, by_identity)]
        rows = db.execute(
            "SELECT candidate, opponent, count(*), sum(won), sum(termination = 'cap') FROM match_games "
            f"WHERE candidate_sha256 IN ({marks[0]}) AND opponent IN ({marks[1]}) AND termination != 'crash' "
            "GROUP BY candidate_sha256, opponent, candidate",
            (*models, *by_identity),
        ).fetchall()
    found: dict[tuple[str, str], Meeting] = {}
    for candidate, opponent, games, won, caps in rows:
        one, other = by_identity.get(candidate), by_identity.get(opponent)
        if one is None or other is None:
            continue
        _add(found, one, other, Meeting(games, won, caps))
        if parse_config(config).players == 2:
            _add(found, other, one, Meeting(games, games - won - caps, caps))
    return found


def _add(found: dict[tuple[str, str], Meeting], one: str, other: str, more: Meeting) -> None:
    old = found.get((one, other), Meeting(0, 0, 0))
    found[one, other] = Meeting(old.games + more.games, old.won + more.won, old.caps + more.caps)
