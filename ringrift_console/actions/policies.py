"""What happens without being asked, and who allowed it."""

from __future__ import annotations

from ringrift_console.actions.action import Action, Param, Tier
from ringrift_console.actions.params import DRY_RUN, JSON, REASON, WAIT

_POLICIES = "ringrift_console.verbs.policies"

POLICIES: tuple[Action, ...] = (
    Action(
        "registry.archive-policy",
        "Judge every model by the rules of archival, and archive what they name once it is confirmed",
        "archive…",
        verb=("registry", "archive-policy"),
        params=(
            Param("--config", "only models of this config", metavar="KEY"),
            Param("--apply", "do it: archive, reject and move what the rules name", type="flag"),
            Param("--all", "list also the models that are kept, and why", type="flag"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_POLICIES}:archive_policy",
        plan="backend.registry.archival:plan_archival",
        key="A",
        scope="policies",
        tier=Tier.PLAN,
    ),
    Action(
        "policies.list",
        "What is archived or promoted without being asked, and who allowed it",
        "policies",
        verb=("policies", "list"),
        params=(JSON,),
        run=f"{_POLICIES}:list_policies",
        key="A",
        scope="pulse",
    ),
    Action(
        "policies.set",
        "Switch a policy, for the whole root or for one config",
        "set…",
        verb=("policies", "set"),
        params=(
            Param("name", "archival or promotion", choices=("archival", "promotion"), metavar="NAME"),
            Param(
                "mode",
                "off, on; dry-run for archival; inherit for a config",
                choices=("off", "dry-run", "on", "inherit"),
                metavar="MODE",
            ),
            Param("--config", "only this config; it then has a mode of its own", metavar="KEY"),
            REASON,
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_POLICIES}:set_policy",
        plan="backend.registry.policies:plan_set",
        key="e",
        scope="policies",
        tier=Tier.PLAN,
    ),
)
