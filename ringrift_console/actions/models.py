"""The registry: models, their stages, and what is known of them."""

from __future__ import annotations

from backend.snapshot import Snapshot
from ringrift_console.actions.action import Action, Param, Tier
from ringrift_console.actions.params import CONFIG, DRY_RUN, JSON, MODEL, REASON, WAIT
from ringrift_console.actions.subjects import find_model, needs_model

_REGISTRY = "ringrift_console.verbs.registry"
FOREIGN = "it is another installation's; ringrift adopt takes it in"


def _can_archive(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    if model.foreign:
        return FOREIGN
    if model.stage in ("production", "staging"):
        return f"a {model.stage} model is protected"
    return "it is archived already" if model.stage == "archived" else None


def _can_promote(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    if model.foreign:
        return FOREIGN
    return None if model.stage in ("development", "staging") else f"a model that is {model.stage} is not promoted"


def _can_roll_back(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    return None if model.stage == "production" else "only a production model can be rolled back from"


def _can_restore(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    if model.foreign:
        return FOREIGN
    return None if model.stage in ("archived", "rejected") else f"a model that is {model.stage} needs no restoring"


def _can_reject(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    if model.foreign:
        return FOREIGN
    return None if model.stage in ("development", "staging") else f"a model that is {model.stage} cannot be rejected"


MODELS: tuple[Action, ...] = (
    Action(
        "registry.list",
        "Registered models",
        verb=("registry", "list"),
        params=(
            Param("--stage", "only this stage", metavar="STAGE"),
            Param("--config", "only this config", metavar="KEY"),
            JSON,
        ),
        run=f"{_REGISTRY}:list_models",
    ),
    Action(
        "registry.info",
        "Everything known of one model",
        "details",
        verb=("registry", "info"),
        params=(MODEL, JSON),
        run=f"{_REGISTRY}:info",
        key="d",
        scope="models",
        available=needs_model,
    ),
    Action(
        "registry.promote",
        "Promote a model to the next stage, if its criteria are met",
        "promote…",
        verb=("registry", "promote"),
        params=(
            MODEL,
            Param("--stage", "staging or production; default the next", aliases=("--to",), metavar="STAGE"),
            Param("--override", "promote against the evidence, for this reason; shown for ever", metavar="REASON"),
            Param("--reason", "why, in words; kept for ever", metavar="TEXT"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_REGISTRY}:promote",
        plan="backend.registry.promotion:plan_promote",
        key="P",
        scope="models",
        tier=Tier.PLAN,
        available=_can_promote,
    ),
    Action(
        "registry.rollback",
        "Put the production model before this one back, and archive this one",
        "roll back…",
        verb=("registry", "rollback"),
        params=(
            Param("--config", "config key, e.g. hex8_2p", required=True, metavar="KEY"),
            Param("--to", "go back to this model; default the last sound one", metavar="MODEL"),
            Param("--reason", "why, in words; kept for ever", metavar="TEXT"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_REGISTRY}:rollback",
        plan="backend.registry.rollback:plan_rollback",
        key="B",
        scope="models",
        tier=Tier.PLAN,
        available=_can_roll_back,
    ),
    Action(
        "registry.archive",
        "Move a model into the archive",
        "archive…",
        verb=("registry", "archive"),
        params=(MODEL, REASON, WAIT, DRY_RUN, JSON),
        run=f"{_REGISTRY}:archive",
        plan="backend.registry.archive:plan_archive",
        key="A",
        scope="models",
        tier=Tier.PLAN,
        available=_can_archive,
    ),
    Action(
        "registry.restore",
        "Bring an archived or rejected model back to development",
        "restore…",
        verb=("registry", "restore"),
        params=(MODEL, REASON, WAIT, DRY_RUN, JSON),
        run=f"{_REGISTRY}:restore",
        plan="backend.registry.archive:plan_restore",
        key="R",
        scope="models",
        tier=Tier.PLAN,
        available=_can_restore,
    ),
    Action(
        "registry.reject",
        "Reject a model: it is not to be promoted",
        "reject…",
        verb=("registry", "reject"),
        params=(MODEL, REASON, WAIT, DRY_RUN, JSON),
        run=f"{_REGISTRY}:reject",
        plan="backend.registry.reject:plan_reject",
        key="X",
        scope="models",
        tier=Tier.PLAN,
        available=_can_reject,
    ),
    Action(
        "registry.criteria",
        "What the evidence says of a model, criterion by criterion",
        "criteria",
        verb=("registry", "criteria"),
        params=(MODEL, Param("--stage", "staging or production; default the next", metavar="STAGE"), JSON),
        run=f"{_REGISTRY}:criteria",
        key="c",
        scope="models",
        available=needs_model,
    ),
    Action(
        "registry.lineage",
        "Where a model comes from and where it went: data, run, model, evaluation, deployment",
        "lineage",
        verb=("registry", "lineage"),
        params=(MODEL, JSON),
        run=f"{_REGISTRY}:lineage",
        key="L",
        scope="models",
        available=needs_model,
    ),
    Action(
        "models.decisions",
        "History of a model: stages, decisions, overrides with their reasons",
        "history",
        key="H",
        scope="models",
        available=needs_model,
    ),
    Action(
        "models.mark",
        "Mark a model to compare others with it",
        "mark",
        key="m",
        scope="models",
        available=needs_model,
    ),
    Action(
        "auto-promote",
        "Play a model's gauntlet, judge it, and promote it as far as its criteria pass",
        verb=("auto-promote",),
        params=(
            Param("--model", "label, SHA-256 or the start of one, or the file", required=True, metavar="MODEL"),
            *CONFIG,
            Param("--gauntlet", "play what is missing; without it the games that are there decide", type="flag"),
            Param("--games", "games per opponent at most", type="int", default=100, metavar="N"),
            Param("--simulations", "search simulations a move; 0 plays the bare policy", type="int", metavar="N"),
            Param("--run", "id of a run to go on with; by default the model's own", metavar="ID"),
            Param("--workers", "processes; default one a core", type="int", metavar="N"),
            Param("--dry-run", "say what would be played and how the criteria stand, and change nothing", type="flag"),
            JSON,
        ),
        run="ringrift_console.verbs.auto_promote:auto_promote",
    ),
    Action(
        "registry.history",
        "What was in production when, with every decision",
        verb=("registry", "history"),
        params=(
            Param("--config", "config key, e.g. hex8_2p", required=True, metavar="KEY"),
            Param("--on", "only what was in production at this time, ISO", metavar="DATE"),
            JSON,
        ),
        run=f"{_REGISTRY}:history",
    ),
    Action(
        "registry.compare",
        "Two models side by side; on screen the marked one and this one",
        "compare",
        verb=("registry", "compare"),
        params=(
            Param("first", "label, SHA-256 or the start of one", metavar="A"),
            Param("second", "label, SHA-256 or the start of one", metavar="B"),
            JSON,
        ),
        run=f"{_REGISTRY}:compare",
        key="equals_sign",
        scope="models",
        available=needs_model,
    ),
    Action(
        "registry.export",
        "Copy a model's file out of the registry, verified, with its checksum",
        verb=("registry", "export"),
        params=(
            MODEL,
            Param("--output", "file to write", type="path", aliases=("-o",), required=True, metavar="F.pth"),
        ),
        run=f"{_REGISTRY}:export",
    ),
)
