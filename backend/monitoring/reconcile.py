"""What the monitor does next, from what is known: pure, without clocks, sockets or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOOK_S = 3600.0
"""Seconds between two looks at a production model when nothing happens."""
AGAIN_S = 600.0
"""Seconds after a look or a background job that failed, before the next try."""
DAY_S = 86_400.0
ROUND_GAMES = 24
"""Games of one background job, where the day has so many: whole blocks for two, three and four players."""


@dataclass(frozen=True, slots=True)
class Champion:
    """A production model.

    Attributes:
        save: where its file lies, as the registry stores it.
        looked_at: Unix seconds of the last look at this spell in production; None before the first.
        fit: its golden check was no fault, so that games with it would tell something.
        alarmed: an alarm about it is open.
    """

    config: str
    players: int
    sha256: str
    save: str
    looked_at: float | None
    fit: bool
    alarmed: bool


@dataclass(frozen=True, slots=True)
class Background:
    """A background job; times are Unix seconds of this machine, ``run`` is the id of its run."""

    job: str
    config: str
    run: str
    games: int
    state: str
    created_at: float
    ended_at: float | None

    @property
    def open(self) -> bool:
        return self.ended_at is None

    @property
    def failed(self) -> bool:
        return self.state in ("failed", "blocked")


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a decision rests on.

    Attributes:
        jobs: background jobs of the last day, and older ones that are open.
        looking: the config that is being looked at, or None: one at a time.
        tried: when a look at a config was last begun in vain, Unix seconds.
    """

    now: float
    on: bool
    games_per_day: int
    champions: tuple[Champion, ...]
    jobs: tuple[Background, ...]
    looking: str | None
    tried: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Look:
    """Look at the production model of a config now."""

    config: str


@dataclass(frozen=True, slots=True)
class Play:
    """Have a champion play a round of background games."""

    config: str
    sha256: str
    save: str
    games: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a background job whose games would tell nothing any more."""

    job: str
    why: str


Action = Look | Play | Cancel


def decide(facts: Facts, prefixes: Mapping[str, str]) -> tuple[Action, ...]:
    """What to do now.

    Args:
        prefixes: per config what the run ids of its champion begin with.
    """
    actions: list[Action] = []
    for job in facts.jobs:
        if job.open and job.state == "waiting" and not facts.on:
            actions.append(Cancel(job.job, "the monitor was switched off"))
        elif job.open and not job.run.startswith(prefixes.get(job.config, "\0")):
            actions.append(Cancel(job.job, "its model is out of production"))
    if not facts.on:
        return tuple(actions)
    due = [one for one in facts.champions if _look_is_due(one, facts)]
    if due and facts.looking is None:
        actions.append(Look(min(due, key=lambda one: (one.looked_at or 0.0, one.config)).config))
    actions += [
        Play(one.config, one.sha256, one.save, round_games(one.players, facts.games_per_day))
        for one in facts.champions
        if one not in due and one.config != facts.looking and _may_play(one, facts)
    ]
    return tuple(actions)


def round_games(players: int, games_per_day: int) -> int:
    """Games of one round, whole blocks; 0 where the day has too few for one."""
    return min(ROUND_GAMES, games_per_day - games_per_day % players)


def _look_is_due(one: Champion, facts: Facts) -> bool:
    tried = facts.tried.get(one.config)
    if tried is not None and facts.now - tried < AGAIN_S:
        return False
    if one.looked_at is None or not 0 <= facts.now - one.looked_at < LOOK_S:  # a clock set back is no reason to wait
        return True
    looked_at = one.looked_at
    return any(job.config == one.config and job.ended_at is not None and job.ended_at > looked_at for job in facts.jobs)


def _may_play(one: Champion, facts: Facts) -> bool:
    """A round more: nothing stands against it, and the day's games are not used up."""
    own = [job for job in facts.jobs if job.config == one.config]
    if one.looked_at is None or one.alarmed or not one.fit or any(job.open for job in own):
        return False
    if any(job.failed and facts.now - (job.ended_at or 0.0) < AGAIN_S for job in own):
        return False
    asked = sum(job.games for job in own if facts.now - job.created_at < DAY_S)
    games = round_games(one.players, facts.games_per_day)
    return games > 0 and asked + games <= facts.games_per_day
