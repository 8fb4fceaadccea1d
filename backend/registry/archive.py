"""Moving a model into the archive, step by step, so that it may be killed and repeated at any point."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.atomic import write_json
from backend.errors import LockedError, NotFoundError, RefusedError, UnverifiedError
from backend.paths import Paths
from backend.plans import Plan
from backend.registry.files import full_path, move
from backend.registry.hashing import sha256_file, sidecar_path, write_sidecar
from backend.registry.plans import PROTECTED
from backend.registry.schema import writing
from backend.registry.store import find

if TYPE_CHECKING:
    from backend.state.store import StateStore


def manifest_path(target: Path) -> Path:
    """The manifest of an archived file: ``<file>.json`` beside it."""
    return target.with_name(target.name + ".json")


async def apply_archive(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`backend.registry.plans.plan_archive`; does what is left of it when repeated.

    Adds the event MODEL_ARCHIVED, once a model and archived place.

    Returns:
        ``{"model", "stage", "path", "file_moved"}``.

    Raises:
        RefusedError: the model has been promoted since the plan was made.
        LockedError: the model has changed otherwise since then.
        UnverifiedError: the file is not the one that was registered; nothing was moved.
    """
    done = await asyncio.to_thread(archive, paths, plan.params)
    payload = {name: plan.params[name] for name in ("sha256", "stage", "reason")} | {"path": done["path"]}
    key = f"archive {plan.params['sha256']} {plan.params['to']}"
    await store.add_event("MODEL_ARCHIVED", plan.params["model"], payload, key=key)
    return done


def archive(paths: Paths, params: dict[str, Any]) -> dict[str, Any]:
    """:func:`apply_archive`, blocking; ``params`` are those of the plan."""
    label, sha256, target = params["model"], params["sha256"], full_path(paths, params["to"])
    row = find(paths, label)
    if row.stage == "archived" and row.path == params["to"]:
        return {"model": label, "stage": "archived", "path": row.path, "file_moved": target.is_file()}
    if row.stage in PROTECTED:
        raise RefusedError(f"a {row.stage} model is protected from archiving", where=label)
    if row.stage != params["stage"] or row.sha256 != sha256 or row.path != params["from"]:
        raise LockedError("the model has changed since the plan was made", where=label, hint="plan it again")
    moved = _move(paths, params, target)
    _record(paths, params, stored=params["to"] if moved else params["from"])
    return {"model": label, "stage": "archived", "path": params["to"] if moved else params["from"], "file_moved": moved}


def _move(paths: Paths, params: dict[str, Any], target: Path) -> bool:
    """Moves the file, unless that was done before; False when there is no file to move."""
    source, sha256 = full_path(paths, params["from"]), params["sha256"]
    at = source if source.is_file() else target if target.is_file() else None
    if at is None:
        return False
    if sha256_file(at) != sha256:
        raise UnverifiedError("the file is not the one that was registered", where=str(at), hint="nothing was moved")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        manifest_path(target),
        {
            "model": params["model"],
            "sha256": sha256,
            "size_bytes": at.stat().st_size,
            "stage": params["stage"],
            "reason": params["reason"],
            "planned_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "original_path": params["from"],
            "archived_path": params["to"],
            "restore": f"Move the file back to {params['from']} and set the model's stage to development.",
        },
    )
    if at == source:
        move(source, target, sha256)
    write_sidecar(target, sha256)
    sidecar_path(source).unlink(missing_ok=True)
    return True


def _record(paths: Paths, params: dict[str, Any], stored: str) -> None:
    key = (params["model_id"], params["version"])
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    with writing(paths.registry_db) as db:
        changed = db.execute(
            "UPDATE versions SET stage = 'archived', file_path = ?, updated_at = ?"
            " WHERE model_id = ? AND version = ? AND stage = ?",
            (stored, now, *key, params["stage"]),
        ).rowcount
        if changed != 1:
            known = db.execute("SELECT stage FROM versions WHERE model_id = ? AND version = ?", key).fetchone()
            if known is None:
                raise NotFoundError("no such model", where=params["model"])
            raise LockedError(f"the model is {known['stage']} now", where=params["model"], hint="plan it again")
        db.execute("UPDATE artifacts SET path = ? WHERE model_id = ? AND version = ?", (stored, *key))
        db.execute(
            "INSERT INTO stage_transitions (model_id, version, from_stage, to_stage, reason, transitioned_by,"
            " transitioned_at) VALUES (?,?,?,'archived',?,?,?)",
            (*key, params["stage"], params["reason"], "operator", now),
        )
