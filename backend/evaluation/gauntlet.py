"""Gauntlet: a model against the baselines, every opening once from every seat.

The unit is a *block*: one opening, played as many times as there are seats, with the candidate in each seat once and
the same baseline in all others. So the number of games is a whole number of blocks, and no seat is an advantage.
A run has an id; started again under the same id it plays only what is missing.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.configs import Config
from backend.errors import NoEvidenceError, UnverifiedError, UsageError
from backend.evaluation import openings
from backend.evaluation.match_record import MatchRecord, Tally
from backend.evaluation.rating_history import publish
from backend.evaluation.records import Records
from backend.evaluation.statistics import chance, clopper_pearson, wilson
from backend.evaluation.verdict import Games, gauntlet_criterion, judge
from backend.paths import Paths
from backend.pool import Pool, default_workers
from backend.progress import Progress
from backend.rules import ENGINE_VERSION
from backend.thresholds import thresholds

if TYPE_CHECKING:
    from backend.players.base import Player

ATTEMPT_VARIABLE = "RINGRIFT_ATTEMPT"
_FLUSH_GAMES = 16
_FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who is measured: a player name, and for ``neural`` the checkpoint with its SHA-256."""

    name: str
    model: str | None = None
    sha256: str | None = None
    label: str | None = None
    simulations: int | None = None


@dataclass(frozen=True, slots=True)
class GauntletSettings:
    """What every game of a run depends on besides its slot.

    Attributes:
        opponents: baselines by name.
        rivals: models to play too; a slot names each by the first 16 digits of its SHA-256.
    """

    config: Config
    candidate: Candidate
    opponents: tuple[str, ...]
    seed: int
    rivals: tuple[Candidate, ...] = ()

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the rivals by their names in slots."""
        return {str(rival.sha256)[:16]: str(rival.sha256) for rival in self.rivals}

    def make_opponents(self) -> dict[str, Player]:
        """Whom the candidate plays, by name, baselines first.

        Raises:
            UnverifiedError: a rival's file is not the one that its SHA-256 says.
        """
        from backend.players import make_player

        made = {name: make_player(name, self.config) for name in self.opponents}
        for rival in self.rivals:
            name = str(rival.sha256)[:16]
            made[name] = make_player("neural", self.config, model=rival.model, simulations=rival.simulations)
            if name not in made[name].identity:
                raise UnverifiedError("the checkpoint has changed", where=str(rival.model))
        return made


@dataclass(frozen=True, slots=True)
class MatchSlot:
    """One game of a run: opponent, block (its opening) and the candidate's seat, 1-based."""

    opponent: str
    block: int
    seat: int

    @property
    def key(self) -> str:
        return f"{self.opponent}/{self.block}/{self.seat}"


def run_id_from_environment() -> str:
    """The id of a run: the job this process is an attempt of, else a new one.

    An attempt key is ``<job id>.<n>``: a later attempt of the same job goes on with the run of the earlier one.
    """
    attempt = os.environ.get(ATTEMPT_VARIABLE, "")
    job, _, number = attempt.rpartition(".")
    if job and number.isdigit():
        return job
    return attempt or f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"


def seed_of(run_id: str) -> int:
    """The seed of a run that was given none: other runs play other games."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:6], "big")


def whole_blocks(games: int, players: int) -> int:
    """Blocks needed for at least ``games`` games.

    Raises:
        UsageError: fewer than one game.
    """
    if games < 1:
        raise UsageError("--games must be at least 1", where=str(games))
    return -(-games // players)


def plan_slots(
    settings: GauntletSettings, games: int | Mapping[str, int], first_block: int = 0
) -> dict[str, list[MatchSlot]]:
    """The slots per opponent, block by block from ``first_block`` on.

    Args:
        games: for each opponent, or by opponent; one that is not named is not played.
    """
    players = settings.config.players
    names = (*settings.opponents, *settings.digests)
    wanted = dict.fromkeys(names, games) if isinstance(games, int) else {n: games[n] for n in names if n in games}
    return {
        opponent: [
            MatchSlot(opponent, block, seat)
            for block in range(first_block, first_block + whole_blocks(count, players))
            for seat in range(1, players + 1)
        ]
        for opponent, count in wanted.items()
    }


def gauntlet(
    paths: Paths,
    settings: GauntletSettings,
    games: int | Mapping[str, int],
    *,
    run_id: str,
    workers: int | None = None,
    progress: Progress | None = None,
    first_block: int = 0,
) -> dict[str, Any]:
    """Plays what is missing of a run and returns its result.

    Args:
        games: per opponent, see :func:`plan_slots`; rounded up to whole blocks.
        first_block: where they begin, so that several machines play different blocks of one run.

    Returns:
        ``config, candidate, model_sha256, label, run_id, seed, chance, opponents``, and per opponent ``opponent, wins,
        games, unique, crashes, caps, rate, low, high, exact_low, exact_high, target, requirement, meets,
        verdict, reason``; ``low`` and ``high`` are Wilson's interval at 95 %, ``exact_`` Clopper and Pearson's;
        ``meets`` compares the rate with the target, ``verdict`` says whether the games prove it. These are None without
        a target.

    Raises:
        NoEvidenceError: against some opponent every game crashed.
        LockedError, ResourceError, UnverifiedError, SchemaError: the records cannot be used.
        RingRiftError: a worker ended by itself; the games before that are kept.
    """
    from backend.players import make_player

    candidate, config = settings.candidate, settings.config
    player = make_player(candidate.name, config, model=candidate.model, simulations=candidate.simulations)
    identities = {name: made.identity for name, made in settings.make_opponents().items()}
    slots = plan_slots(settings, games, first_block)
    total = sum(len(listed) for listed in slots.values())
    with Records.open(paths) as records:
        spec = {
            "candidate": player.identity,
            "candidate_sha256": candidate.sha256,
            "engine": ENGINE_VERSION,
            "openings": openings.VERSION,
            "opponents": sorted(identities.values()),
            "seed": settings.seed,
        }
        records.begin_run(run_id, config.key, spec | {"config": config.key})
        progress = progress or Progress(total, "games")
        progress.total = total
        taken = records.taken(run_id)
        missing = [slot for listed in slots.values() for slot in listed if slot.key not in taken]
        progress.update(total - len(missing), force=True)
        if missing:
            _play(records, settings, run_id, missing, total, workers, progress)
        progress.update(total, force=True)
        tallies = [
            records.run_tally(run_id, [slot.key for slot in listed], identities[name]) for name, listed in slots.items()
        ]
        records.end_run(run_id, sum(result.games for result in tallies))
    publish(paths, config.key)
    for result in tallies:
        if result.games == 0:
            raise NoEvidenceError(f"all {result.crashes} games crashed", where=result.opponent, hint="see the log")
    return {
        "config": config.key,
        "candidate": player.identity,
        "model_sha256": candidate.sha256,
        "label": candidate.label,
        "run_id": run_id,
        "seed": settings.seed,
        "chance": chance(config.players),
        "opponents": [_result(result, config) for result in tallies],
    }


def _play(
    records: Records,
    settings: GauntletSettings,
    run_id: str,
    missing: list[MatchSlot],
    total: int,
    workers: int | None,
    progress: Progress,
) -> None:
    from backend.evaluation.match_runner import MatchRunner

    queue = iter(missing)
    pending: list[tuple[str, MatchRecord]] = []
    done, flushed = total - len(missing), time.monotonic()
    count = min(workers or default_workers(), len(missing))
    # A network is asked once for a whole batch, so a neural candidate plays many games at a time.
    batch = 32 if settings.candidate.model else 4
    with Pool(MatchRunner, settings, workers=count, batch=batch) as pool:
        try:
            for slot, record in pool.run(lambda: next(queue, None)):
                pending.append((slot.key, record))
                done += 1
                if len(pending) >= _FLUSH_GAMES or time.monotonic() - flushed >= _FLUSH_S:
                    records.add(run_id, pending)
                    pending.clear()
                    flushed = time.monotonic()
                progress.update(done, f"against {slot.opponent}")
        finally:
            if pending:
                records.add(run_id, pending)


def _result(result: Tally, config: Config) -> dict[str, Any]:
    low, high = wilson(result.wins, result.games)
    exact_low, exact_high = clopper_pearson(result.wins, result.games)
    base = result.opponent.split(":")[0]
    criterion = gauntlet_criterion(thresholds(config), config.players, base)
    counts = Games(result.wins, result.games, result.unique, result.crashes)
    verdict = None if criterion is None else judge(criterion, counts)
    rate = result.wins / result.games
    return {
        "opponent": result.opponent,
        "wins": result.wins,
        "games": result.games,
        "unique": result.unique,
        "crashes": result.crashes,
        "caps": result.caps,
        "rate": rate,
        "low": low,
        "high": high,
        "exact_low": exact_low,
        "exact_high": exact_high,
        "target": None if criterion is None else criterion.required,
        "requirement": None if criterion is None else criterion.requirement,
        "meets": None if verdict is None else verdict.minimum,
        "verdict": None if verdict is None else str(verdict.verdict),
        "reason": None if verdict is None else verdict.reason,
    }
