"""The top line: where one is, whether the supervisor runs, what needs the operator, the clock, the link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.snapshot import ENDED
from ringrift_console.clock import duration
from ringrift_console.widgets.line import Span

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp

LAG_MS = 250.0
"""Loop lag from which the header says so."""
STALE_S = 5.0
"""Age of what is shown from which the header says so."""


def header_spans(app: ConsoleApp, crumb: str, width: int) -> tuple[list[Span], list[Span]]:
    """The left and the right half of the header."""
    snapshot = app.snapshot
    left: list[Span] = [(f" {crumb} ", "header"), (" ", "header_dim")]
    supervisor = snapshot.supervisor
    if not app.have_read:
        left.append(("reading the state…", "header_dim"))
    elif supervisor.alive:
        left.append(("supervisor up", "header_dim"))
        if supervisor.lag_ms is not None and supervisor.lag_ms >= LAG_MS:
            left.append((f" (slow: {round(supervisor.lag_ms, -2):.0f} ms)", "header_warn"))
    else:
        waiting = sum(job.state not in ENDED and job.state != "unknown" for job in snapshot.jobs)
        how = f" ({app.keymap.hint('supervisor.start')} starts it)"
        text = f"supervisor down, {waiting} jobs wait{how}" if waiting else "supervisor idle"
        left.append((text, "header_bad" if waiting else "header_dim"))
    running = sum(job.state == "running" for job in snapshot.jobs)
    if running and supervisor.alive:
        left.append((f"  {running} running", "header"))
    if width >= 120:
        left.append((f"  {snapshot.root}", "header_dim"))

    right: list[Span] = []
    if app.trouble:
        right.append((f"  {app.look.glyphs.attention} {app.trouble}", "header_bad"))
    elif app.have_read and app.stale_s > STALE_S:
        right.append((f"  {app.look.glyphs.attention} {duration(app.stale_s)} old", "header_bad"))
    if snapshot.needs:
        count = len(snapshot.needs)
        right.append((f"  {app.look.glyphs.attention} {count} need{'s' if count == 1 else ''} you", "header_warn"))
    if app.link_slow:
        right.append(("  link SLOW", "header_warn"))
    elif app.over_ssh:
        right.append(("  ssh", "header_dim"))
    if app.lag_ms >= LAG_MS:
        right.append((f"  lag {round(app.lag_ms, -2):.0f} ms", "header_warn"))
    right.append((f"  {app.clock.label} ", "header"))
    return left, right
