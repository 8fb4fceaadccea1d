"""``ringrift distribute``, ``ringrift transfers ...`` and ``ringrift fleet drift``."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from backend.distribution import plans
from backend.distribution.drift import audit_hosts, holdings
from backend.distribution.limits import plan_limit
from backend.distribution.rows import transfer_rows
from backend.errors import Exit, NotFoundError
from backend.fleet.hosts import load_hosts
from backend.paths import Paths
from backend.snapshot import DeliveryRow, HoldingRow, TransferRow
from backend.state.store import StateStore
from backend.text import size_text
from ringrift_console.verbs.common import table, to_json
from ringrift_console.verbs.operations import Outcome, carry_out, keep_supervised, say

POLL_S = 0.2


def distribute(args: argparse.Namespace, paths: Paths) -> int:
    """Brings a model or a file to hosts; with ``--wait`` until every host has it or will not get it."""
    plan = plans.plan_distribute(paths, what=args.what, hosts=args.hosts, transport=args.transport, limit=args.limit)
    return carry_out(args, paths, plan, after=_wait)


async def _wait(store: StateStore, outcome: Outcome) -> tuple[Exit, dict[str, Any]]:
    name = str(outcome.operation.result["transfer"])
    told, troubles = "", dict[str, str]()
    while True:
        await keep_supervised(store.paths)
        (row,) = await transfer_rows(store, only=name)
        line = f"live on {row.live}/{len(row.hosts)} hosts" + (f", paused: {row.paused}" if row.paused else "")
        if line != told:
            told = line
            say(f"{name} {line}")
        for host in row.hosts:
            if host.state in ("blocked", "failed") and troubles.get(host.host) != host.reason:
                troubles[host.host] = host.reason
                say(f"{host.host} {host.state}: {host.failure}")
        if row.paused is not None:
            return Exit.LOCKED, {"hosts": [_object(host) for host in row.hosts]}
        if row.live_at is not None:
            for host in row.hosts:
                if not host.live and host.host not in troubles:
                    say(f"{host.host} {host.state}: {host.failure}")
            code = Exit.DONE if row.live == len(row.hosts) else Exit.FAILED
            return code, {"live": row.live, "hosts": [_object(host) for host in row.hosts]}
        await asyncio.sleep(POLL_S)


def _object(host: DeliveryRow) -> dict[str, Any]:
    return {"host": host.host, "state": host.state, "transport": host.transport, "failure": host.failure,
            "receipt": host.receipt}  # fmt: skip


async def _rows(paths: Paths, only: str | None = None, last: int = 30) -> tuple[TransferRow, ...]:
    if not paths.state_db.exists():
        return ()
    async with await StateStore.open(paths) as store:
        return await transfer_rows(store, only=only, last=last)


def list_transfers(args: argparse.Namespace, paths: Paths) -> int:
    """Prints open transfers and the newest others."""
    rows = asyncio.run(_rows(paths, last=args.last))
    if args.json:
        print(to_json(rows))
        return Exit.DONE
    print(table(("TRANSFER", "STATE", "LIVE", "SIZE", "COPIES", "WHAT"), map(_line, rows)))
    return Exit.DONE


def _line(row: TransferRow) -> tuple[str, ...]:
    state = "paused" if row.paused is not None else row.state
    live = f"{row.live}/{len(row.hosts)}"
    return row.id, state, live, size_text(row.size), f"{row.copies:.2f}", row.title


def show(args: argparse.Namespace, paths: Paths) -> int:
    """Prints everything known of one transfer."""
    rows = asyncio.run(_rows(paths, args.transfer))
    if not rows:
        raise NotFoundError("no such transfer", where=args.transfer, hint="ringrift transfers list")
    (row,) = rows
    if args.json:
        print(to_json(row))
        return Exit.DONE
    print(f"{row.id}: {row.title}\n{row.path} -> {row.name}, {row.size} bytes, SHA-256 {row.sha256}")
    if row.paused is not None:
        print(f"paused: {row.paused}")
    print(table(("HOST", "WAY", "STATE", "%", "RATE", "TRIES", "WHY"), (_host(host, row.size) for host in row.hosts)))
    for host in row.hosts:
        for who, why in host.unreached:
            print(f"no way from {host.host} to {who}: {why}")
    return Exit.DONE


def _host(host: DeliveryRow, size: int) -> tuple[str, ...]:
    share = f"{100 * host.have // size}" if size else "100"
    rate = f"{size_text(int(host.rate))}/s" if host.rate else ""
    return host.host, host.transport, host.state, share, rate, str(host.attempts), host.failure or host.fault


def pause(args: argparse.Namespace, paths: Paths) -> int:
    """Ends the engines of a transfer for a while."""
    return carry_out(args, paths, plans.plan_pause(paths, transfer=args.transfer, reason=args.reason))


def resume(args: argparse.Namespace, paths: Paths) -> int:
    """Lets a paused transfer go on."""
    return carry_out(args, paths, plans.plan_resume(paths, transfer=args.transfer))


def cancel(args: argparse.Namespace, paths: Paths) -> int:
    """Ends a transfer; hosts that have the file keep it."""
    return carry_out(args, paths, plans.plan_cancel(paths, transfer=args.transfer))


def retry(args: argparse.Namespace, paths: Paths) -> int:
    """Tries again where it failed."""
    return carry_out(args, paths, plans.plan_retry(paths, transfer=args.transfer), after=_wait)


def limit(args: argparse.Namespace, paths: Paths) -> int:
    """Limits a transfer, or all of them."""
    values = {"head": args.head, "up": args.up, "down": args.down, "host": args.host}
    return carry_out(args, paths, plan_limit(paths, transfer=args.transfer, **values))


def verify(args: argparse.Namespace, paths: Paths) -> int:
    """Has hosts hash what a transfer brought them."""
    return carry_out(args, paths, plans.plan_verify(paths, transfer=args.transfer))


def drift(args: argparse.Namespace, paths: Paths) -> int:
    """Asks hosts what they hold and prints what differs from their receipts; 7 when something does."""
    rows, silent = asyncio.run(_drift(paths, args.cached))
    wrong = [row for row in rows if row.drifted]
    if args.json:
        print(to_json({"holdings": rows, "drifted": len(wrong), "silent": silent}))
    else:
        print(table(("HOST", "NAME", "WANTED", "HELD", "WHY"), map(_holding, wrong)))
        say(f"{len(wrong)} of {len(rows)} files differ; {len(silent)} hosts did not answer")
        for name, why in silent.items():
            say(f"{name}: {why}")
    return Exit.UNVERIFIED if wrong else Exit.NO_EVIDENCE if silent else Exit.DONE


async def _drift(paths: Paths, cached: bool) -> tuple[tuple[HoldingRow, ...], dict[str, str]]:
    hosts = load_hosts(paths.hosts_yaml)
    if not paths.state_db.exists():
        return (), {}
    async with await StateStore.open(paths) as store:
        rows = await holdings(store)
        names = {row.host for row in rows}
        asked = [host for host in hosts.hosts if host.name in names]
        silent = {} if cached else await audit_hosts(paths, store, asked)
        return await holdings(store), silent


def _holding(row: HoldingRow) -> tuple[str, ...]:
    return row.host, row.name, row.sha256[:12], (row.held or "nothing")[:12], row.why
