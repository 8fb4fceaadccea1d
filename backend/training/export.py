"""From games databases to a dataset: discovery, de-duplication, split by game, provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.configs import CONFIGS, Config
from backend.databases import open_reader, sqlite_errors
from backend.errors import LockedError, NoEvidenceError, NotFoundError, RingRiftError, SchemaError, UnverifiedError
from backend.locks import FileLock
from backend.paths import Paths
from backend.progress import Progress
from backend.registry.hashing import sha256_file
from backend.rules import ENGINE_VERSION
from backend.rules.geometry import BOARDS
from backend.training.dataset import game_ids_digest, read_metadata, write_dataset
from backend.training.game_record import GameRecord
from backend.training.games_db import iterate_games
from backend.training.packing import ENCODER_VERSION
from backend.training.samples import GameSamples, game_samples, most_samples


@dataclass(frozen=True, slots=True)
class Source:
    """A database that was read: its finished games of the config, and the digest of their identities."""

    path: Path
    games: int
    game_ids_digest: str


@dataclass(slots=True)
class Collected:
    """Games found, by identity, and what was passed over."""

    games: dict[str, GameRecord] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    doubles: int = 0
    other_engine: int = 0


def discover(paths: Paths, config: Config) -> list[Path]:
    """Databases under the root that may hold games of ``config``: its canonical one first, then all others.

    Databases named for another config are left out.
    """
    own = paths.games_db(config)
    others = {f"canonical_{other.key}.db" for other in CONFIGS if other != config}
    found = sorted(
        path
        for folder in (paths.games, paths.root / "data" / "selfplay")
        for path in folder.rglob("*.db")
        if path != own and path.name not in others
    )
    return ([own] if own.exists() else []) + found


def collect(databases: Sequence[Path], config: Config, *, strict: bool, own: Path | None = None) -> Collected:
    """Reads the finished games of ``config``, each once.

    Args:
        strict: whether a database that cannot be read is an error; otherwise it is noted and left alone, but for
            ``own``, which always has to be readable.

    Raises:
        SchemaError, UnverifiedError, LockedError, NotFoundError: a database cannot be read.
    """
    found = Collected()
    for path in databases:
        try:
            _read(path, config, found)
        except (SchemaError, UnverifiedError, LockedError, NotFoundError) as error:
            if strict or path == own:
                raise
            found.notes.append(f"left alone: {error.line()}")
    return found


def _read(path: Path, config: Config, found: Collected) -> None:
    seen: list[str] = []
    for game in iterate_games(path):
        if game.config != config.key or not game.winner:
            continue
        game_id = game.game_id
        seen.append(game_id)
        if game.engine_version != ENGINE_VERSION:
            found.other_engine += 1
        elif game_id in found.games:
            found.doubles += 1
        else:
            found.games[game_id] = game
    if seen:
        found.sources.append(Source(path, len(seen), game_ids_digest(seen)))


def covers(dataset: Path, games_db: Path) -> bool:
    """Whether ``dataset`` was made of exactly the finished games that ``games_db`` holds now; cheap.

    False when either cannot be read: then the export itself will say what is wrong.
    """
    try:
        metadata = read_metadata(dataset)
        connection = open_reader(games_db)
        try:
            with sqlite_errors(games_db):
                rows = connection.execute("SELECT game_id FROM games WHERE winner > 0").fetchall()
        finally:
            connection.close()
    except RingRiftError:
        return False
    digest = game_ids_digest(row[0] for row in rows)
    sources = metadata.get("sources")
    return (
        metadata.get("encoder_version") == ENCODER_VERSION
        and isinstance(sources, list)
        and any(isinstance(source, dict) and source.get("game_ids_digest") == digest for source in sources)
    )


def export(
    paths: Paths,
    config: Config,
    *,
    databases: Sequence[Path] = (),
    output: Path | None = None,
    validation: float = 0.1,
    max_games: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
    echo: bool = False,
) -> dict[str, Any]:
    """Writes the dataset of a config and returns the result of the job.

    Args:
        databases: to read, each of which has to be good; by default those that :func:`discover` finds.
        validation: share of the games held out, chosen by a hash of each game's identity.
        max_games: the newest so many games only.
        tell: takes a line of narration.
        echo: print progress lines to standard output.

    Raises:
        NoEvidenceError: there are no games to export.
        LockedError: another export writes the same file.
        SchemaError, UnverifiedError, NotFoundError: a database cannot be read, or a game does not replay.
        ResourceError: the disk is full; the file that was there before is kept.
    """
    output = output or paths.dataset(config)
    with FileLock(output.with_name(output.name + ".lock"), f"export of {config.key}"):
        own = paths.games_db(config)
        found = collect(databases or discover(paths, config), config, strict=bool(databases), own=own)
        for note in found.notes:
            tell(note)
        if found.other_engine:
            tell(f"{found.other_engine} games of another engine version were left out")
        games = sorted(found.games.values(), key=lambda game: (game.created_at, game.game_id))
        if max_games is not None:
            games = games[-max_games:] if max_games > 0 else []
        if not games:
            raise NoEvidenceError(
                f"no finished games of {config.key}",
                where=", ".join(map(str, databases)) or str(paths.games),
                hint=f"ringrift selfplay --config {config.key} --games 200",
            )
        games.sort(key=lambda game: game.game_id)
        split = split_games([game.game_id for game in games], validation)
        arrays = _build(games, split, echo=echo)
        samples = len(arrays["players"])
        if not samples:
            raise NoEvidenceError("the games hold no decision to learn from", where=config.key)
        metadata = {
            "config": config.key,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "encoder_version": ENCODER_VERSION,
            "engine_version": ENGINE_VERSION,
            "samples": samples,
            "games": len(games),
            "games_validation": int(split.sum()),
            "validation_fraction": validation,
            "max_samples_per_game": most_samples(BOARDS[config.board].cells),
            "doubles_left_out": found.doubles,
            "other_engine_left_out": found.other_engine,
            "game_ids_digest": game_ids_digest(game.game_id for game in games),
            "sources": [
                {"path": str(source.path), "games": source.games, "game_ids_digest": source.game_ids_digest}
                for source in found.sources
            ],
        }
        info = write_dataset(output, config, arrays, metadata)
        return {
            "config": config.key,
            "output": str(output),
            "sha256": sha256_file(output),
            "content_digest": info.content_digest,
            "samples": samples,
            "games": len(games),
            "games_validation": info.games_validation,
            "doubles": found.doubles,
            "databases": [str(source.path) for source in found.sources],
            "notes": found.notes,
        }


def split_games(game_ids: Sequence[str], fraction: float) -> NDArray[np.uint8]:
    """uint8 per game: 1 when it is held out. A game keeps its side when others are added.

    Where the draw leaves none (few games), the one with the smallest draw is held out, so that there is something to
    measure with; a single game is never held out.
    """
    draws = np.array(
        [int.from_bytes(hashlib.sha256(f"split {name}".encode()).digest()[:8], "big") / 2**64 for name in game_ids]
    )
    held = draws < fraction
    if fraction > 0 and len(draws) > 1:
        if not held.any():
            held[draws.argmin()] = True
        if held.all():
            held[draws.argmax()] = False
    return held.astype(np.uint8)


def _build(games: Iterable[GameRecord], split: NDArray[np.uint8], *, echo: bool) -> dict[str, NDArray[Any]]:
    parts: list[GameSamples] = []
    names: list[str] = []
    progress = Progress(len(split), "games", echo=echo)
    for done, game in enumerate(games, 1):
        parts.append(game_samples(game))
        names.append(game.game_id)
        progress.update(done, force=done == len(split))
    counts = np.concatenate([part.counts for part in parts])
    arrays: dict[str, NDArray[Any]] = {
        name: np.concatenate([part.per_sample[name] for part in parts]) for name in parts[0].per_sample
    }
    sizes = [len(part.counts) for part in parts]
    arrays |= {
        "policy_offsets": np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts))),
        "policy_indices": np.concatenate([part.policy_indices for part in parts]),
        "policy_values": np.concatenate([part.policy_values for part in parts]),
        "game_index": np.repeat(np.arange(len(parts), dtype=np.int32), sizes),
        "final_cells": np.stack([part.final_cells for part in parts]),
        "final_scores": np.stack([part.final_scores for part in parts]),
        "split": split,
        "game_ids": np.array(names, dtype="S64"),
    }
    return arrays
