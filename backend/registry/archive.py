"""Into the archive and back: the file with a manifest beside it, then the stage; each may be killed and repeated.

An archived file lies at ``models/archive/<YYYYMM>/<folder>/<model>_v<N>_<sha8>.pth``. Nothing is ever deleted.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.atomic import write_json
from backend.crash import crash_point
from backend.errors import LockedError, NotFoundError, RefusedError, UnverifiedError
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.registry.changes import Author, Decision, author_of, refuse_foreign, row_of, set_path
from backend.registry.deployment import check_source
from backend.registry.files import full_path, move, registered_path, stored_path
from backend.registry.hashing import sha256_file, sidecar_path, write_sidecar
from backend.registry.leases import leases
from backend.registry.outbox import publish
from backend.registry.policy_facts import in_use, rating_note
from backend.registry.schema import writing
from backend.registry.stages import TRANSITIONS
from backend.registry.store import find
from backend.registry.switch import EVENTS, Planned, change_stage, protected, was_done
from backend.snapshot import ModelRow

if TYPE_CHECKING:
    from backend.state.store import StateStore

FOLDERS = ("iter_checkpoints", "low_elo", "duplicates", "aged_out", "manual")
"""Folders of a month, by why a model was archived; the first four are the contract's."""


def manifest_path(target: Path) -> Path:
    """The manifest of an archived file: ``<file>.json`` beside it."""
    return target.with_name(target.name + ".json")


def archive_place(paths: Paths, row: ModelRow, folder: str) -> str:
    """Where a model's file goes when it is archived this month, as the registry stores it."""
    month = datetime.now(UTC).strftime("%Y%m")
    name = f"{row.model_id}_v{row.version}_{row.sha256[:8]}{Path(row.path).suffix or '.pth'}"
    return stored_path(paths, paths.archive / month / folder / name)


def is_archived_place(paths: Paths, stored: str) -> bool:
    """Whether a stored path lies in the archive."""
    return full_path(paths, stored).is_relative_to(paths.archive)


async def plan_archive(paths: Paths, *, model: str, reason: str | None = None) -> Plan:
    """What archiving a model by hand will do.

    Raises:
        NotFoundError: there is no such model.
        RefusedError: it is protected, in use, or archived already.
    """
    leased = await leases(paths)
    return await asyncio.to_thread(_plan_archive, paths, model, reason or "archived by hand", "manual", leased)


def _refuse_protected(paths: Paths, row: ModelRow, leased: Mapping[str, str]) -> None:
    why = protected(paths).get(row.label) or in_use(paths, (row,), leased).get(row.label)
    if why:
        raise RefusedError(f"protected from archiving: {why}", where=row.label)


def _plan_archive(paths: Paths, model: str, reason: str, folder: str, leased: Mapping[str, str]) -> Plan:
    row = find(paths, model)
    refuse_foreign(row)
    _refuse_protected(paths, row, leased)
    if "archived" not in TRANSITIONS.get(row.stage, ()):
        raise RefusedError(f"a model that is {row.stage} cannot be archived", where=row.label)
    if row.present:
        check_source(paths, row)
    target = archive_place(paths, row, folder)
    moved = (Change(f"file of {row.label}", row.path, target),) if row.present else ()
    missing = () if row.present else (f"its file is missing at {row.path}; only the registry will change",)
    return Plan(
        action="registry.archive",
        title=f"Archive {row.label}",
        params=_params(row) | {"to": target, "reason": reason, "rating": rating_note(paths, row)},
        changes=(Change(row.label, row.stage, "archived"), *moved),
        steps=(
            "write a manifest beside the new place: hash, stage, reason, how to restore",
            "check the file's SHA-256 and move it with its checksum",
            "stage, path, audit entry and event in one transaction",
        ),
        command=shlex.join(["ringrift", "registry", "archive", row.label, "--reason", reason]),
        undo=f"ringrift registry restore {row.label}",
        warnings=missing,
        guard={f"model {row.label}": row.stage},
    )


def _params(row: ModelRow) -> dict[str, Any]:
    return {"model": row.label, "sha256": row.sha256, "stage": row.stage, "from": row.path}


async def apply_archive(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_archive`; does what is left of it when repeated.

    Raises:
        RefusedError: the model is protected or in use now.
        LockedError: it has changed otherwise since the plan was made.
        UnverifiedError: the file is not the one that was registered; nothing was moved.
    """
    author = await author_of(store)
    leased = await leases(paths, store)
    done = await asyncio.to_thread(archive, paths, plan.params, author, leased)
    await publish(paths, store)
    return done


def archive(
    paths: Paths, params: dict[str, Any], author: Author, leased: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """:func:`apply_archive` without the event; a policy has ``record`` and ``after`` too, its facts and the stage.

    Args:
        leased: what is in use, see :mod:`backend.registry.leases`.

    Returns the event's payload.
    """
    try:
        return _archive(paths, params, author, leased)
    except (LockedError, RefusedError):
        take_back(paths, params)
        raise


def _archive(paths: Paths, params: dict[str, Any], author: Author, leased: Mapping[str, str] | None) -> dict[str, Any]:
    after = str(params.get("after") or "archived")
    done = was_done(paths, author, EVENTS[after], str(params["model"]))
    if done is not None:
        return done
    row = find(paths, str(params["model"]))
    moved_before = not full_path(paths, row.path).is_file()  # a use that came up after that stops nothing
    _refuse_protected(paths, row, {} if moved_before else leased or {})
    if row.stage != params["stage"] or row.sha256 != params["sha256"] or row.path != params["from"]:
        raise LockedError("the model has changed since the plan was made", where=row.label, hint="plan it again")
    moved = put_away(paths, row, str(params["to"]), str(params["reason"]), params.get("rating"))
    crash_point("archive.moved")
    action = "reject" if after == "rejected" else "archive"
    decision = Decision(action, str(params["reason"]), record=dict(params.get("record") or {}))
    stored = str(params["to"]) if moved else row.path
    done = change_stage(paths, Planned(row.label, row.sha256, row.stage), after, decision, author, stored=stored)
    crash_point("archive.committed")
    return done


def take_back(paths: Paths, params: dict[str, Any]) -> None:
    """Moves a file back to where the registry says it lies, when it was moved for a change that was refused then.

    Also what a run left that was killed between its move and the refusal. Nobody changes the registry meanwhile.
    """
    with writing(paths.registry_db) as db:
        row = row_of(db, str(params["model"]))
        there, moved = full_path(paths, row.path), full_path(paths, str(params["to"]))
        if row.path != params["from"] or there.is_file() or not moved.is_file() or sha256_file(moved) != row.sha256:
            return
        crash_point("archive.refused")
        there.parent.mkdir(parents=True, exist_ok=True)
        move(moved, there, row.sha256)
        write_sidecar(there, row.sha256)
        sidecar_path(moved).unlink(missing_ok=True)
        manifest_path(moved).unlink(missing_ok=True)


def put_away(paths: Paths, row: ModelRow, to: str, reason: str, rating: dict[str, Any] | None = None) -> bool:
    """Moves a model's file into the archive with its manifest, unless that was done before.

    Args:
        rating: for the manifest; None while the model has none.

    Returns:
        False when there is no file to move.

    Raises:
        UnverifiedError: it is not the file that was registered; nothing was moved.
    """
    source, target = full_path(paths, row.path), full_path(paths, to)
    at = source if source.is_file() else target if target.is_file() else None
    if at is None:
        return False
    if sha256_file(at) != row.sha256:
        raise UnverifiedError("the file is not the one that was registered", where=str(at), hint="nothing was moved")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        manifest_path(target),
        {
            "model": row.label,
            "config": row.config,
            "sha256": row.sha256,
            "size_bytes": at.stat().st_size,
            "stage": row.stage,
            "reason": reason,
            "rating": rating,
            "archived_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "original_path": row.path,
            "archived_path": to,
            "restore": f"ringrift registry restore {row.label}",
        },
    )
    crash_point("archive.manifest")
    if at == source:
        move(source, target, row.sha256)
    write_sidecar(target, row.sha256)
    sidecar_path(source).unlink(missing_ok=True)
    return True


def put_away_archived(paths: Paths, label: str, folder: str, reason: str, *, to: str | None = None) -> str | None:
    """Moves the file of a model that is archived or rejected already; returns the new place, None when nothing was
    there to move. ``to`` is where, as a plan has it."""
    row = find(paths, label)
    if row.stage not in ("archived", "rejected") or is_archived_place(paths, row.path):
        return None
    to = to or archive_place(paths, row, folder)
    if not put_away(paths, row, to, reason, rating_note(paths, row)):
        return None
    crash_point("rollback.moved")
    with writing(paths.registry_db) as db:
        now = row_of(db, label)
        same = (now.stage, now.path) == (row.stage, row.path)
        if same:
            set_path(db, row, to)
    if not same:
        take_back(paths, {"model": label, "from": row.path, "to": to})
    return to if same else None


async def plan_restore(paths: Paths, *, model: str, reason: str | None = None) -> Plan:
    """What bringing an archived or rejected model back to development will do.

    Raises:
        NotFoundError: there is no such model, or its file is nowhere.
        RefusedError: it is neither archived nor rejected.
        UnverifiedError: its file is not the one that was registered.
    """
    return await asyncio.to_thread(_plan_restore, paths, model, reason or "restored by hand")


def _plan_restore(paths: Paths, model: str, reason: str) -> Plan:
    row = find(paths, model)
    refuse_foreign(row)
    if row.stage not in ("archived", "rejected"):
        raise RefusedError(f"a model that is {row.stage} needs no restoring", where=row.label)
    if not row.present:
        raise NotFoundError("the model's file is missing", where=row.path, hint="bring it back from a host or a backup")
    check_source(paths, row)
    to = restored_place(paths, row)
    return Plan(
        action="registry.restore",
        title=f"Restore {row.label}",
        params=_params(row) | {"to": to, "reason": reason},
        changes=(
            Change(row.label, row.stage, "development"),
            *((Change(f"file of {row.label}", row.path, to),) if to != row.path else ()),
        ),
        steps=("check the file's SHA-256 and move it back", "stage, path, audit entry and event in one transaction"),
        command=shlex.join(["ringrift", "registry", "restore", row.label, "--reason", reason]),
        undo=f"ringrift registry archive {row.label}",
        guard={f"model {row.label}": row.stage},
    )


def restored_place(paths: Paths, row: ModelRow) -> str:
    """Where a restored model lies: its registered place when it comes from the archive, else where it is."""
    if not is_archived_place(paths, row.path):
        return row.path
    return stored_path(paths, registered_path(paths, row.model_id, row.version, row.sha256))


async def apply_restore(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_restore`; does what is left of it when repeated."""
    author = await author_of(store)
    done = await asyncio.to_thread(restore, paths, plan.params, author)
    await publish(paths, store)
    return done


def restore(paths: Paths, params: dict[str, Any], author: Author) -> dict[str, Any]:
    """:func:`apply_restore` without the event; returns the event's payload."""
    try:
        done = was_done(paths, author, EVENTS["development"], str(params["model"])) or _restore(paths, params, author)
    except (LockedError, RefusedError):
        take_back(paths, params)
        raise
    source = full_path(paths, params["from"])
    if is_archived_place(paths, params["from"]) and not source.is_file():
        manifest_path(source).unlink(missing_ok=True)
    return done


def _restore(paths: Paths, params: dict[str, Any], author: Author) -> dict[str, Any]:
    source, target, sha256 = full_path(paths, params["from"]), full_path(paths, params["to"]), str(params["sha256"])
    at = source if source.is_file() else target
    if sha256_file(at) != sha256:
        raise UnverifiedError("the file is not the one that was registered", where=str(at), hint="nothing was moved")
    if at == source and source != target:
        target.parent.mkdir(parents=True, exist_ok=True)
        move(source, target, sha256)
        crash_point("restore.moved")
    if source != target:
        write_sidecar(target, sha256)
        sidecar_path(source).unlink(missing_ok=True)
    model = Planned(str(params["model"]), sha256, str(params["stage"]))
    decision = Decision("restore", str(params["reason"]))
    return change_stage(paths, model, "development", decision, author, stored=str(params["to"]))
