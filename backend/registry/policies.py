"""The policies of a root: what is done without being asked, who allowed it, when, and why.

Each change is a row that is only ever added; the newest of a policy and config counts. A config without a row of its
own goes by that of the whole root, and a root without any by ``off``.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.configs import CONFIGS, parse_config
from backend.databases import Memory, tables
from backend.errors import LockedError, RefusedError, UsageError
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.registry import audit
from backend.registry.changes import Author, author_of, recorded
from backend.registry.outbox import publish
from backend.registry.rows import time_of
from backend.registry.schema import reading, writing
from backend.snapshot import PolicyRow

if TYPE_CHECKING:
    from backend.state.store import StateStore

MODES: dict[str, tuple[str, ...]] = {"archival": ("off", "dry-run", "on"), "promotion": ("off", "on")}
"""The policies with what each may be; the first is what it is until somebody sets it."""
INHERIT = "inherit"
"""Takes the row of a config away again: it goes by the root's."""
MEANING = {
    "off": "nothing happens by itself",
    "dry-run": "an event says what would be archived; nothing is",
    "on": "it is done, as an operation of its own",
    INHERIT: "the config goes by what holds for the whole root",
}


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies in force: per policy the row of the root, and those of configs that have their own."""

    rows: tuple[PolicyRow, ...]

    def row(self, name: str, config: str | None = None) -> PolicyRow | None:
        """The row of exactly this policy and config, or None."""
        return next((row for row in self.rows if (row.name, row.config) == (name, config)), None)

    def mode(self, name: str, config: str | None = None) -> str:
        """What holds for a config, or for the root; models of no known config go by the root."""
        own = self.row(name, config) if config is not None else None
        found = own or self.row(name)
        return found.mode if found is not None else MODES[name][0]

    def configs(self, name: str, modes: Collection[str]) -> tuple[str, ...]:
        """The configs for which a policy has one of these modes, in their usual order."""
        return tuple(config.key for config in CONFIGS if self.mode(name, config.key) in modes)


def read_policies(paths: Paths) -> Policies:
    """The policies of a root; all are ``off`` where nobody has set any.

    Raises:
        LockedError, ResourceError, UnverifiedError, SchemaError: the registry cannot be read.
    """
    return _known.get(paths.registry_db)


def _read_policies(path: Path) -> Policies:
    newest: dict[tuple[str, str], PolicyRow] = {(name, ""): PolicyRow(name, MODES[name][0]) for name in MODES}
    with reading(path) as db:
        if db is not None and "policies" in tables(db):
            for row in db.execute("SELECT * FROM policies ORDER BY seq"):
                if row["mode"] in (*MODES.get(row["name"], ()), INHERIT):  # else it is of a newer program
                    newest[row["name"], row["config"]] = PolicyRow(
                        row["name"], row["mode"], row["config"] or None, row["by"], time_of(row["at"]), row["reason"]
                    )
    order = {config.key: n for n, config in enumerate(CONFIGS, 1)}
    kept = [row for row in newest.values() if row.mode != INHERIT]
    return Policies(tuple(sorted(kept, key=lambda row: (list(MODES).index(row.name), order.get(row.config or "", 0)))))


_known = Memory(_read_policies)


async def plan_set(
    paths: Paths, *, name: str, mode: str, config: str | None = None, reason: str | None = None
) -> Plan:  # fmt: skip
    """What setting a policy will do.

    Raises:
        UsageError: there is no such policy, mode or config.
        RefusedError: it is so already.
    """
    if name not in MODES:
        raise UsageError("unknown policy", where=name, hint="one of " + " ".join(MODES))
    allowed = (*MODES[name], INHERIT) if config else MODES[name]
    if mode not in allowed:
        raise UsageError(f"{name} cannot be {mode}", hint="one of " + " ".join(allowed))
    key = parse_config(config).key if config else None
    policies = await asyncio.to_thread(read_policies, paths)
    now = _state(policies, name, key)
    if mode == now:
        raise RefusedError(f"it is {now} already", where=f"{name} {key}" if key else name)
    subject = f"{name} {key}" if key else name
    given = [*(("--config", key) if key else ()), *(("--reason", reason) if reason else ())]
    back = ["ringrift", "policies", "set", name, now, *(("--config", key) if key else ())]
    return Plan(
        action="policies.set",
        title=f"Set {name} to {mode}{f' for {key}' if key else ''}",
        params={"name": name, "mode": mode, "config": key, "before": now, "reason": reason or "set by hand"},
        changes=(Change(subject, now, mode),),
        steps=("the new mode with its audit entry and event in one transaction", MEANING[mode]),
        command=shlex.join(["ringrift", "policies", "set", name, mode, *given]),
        undo=shlex.join(back),
        warnings=await _warnings(paths, name, mode, key),
        guard={f"policy {subject}": now},
    )


def _state(policies: Policies, name: str, config: str | None) -> str:
    row = policies.row(name, config)
    return row.mode if row is not None else INHERIT


async def _warnings(paths: Paths, name: str, mode: str, config: str | None) -> tuple[str, ...]:
    if mode != "on":
        return ()
    if name == "promotion":
        return ("models go to staging and production by themselves as soon as all criteria pass",)
    from backend.registry.archival import rulings, summary

    due = summary(await rulings(paths, [config] if config else None))
    what = ", ".join(f"{count} {kind}" for kind, count in due.items())
    return (f"models to archive as things stand: {what or 'none'}",)


async def apply_set(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_set`; the second time changes nothing.

    Raises:
        LockedError: somebody has set it otherwise since the plan was made.
    """
    author = await author_of(store)
    told = await asyncio.to_thread(set_policy, paths, plan.params, author)
    await publish(paths, store)
    return told


def set_policy(paths: Paths, params: dict[str, Any], author: Author) -> dict[str, Any]:
    """:func:`apply_set` without the event; returns the event's payload."""
    name, mode, config = str(params["name"]), str(params["mode"]), params["config"]
    subject = f"{name} {config}" if config else name
    with writing(paths.registry_db) as db:
        done = recorded(db, author.operation, "POLICY_SET", subject)
        if done is not None:
            return done
        row = db.execute(
            "SELECT mode, by FROM policies WHERE name = ? AND config = ? ORDER BY seq DESC LIMIT 1",
            (name, config or ""),
        ).fetchone()
        now = str(row["mode"]) if row is not None else INHERIT if config else MODES[name][0]
        if now != params["before"]:
            raise LockedError(f"it is {now} now, set by {row['by'] if row else 'nobody'}", where=subject)
        db.execute(
            "INSERT INTO policies (operation, at, by, name, config, mode, reason) VALUES (?,?,?,?,?,?,?)",
            (author.operation, author.at, author.by, name, config or "", mode, str(params["reason"])),
        )
        told: dict[str, Any] = {
            "policy": name, "config": config, "from": now, "to": mode, "reason": params["reason"], "by": author.by,
        }  # fmt: skip
        told["audit"] = audit.append(
            db, "POLICY_SET", subject, dict(told), at=author.at, by=author.by, operation=author.operation
        )
        db.execute(
            "INSERT INTO outbox (type, subject, payload, operation) VALUES (?,?,?,?)",
            ("POLICY_SET", subject, json.dumps(told), author.operation),
        )
        return told


async def guard_policy(paths: Paths, store: StateStore, which: str) -> str:
    """How a policy stands, for the guard of a plan."""
    name, _, config = which.partition(" ")
    return _state(await asyncio.to_thread(read_policies, paths), name, config or None)
