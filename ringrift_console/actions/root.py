"""A root as a whole: examined, taken in, its audit log checked."""

from __future__ import annotations

from ringrift_console.actions.action import Action, Param, Tier
from ringrift_console.actions.params import DRY_RUN, JSON, WAIT

_REGISTRY = "ringrift_console.verbs.registry"
_REFERENCE = "ringrift_console.verbs.reference"

ROOT: tuple[Action, ...] = (
    Action(
        "doctor",
        "Examine a root: files, registry, match records and stored ratings; changes nothing",
        verb=("doctor",),
        params=(Param("--config", "only what belongs to this config", metavar="KEY"), JSON),
        run=f"{_REFERENCE}:doctor",
    ),
    Action(
        "adopt",
        "Take the models of another installation in: our own tables beside theirs, known by SHA-256",
        "adopt…",
        verb=("adopt",),
        params=(
            Param("--undo", "take the last adoption back: our tables and rows go, nothing else", type="flag"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_REFERENCE}:adopt",
        plan="backend.reference.adopt:plan_adopt",
        tier=Tier.PLAN,
    ),
    Action(
        "audit.verify",
        "Check that the registry's audit log is what was written",
        verb=("audit", "verify"),
        params=(JSON,),
        run=f"{_REGISTRY}:verify_audit",
    ),
)
