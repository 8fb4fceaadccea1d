"""Plans for changes of the registry."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from backend.errors import RefusedError
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.registry.files import full_path, stored_path
from backend.registry.schema import TRANSITIONS
from backend.registry.store import find

PROTECTED = ("staging", "production")


async def plan_archive(paths: Paths, *, model: str, reason: str | None = None) -> Plan:
    """What archiving a model by hand will do.

    Raises:
        NotFoundError: there is no such model.
        RefusedError: it is in staging or production, or archived already.
    """
    return await asyncio.to_thread(_plan_archive, paths, model, reason)


def _plan_archive(paths: Paths, model: str, reason: str | None) -> Plan:
    row = find(paths, model)
    if row.stage in PROTECTED:
        raise RefusedError(f"a {row.stage} model is protected from archiving", where=row.label)
    if "archived" not in TRANSITIONS.get(row.stage, ()):
        raise RefusedError(f"a model that is {row.stage} cannot be archived", where=row.label)
    month = datetime.now(UTC).strftime("%Y%m")
    source = full_path(paths, row.path)
    name = f"{row.model_id}_v{row.version}_{row.sha256[:8]}{source.suffix or '.pth'}"
    target = stored_path(paths, paths.archive / month / "manual" / name)
    reason = reason or "archived by hand"
    moved = (Change(f"file of {row.label}", row.path, target),) if row.present else ()
    missing = () if row.present else (f"its file is missing at {row.path}; only the registry will change",)
    return Plan(
        action="registry.archive",
        title=f"Archive {row.label}",
        params={
            "model": row.label,
            "model_id": row.model_id,
            "version": row.version,
            "sha256": row.sha256,
            "stage": row.stage,
            "from": row.path,
            "to": target,
            "reason": reason,
        },
        changes=(Change(row.label, row.stage, "archived"), *moved),
        steps=(
            "write a manifest beside the new place: hash, stage, reason, how to restore",
            "check the file's SHA-256 and move it with its checksum",
            "record the stage and the new path in one transaction",
        ),
        command=f"ringrift registry archive {row.label} --reason {_quoted(reason)}",
        undo="Nothing is deleted: the manifest beside the archived file says how to bring it back to development.",
        warnings=missing,
        guard={f"model {row.label}": row.stage},
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
