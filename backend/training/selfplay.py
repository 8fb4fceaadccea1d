"""Self-play: games on all cores into a config's database, each game a function of the run's settings, seed and index.

The run plays the lowest indices that the database does not hold yet, so a run that was killed goes on where it
stopped: nothing is played twice, and only games in flight are lost.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.configs import Config
from backend.errors import RingRiftError, UsageError
from backend.pool import Pool, default_workers
from backend.progress import Progress
from backend.rules import ENGINE_VERSION
from backend.training.game_record import MOVE_CAP, GameRecord, PolicyTargets, Seat
from backend.training.games_db import GamesDb, Slot

if TYPE_CHECKING:
    from backend.players.base import Player
    from backend.players.live import LiveGame

DEFAULT_PLAYERS = "heuristic:e0.05"
"""Heuristic with a little noise: with random openings on top, no two games are the same."""
OPENING_CHOICES = 8
"""A game opens with 0 to this many random choices, drawn per game."""

_STREAM = 0x53454C46  # keeps self-play's generators apart from those of other uses of the same seed
_FLUSH_GAMES = 16
_FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class SelfplaySettings:
    """Everything that a game of a run depends on besides its index.

    Attributes:
        players: player name per seat, as :func:`backend.players.make_player` takes it.
        opening: largest number of random choices at the start.
    """

    config: Config
    players: tuple[str, ...]
    seed: int = 0
    opening: int = OPENING_CHOICES

    def spec(self, identities: Mapping[str, str]) -> str:
        """The settings in words, without the seed; games of another spec are other games.

        Args:
            identities: player identity, which carries its version, by player name.
        """
        players = ",".join(identities[name] for name in self.players)
        return f"engine={ENGINE_VERSION} opening={self.opening} players={players}"


def seats_for(names: str, config: Config) -> tuple[str, ...]:
    """Player names per seat from a comma list: one name for all seats, or one per seat.

    Raises:
        UsageError: another number of names.
    """
    listed = tuple(name.strip() for name in names.split(",") if name.strip())
    if len(listed) == 1:
        return listed * config.players
    if len(listed) != config.players:
        raise UsageError(f"{len(listed)} players named for {config.players} seats", where=names)
    return listed


def generator(seed: int, index: int, stream: int = _STREAM) -> np.random.Generator:
    """The generator of game ``index`` of a run: the same on every machine and for any number of workers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([stream, seed, index])))


@dataclass(slots=True)
class _Game:
    index: int
    live: LiveGame
    rng: np.random.Generator
    opening: int
    began: float
    policy: dict[int, NDArray[np.float32]]


class SelfplayRunner:
    """Plays games of one run together, in a worker; a task is a game's index."""

    def __init__(self, settings: SelfplaySettings) -> None:
        from backend.players import make_player
        from backend.players.live import move_cap
        from backend.rules import load

        self._settings = settings
        self._rules = load(settings.config)
        self._cap = move_cap(settings.config)
        made: dict[str, Player] = {name: make_player(name, settings.config) for name in dict.fromkeys(settings.players)}
        self._players = made
        self._games: list[_Game] = []

    @property
    def active(self) -> int:
        """Games in hand."""
        return len(self._games)

    def add(self, task: int) -> None:
        """Starts the game of an index with its random opening."""
        from backend.players.live import LiveGame

        rng = generator(self._settings.seed, task)
        live = LiveGame(self._rules, self._cap)
        draws = rng.random(int(rng.integers(0, self._settings.opening + 1)))
        live.play_at_random(draws, turns=sys.maxsize)
        self._games.append(_Game(task, live, rng, live.played, time.monotonic(), {}))

    def step(self) -> list[GameRecord]:
        """Plays one choice in every game; returns the games that ended."""
        ended = [game for game in self._games if game.live.settle()]
        self._games = [game for game in self._games if not game.live.ended]
        turns: dict[str, list[_Game]] = {}
        for game in self._games:
            turns.setdefault(self._settings.players[game.live.player - 1], []).append(game)
        for name, turn in turns.items():
            self._choose(self._players[name], turn)
        return [self._record(game) for game in ended]

    def _choose(self, player: Player, turn: Sequence[_Game]) -> None:
        from backend.players.base import ScoringPlayer

        states = np.stack([game.live.state for game in turn])
        rngs = [game.rng for game in turn]
        if isinstance(player, ScoringPlayer):
            moves, policies = player.choose_with_policy(states, rngs)
            for game, policy in zip(turn, policies, strict=True):
                game.policy[game.live.played] = policy
        else:
            moves = player.choose(states, rngs)
        for game, move in zip(turn, moves, strict=True):
            game.live.play(int(move), checked=False)

    def _record(self, game: _Game) -> GameRecord:
        from backend.rules.layout import ELIMINATED, HAND, LPS_ROUNDS, SUPPLY, TERRITORY, TURN

        live, state, rules = game.live, game.live.state, self._rules
        offsets = np.zeros(live.played + 1, dtype=np.int64)
        for move, weights in game.policy.items():
            offsets[move + 1] = weights.size
        np.cumsum(offsets, out=offsets)
        policy = None
        if game.policy:
            policy = PolicyTargets(offsets, np.concatenate([game.policy[move] for move in sorted(game.policy)]))
        return GameRecord(
            config=self._settings.config.key,
            moves=live.moves.copy(),
            winner=rules.winner(state) if live.over else 0,
            ranking=tuple(int(rank) for rank in rules.ranking(state)) if live.over else (),
            reason=rules.reason(state) if live.over else MOVE_CAP,
            seats=tuple(
                Seat(
                    self._players[self._settings.players[n - 1]].identity,
                    int(state[ELIMINATED + n]),
                    int(state[TERRITORY + n]),
                    int(state[HAND + n]),
                )
                for n in range(1, rules.players + 1)
            ),
            seed=self._settings.seed,
            index=game.index,
            engine_version=ENGINE_VERSION,
            ring_supply=int(state[SUPPLY]),
            lps_rounds=int(state[LPS_ROUNDS]),
            opening=game.opening,
            turns=int(state[TURN]),
            duration_s=time.monotonic() - game.began,
            policy=policy,
        )


def selfplay(
    path: Path,
    settings: SelfplaySettings,
    *,
    games: int | None = None,
    until: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    first: int = 0,
) -> dict[str, Any]:
    """Plays games into the database ``path`` until it holds enough; finished games are kept whatever happens.

    Args:
        games: how many to add; or
        until: how many the database should hold with a winner.
        workers: processes; by default one a core.
        first: lowest index to play, so that runs of one seed on several machines play different games.

    Returns:
        ``config``, ``games_added``, ``games_total``, ``seed`` and ``db``.

    Raises:
        LockedError: another process writes to the database.
        ResourceError: the disk is full.
        UnverifiedError, SchemaError: the database cannot be used.
        UsageError: numbers or players that make no sense.
        RingRiftError: a worker ended by itself.
    """
    _check(settings, games, until, workers, first)
    from backend.players import make_player

    # Bad names and models are found here, with their own error.
    identities = {name: make_player(name, settings.config).identity for name in dict.fromkeys(settings.players)}
    with GamesDb.write(path, settings.config, f"self-play of {settings.config.key}") as db:
        before = db.count()
        target = before + games if games is not None else int(until or 0)
        progress = progress or Progress(target, "games")
        progress.total = target
        progress.update(before, force=True)
        run = _Run(db, settings, settings.spec(identities), before, target, progress, first)
        missing = max(0, target - before)
        if missing:
            count = min(workers or default_workers(), missing)
            batch = 4 if all(name.split(":")[0] in ("random", "heuristic") for name in settings.players) else 32
            with Pool(SelfplayRunner, settings, workers=count, batch=batch) as pool:
                run.play(pool)
        progress.update(run.total, force=True)
        result = {"config": settings.config.key, "games_added": run.total - before, "games_total": run.total}
        return result | {"seed": settings.seed, "db": str(path)}


def _check(settings: SelfplaySettings, games: int | None, until: int | None, workers: int | None, first: int) -> None:
    if (games is None) == (until is None):
        raise UsageError("say how many games to add, or how many there should be", hint="--games N or --until N")
    for name, value, least in (("games", games, 1), ("until", until, 1), ("workers", workers, 1)):
        if value is not None and value < least:
            raise UsageError(f"--{name} must be at least {least}", where=str(value))
    if first < 0:
        raise UsageError("--first must not be negative", where=str(first))
    if settings.seed < 0:
        raise UsageError("the seed must not be negative", where=str(settings.seed))


class _Run:
    """The parent's side of a run: hands out indices, collects games, stores them in batches."""

    def __init__(
        self, db: GamesDb, settings: SelfplaySettings, spec: str, total: int, target: int, progress: Progress,
        first: int = 0,
    ) -> None:  # fmt: skip
        self.total = total
        self._db, self._spec, self._target, self._progress = db, spec, target, progress
        self._taken = db.taken(spec, settings.seed)
        self._next = first
        self._flying = 0
        self._pending: list[GameRecord] = []
        self._flushed = time.monotonic()

    def play(self, pool: Pool) -> None:
        """Plays until the database holds the target."""
        while self.total < self._target:
            reached = self.total
            try:
                for record in pool.run(self._task):
                    self._flying -= 1
                    self._pending.append(record)
                    if len(self._pending) >= _FLUSH_GAMES or time.monotonic() - self._flushed >= _FLUSH_S:
                        self._flush()
                    self._progress.update(self.total + self._won())
            finally:
                self._flush()
            if self.total == reached:
                raise RingRiftError("no new games come out of these settings", where=self._spec)

    def _won(self) -> int:
        return sum(record.winner > 0 for record in self._pending)

    def _task(self) -> int | None:
        if self.total + self._won() + self._flying >= self._target:
            return None
        while self._next in self._taken:
            self._next += 1
        self._taken.add(self._next)
        self._flying += 1
        return self._next

    def _flush(self) -> None:
        rows = [(record, Slot(self._spec, record.seed, record.index)) for record in self._pending]
        self._flushed = time.monotonic()
        if rows:
            self._db.append(rows)
            self._pending.clear()
            self.total = self._db.count()
