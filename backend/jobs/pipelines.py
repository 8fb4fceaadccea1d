"""A pipeline: self-play, export, training and gauntlet of one config, each needing the one before."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from backend.configs import Config
from backend.errors import UsageError
from backend.jobs.recipes import recipe_of, title_of
from backend.jobs.shards import Stage, check_shards, gauntlet_shards, selfplay_shards
from backend.state.db import Transaction
from backend.state.store import add_event

DEFAULT_GAMES = 300
"""Games that a config should have: half as many again as the 200 from which its data counts as Ready."""
DEFAULT_EPOCHS = 10
DEFAULT_GAUNTLET_GAMES = 100
"""Per opponent: the number that a promotion asks for."""
DEFAULT_SEED = 1


@dataclass(frozen=True, slots=True)
class PipelineParams:
    """What decides a pipeline's outputs: with the same values again, what is finished is skipped."""

    games: int = DEFAULT_GAMES
    epochs: int = DEFAULT_EPOCHS
    gauntlet_games: int = DEFAULT_GAUNTLET_GAMES
    seed: int = DEFAULT_SEED
    shards: int = 1
    gauntlet_shards: int | None = None  # as many as ``shards``
    nodes: int = 1

    def __post_init__(self) -> None:
        for name in ("games", "epochs", "gauntlet_games", "nodes"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} has to be at least 1", where=str(getattr(self, name)))
        if self.seed < 0:
            raise UsageError("--seed has to be at least 0", where=str(self.seed))
        check_shards(self.shards)
        check_shards(self.gauntlet_parts, "--gauntlet-shards")

    @property
    def gauntlet_parts(self) -> int:
        return self.shards if self.gauntlet_shards is None else self.gauntlet_shards

    @property
    def sharded(self) -> bool:
        """Whether anything is played in parts."""
        return max(self.shards, self.gauntlet_parts) > 1

    @classmethod
    def of(
        cls, games: int | None = None, epochs: int | None = None, gauntlet_games: int | None = None,
        seed: int | None = None, shards: int | None = None, gauntlet_shards: int | None = None,
        nodes: int | None = None,
    ) -> PipelineParams:  # fmt: skip
        """The given numbers, and the defaults for those that are None."""
        given = {
            "games": games, "epochs": epochs, "gauntlet_games": gauntlet_games, "seed": seed, "shards": shards,
            "gauntlet_shards": gauntlet_shards,
            "nodes": nodes,
        }  # fmt: skip
        return cls(**{name: value for name, value in given.items() if value is not None})

    def save_path(self, config: Config) -> str:
        """Where training writes its checkpoint, relative to the root: a name of the settings that make it."""
        made = json.dumps({"games": self.games, "epochs": self.epochs, "seed": self.seed}, sort_keys=True)
        return f"models/candidates/{config.key}_{hashlib.sha256(made.encode()).hexdigest()[:8]}.pth"


def stages(config: Config, params: PipelineParams) -> list[tuple[str, dict[str, Any]]]:
    """Kinds and parameters of the jobs, in order."""
    save = params.save_path(config)
    return [
        ("selfplay", {"games": params.games, "seed": params.seed}),
        ("export", {}),
        ("train", {"save": save, "epochs": params.epochs, "seed": params.seed}),
        ("gauntlet", {"save": save, "games": params.gauntlet_games, "seed": params.seed}),
    ]


def sharded_stages(config: Config, params: PipelineParams, have: int, first: int, run: str) -> list[Stage]:
    """The jobs of a pipeline whose self-play or gauntlet is played in parts.

    Args:
        have: games that are there.
        first: where the shards' indices begin.
        run: names the gauntlet that all its shards play.
    """
    chain = stages(config, params)
    made = selfplay_shards(params.games - have, params.shards, params.seed, first) if params.shards > 1 else []
    made.append(Stage(*chain[0], needs=tuple(range(len(made)))))
    for kind, own in chain[1:3]:
        made.append(Stage(kind, own, (len(made) - 1,)))
    trained = len(made) - 1
    if params.gauntlet_parts == 1:
        return [*made, Stage(*chain[3], (trained,))]
    save = params.save_path(config)
    shards = gauntlet_shards(config, save, params.gauntlet_games, params.gauntlet_parts, params.seed, run)
    made += [replace(shard, needs=(trained,)) for shard in shards]
    made.append(Stage(chain[3][0], chain[3][1] | {"run": run}, tuple(range(trained + 1, len(made)))))
    return made


async def add_job(
    db: Transaction, kind: str, config: str, params: dict[str, Any], *, needs: tuple[str, ...] = (),
    pipeline: str | None = None, host: str | None = None, priority: int = 0, part: str = "",
) -> str:  # fmt: skip
    """Adds a job; returns its id, e.g. ``t12``. It runs on ``host`` only, or on any host when that is None."""
    number = await db.next_number("job")
    name = f"{recipe_of(kind, params).letter}{number}"
    title = f"{title_of(kind, config)} {part}".strip()
    await db.run(
        "INSERT INTO jobs (number, id, kind, config, title, pipeline, params, needs, created_at, bound, priority) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number, name, kind, config, title, pipeline, json.dumps(params), json.dumps(needs),
            time.time(), host, priority,
        ),
    )  # fmt: skip
    return name


async def add_gang(
    db: Transaction, kind: str, config: str, params: dict[str, Any], members: int, *, needs: tuple[str, ...] = (),
    pipeline: str | None = None, priority: int = 0,
) -> tuple[str, ...]:  # fmt: skip
    """Adds jobs that run as one, see :mod:`backend.jobs.gangs`; returns their ids. The first names the gang."""
    names: list[str] = []
    for member in range(1, members + 1):
        own = params | {"member": member, "nodes": members}
        part = f"{member}/{members}"
        name = await add_job(db, kind, config, own, needs=needs, pipeline=pipeline, priority=priority, part=part)
        names.append(name)
        await db.run(
            "UPDATE jobs SET gang = ?, member = ?, members = ? WHERE id = ?", (names[0], member, members, name)
        )
    return tuple(names)


async def add_chain(
    db: Transaction, config: str, wanted: list[tuple[str, dict[str, Any]]], params: dict[str, Any],
    operation: str | None,
) -> tuple[str, tuple[str, ...]]:  # fmt: skip
    """Adds a pipeline of jobs that each need the one before; see :func:`add_pipeline`."""
    listed = [Stage(kind, own, (n - 1,) if n else ()) for n, (kind, own) in enumerate(wanted)]
    return await add_pipeline(db, config, lambda name: listed, params, operation)


async def add_pipeline(
    db: Transaction, config: str, wanted: Callable[[str], list[Stage]], params: dict[str, Any], operation: str | None
) -> tuple[str, tuple[str, ...]]:
    """Adds a pipeline and its jobs, given its name; the same operation again returns the pipeline that it made.

    Training is a gang of ``params["nodes"]`` members where that is more than one.
    """
    there = await db.one("SELECT id FROM pipelines WHERE operation = ?", (operation,)) if operation else None
    if there is not None:
        rows = await db.all("SELECT id FROM jobs WHERE pipeline = ? ORDER BY number", (there["id"],))
        return str(there["id"]), tuple(str(row["id"]) for row in rows)
    name = f"p{await db.next_number('pipeline')}"
    await db.run(
        "INSERT INTO pipelines (id, config, params, operation, created_at) VALUES (?, ?, ?, ?, ?)",
        (name, config, json.dumps(params), operation, time.time()),
    )
    nodes = int(params.get("nodes", 1))
    firsts: list[str] = []
    jobs: list[str] = []
    for stage in wanted(name):
        needs = tuple(firsts[n] for n in stage.needs)
        if stage.kind == "train" and nodes > 1:
            made = await add_gang(db, stage.kind, config, stage.params, nodes, needs=needs, pipeline=name)
        else:
            made = (await add_job(db, stage.kind, config, stage.params, needs=needs, pipeline=name, part=stage.part),)
        firsts.append(made[0])
        jobs += made
    await add_event(
        db, "PIPELINE_STARTED", name, {"config": config, "params": params, "jobs": jobs}, key=f"pipeline {name}"
    )
    return name, tuple(jobs)


async def find_active(db: Transaction, config: Config, params: PipelineParams) -> str | None:
    """A pipeline of the same config and numbers that is still under way."""
    rows = await db.all(
        "SELECT id, params FROM pipelines p WHERE config = ? AND EXISTS (SELECT 1 FROM jobs WHERE pipeline = p.id "
        "AND state NOT IN ('done', 'failed', 'cancelled', 'skipped', 'blocked')) ORDER BY created_at DESC",
        (config.key,),
    )
    wanted = asdict(params) | {"gauntlet_shards": params.gauntlet_parts}
    for row in rows:  # what rows that an older program has written lack
        made = {"shards": 1, "gauntlet_shards": None, "nodes": 1} | json.loads(row["params"])
        if made | {"gauntlet_shards": made["gauntlet_shards"] or made["shards"]} == wanted:
            return str(row["id"])
    return None
