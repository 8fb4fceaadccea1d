"""One job's work in several parts: which part plays what, and how the parts become one again; pure.

Every part has numbers of its own (indices of games within a seed, blocks of a gauntlet), so no two play the same and
a part that was lost is repeated alone. What they make is merged by content; a last job sees that all is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.configs import Config
from backend.errors import UsageError

MAX_SHARDS = 512
FIRST_INDEX = 10_000_000_000
"""Games of shards have indices from here on, beyond those of all other runs of the seed."""
INDICES = 10_000_000
"""Indices that belong to one shard."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A job to be: its kind and parameters, the stages that it needs by their place in the list, and a title's end."""

    kind: str
    params: dict[str, Any] = field(default_factory=dict)
    needs: tuple[int, ...] = ()
    part: str = ""


def check_shards(shards: int, name: str = "--shards") -> int:
    """The number itself.

    Raises:
        UsageError: it makes no sense.
    """
    if not 1 <= shards <= MAX_SHARDS:
        raise UsageError(f"{name} has to lie between 1 and {MAX_SHARDS}", where=str(shards))
    return shards


def split(total: int, parts: int) -> list[int]:
    """``total`` in at most ``parts`` whole numbers that differ by one at most, none of them 0."""
    parts = min(parts, total)
    return [total // parts + (1 if n < total % parts else 0) for n in range(parts)]


def first_free(highest: int | None) -> int:
    """Where the shards of a new run begin, given the highest index of the seed that is there."""
    if highest is None or highest < FIRST_INDEX:
        return FIRST_INDEX
    return FIRST_INDEX + ((highest - FIRST_INDEX) // INDICES + 1) * INDICES


def selfplay_shards(missing: int, shards: int, seed: int, first: int) -> list[Stage]:
    """Self-play of ``missing`` games in parts; no parts when nothing is missing."""
    counts = split(missing, shards) if missing > 0 else []
    return [
        Stage(
            "selfplay",
            {"games": count, "seed": seed, "shard": n, "first": first + n * INDICES},
            part=f"shard {n + 1}/{len(counts)}",
        )
        for n, count in enumerate(counts)
    ]


def gauntlet_shards(config: Config, save: str, games: int, shards: int, seed: int, run: str) -> list[Stage]:
    """A gauntlet in parts of whole blocks, each an opening played from every seat."""
    players = config.players
    counts = split(-(-games // players), shards)
    return [
        Stage(
            "gauntlet",
            {
                "save": save, "games": count * players, "seed": seed, "shard": n, "run": run, "of": games,
                "first_block": sum(counts[:n]),
            },
            part=f"shard {n + 1}/{len(counts)}",
        )
        for n, count in enumerate(counts)
    ]  # fmt: skip
