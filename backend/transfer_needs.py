"""What of transfers and of the files on hosts waits for the operator. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from backend.snapshot import HoldingRow, Need, TransferRow

_FADES = timedelta(hours=24)
_PATIENCE = timedelta(minutes=10)
"""So long a host may wait for room or an answer before somebody is told."""


def transfer_needs(transfers: Iterable[TransferRow], holdings: Iterable[HoldingRow], now: datetime) -> list[Need]:
    """Transfers that are paused, that failed on a host within a day or wait for one, and files that drifted."""
    found: list[Need] = []
    for row in transfers:
        failed = [host for host in row.hosts if host.state == "failed"]
        ended = row.ended_at or row.live_at
        if failed and (ended is None or now - ended < _FADES):
            text = f"{row.id} {row.name} failed on {_names([host.host for host in failed])}: {failed[0].failure}"
            found.append(Need(text, row.id, "transfers", "error"))
        if row.ended_at is not None:
            continue
        if row.paused:
            found.append(Need(f"{row.id} {row.name} is paused: {row.paused}", row.id, "transfers"))
            continue
        blocked = [
            host for host in row.hosts
            if host.state == "blocked" and host.history and now - host.history[-1][0] >= _PATIENCE
        ]  # fmt: skip
        if blocked:
            names = _names([host.host for host in blocked])
            found.append(Need(f"{row.id} {row.name} waits for {names}: {blocked[0].failure}", row.id, "transfers"))
    drifted = [row for row in holdings if row.drifted]
    if drifted:
        hosts = _names(sorted({row.host for row in drifted}))
        files = "1 file differs from its receipt" if len(drifted) == 1 else f"{len(drifted)} files differ from receipts"
        found.append(Need(f"{files} on {hosts}: ringrift fleet drift", drifted[0].transfer, "transfers"))
    return found


def _names(hosts: list[str]) -> str:
    return " ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
