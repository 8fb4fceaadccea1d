"""Promotion: from a model and its evidence to a plan, and from a confirmed plan to a stage.

The plan shows every criterion; the operation judges again with the records as they are then, and stores that judgement
with the change. A model that does not meet its criteria is promoted only against a reason in words, kept for ever.
"""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backend.configs import parse_config
from backend.crash import crash_point
from backend.errors import NoEvidenceError, RefusedError, SchemaError, UsageError
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.registry import pointers
from backend.registry.changes import Author, Decision, author_of, refuse_foreign
from backend.registry.deployment import check_source, deploy, production_file
from backend.registry.outbox import publish
from backend.registry.schema import reading
from backend.registry.stages import next_stage
from backend.registry.store import find
from backend.registry.switch import EVENTS, PROMOTED, Ground, Planned, change_stage, switch, was_done
from backend.snapshot import ModelRow

if TYPE_CHECKING:
    from backend.evaluation.criteria import Assessment
    from backend.state.store import StateStore

TARGETS = {"staging": ("development",), "production": ("staging",)}
"""Stages that one promotes to, with those that one comes from."""


def target(row: ModelRow, asked: str | None) -> str:
    """The stage that was asked for, or the next one.

    Raises:
        UsageError: nobody promotes to that stage.
    """
    stage = (asked or next_stage(row.stage)).lower()
    if stage not in TARGETS:
        raise UsageError("nobody promotes to that stage", where=stage, hint="one of " + " ".join(TARGETS))
    return stage


async def plan_promote(
    paths: Paths,
    *,
    model: str,
    stage: str | None = None,
    override: str | None = None,
    reason: str | None = None,
    search: str | None = None,
) -> Plan:
    """What promoting a model will do, with every criterion.

    Args:
        stage: the one after the model's own by default.
        search: settings that it is judged with, e.g. ``s16``; those that have played most by default.

    Raises:
        NotFoundError: there is no such model, or its file is missing.
        UsageError: nobody promotes to that stage.
        SchemaError: nothing says which config the model plays.
        RefusedError: a criterion is not met, or the model is at another stage than the one before.
        NoEvidenceError: it has not played.
        UnverifiedError: its file is not the one that was registered.
    """
    return await asyncio.to_thread(_plan, paths, model, stage, override, reason, search)


def _plan(
    paths: Paths, model: str, asked: str | None, override: str | None, reason: str | None, search: str | None
) -> Plan:
    row = find(paths, model)
    stage = target(row, asked)
    refuse_foreign(row)
    if row.stage not in TARGETS[stage]:
        raise RefusedError(
            f"it is in {row.stage}; to {stage} it goes from {' or '.join(TARGETS[stage])}",
            where=row.label,
            hint="--stage staging comes first" if row.stage == "development" else "",
        )
    check_source(paths, row)
    judged = assess(paths, row, stage, search)
    if override is None:
        refuse(row, stage, judged)
    config = config_key(row)
    ground = ground_of(paths, config)
    why = reason or override or f"met the criteria of {stage}"
    moves = _to_production(row, ground) if stage == "production" else (Change(row.label, row.stage, stage),)
    given = [*(("--override", override) if override else ()), *(("--reason", reason) if reason else ())]
    return Plan(
        action="registry.promote",
        title=f"Promote {row.label} to {stage}",
        params={
            "model": row.label, "sha256": row.sha256, "stage": row.stage, "to": stage, "config": config,
            "production": ground.label, "revision": ground.revision, "reason": why, "override": override,
            "search": judged.search or None,
        },
        changes=moves,
        steps=(
            "check the file's SHA-256 and judge the criteria again",
            "stage, decision, audit entry and event in one transaction",
            *(_deployment_steps(config) if stage == "production" else ()),
        ),
        command=shlex.join(["ringrift", "registry", "promote", row.label, "--stage", stage, *given]),
        undo=f"ringrift registry rollback --config {config}" if stage == "production" and ground.label else
        f"ringrift registry reject {row.label}, then ringrift registry restore {row.label}" if stage == "staging" else
        "promote another model of the config",
        warnings=(f"OVERRIDE: {judged.outcome}, promoted against it: {override}",)
        if override and judged.outcome != "PASS" else (),
        guard={f"model {row.label}": row.stage, f"production {config}": production_text(ground)},
        table=judged.table(),
        typed=row.label if stage == "production" else "",
    )  # fmt: skip


def _to_production(row: ModelRow, ground: Ground) -> tuple[Change, ...]:
    file = f"models_essential/{production_file(ground.config)}"
    changes = [
        Change(f"production of {ground.config}", ground.label or "none", row.label),
        Change(row.label, row.stage, "production"),
    ]
    if ground.label is not None:
        changes.append(Change(ground.label, "production", "archived; its file stays for a rollback"))
    return (*changes, Change(file, ground.label or "none", f"{row.label} {row.sha256[:12]}"))


def _deployment_steps(config: str) -> tuple[str, ...]:
    return (
        f"place the file as models_essential/{production_file(config)}, with its checksum and the manifest",
        "publish MODEL_PROMOTED, which sends the file to the hosts",
    )


def production_text(ground: Ground) -> str:
    """A pointer as a guard compares it."""
    return f"{ground.label or 'none'} (revision {ground.revision})"


def config_key(row: ModelRow) -> str:
    """The config of a model.

    Raises:
        SchemaError: nothing says which.
    """
    if row.config is None:
        raise SchemaError("nothing says which config the model plays", where=row.label, hint="register its file anew")
    return row.config


def ground_of(paths: Paths, config: str) -> Ground:
    """The production pointer of a config, to plan from."""
    with reading(paths.registry_db) as db:
        pointer = pointers.current(db, config) if db is not None else pointers.Pointer(config)
    return Ground(config, pointer.label, pointer.revision)


def assess(paths: Paths, row: ModelRow, stage: str, search: str | None = None) -> Assessment:
    """The criteria of a stage for a model, with a search of its own or the one that has played most, by the match
    records as they are now."""
    from backend.evaluation.criteria import assess as judge

    return judge(paths, parse_config(config_key(row)), row.sha256, stage, champion_of(paths, row), search)


def champion_of(paths: Paths, row: ModelRow) -> str | None:
    """SHA-256 of the production model that a candidate has to be better than; None when there is none."""
    label = ground_of(paths, config_key(row)).label
    return None if label is None or label == row.label else find(paths, label).sha256


def refuse(row: ModelRow, stage: str, judged: Assessment) -> None:
    """Says no to a promotion that the evidence does not carry.

    Raises:
        RefusedError, NoEvidenceError: with the first criterion that is not met.
    """
    if judged.outcome == "PASS":
        return
    kind = NoEvidenceError if judged.outcome == "NO EVIDENCE" else RefusedError
    hint = "--override REASON promotes it all the same, and is kept for ever"
    if judged.more:
        hint = f"play {judged.more} more games (ringrift gauntlet {row.label}); {hint}"
    raise kind(f"not promoted to {stage}, {judged.outcome}: {judged.why}", where=row.label, hint=hint)


async def apply_promote(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_promote`; does what is left of it when repeated.

    Returns:
        The event's payload, with ``deployed``.

    Raises:
        RefusedError, NoEvidenceError: the records have changed, and the criteria are not met any more.
        LockedError: the model or the production pointer has moved.
        UnverifiedError, NotFoundError: the file is not what was registered.
    """
    author = await author_of(store)
    event = EVENTS.get(str(plan.params["to"]), PROMOTED)
    done = await asyncio.to_thread(was_done, paths, author, event, str(plan.params["model"]))
    if done is None:
        done = await asyncio.to_thread(_promote, paths, plan.params, author)
        crash_point("promote.committed")
    return await settle(paths, store, done, stage=str(plan.params["to"]))


def _promote(paths: Paths, params: dict[str, Any], author: Author) -> dict[str, Any]:
    stage, override = str(params["to"]), params["override"]
    row = replace(find(paths, params["model"]), stage=str(params["stage"]), sha256=str(params["sha256"]))
    check_source(paths, row)
    judged = assess(paths, row, stage, params.get("search"))
    if override is None:
        refuse(row, stage, judged)
    decision = Decision("promote", str(params["reason"]), judged.outcome, override, judged.record())
    model = Planned(row.label, row.sha256, row.stage)
    crash_point("promote.judged")
    if stage != "production":
        return change_stage(paths, model, stage, decision, author)
    ground = Ground(str(params["config"]), params["production"], int(params["revision"]))
    return switch(paths, ground, model, decision, author, left=f"superseded by {row.label}")


async def settle(paths: Paths, store: StateStore, done: dict[str, Any], *, stage: str) -> dict[str, Any]:
    """What follows a committed change: the files of production, then the events.

    A file of production that could not be placed is told by the event ``DEPLOYMENT_FAILED``.

    Raises:
        NotFoundError, UnverifiedError, ResourceError: it is the file of the config that was changed.
    """
    if stage != "production":
        await publish(paths, store)
        return dict(done)
    failed = await asyncio.to_thread(deploy, paths)
    for name, error in failed.items():
        if name.startswith("canonical_"):
            key = f"DEPLOYMENT_FAILED {await store.lasting_operation()} {name}"
            await store.add_event("DEPLOYMENT_FAILED", f"models_essential/{name}", {"reason": error.line()}, key=key)
    await publish(paths, store)
    own = production_file(str(done["config"]))
    if own in failed:
        raise failed[own]
    missing = {name: error.line() for name, error in failed.items()}
    return done | {"deployed": f"models_essential/{own}"} | ({"missing": missing} if missing else {})


async def guard_production(paths: Paths, store: StateStore, config: str) -> str:
    """The production pointer of a config, for the guard of a plan."""
    return production_text(await asyncio.to_thread(ground_of, paths, config))
