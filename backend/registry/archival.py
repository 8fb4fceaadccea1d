"""The policy of archival over a whole root: the rulings, a plan of what they ask for, and the operation.

The operation goes from model to model; each is looked at again, and put away as by hand, under a key of its own, so
that a killed supervisor goes on with the first that is not done. A model that has changed since is left as it is.
"""

from __future__ import annotations

import asyncio
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from backend.configs import parse_config
from backend.crash import crash_point
from backend.errors import LockedError, NotFoundError, RefusedError, UnverifiedError
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.registry.archive import archive, archive_place, put_away_archived, take_back
from backend.registry.changes import Author, author_of
from backend.registry.leases import leases
from backend.registry.outbox import publish
from backend.registry.policy import Ruling, rule
from backend.registry.policy_facts import Known, gather, in_use, numbers_of
from backend.registry.store import find

if TYPE_CHECKING:
    from backend.state.store import StateStore

AT_ONCE = 500
"""Models that one operation puts away at most; the next one takes the rest."""
LOOK_EVERY = 25
"""Models after which an operation asks again what is in use."""
STAGES = {"archive": "archived", "reject": "rejected"}


@dataclass(frozen=True, slots=True)
class Ruled:
    """A model, what is known of it, and what becomes of it."""

    known: Known
    ruling: Ruling

    @property
    def acts(self) -> bool:
        """Whether the ruling changes anything."""
        return self.ruling.action != "keep"


async def rulings(
    paths: Paths,
    configs: Collection[str] | None = None,
    *,
    now: datetime | None = None,
    store: StateStore | None = None,
) -> tuple[Ruled, ...]:
    """What the rules say of every model, oldest first.

    Args:
        configs: only of these configs; all by default.
        store: where the caller has the state open.

    Raises:
        LockedError, ResourceError, UnverifiedError, SchemaError: registry, records or state cannot be read.
    """
    leased = await leases(paths, store)
    known = await asyncio.to_thread(gather, paths, leased, configs=configs, now=now)
    return tuple(Ruled(one, rule(one.facts, numbers_of(one.row.config))) for one in known)


def summary(ruled: Sequence[Ruled]) -> dict[str, int]:
    """How many models each ruling that changes something is about, by action and folder, e.g. ``archive aged_out``."""
    counted = Counter(f"{one.ruling.action} {one.ruling.folder}" for one in ruled if one.acts)
    return dict(sorted(counted.items()))


async def plan_archival(
    paths: Paths, *, config: str | None = None, configs: Collection[str] | None = None
) -> Plan:  # fmt: skip
    """What the policy would put away now.

    Args:
        config: only of this config; ``configs`` of several.

    Raises:
        UsageError: there is no such config.
        RefusedError: the rules keep every model as it is.
        LockedError, ResourceError, UnverifiedError, SchemaError: see :func:`rulings`.
    """
    wanted = sorted(configs) if configs is not None else [parse_config(config).key] if config else None
    return plan_of(paths, await rulings(paths, wanted), wanted)


def plan_of(paths: Paths, ruled: Sequence[Ruled], configs: Sequence[str] | None) -> Plan:
    """A plan of rulings; see :func:`plan_archival`."""
    due = [one for one in ruled if one.acts]
    if not due:
        raise RefusedError("the policy keeps every model as it is", where=" ".join(configs or ()))
    chosen = due[:AT_ONCE]
    models = [_model(paths, one) for one in chosen]
    counted = ", ".join(f"{count} {what}" for what, count in summary(chosen).items())
    given = ["--config", configs[0]] if configs and len(configs) == 1 else []
    more = (f"{len(due) - AT_ONCE} more are due; the next operation takes them",) if len(due) > AT_ONCE else ()
    return Plan(
        action="registry.archive-policy",
        title=f"Archive {len(chosen)} model{'s' if len(chosen) > 1 else ''} by policy ({counted})",
        params={"configs": None if configs is None else list(configs), "models": models},
        changes=tuple(
            Change(one["model"], one["stage"], f"{one['after']}, {one['folder']}: {one['reason']}") for one in models
        ),
        steps=(
            "look at each model again; one that has changed, or that the rules keep now, is left alone",
            "write a manifest beside the new place: hash, stage, rating, reason, how to restore",
            "check each file's SHA-256 and move it with its checksum",
            "stage, path, decision, audit entry and event of a model in one transaction",
        ),
        command=shlex.join(["ringrift", "registry", "archive-policy", *given, "--apply"]),
        undo="ringrift registry restore MODEL",
        warnings=more,
    )


def _model(paths: Paths, one: Ruled) -> dict[str, Any]:
    row, ruling, standing = one.known.row, one.ruling, one.known.standing
    facts = {name: value for name, value in asdict(one.known.facts).items() if value not in (None, "", False)}
    return {
        "model": row.label, "sha256": row.sha256, "stage": row.stage, "from": row.path, "action": ruling.action,
        "folder": ruling.folder, "to": archive_place(paths, row, ruling.folder), "reason": ruling.reason,
        "after": STAGES.get(ruling.action, row.stage), "rating": standing.to_json() if standing else None,
        "record": {"rule": ruling.reason, "facts": facts, "since": str(row.stage_since or "")},
    }  # fmt: skip


async def apply_archival(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_archival`; does what is left of it when repeated.

    Returns:
        ``archived``, ``rejected`` and ``moved`` with labels, and ``left`` with why each of the others was left alone.

    Raises:
        LockedError: all of the models have changed since the plan was made, or are kept now; nothing was done.
    """
    operator = await author_of(store)
    models = list(plan.params["models"])
    now = {one.known.row.label: one.ruling for one in await rulings(paths, plan.params["configs"], store=store)}
    crash_point("archival.gathered")
    done: dict[str, list[str]] = {"archived": [], "rejected": [], "moved": []}
    left: dict[str, str] = {}
    leased: dict[str, str] = {}
    for n, params in enumerate(models):
        label = str(params["model"])
        if n % LOOK_EVERY == 0:
            await store.tell_progress(n + 1, len(models), f"put {label} away")
            leased = await leases(paths, store)
        author = Author(operator.by, f"{operator.operation}/{label}")
        try:
            kind = await asyncio.to_thread(_put_away, paths, params, now.get(label), leased, author)
        except (RefusedError, LockedError, UnverifiedError, NotFoundError) as error:
            if isinstance(error, (RefusedError, LockedError)):
                await asyncio.to_thread(take_back, paths, params)
            left[label] = error.line()
            continue
        done[kind].append(label)
        crash_point("archival.step")
    await publish(paths, store)
    if not any(done.values()):
        label, why = next(iter(left.items()))
        raise LockedError(f"nothing was archived; {label}: {why}", hint="plan it again")
    return {name: labels for name, labels in done.items() if labels} | ({"left": left} if left else {})


def _put_away(
    paths: Paths, params: dict[str, Any], ruling: Ruling | None, leased: dict[str, str], author: Author
) -> str:
    """One model's share; returns what was done.

    Raises:
        LockedError: it has changed since the plan was made. RefusedError: the rules keep it now, or it is in use.
        UnverifiedError: its file is not the one that was registered. NotFoundError: it is gone.
    """
    from backend.registry.switch import EVENTS, was_done

    label = str(params["model"])
    if params["action"] != "move" and was_done(paths, author, EVENTS[str(params["after"])], label) is not None:
        return str(params["after"])
    row = find(paths, label)
    if params["action"] == "move" and row.path == params["to"]:
        return "moved"
    if (row.stage, row.sha256, row.path) != (params["stage"], params["sha256"], params["from"]):
        raise LockedError(f"it is {row.stage} at {row.path} now", where=label)
    if ruling is None or (ruling.action, ruling.folder) != (params["action"], params["folder"]):
        raise RefusedError(f"it is to be kept now: {ruling.reason if ruling else 'it is gone'}", where=label)
    used = in_use(paths, (row,), leased).get(label)
    if used is not None:
        raise RefusedError(used, where=label)
    if params["action"] != "move":
        archive(paths, params, author)
        return str(params["after"])
    put_away_archived(paths, label, str(params["folder"]), str(params["reason"]), to=str(params["to"]))
    return "moved"
