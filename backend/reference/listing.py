"""All models of a root: those of the registry, and checkpoints of an ai-service that no registry of ours has seen."""

from __future__ import annotations

from backend.databases import tables
from backend.paths import Paths
from backend.reference.files import checkpoints
from backend.reference.identities import stored_name
from backend.registry.schema import reading
from backend.registry.store import model_rows
from backend.snapshot import ModelRow


def all_models(paths: Paths) -> tuple[ModelRow, ...]:
    """Registered models, newest first, then unregistered checkpoints by path; no file is hashed.

    Checkpoints are listed only where the registry has none of our tables: in a root of ours every model is registered,
    and what lies beside them is a candidate under a name of its own.

    Raises:
        UnverifiedError, LockedError, ResourceError, SchemaError: the registry cannot be read.
    """
    rows = model_rows(paths)
    if any(not row.foreign for row in rows):
        return rows
    with reading(paths.registry_db) as db:
        if db is not None and "artifacts" in tables(db):
            return rows
    named = {row.path for row in rows} | {stored_name(row.path) for row in rows}
    return rows + tuple(
        ModelRow(
            model_id=one.path, version=0, name=one.path, sha256="", config=one.config, stage=one.stage, path=one.path,
            size=one.size, created_at=one.modified, foreign=True,
            metadata={"link": one.link} if one.link else {},
        )
        for one in checkpoints(paths, checksums=False)
        if one.path not in named
    )  # fmt: skip
