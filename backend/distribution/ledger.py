"""Transfers in ``state.db``: every change of state is stored before the command that follows from it is sent."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from backend.distribution.budgets import from_json
from backend.distribution.reasons import Course, Failure, Reason
from backend.distribution.states import ENDED, LIVE, SETTLED, Delivery, State, summary
from backend.distribution.transports.base import Budget, Observation
from backend.errors import NotFoundError
from backend.state.db import Row, Transaction
from backend.state.store import StateStore, add_event

HISTORY = 40


@dataclass(frozen=True, slots=True)
class Placed:
    """A delivery with its place in the order.

    Attributes:
        wave: 0 for hosts with GPUs, 1 for the others.
        fell_at: unix seconds when it last went on with another transport; 0 for never.
    """

    delivery: Delivery
    position: int
    wave: int
    fell_at: float = 0.0

    @property
    def host(self) -> str:
        return self.delivery.host


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file and everybody that is to have it."""

    id: str
    number: int
    title: str
    cause: str
    name: str
    path: str
    sha256: str
    size: int
    kind: str
    model: str | None
    budget: Budget
    paused: str | None
    resumed_at: float
    cancel: bool
    created_at: float
    rows: tuple[Placed, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A transfer that is to be made.

    Attributes:
        hosts: per host its transports and its wave, in order.
    """

    title: str
    cause: str
    name: str
    path: str
    sha256: str
    size: int
    kind: str
    hosts: tuple[tuple[str, tuple[str, ...], int], ...]
    model: str | None = None
    budget: Mapping[str, float] = field(default_factory=dict)
    by: str = ""


async def create(store: StateStore, wanted: Wanted, operation: str) -> str:
    """Writes a transfer down; for an operation that made one already, that one. Older ones of the name yield."""
    async with store.database.write() as db:
        row = await db.one("SELECT id FROM transfers WHERE operation = ?", (operation,))
        if row is not None:
            return str(row["id"])
        number = await db.next_number("transfer")
        name, now = f"x{number}", time.time()
        await db.run(
            "INSERT INTO transfers (id, number, operation, title, cause, name, path, sha256, size, kind, model, "
            "budget, by, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, number, operation, wanted.title, wanted.cause, wanted.name, wanted.path, wanted.sha256, wanted.size,
             wanted.kind, wanted.model, json.dumps(dict(wanted.budget)), wanted.by, now),
        )  # fmt: skip
        for position, (host, routes, wave) in enumerate(wanted.hosts, 1):
            await db.run(
                "INSERT INTO deliveries (transfer, host, position, wave, routes) VALUES (?, ?, ?, ?, ?)",
                (name, host, position, wave, json.dumps(routes)),
            )
        hosts = [host for host, _, _ in wanted.hosts]
        await _supersede(db, number, wanted.name, set(hosts), now)
        payload = {"title": wanted.title, "sha256": wanted.sha256, "hosts": len(hosts), "cause": wanted.cause}
        await add_event(db, "TRANSFER_PLANNED", name, payload, key=f"transfer {name}")
    return name


async def _supersede(db: Transaction, number: int, name: str, hosts: set[str], now: float) -> None:
    """Cancels open transfers of the same name whose hosts all get the newer file."""
    older = "SELECT id FROM transfers WHERE ended_at IS NULL AND name = ? AND number < ?"
    for row in await db.all(older, (name, number)):
        open_hosts = {
            one["host"]
            for one in await db.all("SELECT host, state FROM deliveries WHERE transfer = ?", (row["id"],))
            if State(one["state"]) not in SETTLED
        }
        if open_hosts <= hosts:
            value = json.dumps({"by": f"x{number}", "at": now})
            await db.run("UPDATE transfers SET cancel = ?, paused = NULL WHERE id = ?", (value, row["id"]))


async def open_transfers(store: StateStore) -> list[Transfer]:
    """All that have not ended, oldest first, with their deliveries."""
    async with store.database.read() as db:
        rows = await db.all("SELECT * FROM transfers WHERE ended_at IS NULL ORDER BY number")
        return [await _transfer(db, row) for row in rows]


async def find(store: StateStore, name: str) -> Transfer:
    """A transfer by its id.

    Raises:
        NotFoundError: there is none.
    """
    async with store.database.read() as db:
        row = await db.one("SELECT * FROM transfers WHERE id = ?", (name,))
        if row is None:
            raise NotFoundError("no such transfer", where=name, hint="ringrift transfers list")
        return await _transfer(db, row)


async def _transfer(db: Transaction, row: Row) -> Transfer:
    rows = await db.all("SELECT * FROM deliveries WHERE transfer = ? ORDER BY position", (row["id"],))
    return Transfer(
        row["id"], row["number"], row["title"], row["cause"], row["name"], row["path"], row["sha256"], row["size"],
        row["kind"], row["model"], from_json(json.loads(row["budget"])), row["paused"], row["resumed_at"] or 0.0,
        row["cancel"] is not None, row["created_at"],
        tuple(Placed(_delivery(one, row["sha256"]), one["position"], one["wave"], one["fell_at"] or 0.0)
              for one in rows),
    )  # fmt: skip


def _delivery(row: Row, wanted: str) -> Delivery:
    failure = json.loads(row["failure"]) if row["failure"] else None
    return Delivery(
        row["host"],
        wanted,
        tuple(json.loads(row["routes"])),
        State(row["state"]),
        row["route"],
        row["tries"],
        row["attempts"],
        failure_from(failure),
        json.loads(row["receipt"])["verify"]["sha256"] if row["receipt"] else "",
    )


def failure_from(value: Mapping[str, Any] | None) -> Failure | None:
    """A failure as it was stored."""
    if value is None:
        return None
    return Failure(Reason(value["reason"]), value["what"], value["hint"], tuple(value["blamed"]))


async def save(
    store: StateStore, transfer: Transfer, before: Delivery, after: Delivery, receipt: Mapping[str, Any] | None = None
) -> None:
    """Stores a delivery's new state, with its receipt when it has just been published, and what it says of the whole.

    A receipt and the holding that follows from it are stored together or not at all.
    """
    now = time.time()
    async with store.database.write() as db:
        row = await db.one(
            "SELECT history, started_at, live_at FROM deliveries WHERE transfer = ? AND host = ?",
            (transfer.id, after.host),
        )
        assert row is not None
        history = json.loads(row["history"])
        again = after.failure == before.failure and after.state is State.BLOCKED  # a look that found the same
        if after.failure is not None and after.failure is not before.failure and not again:
            history = [*history, [now, before.transport, after.failure.line()]][-HISTORY:]
        elif after.state is not before.state and after.state in (State.FETCHING, State.PUBLISHED):
            history = [*history, [now, after.transport, str(after.state)]][-HISTORY:]
        fell = now if after.route > before.route else None
        await db.run(
            "UPDATE deliveries SET state = ?, route = ?, tries = ?, attempts = ?, failure = ?, history = ?, "
            "fell_at = coalesce(?, fell_at), receipt = coalesce(?, receipt), started_at = coalesce(started_at, ?), "
            "live_at = coalesce(live_at, ?), ended_at = ? WHERE transfer = ? AND host = ?",
            (str(after.state), after.route, after.tries, after.attempts,
             json.dumps(asdict(after.failure)) if after.failure else None, json.dumps(history), fell,
             json.dumps(receipt) if receipt else None, now if after.state is State.PREFLIGHT else None,
             now if after.state in LIVE else None, now if after.state in ENDED else None, transfer.id, after.host),
        )  # fmt: skip
        if receipt is not None:
            await db.run(
                "INSERT INTO holdings (host, name, sha256, held, transfer, published_at, audited_at) "
                "VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?5) ON CONFLICT (host, name) DO UPDATE SET sha256 = ?3, held = ?3, "
                "why = '', transfer = ?4, published_at = ?5, audited_at = ?5",
                (after.host, transfer.name, transfer.sha256, transfer.id, now),
            )
        failure = after.failure if after.state is State.FAILED else None
        if failure is not None and failure.reason.course is not Course.HALT:  # a file that is bad should lie nowhere
            await _lacks(db, transfer, after.host, failure.line(), now)
        if fell is not None:
            text = {"title": f"{before.transport} -> {after.transport}", "host": after.host}
            if after.failure is not None:
                text["why"] = after.failure.line()
            await add_event(db, "DELIVERY_FELL_BACK", transfer.id, text)
        await _sum_up(db, transfer, now)


async def _lacks(db: Transaction, transfer: Transfer, host: str, why: str, now: float) -> None:
    """A host that did not get the newest file of a name should have it all the same: what it holds now has drifted."""
    await db.run(
        "INSERT INTO holdings (host, name, sha256, held, why, transfer, published_at) VALUES (?1, ?2, ?3, '', ?4, ?5, "
        "?6) ON CONFLICT (host, name) DO UPDATE SET sha256 = ?3, held = coalesce(held, ''), why = ?4, transfer = ?5 "
        "WHERE coalesce((SELECT number FROM transfers WHERE id = holdings.transfer), 0) <= ?7",
        (host, transfer.name, transfer.sha256, f"{transfer.id}: {why}", transfer.id, now, transfer.number),
    )


async def _sum_up(db: Transaction, transfer: Transfer, now: float) -> None:
    rows = await db.all("SELECT * FROM deliveries WHERE transfer = ?", (transfer.id,))
    found = [_delivery(row, transfer.sha256) for row in rows]
    state = summary(found)
    settled = all(one.state in SETTLED for one in found)
    ended = all(one.state in ENDED for one in found)
    started = any(one.state is not State.PLANNED for one in found)
    await db.run(
        "UPDATE transfers SET state = ?, started_at = coalesce(started_at, ?), live_at = ?, ended_at = ? WHERE id = ?",
        (str(state), now if started else None, now if settled else None, now if ended else None, transfer.id),
    )
    if settled:
        live = sum(one.state in LIVE for one in found)
        kind = "TRANSFER_COMPLETED" if live == len(found) else "TRANSFER_INCOMPLETE"
        payload = {
            "title": f"{transfer.title}: live on {live}/{len(found)} hosts",
            "name": transfer.name, "sha256": transfer.sha256, "model": transfer.model, "live": live,
            "failed": [one.host for one in found if one.state not in LIVE],
        }  # fmt: skip
        key = f"transfer {transfer.id} settled {live} {sum(one.attempts for one in found)}"
        await add_event(db, kind, transfer.id, payload, key=key)


async def record_progress(
    store: StateStore, transfer: str, seen: Mapping[str, Observation], use: Mapping[str, Any]
) -> None:
    """Stores what is seen of hosts under way; the revision stays, as this comes round by itself."""
    now = time.time()
    async with store.database.write(silent=True) as db:
        for host, one in seen.items():
            value = asdict(one) | {"at": now}
            del value["failure"], value["host"], value["complete"]
            await db.run(
                "UPDATE deliveries SET progress = ? WHERE transfer = ? AND host = ?",
                (json.dumps(value), transfer, host),
            )
        await db.run("UPDATE transfers SET use = ? WHERE id = ?", (json.dumps(dict(use)), transfer))


async def set_paused(store: StateStore, transfer: str, why: str | None, *, event: str = "") -> None:
    """Pauses a transfer, or lets it go on for None."""
    async with store.database.write() as db:
        resumed = None if why else time.time()
        await db.run(
            "UPDATE transfers SET paused = ?, resumed_at = coalesce(?, resumed_at) WHERE id = ? AND ended_at IS NULL",
            (why, resumed, transfer),
        )
        if event:
            await add_event(db, event, transfer, {"title": why or ""})


async def want_cancel(store: StateStore, transfer: str, by: str) -> None:
    """Asks for the end of a transfer; hosts that have the file keep it."""
    async with store.database.write() as db:
        value = json.dumps({"by": by, "at": time.time()})
        await db.run(
            "UPDATE transfers SET cancel = ?, paused = NULL WHERE id = ? AND ended_at IS NULL", (value, transfer)
        )


async def want_again(store: StateStore, transfer: str, hosts: Sequence[str]) -> None:
    """Lets deliveries that failed or were cancelled begin anew, with all their transports."""
    async with store.database.write() as db:
        for host in hosts:
            await db.run(
                "UPDATE deliveries SET state = 'queued', route = 0, tries = 0, failure = NULL, ended_at = NULL "
                "WHERE transfer = ? AND host = ? AND state IN ('failed', 'cancelled', 'blocked')",
                (transfer, host),
            )
        await db.run(
            "UPDATE transfers SET ended_at = NULL, live_at = NULL, cancel = NULL, paused = NULL, resumed_at = ?, "
            "state = 'queued' WHERE id = ?",
            (time.time(), transfer),
        )


async def host_facts(store: StateStore) -> dict[str, dict[str, Any]]:
    """What hosts told of themselves, by name, with what a bootstrap found."""
    async with store.database.read() as db:
        rows = await db.all("SELECT name, facts, code FROM hosts")
    return {row["name"]: json.loads(row["facts"]) | json.loads(row["code"]) for row in rows}


async def record_audit(store: StateStore, host: str, names: Mapping[str, Mapping[str, Any]]) -> None:
    """Stores what a host holds under the names that were published there."""
    now = time.time()
    async with store.database.write() as db:
        for row in await db.all("SELECT name FROM holdings WHERE host = ?", (host,)):
            told = names.get(row["name"], {"held": "", "why": "the host knows nothing of it"})
            await db.run(
                "UPDATE holdings SET held = ?1, why = iif(?2 = '' AND sha256 <> ?1, why, ?2), audited_at = ?3 "
                "WHERE host = ?4 AND name = ?5",  # why a newer file did not come there, the host does not know
                (told["held"], told["why"], now, host, row["name"]),
            )
