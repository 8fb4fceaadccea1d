"""What the rules of archival need to know, gathered for all models of a root at once.

Ratings are taken once a config, and the registry, the records and the state are read a fixed number of times, however
many models there are. What cannot be read is an error: nothing is archived on half of the facts.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

from backend.configs import parse_config
from backend.databases import tables
from backend.errors import RingRiftError
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.files import full_path
from backend.registry.hashing import sha256_file
from backend.registry.policy import Facts
from backend.registry.rows import is_file, read_rows
from backend.registry.schema import reading
from backend.snapshot import ModelRow
from backend.thresholds import DEFAULT, Thresholds, thresholds

BETTER = 0.95
"""Probability from which one model counts as better than another (ours)."""
RESTORED_DAYS = 7.0
"""Days for which the policy leaves a model alone that somebody has restored (ours)."""

_EPOCH = datetime.fromtimestamp(0, UTC)
_NEVER = re.compile(r"canonical_|production_|.*_best", re.IGNORECASE)  # the reference installation opens these by name
_PREFIX = re.compile(r"[0-9a-f]{6,64}\Z")


@dataclass(frozen=True, slots=True)
class Standing:
    """A model's rating with its 95 % interval; ``beaten_by`` is the SHA-256 of a living model that is better.

    Where that interval would reject a living model, ``high`` is the bound that holds at every look instead: the policy
    looks after every match, and each look at an interval for one look is another chance to reject by luck.
    """

    elo: float
    low: float
    high: float
    games: int
    bounded: bool  # some result bounds it from above
    beaten_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        high = round(self.high, 1) if isfinite(self.high) else None
        return {"elo": round(self.elo, 1), "low": round(self.low, 1), "high": high, "games": self.games}


@dataclass(frozen=True, slots=True)
class Known:
    """A model with all that a ruling on it depends on."""

    row: ModelRow
    facts: Facts
    standing: Standing | None


def numbers_of(config: str | None) -> Thresholds:
    """The numbers in force for a model; those of all configs where nothing says which it plays."""
    return DEFAULT if config is None else thresholds(parse_config(config))


def gather(
    paths: Paths, leased: Mapping[str, str], *, configs: Collection[str] | None = None, now: datetime | None = None
) -> tuple[Known, ...]:
    """The facts of all models, oldest first.

    Args:
        leased: what is in use, see :mod:`backend.registry.leases`.
        configs: only the models of these configs; all by default.

    Raises:
        LockedError, ResourceError, UnverifiedError, SchemaError: the registry or the records cannot be read.
    """
    now = now or datetime.now(UTC)
    with reading(paths.registry_db) as db:
        if db is None:
            return ()
        rows = read_rows(db)[::-1]
        held = _held(paths, db, rows, leased, now)
    wanted = [row for row in rows if configs is None or row.config in configs]
    living = {row.sha256 for row in rows if _lives(row)}
    ratings: dict[str, Standing] = {}
    for config in sorted({row.config for row in wanted if row.config is not None}):
        ratings |= standings(paths, config, living)
    labels = {row.sha256: row.label for row in rows if _lives(row)}
    first: dict[str, str] = {}
    for row in rows:
        if _lives(row) and row.sha256:
            first.setdefault(row.sha256, row.label)
    return tuple(
        Known(row, _facts(paths, row, held, ratings.get(row.sha256), labels, first, now), ratings.get(row.sha256))
        for row in wanted
    )


def _lives(row: ModelRow) -> bool:
    return row.stage not in ("archived", "rejected")


def _facts(
    paths: Paths, row: ModelRow, held: Mapping[str, str], standing: Standing | None, labels: Mapping[str, str],
    first: Mapping[str, str], now: datetime,
) -> Facts:  # fmt: skip
    since = row.stage_since or (row.created_at if row.created_at > _EPOCH else now)
    original = first.get(row.sha256)
    enough = standing is not None and standing.games >= numbers_of(row.config).staging_games
    return Facts(
        label=row.label,
        stage=row.stage,
        names=(row.model_id, Path(row.path).name),
        idle_days=(now - since).total_seconds() / 86400,
        games=standing.games if standing else 0,
        elo=standing.elo if standing else None,
        elo_low=standing.low if standing else None,
        elo_high=standing.high if standing and standing.bounded and isfinite(standing.high) else None,
        beaten_by=labels.get(standing.beaten_by or "") if standing and enough else None,
        duplicate_of=original if _lives(row) and original != row.label else None,
        in_archive=_put_away(paths, row),
        held=held.get(row.label, ""),
    )


def _put_away(paths: Paths, row: ModelRow) -> bool:
    """Whether its file lies in the archive, or is nowhere and the stage says that it should."""
    file = full_path(paths, row.path)
    return file.is_relative_to(paths.archive) or (not _lives(row) and not is_file(file))


def _held(
    paths: Paths, db: sqlite3.Connection, rows: tuple[ModelRow, ...], leased: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """Labels that stay whatever the rules say, with the first reason."""
    found: dict[str, str] = {}
    by_sha: dict[str, list[ModelRow]] = {}
    for row in rows:
        by_sha.setdefault(row.sha256, []).append(row)
    for pointer in pointers.all_pointers(db):
        if pointer.label:
            found.setdefault(pointer.label, f"it is the production model of {pointer.config}")
        if pointer.previous:
            found.setdefault(pointer.previous, f"a rollback of {pointer.config} goes to it")
    for label, why in in_use(paths, rows, leased).items():
        found.setdefault(label, why)
    called = {row.label: row for row in rows} | {row.model_id: row for row in rows}
    for row in rows:
        if row.parent and _lives(row):
            known = called.get(row.parent)
            for parent in by_sha.get(row.parent, [known] if known is not None else []):
                if parent.label != row.label:
                    found.setdefault(parent.label, f"{row.label} came from it")
    shared = Counter(row.path for row in rows)
    for row in rows:
        if shared[row.path] > 1:
            found.setdefault(row.label, "another model has the same file")
        elif fixed := stays(paths, row):
            found.setdefault(row.label, fixed)
    for label, at in _restored(db).items():
        days = (now - at).total_seconds() / 86400
        if days < RESTORED_DAYS:
            found.setdefault(label, f"somebody restored it {days:.1f} days ago")
    return found


def _restored(db: sqlite3.Connection) -> dict[str, datetime]:
    """When each model was last restored."""
    if "decisions" not in tables(db):
        return {}
    rows = db.execute("SELECT model, max(at) AS at FROM decisions WHERE action = 'restore' GROUP BY model")
    return {str(row["model"]): datetime.fromisoformat(row["at"]) for row in rows}


def stays(paths: Paths, row: ModelRow) -> str:
    """Why a model's file is never moved without being asked to; empty where it may be."""
    if not full_path(paths, row.path).is_relative_to(paths.root):
        return "its file lies outside this root"
    name = Path(row.path).name
    return f"its file is {name}, which others open by that name" if _NEVER.match(name) else ""


def in_use(paths: Paths, rows: Iterable[ModelRow], leased: Mapping[str, str]) -> dict[str, str]:
    """Labels of the models that references mean, with the reason."""
    if not leased:
        return {}
    rows = tuple(rows)
    named: dict[str, list[str]] = {}
    for row in rows:
        for name in (row.label, row.sha256, row.path, str(full_path(paths, row.path))):
            named.setdefault(name, []).append(row.label)
    found: dict[str, str] = {}
    for reference, why in leased.items():
        labels = named.get(reference, [])
        if not labels and _PREFIX.match(reference):
            labels = [row.label for row in rows if row.sha256.startswith(reference)]
        if not labels and ("/" in reference or reference.endswith((".pth", ".pt"))):
            file = full_path(paths, reference)
            labels = named.get(_hash_of(file), []) if is_file(file) else []
        for label in labels:
            found.setdefault(label, why)
    return found


def _hash_of(file: Path) -> str:
    facts = file.stat()
    return _hash(file, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=256)
def _hash(file: Path, mtime_ns: int, size: int) -> str:
    return sha256_file(file)


def standings(paths: Paths, config: str, living: Collection[str] = ()) -> dict[str, Standing]:
    """Per model (SHA-256) of a config its rating, from one fit over all of the config's games.

    Of several search settings, each a player of its own, the one that has played most is the model's.

    Args:
        living: SHA-256 of the models that may count as better than another.

    Raises:
        UnverifiedError, LockedError, ResourceError, SchemaError: the records cannot be read.
    """
    if not paths.elo_db.exists():
        return {}
    import numpy as np

    from backend.evaluation.rated_games import model_of
    from backend.evaluation.rating_bounds import bounded
    from backend.evaluation.rating_history import current

    ratings, numbers, made = current(paths, config), numbers_of(config), parse_config(config)
    best: dict[str, int] = {}
    for index, player in enumerate(ratings.players):
        sha256 = model_of(player)
        if sha256 is not None and (sha256 not in best or ratings.games[index] > ratings.games[best[sha256]]):
            best[sha256] = index
    shas, at = list(best), np.array(list(best.values()), dtype=np.int64)
    if not shas:
        return {}
    elo, covariance = ratings.elo[at], ratings.covariance[np.ix_(at, at)]
    variance = np.diag(covariance)
    spread = np.sqrt(np.maximum(variance[:, None] - 2 * covariance + variance[None, :], 1e-9))
    better = (elo[None, :] - elo[:, None]) / spread >= _z(BETTER)  # [i, j]: j is better than i
    better &= np.array([sha256 in living for sha256 in shas])[None, :]
    np.fill_diagonal(better, False)
    strongest = np.where(better, elo[None, :], -np.inf).argmax(1)
    found = {}
    for n, sha256 in enumerate(shas):
        low, high = ratings.band(int(at[n]))
        if sha256 in living and high < numbers.reject_elo and ratings.games[at[n]] >= numbers.reject_games:
            high = bounded(paths, made, ratings, ratings.players[int(at[n])]).high
        found[sha256] = Standing(
            float(elo[n]), low, high, int(ratings.games[at[n]]), not bool(ratings.open_above[at[n]]),
            shas[int(strongest[n])] if better[n].any() else None,
        )  # fmt: skip
    return found


def _z(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def rating_note(paths: Paths, row: ModelRow) -> dict[str, Any] | None:
    """A model's rating for its manifest; None without games, and why where the records cannot be read."""
    if row.config is None:
        return None
    try:
        found = standings(paths, row.config).get(row.sha256)
    except RingRiftError as error:
        return {"unknown": error.line()}
    return None if found is None else found.to_json()
