"""Replays stored games and compares the result with what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.errors import UsageError
from backend.rules import ENGINE_VERSION, load
from backend.training.game_record import MOVE_CAP, GameRecord
from backend.training.games_db import iterate_games


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check found: games replayed, those of another engine version, and one line per game that differs."""

    games: int
    skipped: int
    mismatches: tuple[str, ...]


def verify_games(path: Path, limit: int | None = None) -> VerifyReport:
    """Replays the games of a database, every move checked against the legal list.

    Args:
        limit: at most this many games.

    Raises:
        NotFoundError, UnverifiedError, SchemaError, LockedError: the database cannot be read.
    """
    games, skipped, mismatches = 0, 0, []
    for game in iterate_games(path):
        if limit is not None and games >= limit:
            break
        if game.engine_version != ENGINE_VERSION:
            skipped += 1
            continue
        games += 1
        problem = replay_problem(game)
        if problem:
            mismatches.append(f"{game.game_id}: {problem}")
    return VerifyReport(games, skipped, tuple(mismatches))


def replay_problem(game: GameRecord) -> str | None:
    """What is wrong with a game when it is replayed, or None."""
    rules = load(game.config)
    state = rules.new(swap=game.swap or None, ring_supply=game.ring_supply, lps_rounds=game.lps_rounds)
    for ply, move in enumerate(game.moves):
        if rules.over(state):
            return f"{game.moves.size - ply} moves after the end"
        try:
            rules.apply(state, int(move))
        except UsageError:
            return f"move {ply + 1} of {game.moves.size} is not legal"
    if game.reason == MOVE_CAP:
        return "it has ended though stored as stopped" if rules.over(state) else None
    if not rules.over(state):
        return "the moves stop before the end"
    found = (rules.winner(state), tuple(int(rank) for rank in rules.ranking(state)), rules.reason(state))
    stored = (game.winner, game.ranking, game.reason)
    return None if found == stored else f"stored {stored}, replayed {found}"
