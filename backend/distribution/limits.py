"""Plans that set limits, for one transfer or for all of them; :mod:`backend.distribution.limiter` sees them obeyed."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from typing import Any

from backend.distribution import ledger
from backend.distribution.budgets import MBIT, from_json, to_json, words
from backend.distribution.limiter import budget_of_all
from backend.distribution.transports.base import Budget
from backend.errors import NotFoundError, RefusedError, UsageError
from backend.fleet.hosts import load_hosts
from backend.fleet.store import find_host
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.state.store import StateStore

ALL = "all"
"""In place of a transfer's id: what all of them share."""
MOST_MBIT = 1e6


async def plan_limit(
    paths: Paths, *, transfer: str, head: float | None = None, up: float | None = None, down: float | None = None,
    host: str | None = None,
) -> Plan:  # fmt: skip
    """What setting limits will do; what is not given stays as it is, and 0 is no limit.

    Args:
        transfer: its id, or ``all`` for what all transfers share.
        head: Mbit/s of this machine's uplink.
        up, down: Mbit/s that each host may give and take; of ``host`` alone where one is named.

    Raises:
        NotFoundError: there is no such transfer, or no such host.
        UsageError: nothing was given, or no number of Mbit/s.
        RefusedError: the transfer has ended, or it is so already.
    """
    for value in (head, up, down):
        if value is not None and not 0 <= value < MOST_MBIT:
            raise UsageError("a limit is a number of Mbit/s, 0 for none", where=f"{value:g}")
    if host is not None and up is None and down is None:
        raise UsageError("a host's limits are --up and --down", where=host)
    if head is None and up is None and down is None:
        raise UsageError("no limit was given", where=transfer, hint="--head, --up, --down")
    before, hosts = await _before(paths, transfer, host)
    after = before
    if head is not None:
        after = replace(after, head_up=head * MBIT or None)
    if host is None:
        after = after if up is None else replace(after, host_up=up * MBIT or None)
        after = after if down is None else replace(after, host_down=down * MBIT or None)
    else:
        was = (before.up(host), before.down(host))
        limits = tuple(old if new is None else new * MBIT or None for old, new in zip(was, (up, down), strict=True))
        own = {**before.hosts, host: (limits[0], limits[1])}
        if own[host] == (before.host_up, before.host_down):
            del own[host]
        after = replace(after, hosts=own)
    changes = _changes(before, after, host)
    if not changes:
        raise RefusedError("it is so already", where=transfer)
    return Plan(
        action="transfers.limit",
        title=f"Limit {'all transfers' if transfer == ALL else f'transfer {transfer}'}",
        params={"transfer": transfer, "before": to_json(before), "budget": to_json(after)},
        changes=changes,
        steps=(
            "what is under way keeps to it at once; an rsync is ended and goes on with what is there",
            *((f"{hosts} transfers under way share the uplink, a training set takes a third of a model's part",)
              if transfer == ALL else ()),
        ),
        command=_command(transfer, head, up, down, host),
        undo=_command(transfer, *_back(before, head, up, down, host), host),
        guard={f"limits {transfer}": _token(before)},
    )  # fmt: skip


async def _before(paths: Paths, transfer: str, host: str | None) -> tuple[Budget, int]:
    """What was set, and how many transfers are open; refuses what cannot be limited."""
    if transfer == ALL:
        if host is not None:
            find_host(load_hosts(paths.hosts_yaml), host)
        async with await StateStore.open(paths) as store:
            return await budget_of_all(store), len(await ledger.open_transfers(store))
    if not paths.state_db.exists():
        raise NotFoundError("no such transfer", where=transfer, hint="ringrift transfers list, or all")
    async with await StateStore.open(paths) as store:
        found = await ledger.find(store, transfer)
        async with store.database.read() as db:
            row = await db.one("SELECT ended_at FROM transfers WHERE id = ?", (transfer,))
    if row is not None and row["ended_at"] is not None:
        raise RefusedError("it has ended", where=transfer)
    if host is not None and host not in {row.host for row in found.rows}:
        raise NotFoundError("it is not brought to this host", where=host, hint=f"ringrift transfers show {transfer}")
    return found.budget, 1


def _changes(before: Budget, after: Budget, host: str | None) -> tuple[Change, ...]:
    named = host or "every host"
    pairs = [("this machine gives", before.head_up, after.head_up)]
    if host is None:
        pairs += [("a host gives", before.host_up, after.host_up), ("a host takes", before.host_down, after.host_down)]
    else:
        pairs += [(f"{named} gives", before.up(host), after.up(host))]
        pairs += [(f"{named} takes", before.down(host), after.down(host))]
    return tuple(Change(what, words(old), words(new)) for what, old, new in pairs if old != new)


def _back(
    before: Budget, head: float | None, up: float | None, down: float | None, host: str | None
) -> tuple[float | None, float | None, float | None]:
    """The options that take a limit back."""
    was = (before.head_up, before.up(host) if host else before.host_up, before.down(host) if host else before.host_down)
    found = [None if new is None else (old or 0.0) / MBIT for new, old in zip((head, up, down), was, strict=True)]
    return found[0], found[1], found[2]


def _command(transfer: str, head: float | None, up: float | None, down: float | None, host: str | None) -> str:
    given = {"--head": head, "--up": up, "--down": down}
    options = [word for name, value in given.items() if value is not None for word in (name, f"{value:g}")]
    return shlex.join(["ringrift", "transfers", "limit", transfer, *options, *(["--host", host] if host else [])])


def _token(budget: Budget) -> str:
    return json.dumps(to_json(budget), sort_keys=True)


async def guard_limits(paths: Paths, store: StateStore, name: str) -> str:
    """The limits of a transfer or of all as they are set; ``missing`` for one that is not there."""
    if name == ALL:
        return _token(await budget_of_all(store))
    async with store.database.read() as db:
        row = await db.one("SELECT budget FROM transfers WHERE id = ?", (name,))
    return _token(from_json(json.loads(row["budget"]))) if row is not None else "missing"


async def apply_limit(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Stores the limits; whoever moves bytes reads them within a second."""
    name, value = str(plan.params["transfer"]), json.dumps(plan.params["budget"])
    by = await store.operator()
    async with store.database.write() as db:
        if name == ALL:
            await db.run("INSERT OR REPLACE INTO budget VALUES (1, ?, ?, ?)", (value, by, time.time()))
        else:
            await db.run("UPDATE transfers SET budget = ? WHERE id = ?", (value, name))
    return {"transfer": name, "budget": plan.params["budget"]}
