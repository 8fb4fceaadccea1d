"""A transfer as a picture: who feeds whom, and which parts of the file each host has; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backend.snapshot import DeliveryRow, TransferRow
from ringrift_console.look import Look
from ringrift_console.widgets.line import Line
from screens.transfer_cells import fraction, percent, rate_text

_NAME = 12
_MAP = 32


def piece_map(pieces: str, part: float | None, look: Look, width: int) -> str:
    """What a host has as one character a cell: from its picture of pieces (one digit each), else as a bar."""
    glyphs = look.glyphs
    if not pieces.isdigit() or not pieces.isascii():
        full, empty = glyphs.bar(part, width)
        return full + empty
    values, count = pieces.encode(), len(pieces)
    edges = [(count * n // width, max(count * n // width + 1, count * (n + 1) // width)) for n in range(width)]
    shares = [(sum(values[first:end]) - ord("0") * (end - first)) / (9 * (end - first)) for first, end in edges]
    steps = len(glyphs.levels) - 1
    return "".join(
        glyphs.bar_empty
        if share == 0
        else glyphs.bar_full
        if share == 1
        else glyphs.levels[max(0, round(share * steps))]
        for share in shares
    )


def feeders(host: DeliveryRow) -> list[tuple[str, float, int]]:
    """Who gives to a host: (name, bytes a second, bytes so far), the busiest first."""
    found = []
    for peer in host.peers:
        rate, got = _number(peer.get("down")), int(_number(peer.get("received")))
        if rate > 0 or got > 0:
            found.append((str(peer.get("name", "?")), rate, got))
    return sorted(found, key=lambda one: (-one[1], -one[2], one[0]))


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def swarm_lines(row: TransferRow, look: Look, width: int) -> list[Line]:
    """The hosts in the order in which they are served, each with its map and those who feed it."""
    glyphs = look.glyphs
    wide = max(8, min(_MAP, width - _NAME - 28))
    lines: list[Line] = [
        (
            (f" head gave {row.copies:.2f} copies", "text"),
            (f"  {rate_text(row.head_rate)}" if row.head_rate else "", "dim"),
        ),
    ]
    for host in row.hosts:
        part = fraction(host.have, row.size)
        role = "good" if host.live else "bad" if host.state == "failed" else "text"
        fed = _fed(feeders(host), host, row.size)
        lines.append(
            (
                (f" {glyphs.fit(host.host, _NAME)} ", role),
                (piece_map(host.pieces, part, look, wide), "accent" if not host.live else "good"),
                (f" {percent(part):>4} ", "text"),
                (fed, "dim"),
            )
        )
    shut = [host for host in row.hosts if host.unreached]
    if shut:
        lines += [(), ((" No way", "title"),)]
    for host in shut:
        ends = _listed((f"{who} ({why})" for who, why in host.unreached), len(host.unreached))
        lines.append(((f" {glyphs.fit(host.host, _NAME)} ", "warn"), (f"→ {ends}", "text")))
    return lines


def _fed(found: Sequence[tuple[str, float, int]], host: DeliveryRow, size: int) -> str:
    """Who feeds the host now; once it is whole, who did, by their share."""
    if not found:
        return host.transport if host.state == "fetching" else ""
    moving = [(name, rate) for name, rate, _ in found if rate > 0]
    if moving and not host.live:
        return "← " + _listed(f"{name} {rate_text(rate)}" for name, rate in moving)
    total = sum(got for _, _, got in found) or size or 1
    return "← " + _listed(f"{name} {100 * got / total:.0f}%" for name, _, got in found)


def _listed(parts: Iterable[str], most: int = 3) -> str:
    shown = list(parts)
    return ", ".join(shown[:most]) + (f" +{len(shown) - most}" if len(shown) > most else "")
