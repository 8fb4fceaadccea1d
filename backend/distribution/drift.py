"""What hosts hold, against what they should: by their receipts, or by a newer transfer that failed there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from backend.distribution import ledger
from backend.fleet.hosts import Host
from backend.paths import Paths
from backend.snapshot import HoldingRow
from backend.state.store import StateStore, moment

if TYPE_CHECKING:
    from backend.distribution.receiving import Receivers

AT_ONCE = 16


async def audit_hosts(
    paths: Paths, store: StateStore, hosts: Sequence[Host], *, deep: bool = False, talk: Receivers | None = None
) -> dict[str, str]:
    """Asks hosts what they hold and stores it; returns why those that did not answer did not.

    Args:
        deep: hash again what has not changed by inode, mtime and size.
    """
    from backend.distribution.receiving import ReceiverError, Receivers
    from backend.fleet.reading import hosts_in_use
    from backend.fleet.ssh import SshPool

    silent: dict[str, str] = {}
    room = asyncio.Semaphore(AT_ONCE)
    pool = SshPool(paths, hosts_file=hosts_in_use(paths))  # connects to nobody by itself
    asking = talk or Receivers(pool, await store.owner())

    async def one(host: Host) -> None:
        async with room:
            try:
                found = await asking.audit(host, deep=deep)
            except ReceiverError as error:
                silent[host.name] = str(error)
            else:
                await ledger.record_audit(store, host.name, found["names"])

    try:
        await asyncio.gather(*(one(host) for host in hosts))
    finally:
        await pool.close()
    return silent


async def holdings(store: StateStore) -> tuple[HoldingRow, ...]:
    """What every host holds, as the last receipts and audits say."""
    async with store.database.read() as db:
        rows = await db.all(
            "SELECT host, name, sha256, held, why, transfer, published_at, audited_at FROM holdings ORDER BY name, host"
        )
    return tuple(_row(*row) for row in rows)


@lru_cache(maxsize=2**15)  # most are as they were at the look before
def _row(
    host: str,
    name: str,
    sha256: str,
    held: str | None,
    why: str,
    transfer: str,
    published: float,
    audited: float | None,
) -> HoldingRow:
    at = moment(published)
    assert isinstance(at, datetime)
    return HoldingRow(host, name, sha256, held, why, transfer, at, moment(audited))
