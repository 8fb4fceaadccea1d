"""Tournament: models of one config against each other and against anchors, paired for what the games will tell.

Every round looks at the ratings that all stored matches give, chooses pairings, and plays each as one block: one
opening, the reference in every seat once. What was played is in the match records; a run started again under the same
id first completes its blocks and then goes on, so it needs no state of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backend.configs import Config
from backend.errors import UnverifiedError, UsageError
from backend.evaluation import openings
from backend.evaluation.gauntlet import Candidate, GauntletSettings, MatchSlot
from backend.evaluation.match_record import MatchRecord
from backend.evaluation.match_runner import MatchRunner
from backend.evaluation.pairing import next_pairings
from backend.evaluation.rated_games import RatedGames, player_key
from backend.evaluation.rating_history import bands, load_games, publish, rate_at, spec_of
from backend.evaluation.records import Records
from backend.paths import Paths
from backend.players import make_player
from backend.players.base import Player
from backend.pool import Pool, default_workers
from backend.progress import Progress
from backend.rules import ENGINE_VERSION

ROUND = 12
"""Pairings that are chosen at once."""


@dataclass(frozen=True, slots=True)
class TournamentSettings:
    """Who plays: models by their SHA-256, anchors by name. A slot of a run names models by 16 digits."""

    config: Config
    models: tuple[Candidate, ...]
    anchors: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class PairSlot:
    """One game: reference and opponent as they are named in slots, the block (its opening), the reference's seat."""

    reference: str
    opponent: str
    block: int
    seat: int

    @property
    def key(self) -> str:
        return f"{self.reference}~{self.opponent}/{self.block}/{self.seat}"

    @classmethod
    def parse(cls, key: str) -> PairSlot:
        pair, block, seat = key.rsplit("/", 2)
        reference, _, opponent = pair.partition("~")
        return cls(reference, opponent, int(block), int(seat))


def entrant_name(model: Candidate) -> str:
    """A model's name in slots."""
    if model.sha256 is None:
        raise UsageError("only models and anchors play tournaments", where=model.name)
    return model.sha256[:16]


class _Players(dict[str, Player]):
    """The entrants by name, each loaded when it is first asked for."""

    def __init__(self, settings: TournamentSettings) -> None:
        super().__init__()
        self._config = settings.config
        self._models = {entrant_name(model): model for model in settings.models}

    def __missing__(self, name: str) -> Player:
        model = self._models.get(name)
        if model is None:
            made = make_player(name, self._config)
        else:
            made = make_player("neural", self._config, model=model.model, simulations=model.simulations)
            if name not in made.identity:
                raise UnverifiedError("the checkpoint has changed", where=str(model.model))
        self[name] = made
        return made


class TournamentRunner:
    """Matches of a tournament in a worker; a task is a :class:`PairSlot`."""

    def __init__(self, settings: TournamentSettings) -> None:
        self._settings = settings
        self._players = _Players(settings)
        self._digests = {entrant_name(model): str(model.sha256) for model in settings.models}
        self._runners: dict[str, MatchRunner] = {}

    @property
    def active(self) -> int:
        """Matches in hand."""
        return sum(runner.active for runner in self._runners.values())

    def add(self, task: PairSlot) -> None:
        """Starts a match."""
        if task.reference not in self._runners:
            model = next(model for model in self._settings.models if entrant_name(model) == task.reference)
            settings = GauntletSettings(
                self._settings.config, replace(model, name=task.reference, model=None), (), self._settings.seed
            )
            self._runners[task.reference] = MatchRunner(settings, self._players, self._digests)
        self._runners[task.reference].add(MatchSlot(task.opponent, task.block, task.seat))

    def step(self) -> list[Any]:
        """Advances all matches; returns those that ended with their slots."""
        ended = []
        for reference, runner in self._runners.items():
            for slot, record in runner.step():
                ended.append((PairSlot(reference, slot.opponent, slot.block, slot.seat), record))
        return ended


def incomplete(taken: set[str], players: int) -> list[PairSlot]:
    """Slots that are missing from blocks of which some game was played."""
    played = [PairSlot.parse(key) for key in taken]
    blocks = sorted({(slot.reference, slot.opponent, slot.block) for slot in played})
    return [
        slot
        for block in blocks
        for slot in (PairSlot(*block, seat) for seat in range(1, players + 1))
        if slot.key not in taken
    ]


def meetings_of(games: RatedGames) -> dict[frozenset[str], int]:
    """How many games each two players had together."""
    met: dict[frozenset[str], int] = {}
    lineups, counts = np.unique(np.sort(games.seats, axis=1), axis=0, return_counts=True)
    for lineup, count in zip(lineups.tolist(), counts.tolist(), strict=True):
        names = sorted({games.players[index] for index in lineup})
        for number, one in enumerate(names):
            for other in names[number + 1 :]:
                pair = frozenset((one, other))
                met[pair] = met.get(pair, 0) + count
    return met


def tournament(
    paths: Paths,
    settings: TournamentSettings,
    games: int,
    *,
    run_id: str,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Plays a run up to ``games`` games, whole blocks, and returns the ratings.

    Returns:
        ``config, run_id, seed, games, players``; the players as in :func:`rating_history.bands`.

    Raises:
        UsageError: fewer than one game, nobody to play, or the run exists with other settings.
        LockedError, ResourceError, UnverifiedError, SchemaError: the records cannot be used.
        RingRiftError: a worker ended by itself; the games before that are kept.
    """
    if games < 1:
        raise UsageError("--games must be at least 1", where=str(games))
    if not settings.models or len(settings.models) + len(settings.anchors) < 2:
        raise UsageError("a tournament needs a model and somebody to play it")
    config, players = settings.config, _Players(settings)
    keys = {entrant_name(m): player_key(players[entrant_name(m)].identity, m.sha256) for m in settings.models}
    keys |= {name: players[name].identity for name in settings.anchors}
    names = {key: name for name, key in keys.items()}
    spec = {
        "engine": ENGINE_VERSION, "openings": openings.VERSION, "seed": settings.seed, "config": config.key,
        "tournament": sorted(keys.values()),
    }  # fmt: skip
    progress = progress or Progress(games, "games")
    progress.total = games
    with Records.open(paths) as records:
        records.begin_run(run_id, config.key, spec)
        taken = records.taken(run_id)
        missing = incomplete(taken, config.players)
        if len(taken) < games or missing:
            count = min(workers or default_workers(), max(1, games - len(taken)))
            with Pool(TournamentRunner, settings, workers=count, batch=16) as pool:
                while missing or len(taken) < games:
                    if not missing:
                        missing = list(_round(paths, settings, keys, names, taken, games - len(taken)))
                    _play(pool, records, run_id, missing, taken, progress)
                    missing = []
        records.end_run(run_id, len(taken))
    found = publish(paths, config.key)
    progress.update(len(taken), force=True)
    entered = {key: band for key, band in bands(found).items() if key in names}
    return {"config": config.key, "run_id": run_id, "seed": settings.seed, "games": len(taken), "players": entered}


def _round(
    paths: Paths,
    settings: TournamentSettings,
    keys: dict[str, str],
    names: dict[str, str],
    taken: set[str],
    left: int,
) -> Iterator[PairSlot]:
    width = settings.config.players
    games = load_games(paths, settings.config.key)
    found = rate_at(games, spec_of(settings.config.key), games.last)
    rng = np.random.default_rng([settings.seed, len(taken)])
    pairs = next_pairings(
        found, [keys[entrant_name(model)] for model in settings.models], [keys[name] for name in settings.anchors],
        meetings_of(games), min(ROUND, -(-left // width)), rng, games=width, width=width,
    )  # fmt: skip
    used: dict[tuple[str, str], int] = {}
    for slot in map(PairSlot.parse, taken):
        pair = (slot.reference, slot.opponent)
        used[pair] = max(used.get(pair, 0), slot.block + 1)
    for pairing in pairs:
        pair = (names[pairing.reference], names[pairing.opponent])
        block = used.get(pair, 0)
        used[pair] = block + 1
        for seat in range(1, width + 1):
            yield PairSlot(*pair, block, seat)


def _play(
    pool: Pool, records: Records, run_id: str, slots: list[PairSlot], taken: set[str], progress: Progress
) -> None:
    queue = iter(slots)
    pending: list[tuple[str, MatchRecord]] = []
    flushed = time.monotonic()
    try:
        for slot, record in pool.run(lambda: next(queue, None)):
            pending.append((slot.key, record))
            taken.add(slot.key)
            if time.monotonic() - flushed >= 1.0:
                records.add(run_id, pending)
                pending.clear()
                flushed = time.monotonic()
            progress.update(len(taken), f"{slot.reference[:12]} against {slot.opponent[:12]}")
    finally:
        if pending:
            records.add(run_id, pending)
