"""Rejecting a model by hand: a stage of its own, with the reason; the file stays where it is."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING, Any

from backend.errors import RefusedError
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.registry.changes import Decision, author_of, refuse_foreign
from backend.registry.outbox import publish
from backend.registry.promotion import ground_of
from backend.registry.stages import TRANSITIONS
from backend.registry.store import find
from backend.registry.switch import Planned, change_stage

if TYPE_CHECKING:
    from backend.state.store import StateStore


async def plan_reject(paths: Paths, *, model: str, reason: str | None = None) -> Plan:
    """What rejecting a model will do.

    Raises:
        NotFoundError: there is no such model.
        RefusedError: it is in production, or its stage does not allow it.
    """
    return await asyncio.to_thread(_plan, paths, model, reason or "rejected by hand")


def _plan(paths: Paths, model: str, reason: str) -> Plan:
    row = find(paths, model)
    refuse_foreign(row)
    if row.config is not None and ground_of(paths, row.config).label == row.label:
        raise RefusedError(
            f"it is the production model of {row.config}", where=row.label,
            hint=f"ringrift registry rollback --config {row.config}",
        )  # fmt: skip
    if "rejected" not in TRANSITIONS.get(row.stage, ()):
        raise RefusedError(f"a model that is {row.stage} cannot be rejected", where=row.label)
    return Plan(
        action="registry.reject",
        title=f"Reject {row.label}",
        params={"model": row.label, "sha256": row.sha256, "stage": row.stage, "reason": reason},
        changes=(Change(row.label, row.stage, "rejected"),),
        steps=("stage, audit entry and event in one transaction",),
        command=shlex.join(["ringrift", "registry", "reject", row.label, "--reason", reason]),
        undo=f"ringrift registry restore {row.label}",
        guard={f"model {row.label}": row.stage},
    )


async def apply_reject(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_reject`; the second time changes nothing."""
    author = await author_of(store)
    params = plan.params
    model = Planned(str(params["model"]), str(params["sha256"]), str(params["stage"]))
    decision = Decision("reject", str(params["reason"]))
    done = await asyncio.to_thread(change_stage, paths, model, "rejected", decision, author)
    await publish(paths, store)
    return done
