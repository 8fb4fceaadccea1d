"""Rollback: the production pointer goes back to a model that was there before, and the regressed one is archived.

One plan, one operation. The pointer moves in one transaction; the old model's file is where it was, so nothing is
copied over a network and nothing has to be waited for. A rollback to a model that an earlier one left behind takes that
one back: what it leaves has not regressed, and keeps its file where it is.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
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
from backend.registry.files import full_path
from backend.registry.health import Health, health, rollback_targets
from backend.registry.leases import leases
from backend.registry.policy_facts import in_use, stays
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
    return await asyncio.to_thread(_plan, paths, config, to, reason, await leases(paths))


def _plan(paths: Paths, config: str, to: str | None, reason: str | None, leased: Mapping[str, str]) -> Plan:
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
    fit = health(paths, target)
    ground = Ground(key, pointer.label, pointer.revision)
    left = find(paths, pointer.label)
    back = target.label in pointers.left_behind(history)
    kept = "" if back else _kept(paths, left, leased)
    why = reason or f"{'returned' if back else 'rolled back'} from {pointer.label}"
    return Plan(
        action="registry.rollback",
        title=f"{'Return' if back else 'Roll'} production of {key} {'' if back else 'back '}to {target.label}",
        params={
            "config": key, "production": pointer.label, "revision": pointer.revision, "model": target.label,
            "sha256": target.sha256, "stage": target.stage, "reason": why, "returns": back,
        },
        changes=(
            Change(f"production of {key}", pointer.label, target.label),
            Change(target.label, target.stage, "production"),
            Change(left.label, left.stage, "archived; its file stays for a rollback" if back else "archived"),
            *(
                (Change(f"file of {left.label}", left.path, archive_place(paths, left, "low_elo")),)
                if not back and not kept else ()
            ),
            Change(f"models_essential/{production_file(key)}", left.sha256[:12], target.sha256[:12]),
        ),
        steps=(
            "check the SHA-256 of the file to go back to",
            "pointer, stages, decision, audit entry and event in one transaction",
            f"place the file as models_essential/{production_file(key)}, with its checksum and the manifest",
            "publish MODEL_ROLLED_BACK; hosts that kept the file use their own copy",
            *((f"move the file of {left.label} into the archive, with a manifest",) if not back and not kept else ()),
        ),
        command=shlex.join(
            ["ringrift", "registry", "rollback", "--config", key, *(("--to", target.label) if to else ()),
             *(("--reason", reason) if reason else ())]
        ),
        undo=f"ringrift registry rollback --config {key} --to {pointer.label}",
        warnings=(
            *(f"{one.row.label} is passed over: {one.why}" for one in passed),
            *(() if fit.sound else (f"{target.label} is not sound: {fit.why}",)),
            *((f"the file of {left.label} stays where it is: {kept}",) if kept else ()),
        ),
        guard={f"model {target.label}": target.stage, f"production {key}": production_text(ground)},
        typed=key,
    )  # fmt: skip


def _kept(paths: Paths, row: ModelRow, leased: Mapping[str, str]) -> str:
    """Why the file of the model that is left stays where it is; empty where it goes into the archive."""
    return stays(paths, row) or in_use(paths, (row,), leased).get(row.label, "")


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
    if plan.params.get("returns"):
        return done
    kept, away = await asyncio.to_thread(_put_away, paths, plan.params, await leases(paths, store))
    crash_point("rollback.archived")
    return done | ({"archived": away} if away else {}) | ({"kept": kept} if kept else {})


def _put_away(paths: Paths, params: dict[str, Any], leased: Mapping[str, str]) -> tuple[str, str | None]:
    """Moves the file of the regressed model, unless it has to stay: why, or its new place."""
    row = find(paths, str(params["production"]))
    kept = _kept(paths, row, leased) if full_path(paths, row.path).is_file() else ""  # else it was moved before a kill
    return kept, None if kept else put_away_archived(paths, row.label, "low_elo", f"regressed: {params['reason']}")


def _roll_back(paths: Paths, params: dict[str, Any], author: Author) -> dict[str, Any]:
    row = find(paths, str(params["model"]))
    check_source(paths, row)
    ground = Ground(str(params["config"]), str(params["production"]), int(params["revision"]))
    model = Planned(row.label, str(params["sha256"]), str(params["stage"]))
    reason = str(params["reason"])
    left = f"{row.label} came back: {reason}" if params.get("returns") else f"regressed: {reason}"
    return switch(paths, ground, model, Decision("rollback", reason), author, left=left)
