"""Examines a root: do files, registry, match records and stored ratings agree? Reads everything, writes nothing."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from backend.configs import CONFIGS
from backend.databases import columns, open_reader, sqlite_errors, tables
from backend.errors import NotFoundError, SchemaError, UntrustedError, UnverifiedError
from backend.evaluation.reference_ratings import stored_ratings
from backend.paths import Paths
from backend.reference.files import Checkpoint, checkpoints
from backend.reference.findings import Report, collect
from backend.reference.identities import Identities, file_hash, read_identities, stored_name
from backend.reference.matches import read_matches
from backend.reference.names import KEYS, NOMINAL, config_of_name, participant
from backend.reference.weights import config_in
from backend.registry.aliases import known_names
from backend.registry.rows import read_rows
from backend.registry.schema import reading
from backend.registry.stages import STAGES
from backend.snapshot import ModelRow

Found = tuple[str, str]
_ELSEWHERE = ("rating_history", "elo_history", "gauntlet_results", "model_gauntlet_summary", "gauntlet_matches")
_STRAYS = (
    "data/elo/unified_elo.db", "data/games/unified_elo.db", "data/elo_leaderboard.db", "data/elo_progress.db",
    "data/generation_tracking.db",
)  # fmt: skip
_ANCHOR_SLACK = 1.0  # Elo


@dataclass(frozen=True, slots=True)
class Thing:
    """A registered model or an unregistered file, with everything that says what it plays."""

    name: str
    path: str
    row: ModelRow | None
    file: Checkpoint | None
    sha256: str | None
    said: dict[str, str]  # who says it -> config
    trouble: str = ""  # kind of what is wrong with the file itself

    @property
    def config(self) -> str | None:
        """What it plays, by the most trustworthy that says so: weights, notes, row, name."""
        return next((self.said[who] for who in ("weights", "json", "row", "name") if who in self.said), None)

    @property
    def in_conflict(self) -> bool:
        return len(set(self.said.values())) > 1


def examine(paths: Paths, config: str | None = None, told: Callable[[str], None] = lambda path: None) -> Report:
    """Everything that is found in a root, of one config or of all.

    Args:
        told: called with each file before it is read.

    Raises:
        LockedError, ResourceError: another program holds a database, or it cannot be read now.
    """
    found: list[Found] = []
    rows: tuple[ModelRow, ...] = ()
    adopted: set[str] = set()
    names: Sequence[tuple[str, str]] = ()
    try:
        with reading(paths.registry_db) as db:
            if db is not None:
                rows = read_rows(db, paths)
                if "artifacts" in tables(db):
                    adopted = {str(row[0]) for row in db.execute("SELECT label FROM artifacts")}
        names = known_names(paths)
    except UnverifiedError as error:
        found.append(("database.damaged", error.where))
    except SchemaError as error:
        found.append(("database.other-tables", f"{error.where}: {error.what}"))
    every = [thing for thing in things(paths, rows, told) if config in (None, thing.config)]
    found += _about_things(every)
    found += _about_production(rows, config)
    matches = 0
    try:
        counted = _Counted()
        found += _about_records(paths, config, counted, names)
        matches = counted.matches
    except NotFoundError:
        pass
    except UnverifiedError as error:
        found.append(("database.damaged", error.where))
    found += [("rating.elsewhere", name) for name in _STRAYS if (paths.root / name).exists()]
    return Report(len(every), sum(thing.name in adopted for thing in every), matches, collect(found))


def things(
    paths: Paths, rows: tuple[ModelRow, ...], told: Callable[[str], None] = lambda path: None
) -> Iterator[Thing]:
    """Registered models and the checkpoints that none of them names, each file hashed and looked into."""
    files = {one.path: one for one in checkpoints(paths)}
    named = set()
    for row in rows:
        stored = row.path if (paths.root / row.path).exists() else stored_name(row.path)
        named.add(stored)
        if row.path:
            told(stored)
        yield _thing(paths, row.label, stored, row, files.get(stored))
    for path, file in files.items():
        if path not in named:
            told(path)
            yield _thing(paths, path, path, None, file)


def _thing(paths: Paths, name: str, path: str, row: ModelRow | None, file: Checkpoint | None) -> Thing:
    sha256 = file_hash(paths, path) if path else None
    said: dict[str, str] = {}
    trouble = "" if sha256 else "file.missing"
    if sha256:
        try:
            inside = config_in(paths.root / path)
            said |= {"weights": inside} if inside else {}
        except UntrustedError:
            trouble = "file.unsafe"
        except (UnverifiedError, SchemaError):
            trouble = "file.damaged"
    told = {
        "json": file.noted if file else None,
        "row": row.config if row else None,
        "name": file.named if file else config_of_name(path),
    }
    return Thing(name, path, row, file, sha256, said | {who: key for who, key in told.items() if key}, trouble)


def _about_things(every: list[Thing]) -> Iterator[Found]:
    names: dict[str, list[str]] = {}
    for thing in every:
        if thing.trouble:
            yield thing.trouble, f"{thing.name}: {thing.path}" if thing.row else thing.path
        if thing.sha256:
            names.setdefault(thing.sha256, []).append(thing.name)
        if thing.row is None:
            yield "file.unregistered", thing.path
        else:
            if thing.sha256 and thing.row.sha256 and thing.sha256 != thing.row.sha256:
                yield "file.other-bytes", f"{thing.name}: {thing.sha256[:12]}, registered {thing.row.sha256[:12]}"
            if thing.row.stage not in STAGES:
                yield "model.strange-stage", f"{thing.name}: {thing.row.stage}"
        if thing.file and thing.file.stated and thing.sha256 and thing.file.stated != thing.sha256:
            yield "file.stale-checksum", f"{thing.path}.sha256"
        if thing.in_conflict:
            yield "model.config-conflict", f"{thing.name}: " + ", ".join(f"{w} {k}" for w, k in thing.said.items())
        if not thing.said:
            yield "model.no-config", thing.name
    for sha256, known in names.items():
        if len(known) > 1:
            yield "model.alias", f"{sha256[:12]}: {' '.join(sorted(known))}"


def _about_production(rows: tuple[ModelRow, ...], config: str | None) -> Iterator[Found]:
    there: dict[str, list[ModelRow]] = {}
    for row in rows:
        if row.stage == "production" and row.config and config in (None, row.config):
            there.setdefault(row.config, []).append(row)
    for key, found in there.items():
        if len({row.sha256 for row in found}) > 1:
            yield "production.several", f"{key}: {' '.join(row.label for row in found)}"


@dataclass
class _Counted:
    matches: int = 0


def _about_records(
    paths: Paths, config: str | None, counted: _Counted, names: Sequence[tuple[str, str]]
) -> Iterator[Found]:
    path = paths.elo_db
    with closing(open_reader(path)) as db, sqlite_errors(path):
        played: dict[str, Counter[str]] = {}
        for match in read_matches(db):
            if config is not None and match.config != config:
                continue
            counted.matches += 1
            for flaw in match.flaws:
                yield flaw, f"match {match.id}"
            if match.config is not None:
                played.setdefault(match.config, Counter()).update(set(match.players))
        if counted.matches:
            yield from _about_schema(db)
        identities = read_identities(db, paths, names)
        for name, noted in identities.reused().items():
            if config in (None, config_of_name(name)):
                yield "participant.reused-name", f"{name}: {' '.join(one[:12] for one in noted)}"
        for table in _ELSEWHERE:
            if table in tables(db) and (count := db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]):
                yield "rating.elsewhere", f"{table}: {count} rows"
    for key in [config] if config else [one.key for one in CONFIGS]:
        yield from _about_ratings(paths, key, played.get(key, Counter()), identities)


def _about_schema(db: sqlite3.Connection) -> Iterator[Found]:
    there = columns(db, "match_history")
    missing = [name for name in ("game_id", "winner_id") if name not in there]
    if missing:
        yield "schema.one-module", f"match_history has no column {' '.join(missing)}"


def _about_ratings(paths: Paths, config: str, played: Counter[str], identities: Identities) -> Iterator[Found]:
    for one in stored_ratings(paths, config):
        who = participant(one.participant)
        if who.baseline is not None:
            if abs(one.rating - NOMINAL[who.baseline]) > _ANCHOR_SLACK:
                yield "rating.anchor-moved", f"{one.participant} in {config}: {one.rating:.0f}"
            continue
        other = config_of_name(one.participant)
        if one.participant in KEYS or other not in (None, config):
            yield "rating.foreign-config", f"{one.participant} in {config}"
        elif one.games > played[one.participant]:
            yield (
                "rating.unbacked",
                f"{one.participant} in {config}: {one.games} games, {played[one.participant]} found",
            )
