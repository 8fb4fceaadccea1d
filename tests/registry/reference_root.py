"""Roots as an ai-service makes them, in every dialect of its tables, with flaws planted on demand.

The tables are written from the columns that its two modules are known to make; nothing of ours takes part.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from backend.paths import Paths
from backend.reference.names import config_of_name

Dialect = Literal["first", "second", "both"]
DIALECTS: tuple[Dialect, ...] = ("first", "second", "both")
POLICY = {"square8": 7_000, "square19": 67_000, "hex8": 4_500, "hexagonal": 91_876}
START = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()

REGISTRY = """
CREATE TABLE models (model_id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT, model_type TEXT NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE versions (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, version INTEGER NOT NULL,
    stage TEXT NOT NULL, file_path TEXT NOT NULL, file_hash TEXT NOT NULL, file_size_bytes INTEGER NOT NULL,
    metrics_json TEXT, training_config_json TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    FOREIGN KEY (model_id) REFERENCES models(model_id), UNIQUE(model_id, version));
CREATE TABLE tags (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, version INTEGER NOT NULL,
    tag TEXT NOT NULL, UNIQUE(model_id, version, tag));
CREATE TABLE stage_transitions (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL,
    version INTEGER NOT NULL, from_stage TEXT, to_stage TEXT NOT NULL, reason TEXT, transitioned_by TEXT,
    transitioned_at TEXT NOT NULL);
CREATE TABLE validations (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, version INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending', work_id TEXT, baselines TEXT, games_per_matchup INTEGER DEFAULT 50,
    results_json TEXT, started_at TEXT, completed_at TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE(model_id, version));
CREATE INDEX idx_versions_model ON versions(model_id);
CREATE INDEX idx_versions_stage ON versions(stage);
"""
PARTICIPANTS = """
CREATE TABLE participants (participant_id TEXT PRIMARY KEY, participant_type TEXT NOT NULL DEFAULT 'model',
    ai_type TEXT, difficulty INTEGER, use_neural_net INTEGER, model_path TEXT, model_version TEXT, metadata TEXT,
    created_at REAL, last_seen REAL{more});
"""
RATINGS = """
CREATE TABLE elo_ratings (participant_id TEXT NOT NULL, board_type TEXT NOT NULL, num_players INTEGER NOT NULL,
    rating REAL DEFAULT 1500.0, games_played INTEGER DEFAULT 0, wins INTEGER DEFAULT 0, losses INTEGER DEFAULT 0,
    draws INTEGER DEFAULT 0, {own}, last_update REAL, PRIMARY KEY (participant_id, board_type, num_players));
"""
FIRST = """
CREATE TABLE match_history (id INTEGER PRIMARY KEY AUTOINCREMENT, participant_a TEXT, participant_b TEXT,
    participant_ids TEXT, rankings TEXT, winner TEXT, board_type TEXT NOT NULL, num_players INTEGER NOT NULL,
    game_length INTEGER, duration_sec REAL, timestamp REAL, tournament_id TEXT, game_id TEXT, worker TEXT,
    metadata TEXT{more});
CREATE UNIQUE INDEX idx_match_game ON match_history(id, game_id) WHERE game_id IS NOT NULL;
CREATE TABLE rating_history (id INTEGER PRIMARY KEY AUTOINCREMENT, participant_id TEXT, board_type TEXT,
    num_players INTEGER, rating REAL, rating_change REAL, games_played INTEGER, timestamp REAL, match_id INTEGER,
    tournament_id TEXT);
"""
SECOND = """
CREATE TABLE match_history (id TEXT PRIMARY KEY, participant_ids TEXT NOT NULL, winner_id TEXT,
    game_length INTEGER, duration_sec REAL, board_type TEXT NOT NULL, num_players INTEGER NOT NULL, timestamp TEXT,
    elo_before TEXT, elo_after TEXT, tournament_id TEXT, metadata TEXT);
CREATE TABLE elo_history (id INTEGER PRIMARY KEY AUTOINCREMENT, participant_id TEXT, board_type TEXT,
    num_players INTEGER, rating REAL, timestamp TEXT, iteration INTEGER);
"""
IDENTITIES = """
CREATE TABLE model_identities (model_path TEXT, content_sha256 TEXT, file_size INTEGER, first_seen_at REAL,
    last_verified_at REAL);
CREATE TABLE participant_aliases ("primary" TEXT, alias TEXT, content_sha256 TEXT, created_at REAL);
"""
HEURISTIC, RANDOM = "none:heuristic:d5", "baseline_random"


def weights(config: str, seed: int, *, claim: bool = True) -> bytes:
    """A checkpoint with the keys of the ai-service's, of a few hundred numbers.

    Args:
        claim: say the board and the size of the policy; the number of players is in the shape of the value head.
    """
    board, players = config[:-3], int(config[-2])
    torch.manual_seed(seed)
    state = {"conv1.weight": torch.rand(4, 4), "value_fc2.weight": torch.rand(players, 8)}
    told = {"policy_size": POLICY[board], "board_size": 8} if claim else {}
    content = {"model_state_dict": state, "_versioning_metadata": {"model_class": "RingRiftCNN_v2", "config": told}}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@dataclass
class ReferenceRoot:
    """A root in one dialect; healthy until something is planted.

    Attributes:
        dialect: which of its modules made the match records; ``both`` one after the other.
        text_times: times as ISO text, also where the column says REAL.
        wal: the journal of the match records.
    """

    paths: Paths
    dialect: Dialect = "both"
    text_times: bool = False
    wal: bool = True
    planted: list[str] = field(default_factory=list)
    _clock: float = START
    _waiting: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    _many: bool = False

    def __post_init__(self) -> None:
        self.paths.registry_db.parent.mkdir(parents=True)
        with closing(sqlite3.connect(self.paths.registry_db)) as db:
            db.executescript(REGISTRY)
        more = "" if self.dialect == "second" else ", nn_model_id TEXT, nn_model_path TEXT, is_composite INTEGER"
        own = {
            "first": "rating_deviation REAL DEFAULT 350.0, archived_at REAL", "second": "peak_rating REAL",
            "both": "rating_deviation REAL DEFAULT 350.0, peak_rating REAL, harness_type TEXT",
        }[self.dialect]  # fmt: skip
        history = FIRST.format(more=", winner_id TEXT, elo_before TEXT, elo_after TEXT, harness_type TEXT")
        script = {"first": FIRST.format(more=""), "second": SECOND, "both": history}[self.dialect]
        with closing(sqlite3.connect(self.paths.elo_db)) as db:
            if self.wal:
                db.execute("PRAGMA journal_mode = WAL")
            db.executescript(PARTICIPANTS.format(more=more) + RATINGS.format(own=own) + script + IDENTITIES)
        if self.dialect != "both":
            self.planted.append("schema.one-module")
        for who in (HEURISTIC, RANDOM):
            self.participant(who)

    # what there is

    def file(self, stored: str, data: bytes, *, sidecar: str | None = "", note: str | None = None) -> str:
        """A file with its ``.sha256`` (``None``: without) and perhaps a ``.json`` that notes a config."""
        path = self.paths.root / stored
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        if sidecar is not None:
            path.with_name(path.name + ".sha256").write_text(f"{sidecar or sha256}  {path.name}\n")
        if note is not None:
            told = {"board_type": note[:-3], "num_players": int(note[-2]), "sidecar_version": "1.0"}
            path.with_name(path.name + ".json").write_text(json.dumps(told))
        return sha256

    def register(
        self, model_id: str, version: int, stored: str, sha256: str, *, stage: str = "development",
        config: str | None = None,
    ) -> None:  # fmt: skip
        """A row of the registry, times local and without a zone."""
        at = datetime.fromtimestamp(self._tick(), UTC).replace(tzinfo=None).isoformat()
        key = config_of_name(config or "")
        extra = {"board_type": key[:-3], "num_players": int(key[-2]), "source": "training"} if key else {}
        path = self.paths.root / stored
        size = path.stat().st_size if path.exists() else 77
        model = (model_id, model_id, at, at)
        self._registry("INSERT OR IGNORE INTO models VALUES (?, ?, NULL, 'policy_value', ?, ?)", *model)
        self._registry(
            "INSERT INTO versions (model_id, version, stage, file_path, file_hash, file_size_bytes, metrics_json,"
            " training_config_json, created_at, updated_at) VALUES (?,?,?,?,?,?,?,?,?,?)",
            model_id, version, stage, stored, sha256, size, '{"elo": 1540.0}',
            json.dumps({"architecture": "resnet", "extra_config": extra}), at, at,
        )  # fmt: skip
        self._registry(
            "INSERT INTO stage_transitions (model_id, version, from_stage, to_stage, transitioned_at)"
            " VALUES (?, ?, NULL, ?, ?)", model_id, version, stage, at,
        )  # fmt: skip

    def model(self, config: str, name: str, seed: int, *, stage: str = "development") -> str:
        """A healthy registered model, also listed as a participant; returns its SHA-256."""
        stored = f"models/{name}.pth"
        sha256 = self.file(stored, weights(config, seed), note=config)
        self.register(name, 1, stored, sha256, stage=stage, config=config)
        self.participant(name, stored)
        return sha256

    def participant(self, who: str, path: str | None = None) -> None:
        values = {"participant_id": who, "model_path": path, "created_at": self._tick(), "last_seen": self._clock}
        self.insert("participants", values)

    def match(self, players: list[str], winner: int, config: str, /, **columns: Any) -> None:
        """A match as this dialect's writer stores it; ``columns`` replace what would be there."""
        at = self._tick()
        ranks = [0 if place == winner else 1 for place in range(len(players))]
        when: Any = datetime.fromtimestamp(at, UTC).isoformat() if self.text_times or self.dialect == "second" else at
        values: dict[str, Any] = {
            "participant_ids": json.dumps(players), "board_type": config[:-3], "num_players": int(config[-2]),
            "timestamp": when, "game_length": 51, "tournament_id": "t1",
        }  # fmt: skip
        if self.dialect == "second":
            values |= {"id": f"m{at:.0f}", "winner_id": players[winner]}
        else:
            values |= {"participant_a": players[0], "participant_b": players[1], "rankings": json.dumps(ranks)}
            values |= {"winner": players[winner], "game_id": f"game-{at:.0f}"}
        if self.dialect == "both":
            values |= {"winner_id": players[winner]}
        self.insert("match_history", values | columns)

    def rating(self, who: str, config: str, rating: float, games: int) -> None:
        values = {"participant_id": who, "board_type": config[:-3], "num_players": int(config[-2])}
        self.insert("elo_ratings", values | {"rating": rating, "games_played": games, "last_update": self._tick()})

    def healthy(self, config: str = "square8_2p", games: int = 40) -> tuple[str, str]:
        """Two models that have played Heuristic, Random and each other, with their ratings; returns their names."""
        one, two = f"canonical_{config}", f"candidate_{config}_v2"
        self.model(config, one, 1, stage="production")
        self.model(config, two, 2)
        seats, self._many = int(config[-2]), True
        for n in range(games):
            for who, share in ((one, 6), (two, 5)):
                lineup = [HEURISTIC] * seats
                lineup[n % seats] = who
                won = n % 10 < share
                self.match(lineup, n % seats if won else (n + 1) % seats, config)
                lineup = [RANDOM] * seats
                lineup[n % seats] = who
                self.match(lineup, n % seats if n % 10 < 9 else (n + 1) % seats, config)
        for who, rating in ((one, 1490.0), (two, 1420.0)):
            self.rating(who, config, rating, 2 * games)
        self.rating(HEURISTIC, config, 1200.0, 2 * games)
        self._many = False
        self.rating(RANDOM, config, 400.0, 2 * games)
        return one, two

    # how things are stored

    def insert(self, table: str, values: dict[str, Any]) -> None:
        names, marks = ", ".join(f'"{name}"' for name in values), ", ".join("?" * len(values))
        self._waiting.append((f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values())))
        if not self._many:
            self._store()

    def _store(self) -> None:
        with closing(sqlite3.connect(self.paths.elo_db)) as db:
            for sql, values in self._waiting:
                db.execute(sql, values)
            db.commit()
        self._waiting.clear()

    def _registry(self, sql: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.paths.registry_db)) as db:
            db.execute(sql, values)
            db.commit()

    def _tick(self) -> float:
        self._clock += 60.0
        return self._clock

    def plant(self, kind: str) -> None:
        """Puts one flaw of a kind in, and what comes with it by its nature."""
        self.planted += [kind, *(PLANTS[kind](self) or ())]


def _bad_match(**columns: Any) -> Callable[[ReferenceRoot], None]:
    def plant(root: ReferenceRoot) -> None:
        known = {"first": {"winner", "rankings", "game_id"}, "second": {"winner_id"}, "both": None}[root.dialect]
        common = {"participant_ids", "board_type", "num_players", "timestamp", "participant_a", "participant_b"}
        if root.dialect == "second":
            common -= {"participant_a", "participant_b"}
        given = {name: v for name, v in columns.items() if known is None or name in known | common}
        root.match(["canonical_square8_2p", HEURISTIC], 0, "square8_2p", **given)

    return plant


def _lineup(*players: str, listed: bool = True) -> Callable[[ReferenceRoot], None]:
    def plant(root: ReferenceRoot) -> None:
        if listed:
            root.participant(players[-1])
        root.match(list(players), 0, "square8_2p")

    return plant


def _twice(root: ReferenceRoot) -> None:
    for _ in range(2):
        root.match(["canonical_square8_2p", HEURISTIC], 0, "square8_2p", game_id="twice")


def _missing(root: ReferenceRoot) -> None:
    root.register("gone", 3, "data/model_registry/models/gone/v3.pt", "ab" * 32, config="hex8_3p")


def _other_bytes(root: ReferenceRoot) -> None:
    root.file("models/swapped_hex8_2p.pth", weights("hex8_2p", 31), note="hex8_2p")
    root.register("swapped", 1, "models/swapped_hex8_2p.pth", "cd" * 32, config="hex8_2p")


def _stale(root: ReferenceRoot) -> list[str]:
    root.file("models/stale_hex8_2p.pth", weights("hex8_2p", 32), sidecar="ef" * 32)
    return ["file.unregistered"]


def _unsafe(root: ReferenceRoot) -> list[str]:
    buffer = io.BytesIO()
    torch.save({"model_state_dict": {}, "hook": Path("/tmp")}, buffer)
    root.file("models/unsafe_hex8_2p.pth", buffer.getvalue())
    return ["file.unregistered"]


def _damaged(root: ReferenceRoot) -> list[str]:
    root.file("models/damaged_hex8_2p.pth", weights("hex8_2p", 33)[:-200])
    return ["file.unregistered"]


def _conflict(root: ReferenceRoot) -> None:
    sha256 = root.file("models/candidate_hex8_3p.pth", weights("hex8_4p", 34), note="hex8_3p")
    root.register("wrong", 1, "models/candidate_hex8_3p.pth", sha256, config="hex8_3p")


def _no_config(root: ReferenceRoot) -> list[str]:
    root.file("models/mystery.pth", weights("hex8_2p", 35, claim=False))
    return ["file.unregistered"]


def _alias(root: ReferenceRoot) -> list[str]:
    (root.paths.models / "ringrift_best_square8_2p.pth").symlink_to("canonical_square8_2p.pth")
    return ["file.unregistered"]


def _strange_stage(root: ReferenceRoot) -> None:
    sha256 = root.file("models/shadow_hex8_2p.pth", weights("hex8_2p", 36), note="hex8_2p")
    root.register("shadow", 1, "models/shadow_hex8_2p.pth", sha256, stage="shadow", config="hex8_2p")


def _several(root: ReferenceRoot) -> None:
    sha256 = root.file("models/other_square8_2p.pth", weights("square8_2p", 37), note="square8_2p")
    root.register("other", 1, "models/other_square8_2p.pth", sha256, stage="production", config="square8_2p")


def _reused(root: ReferenceRoot) -> None:
    for n, sha256 in enumerate(("01" * 32, "02" * 32)):
        values = {"model_path": "models/once_hex8_2p.pth", "content_sha256": sha256, "last_verified_at": START + n}
        root.insert("model_identities", values)


def _elsewhere(root: ReferenceRoot) -> None:
    table = "elo_history" if root.dialect == "second" else "rating_history"
    root.insert(table, {"participant_id": "canonical_square8_2p", "board_type": "square8", "num_players": 2})


def _loose(root: ReferenceRoot) -> None:
    root.file("models/loose_hex8_2p.pth", weights("hex8_2p", 38))


Plant = Callable[["ReferenceRoot"], list[str] | None]

COMMON: dict[str, Plant] = {
    "file.missing": _missing,
    "file.other-bytes": _other_bytes,
    "file.stale-checksum": _stale,
    "file.unsafe": _unsafe,
    "file.damaged": _damaged,
    "file.unregistered": _loose,
    "model.config-conflict": _conflict,
    "model.no-config": _no_config,
    "model.alias": _alias,
    "model.strange-stage": _strange_stage,
    "production.several": _several,
    "participant.reused-name": _reused,
    "rating.foreign-config": lambda root: root.rating("candidate_hex8_4p", "square8_2p", 1600.0, 5),
    "rating.unbacked": lambda root: root.rating("never_seen", "square8_2p", 1600.0, 5),
    "rating.anchor-moved": lambda root: root.rating("heuristic", "hex8_4p", 1967.0, 0),
    "rating.elsewhere": _elsewhere,
    "match.no-config": _bad_match(board_type="hex9"),
    "match.no-players": _bad_match(participant_ids="[]", participant_a=None, participant_b=None),
    "match.no-winner": _bad_match(winner=None, winner_id=None, rankings=None),
    "match.strange-winner": _bad_match(winner="somebody", winner_id="somebody", rankings=None),
    "match.foreign-config": _lineup(RANDOM, "candidate_hex8_4p"),
    "match.config-as-player": _lineup(RANDOM, "square8_2p"),
    "match.unknown-seats": _lineup("canonical_square8_2p", "candidate_square8_2p_v2", HEURISTIC, listed=False),
    "match.no-time": _bad_match(timestamp="some day"),
    "match.unlisted-player": _lineup(HEURISTIC, "stranger", listed=False),
}
"""What can be planted in every dialect."""

BOTH_COLUMNS: dict[str, Plant] = {
    "match.contradiction": _bad_match(winner="canonical_square8_2p", winner_id=HEURISTIC),
    "match.split-winner": _bad_match(winner="canonical_square8_2p", winner_id=None, rankings=None),
}
"""What only a file can hold that both modules have opened."""
RANKED: dict[str, Plant] = {
    "match.winner-by-ranking": _bad_match(winner=None, winner_id=None),
    "match.duplicate": _twice,
}
"""What takes the columns of the first module."""


PLANTS = COMMON | BOTH_COLUMNS | RANKED


def possible(dialect: Dialect) -> list[str]:
    """Kinds that a dialect can hold."""
    return [*COMMON, *(RANKED if dialect != "second" else ()), *(BOTH_COLUMNS if dialect == "both" else ())]
