"""Match records, ratings and a registry behind the models of a made-up snapshot, as the backend leaves them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from backend.evaluation.match_record import MatchRecord, MatchSeat
from backend.evaluation.rating_history import publish
from backend.evaluation.records import Records
from backend.paths import Paths
from backend.registry.schema import writing
from backend.snapshot import ModelRow

CONFIG = "square8_2p"


def match(number: int, model: ModelRow, opponent: str, won: bool, other: ModelRow | None = None) -> MatchRecord:
    """A game of a model from either seat; its moves depend on the number."""
    own = MatchSeat(f"neural:{model.sha256[:16]}:s32", model.sha256)
    against = MatchSeat(opponent, other.sha256 if other else None)
    first = number % 2 == 0
    winner = 1 if won == first else 2
    return MatchRecord(
        config=CONFIG,
        seats=(own, against) if first else (against, own),
        candidate=1 if first else 2,
        winner=winner,
        ranking=(1, 2) if winner == 1 else (2, 1),
        reason="territory",
        termination="natural",
        opening=f"random:1:7:{number // 2}",
        opening_moves=4,
        seed=7,
        moves=np.array([5, 1 << 33, number], dtype=np.int64),
        engine_version="1",
        wall_s=0.5,
        worker="here:1",
    )


def play(paths: Paths, models: Iterable[ModelRow], baseline: str = "heuristic:1", games: int = 30) -> None:
    """A run a model: against Heuristic, another baseline, and the model before it; rated after each."""
    before: ModelRow | None = None
    number = 0
    for model in models:
        rows = []
        for opponent, wins, other in (
            ("heuristic:1", 20 + 2 * model.version, None),
            (baseline if baseline != "heuristic:1" else "random:1", 27, None),
            (f"neural:{before.sha256[:16]}:s32" if before else "", 18, before),
        ):
            for n in range(games if opponent else 0):
                rows.append((str(number), match(number, model, opponent, n < wins, other)))
                number += 1
        with Records.open(paths) as records:
            opponents = ["heuristic:1"]
            records.begin_run(f"run{model.version}", CONFIG, {"candidate_sha256": model.sha256, "opponents": opponents})
            records.add(f"run{model.version}", rows)
        publish(paths, CONFIG)
        before = model


def register(paths: Paths, models: Iterable[ModelRow], **decision: Any) -> None:
    """The rows of some models; the one in production got there by a decision, against the evidence."""
    with writing(paths.registry_db) as db:
        for model in models:
            at = model.created_at.isoformat()
            key = (model.model_id, model.version)
            db.execute("INSERT OR IGNORE INTO models VALUES (?,?,'','policy_value',?,?)", (model.model_id, "x", at, at))
            db.execute(
                "INSERT INTO versions (model_id, version, stage, file_path, file_hash, file_size_bytes, metrics_json,"
                " training_config_json, created_at, updated_at) VALUES (?,?,?,?,?,?,'{}','{}',?,?)",
                (*key, model.stage, model.path, model.sha256, model.size, at, at),
            )
            steps = [(None, "development", "registered")]
            steps += [("development", model.stage, "as the test has it")] if model.stage != "development" else []
            db.executemany(
                "INSERT INTO stage_transitions (model_id, version, from_stage, to_stage, reason, transitioned_by,"
                " transitioned_at) VALUES (?,?,?,?,?,'me@here',?)",
                [(*key, *step, at) for step in steps],
            )
            db.execute(
                "INSERT INTO artifacts (sha256, model_id, version, label, config, path, size_bytes, data_digest,"
                " parent_sha256, metadata_json, registered_at) VALUES (?,?,?,?,?,?,?,?,?,'{}',?)",
                (model.sha256, *key, model.label, model.config, model.path, model.size, "dd" * 32, model.parent, at),
            )
            if model.stage != "production":
                continue
            operation = f"op{model.version}"
            db.execute(
                "INSERT INTO pointer_moves (config, revision, action, to_label, to_sha256, reason, by, at, operation)"
                " VALUES (?,1,'promote',?,?,'it is needed','me@here',?,?)",
                (model.config, model.label, model.sha256, at, operation),
            )
            db.execute(
                "INSERT INTO pointers VALUES (?,?,?,NULL,1,'me@here',?)", (model.config, model.label, model.sha256, at)
            )
            row = {"criterion": "Heuristic", "required": ">= 60.0 %", "measured": "55.0 %", "verdict": "CONTINUE"}
            values = {"outcome": "CONTINUE", "override": "the hosts need it today", "reason": "it is needed"} | decision
            db.execute(
                "INSERT INTO decisions VALUES (?,?,'me@here','promote',?,?,?,'staging','production',?,?,?,?)",
                (operation, at, model.config, model.label, model.sha256, values["outcome"], values["override"],
                 values["reason"], json.dumps({"criteria": [row | {"games": "40 (40)"}]})),
            )  # fmt: skip
