"""Transfers as readers see them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend.distribution.budgets import MBIT, from_json, to_json
from backend.distribution.ledger import failure_from
from backend.distribution.limiter import budget_of_all
from backend.distribution.same_bytes import Part, second_in_line
from backend.distribution.states import State
from backend.snapshot import DeliveryRow, Limits, TransferRow
from backend.state.db import Row
from backend.state.store import StateStore, moment

SHOWN = 12


async def transfer_rows(store: StateStore, *, last: int = SHOWN, only: str | None = None) -> tuple[TransferRow, ...]:
    """All open transfers and the newest others, or the one named; oldest first."""
    async with store.database.read() as db:
        rows = await db.all(
            "SELECT * FROM transfers WHERE (?1 IS NULL OR id = ?1) AND (ended_at IS NULL OR number IN "
            "(SELECT number FROM transfers WHERE ?1 IS NULL OR id = ?1 ORDER BY number DESC LIMIT ?2)) ORDER BY number",
            (only, last),
        )
        parts = await db.all(
            "SELECT d.* FROM json_each(?) t CROSS JOIN deliveries d WHERE d.transfer = t.value ORDER BY d.position",
            (json.dumps([row["id"] for row in rows]),),
        )
    hosts: dict[str, list[Row]] = {row["id"]: [] for row in rows}
    for part in parts:
        hosts[part["transfer"]].append(part)
    known = _known.get(store.paths.state_db, {})
    made: _Made = {}
    for row in rows:
        key = row["id"]
        content = (tuple(row), *(tuple(part) for part in hosts[key]))
        before = known.get(key)
        made[key] = before if before and before[0] == content else (content, _transfer(row, hosts[key]))
    if only is None:
        _known[store.paths.state_db] = made
    return _told_for_whom_they_wait(rows, {name: row for name, (_, row) in made.items()})


def _told_for_whom_they_wait(rows: Sequence[Row], made: dict[str, TransferRow]) -> tuple[TransferRow, ...]:
    """Of two that bring the same bytes to a host, the one that waits tells for which."""
    going = [row for row in rows if row["ended_at"] is None]
    if len({row["sha256"] for row in going}) == len(going):
        return tuple(made.values())
    waits = second_in_line(
        Part(
            row["id"], row["number"], row["sha256"], host.host, State(host.state), not (row["paused"] or row["cancel"])
        )
        for row in going for host in made[row["id"]].hosts
    )  # fmt: skip
    for name in {name for name, _ in waits}:
        hosts = [
            replace(host, fault=f"waits for {ahead}, which brings the same bytes") if ahead else host
            for host, ahead in ((host, waits.get((name, host.host))) for host in made[name].hosts)
        ]
        made[name] = replace(made[name], hosts=tuple(hosts))
    return tuple(made.values())


_Made = dict[str, tuple[tuple[tuple[object, ...], ...], TransferRow]]
_known: dict[Path, _Made] = {}
"""Per database what the last look was made from, and what was made: a transfer that ended is not made again."""


def _transfer(row: Row, hosts: list[Row]) -> TransferRow:
    use = json.loads(row["use"]).values()
    created = moment(row["created_at"])
    assert created is not None
    return TransferRow(
        row["id"], row["title"], row["cause"], row["name"], row["path"], row["sha256"], row["size"], row["kind"],
        row["model"], row["state"], row["paused"], row["by"], created, moment(row["started_at"]),
        moment(row["live_at"]), moment(row["ended_at"]),
        sum(int(one["sent"]) for one in use), 0.0 if row["ended_at"] else sum(float(one["rate"]) for one in use),
        tuple(_delivery(one, row["size"]) for one in hosts), _limits(json.loads(row["budget"])),
        _limits(json.loads(row["limits"])),
    )  # fmt: skip


def _limits(value: dict[str, Any]) -> Limits:
    budget = from_json(value)
    hosts = tuple((name, _mbit(up), _mbit(down)) for name, (up, down) in sorted(budget.hosts.items()))
    return Limits(
        _mbit(budget.head_up), _mbit(budget.host_up), _mbit(budget.host_down), hosts, tuple(value.get("training", ()))
    )


def _mbit(limit: float | None) -> float | None:
    return limit / MBIT if limit else None


async def limits_of_all(store: StateStore) -> Limits:
    """What all transfers share."""
    return _limits(to_json(await budget_of_all(store)))


@lru_cache(4096)
def _routes(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


@lru_cache(4096)
def _history(text: str) -> tuple[tuple[datetime, str, str], ...]:
    return tuple((datetime.fromtimestamp(at, UTC), way, what) for at, way, what in json.loads(text))


def _delivery(row: Row, size: int) -> DeliveryRow:
    seen: dict[str, Any] = json.loads(row["progress"])
    failure = failure_from(json.loads(row["failure"])) if row["failure"] else None
    routes = _routes(row["routes"])
    live = row["state"] in ("published", "done")
    moving = row["state"] == State.FETCHING
    return DeliveryRow(
        host=row["host"],
        position=row["position"],
        wave=row["wave"],
        state=row["state"],
        transport=routes[row["route"]] if row["route"] < len(routes) else "",
        routes=routes,
        attempts=row["attempts"],
        failure=failure.line() if failure else "",
        reason=str(failure.reason) if failure else "",
        have=size if live or row["state"] in ("fetched", "verifying") else int(seen.get("have", 0)),
        rate=float(seen.get("rate", 0.0)) if moving else 0.0,
        sent=int(seen.get("sent", 0)),
        peers=tuple(seen.get("peers", ())),
        pieces=str(seen.get("pieces", "")),
        fault=str(seen.get("fault", "")) if moving else "",
        unreached=tuple((str(who), str(why)) for who, why in seen.get("unreached", ())),
        history=_history(row["history"]),
        receipt=json.loads(row["receipt"]) if row["receipt"] else None,
        started_at=moment(row["started_at"]),
        live_at=moment(row["live_at"]),
    )
