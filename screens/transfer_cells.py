"""How transfers are written: progress, what is left, routes, and how near the physical limit one came."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from backend.snapshot import DeliveryRow, HostRow, Limits, Snapshot, TransferRow
from ringrift_console.clock import duration
from ringrift_console.look import Look
from ringrift_console.widgets.line import Span
from screens.cells import UNKNOWN, state_span

GOING = ("queued", "preflight", "fetching", "fetched", "verifying")
"""States in which a delivery is under way by itself; ``blocked`` waits for its host to change."""
ENDED = ("done", "failed", "cancelled")
_MBIT = 125_000.0  # bytes a second


def have(row: TransferRow) -> int:
    """Bytes that are on hosts, of all that are to be."""
    return sum(min(host.have, row.size) for host in row.hosts)


def fraction(part: int, whole: int) -> float | None:
    return max(0.0, min(1.0, part / whole)) if whole else None


def percent(part: float | None) -> str:
    """Never 100% before it is whole."""
    return UNKNOWN if part is None else f"{int(100 * part)}%"


def rate_text(rate: float) -> str:
    """Bytes a second; nothing moves as unknown."""
    if rate <= 0:
        return UNKNOWN
    value, units = rate, ["B/s", "kB/s", "MB/s", "GB/s"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}" if value < 100 else f"{value:.0f} {units[0]}"


def host_left(host: DeliveryRow, size: int) -> float | None:
    """Seconds until the host has it at the present rate; None when nothing moves."""
    return (size - host.have) / host.rate if host.rate > 0 and host.state == "fetching" else None


def left(row: TransferRow) -> float | None:
    """Seconds until the last host that is fetching has it; None when one of those stands still, or none fetches."""
    times = [host_left(host, row.size) for host in row.hosts if host.state == "fetching"]
    known = [time for time in times if time is not None]
    return max(known) if known and len(known) == len(times) else None


def state_of(row: TransferRow) -> str:
    """``paused`` stands before what it would be doing."""
    return "paused" if row.paused is not None and row.state not in ENDED else row.state


def transfer_state(look: Look, row: TransferRow) -> Span:
    return state_span(look, state_of(row))


def live_text(row: TransferRow) -> Span:
    """On how many of its hosts the file is live."""
    whole = row.live == len(row.hosts)
    return f"{row.live}/{len(row.hosts)}", "good" if whole else "bad" if row.state == "failed" else "text"


def routes_text(row: TransferRow) -> str:
    """The transports in use with their number of hosts, e.g. ``torrent 14 rsync 2``."""
    used = Counter(host.transport for host in row.hosts if host.transport)
    return used.most_common(1)[0][0] if len(used) == 1 else " ".join(f"{name} {n}" for name, n in used.most_common())


def verified(look: Look, host: DeliveryRow) -> Span:
    """Whether the receiver has proved the bytes, and how."""
    if not host.live:
        return ("checking", "info") if host.state == "verifying" else (UNKNOWN, "dim")
    load = (host.receipt or {}).get("load")
    loads = isinstance(load, dict) and load.get("result") == "loads"
    if not loads:
        return "hash", "good"
    return ("hash, parts", "text") if load.get("method") == "structure" else ("hash, loads", "good")


def took(row: TransferRow) -> float | None:
    """Seconds from the first byte to the last host; None before that."""
    if row.started_at is None or row.live_at is None:
        return None
    return (row.live_at - row.started_at).total_seconds()


def bound(row: TransferRow, snapshot: Snapshot) -> float | None:
    """Seconds below which nobody could have done it, as far as the links are known; None when they are not.

    The larger of: one copy over this machine's uplink, one copy over the slowest host's link, and all copies over all
    uplinks together (the fluid limit of Kumar and Ross 2006), for hosts that did not have the file.
    """
    links = {host.name: mbit for host in snapshot.hosts if (mbit := _mbit(host))}
    head = next((mbit for host in snapshot.hosts if host.local and (mbit := _mbit(host))), None)
    known = [links[host.host] for host in row.hosts if host.host in links]
    times = [row.size / (known_mbit * _MBIT) for known_mbit in known]
    if head is not None:
        times.append(row.size / (head * _MBIT))
        if len(known) == len(row.hosts):
            times.append(len(known) * row.size / ((head + sum(known)) * _MBIT))
    return max(times) if times else None


def _mbit(host: HostRow) -> float | None:
    return host.mbit if host.mbit is not None and host.mbit > 0 else None


def mbit_text(mbit: float | None) -> str:
    return f"{mbit:.3g} Mbit/s" if mbit else "no limit"


def limits_text(limits: Limits) -> str:
    """The limits of a transfer in a few words; empty where there is none."""
    parts = [f"at most {mbit_text(limits.head)}"] if limits.head else []
    if limits.up or limits.down:
        parts.append("every host limited")
    elif limits.hosts:
        parts.append(f"{len(limits.hosts)} host{'s' if len(limits.hosts) > 1 else ''} limited")
    return ", ".join(parts)


def limit_facts(limits: Limits) -> str:
    """The limits as they were set, in full."""
    parts = [f"this machine {mbit_text(limits.head)}"] if limits.head else []
    parts += [f"a host gives {mbit_text(limits.up)}"] if limits.up else []
    parts += [f"a host takes {mbit_text(limits.down)}"] if limits.down else []
    parts += [f"{name} gives {mbit_text(up)}, takes {mbit_text(down)}" for name, up, down in limits.hosts]
    return "; ".join(parts) or "none"


def uplink_text(row: TransferRow) -> str:
    """What leaves this machine now, and what may."""
    if row.ended_at is not None:
        return ""
    return f"gives {mbit_text(row.head_rate / _MBIT) if row.head_rate else UNKNOWN}" + (
        f" of {mbit_text(row.limits.head)}" if row.limits.head else ""
    )


def host_limit(row: TransferRow, host: str) -> str:
    """What is in force for one host; empty where nothing is."""
    up, down = row.limits.of(host)
    if not up and not down:
        return ""
    why = ", as it trains" if host in row.limits.training else ""
    return f"gives {mbit_text(up)}, takes {mbit_text(down)}{why}"


def limit_text(row: TransferRow, snapshot: Snapshot, now: datetime) -> str:
    """E.g. ``bound 8.6 s, took 12.4 s, 1.44x``; what is not known is left out."""
    limit, seconds = bound(row, snapshot), took(row)
    parts = [f"bound {limit:.1f} s"] if limit is not None else []
    if seconds is not None:
        parts.append(f"took {seconds:.1f} s")
        if limit:
            parts.append(f"{seconds / limit:.2f}x")
    elif row.started_at is not None and row.ended_at is None:
        parts.append(f"so far {duration((now - row.started_at).total_seconds())}")
    return ", ".join(parts) or UNKNOWN
