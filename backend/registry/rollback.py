"""Rollback: the production pointer goes back to a model that was there before, and the regressed one is archived.

One plan, one operation. The pointer moves in one transaction; the old model's file is where it was, so nothing is
copied over a network and nothing has to be waited for.
"""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING, Any

from backend.configs import parse_config
from backend.crash import crash_point
from backend.errors import NotFoundError, RefusedError
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.registry import pointers
from backend.registry.archive import archive_place, put_away_archived
from backend.registry.changes import Author, Decision, author_of
from backend.registry.deployment import check_source, production_file
from backend.registry.health import Health, rollback_targets
from backend.registry.promotion import production_text, settle
from backend.registry.schema import reading
from backend.registry.store import find
from backend.registry.switch import ROLLED_BACK, Ground, Planned, switch, was_done
from backend.snapshot import ModelRow

if TYPE_CHECKING:
    from backend.state.store import StateStore


async def plan_rollback(paths: Paths, *, config: str, to: str | None = None, reason: str | None = None) -> Plan:
    """What a rollback will do.

    Args:
        to: the model to go back to; by default the last one in production that no rollback has left behind, that is
            not rejected, whose file is what was registered and whose golden positions were sound when last compared.

    Raises:
        NotFoundError: nothing is in production, there is nothing sound to go back to, or its file is missing.
        UsageError: no such config or model.
        RefusedError: the model was never in production, or is now.
        UnverifiedError: its file is not the one that was registered.
    """
    return await asyncio.to_thread(_plan, paths, config, to, reason)


def _plan(paths: Paths, config: str, to: str | None, reason: str | None) -> Plan:
    key = parse_config(config).key
    with reading(paths.registry_db) as db:
        pointer = pointers.current(db, key) if db is not None else pointers.Pointer(key)
        history = pointers.moves(db, key) if db is not None else ()
    if pointer.label is None:
        raise NotFoundError("nothing is in production", where=key)
    target, passed = (find(paths, to), ()) if to else _recommended(paths, key)
    if target.label == pointer.label:
        raise RefusedError("it is in production now", where=target.label)
    been = {move.after for move in history} | {move.before for move in history}
    if target.label not in been:
        raise RefusedError(f"it was never in production of {key}", where=target.label, hint="promote it instead")
    check_source(paths, target)
    ground = Ground(key, pointer.label, pointer.revision)
    regressed = find(paths, pointer.label)
    why = reason or f"rolled back from {pointer.label}"
    return Plan(
        action="registry.rollback",
        title=f"Roll production of {key} back to {target.label}",
        params={
            "config": key, "production": pointer.label, "revision": pointer.revision, "model": target.label,
            "sha256": target.sha256, "stage": target.stage, "reason": why,
        },
        changes=(
            Change(f"production of {key}", pointer.label, target.label),
            Change(target.label, target.stage, "production"),
            Change(pointer.label, regressed.stage, "archived"),
            Change(f"file of {pointer.label}", regressed.path, archive_place(paths, regressed, "low_elo")),
            Change(f"models_essential/{production_file(key)}", regressed.sha256[:12], target.sha256[:12]),
        ),
        steps=(
            "check the SHA-256 of the file to go back to",
            "pointer, stages, decision, audit entry and event in one transaction",
            f"place the file as models_essential/{production_file(key)}, with its checksum and the manifest",
            "publish MODEL_ROLLED_BACK; hosts that kept the file use their own copy",
            f"move the file of {pointer.label} into the archive, with a manifest",
        ),
        command=shlex.join(
            ["ringrift", "registry", "rollback", "--config", key, *(("--to", target.label) if to else ()),
             *(("--reason", reason) if reason else ())]
        ),
        undo=f"ringrift registry rollback --config {key} --to {pointer.label}",
        warnings=tuple(f"{one.row.label} is passed over: {one.why}" for one in passed),
        guard={f"model {target.label}": target.stage, f"production {key}": production_text(ground)},
        typed=key,
    )  # fmt: skip


def _recommended(paths: Paths, config: str) -> tuple[ModelRow, tuple[Health, ...]]:
    """The model to go back to, and those passed over."""
    unfit, sound = rollback_targets(paths, config)
    if sound is not None:
        return sound.row, unfit
    hint = "promote another model instead"
    if not unfit:
        raise NotFoundError("there is no earlier production model to go back to", where=config, hint=hint)
    first = unfit[0]
    raise NotFoundError(
        f"no earlier production model is sound; {first.row.label}: {first.why}",
        where=config,
        hint=f"restore it, or {hint}",
    )


async def apply_rollback(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_rollback`; does what is left of it when repeated.

    Raises:
        LockedError: the model or the production pointer has moved.
        UnverifiedError, NotFoundError: the file is not what was registered.
    """
    author = await author_of(store)
    done = await asyncio.to_thread(was_done, paths, author, ROLLED_BACK, str(plan.params["model"]))
    if done is None:
        done = await asyncio.to_thread(_roll_back, paths, plan.params, author)
        crash_point("rollback.committed")
    done = await settle(paths, store, done, stage="production")
    left, reason = str(plan.params["production"]), str(plan.params["reason"])
    away = await asyncio.to_thread(put_away_archived, paths, left, "low_elo", f"regressed: {reason}")
    crash_point("rollback.archived")
    return done | ({"archived": away} if away else {})


def _roll_back(paths: Paths, params: dict[str, Any], author: Author) -> dict[str, Any]:
    row = find(paths, str(params["model"]))
    check_source(paths, row)
    ground = Ground(str(params["config"]), str(params["production"]), int(params["revision"]))
    model = Planned(row.label, str(params["sha256"]), str(params["stage"]))
    reason = str(params["reason"])
    return switch(paths, ground, model, Decision("rollback", reason), author, left=f"regressed: {reason}")
