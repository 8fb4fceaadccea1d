"""Makes a root with many models, matches and rating snapshots, for ``benchmarks/models_screen.py`` and for looking at.

    python benchmarks/models_root.py DIR [--models 10000] [--matches 1000000] [--snapshots 60]

The matches are made up (nobody played them) but stored as ours are; the newest ratings of every config are fitted to
them. Older snapshots have the size of real ones and plausible numbers: fitting each would take hours and change nothing
about reading them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from backend.configs import CONFIGS, Config
from backend.evaluation.match_totals import bring_up
from backend.evaluation.rating_history import publish, spec_of
from backend.evaluation.rating_store import add_snapshot, open_rating_tables
from backend.evaluation.records import Records
from backend.paths import Paths
from backend.registry.schema import writing

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
STAGES = ("development",) * 6 + ("archived",) * 3 + ("rejected",)
GAMES = (("heuristic:1", 0.6), ("random:1", 0.2), ("", 0.2))
"""Opponents of a model and their share of its games; the nameless one is the model before it."""


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def strength(number: int, count: int, rng: np.random.Generator) -> float:
    """Elo of a model: later ones are stronger, with luck."""
    return 1330 + 420 * (number / max(1, count)) ** 0.7 + float(rng.normal(0, 45))


def register(paths: Paths, counts: dict[str, int], champions: dict[str, list[int]]) -> None:
    """Models, their transitions, and the moves of the production pointers."""
    paths.models.mkdir(parents=True, exist_ok=True)
    with writing(paths.registry_db) as db:
        for config in CONFIGS:
            key, models = config.key, counts[config.key]
            db.execute("INSERT INTO models VALUES (?,?,?,?,?,?)", (key, key, "", "policy_value", BEGIN.isoformat(), ""))
            folder = paths.models / key
            folder.mkdir(exist_ok=True)
            for n in range(1, models + 1):
                _register(db, config, n, folder, paths, champions[key])
            previous: int | None = None
            for revision, n in enumerate(champions[key], 1):
                at = (BEGIN + timedelta(hours=4 * n + 3)).isoformat(timespec="milliseconds")
                db.execute(
                    "INSERT INTO pointer_moves (config, revision, action, from_label, from_sha256, to_label, to_sha256,"
                    " reason, by, at, operation) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                    (key, revision, "promote" if previous is None or n > previous else "rollback",
                     previous and f"{key}:v{previous}", previous and sha(f"{key} {previous}"), f"{key}:v{n}",
                     sha(f"{key} {n}"), "met the criteria of production", "benchmark", at, f"{key}-{revision}"),
                )  # fmt: skip
                previous = n
            if previous is not None:
                db.execute(
                    "INSERT INTO pointers VALUES (?,?,?,?,?,?,?)",
                    (
                        key,
                        f"{key}:v{previous}",
                        sha(f"{key} {previous}"),
                        f"{key}:v{champions[key][-2]}" if len(champions[key]) > 1 else None,
                        len(champions[key]),
                        "benchmark",
                        at,
                    ),
                )


def _register(db: Any, config: Config, n: int, folder: Path, paths: Paths, champions: list[int]) -> None:
    key, digest = config.key, sha(f"{config.key} {n}")
    at = (BEGIN + timedelta(hours=4 * n)).isoformat(timespec="milliseconds")
    stage = "production" if champions and n == champions[-1] else STAGES[n % len(STAGES)]
    file = folder / f"v{n}_{digest[:8]}.pth"
    file.write_text(f"{config.key} {n}")  # whose SHA-256 it is
    stored, parent = str(file.relative_to(paths.root)), sha(f"{key} {n - 1}") if n > 1 else None
    metrics = {"train_loss": 1.0 + 1 / n, "policy_accuracy": 0.4 + 0.2 * n / (n + 50)}
    metadata = {
        "epochs": 20,
        "metrics": metrics,
        "data": {"samples": 40_000 * n, "content_digest": sha(f"data {key} {n}")},
    }
    db.execute(
        "INSERT INTO versions (model_id, version, stage, file_path, file_hash, file_size_bytes, metrics_json,"
        " training_config_json, created_at, updated_at) VALUES (?,?,?,?,?,?,?,?,?,?)",
        (key, n, stage, stored, digest, file.stat().st_size, json.dumps(metrics), "{}", at, at),
    )
    steps = [(None, "development", "registered")] + (
        [("development", stage, "benchmark")] if stage != STAGES[0] else []
    )
    db.executemany(
        "INSERT INTO stage_transitions (model_id, version, from_stage, to_stage, reason, transitioned_by,"
        " transitioned_at) VALUES (?,?,?,?,?,'benchmark',?)",
        [(key, n, *step, at) for step in steps],
    )
    db.execute(
        "INSERT INTO artifacts (sha256, model_id, version, label, config, path, size_bytes, architecture,"
        " encoder_version, data_digest, parent_sha256, metadata_json, registered_at)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (digest, key, n, f"{key}:v{n}", key, stored, 10_300_000, "residual 6x64", "1", sha(f"data {key} {n}"), parent,
         json.dumps(metadata), at),
    )  # fmt: skip


def matches(config: Config, elos: list[float], total: int, rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Rows of match_games of one config, model by model, and the run each belongs to."""
    each, seats_of = max(1, total // max(1, len(elos))), config.players
    for n, elo in enumerate(elos, 1):
        digest = sha(f"{config.key} {n}")
        identity, played = f"neural:{digest[:16]}:s32", 0
        for opponent, share in GAMES:
            other, other_elo, other_sha = opponent, {"heuristic:1": 1500.0, "random:1": 1080.0}.get(opponent, 0.0), None
            if not opponent:
                if n == 1:
                    continue
                other_sha = sha(f"{config.key} {n - 1}")
                other, other_elo = f"neural:{other_sha[:16]}:s32", elos[n - 2]
            wins = 1 / (1 + (seats_of - 1) * 10 ** ((other_elo - elo) / 400))
            for won in (rng.random(round(each * share)) < wins).tolist():
                seat = played % seats_of
                lineup = [{"identity": other, "sha256": other_sha}] * seats_of
                lineup[seat] = {"identity": identity, "sha256": digest}
                ranks = [2] * seats_of
                winner = seat + 1 if won else (seat + 1) % seats_of + 1
                ranks[winner - 1] = 1
                game = sha(f"{config.key} {n} {played}")
                at = BEGIN + timedelta(hours=4 * n, seconds=played)
                yield (
                    game, config.key, identity, digest, seat + 1, other, json.dumps(lineup), winner, int(won),
                    json.dumps(ranks), "territory", "natural", 0, f"random:1:7:{played // seats_of}", 4, 7, 60,
                    b"\0" * 24, game[::-1], "1", 0.5, "benchmark", at.isoformat(timespec="milliseconds"),
                )  # fmt: skip
                played += 1


def play(paths: Paths, counts: dict[str, int], total: int, elos: dict[str, list[float]]) -> None:
    """All matches, with a run for every ten models."""
    Records.open(paths).close()
    rng = np.random.default_rng(5)
    with closing(open_rating_tables(paths)) as db:
        db.execute("PRAGMA synchronous = OFF")
        for config in CONFIGS:
            rows = matches(config, elos[config.key], total // len(CONFIGS), rng)
            db.execute("BEGIN")
            db.executemany(
                "INSERT INTO match_games (game_id, config, candidate, candidate_sha256, candidate_seat, opponent,"
                " seats, winner, won, ranking, reason, termination, crashed, opening, opening_moves, seed, move_count,"
                " moves, moves_sha256, engine_version, wall_s, worker, played_at) VALUES (" + ",".join("?" * 23) + ")",
                rows,
            )
            bring_up(db)
            db.execute("COMMIT")
            print(config.key, counts[config.key], "models played", flush=True)


def rate_all(paths: Paths, counts: dict[str, int], points: int) -> None:
    """The newest ratings by fit; before them, snapshots of the same players as they came in."""
    for config in CONFIGS:
        found = publish(paths, config.key)
        spec, models = spec_of(config.key), counts[config.key]
        rng = np.random.default_rng(9)
        order = {f"{sha(f'{config.key} {n}')}:s32": n for n in range(1, models + 1)}
        age = np.array([order.get(player, 0) for player in found.players])
        with closing(open_rating_tables(paths)) as db:
            first, last = db.execute(
                "SELECT min(seq), max(seq) FROM match_games WHERE config = ?", (config.key,)
            ).fetchone()
            db.execute("BEGIN")
            for point in range(1, points):
                there = np.flatnonzero(age <= max(1, round(models * point / points)))
                noise = rng.normal(0, 12, len(there)) * (~found.pinned[there])
                variance = np.diag(found.covariance)[there] * 1.1
                part = replace(
                    found,
                    players=tuple(found.players[i] for i in there),
                    elo=found.elo[there] + noise,
                    covariance=np.diag(variance),
                    games=found.games[there],
                    pinned=found.pinned[there],
                    open_above=found.open_above[there],
                    open_below=found.open_below[there],
                )
                seq = first + round((last - first) * point / points)
                add_snapshot(db, config.key, seq, 0, spec, sha(str(point)), int((seq - first) + 1), part)
            db.execute("COMMIT")
        print(config.key, len(found.players), "players rated", flush=True)


def make(root: Path, models: int, total: int, points: int) -> None:
    """A whole root."""
    paths = Paths(root)
    rng = np.random.default_rng(3)
    counts = {config.key: models // len(CONFIGS) + (i < models % len(CONFIGS)) for i, config in enumerate(CONFIGS)}
    elos = {key: [strength(n, count, rng) for n in range(1, count + 1)] for key, count in counts.items()}
    champions: dict[str, list[int]] = {}
    for key, count in counts.items():
        chain = [n for n in (count // 4, count // 2, count // 2 + count // 8, count * 7 // 8) if n]
        champions[key] = [*chain[:2], *chain[2:3], *chain[1:2], *chain[3:]] if count > 7 else chain[-1:]
    register(paths, counts, champions)
    play(paths, counts, total, elos)
    rate_all(paths, counts, points)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--matches", type=int, default=1_000_000)
    parser.add_argument("--snapshots", type=int, default=60, help="rating snapshots of each config")
    args = parser.parse_args()
    make(args.root.absolute(), args.models, args.matches, args.snapshots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
