"""How values are written, the same on every screen."""

from __future__ import annotations

import math

from backend.configs import parse_config
from backend.errors import UsageError
from backend.evaluation import verdict
from backend.snapshot import EventRow, JobRow, ModelRow, WinRate
from backend.thresholds import DEFAULT, thresholds
from ringrift_console.clock import duration
from ringrift_console.look import STATE_ROLES, Look
from ringrift_console.widgets.line import Span

UNKNOWN = "-"


def state_span(look: Look, state: str) -> Span:
    """Glyph and word of a state."""
    return f"{look.glyphs.state(state)} {state}", STATE_ROLES.get(state, "text")


def count(value: float | None) -> str:
    """A number in at most 6 cells: ``312``, ``9840``, ``18.4k``, ``1.2M``; ``-`` when unknown."""
    if value is None:
        return UNKNOWN
    if value < 10_000:
        return f"{value:.0f}"
    return f"{value / 1000:.1f}k" if value < 1_000_000 else f"{value / 1_000_000:.1f}M"


def fraction(job: JobRow) -> float | None:
    """How much of a job is done, 0 to 1."""
    progress = job.progress
    if job.state in ("done", "skipped"):
        return 1.0
    if progress is None or not progress.total:
        return None
    return max(0.0, min(1.0, progress.done / progress.total))


def amount(job: JobRow) -> str:
    """Done of total with the unit."""
    progress = job.progress
    if progress is None:
        return ""
    of = f"/{count(progress.total)}" if progress.total is not None else ""
    return f"{count(progress.done)}{of} {progress.unit}"


def rate(job: JobRow) -> str:
    """Units a second, or a minute or an hour where that says more."""
    value = job.progress.rate if job.progress else None
    if value is None or job.state != "running":
        return UNKNOWN
    unit = job.progress.unit if job.progress else ""
    for factor, per in ((1, "s"), (60, "min"), (3600, "h")):
        if value * factor >= 1 or per == "h":
            return f"{_digits(value * factor)} {unit}/{per}"
    return UNKNOWN


def _digits(value: float) -> str:
    """Three digits that say something: ``0.29``, ``12.5``, ``1218``, ``18.4k``."""
    return f"{value:.3g}" if value < 100 else count(value)


def eta(job: JobRow) -> str:
    return duration(job.progress.eta_s) if job.progress and job.state == "running" else UNKNOWN


def progress_text(look: Look, job: JobRow, bar: int, *, amounts: bool = True) -> str:
    """A bar with a percentage (and the amounts) while a job runs, what it made, or why it does not run."""
    if job.state in ("waiting", "blocked", "failed", "unknown", "placing", "skipped") and job.why:
        return job.why
    if job.state == "failed":
        return f"exit code {job.exit_code}" if job.exit_code is not None else "failed"
    if job.state == "done" and (said := outcome(job)):
        return said
    part = fraction(job)
    if part is None:
        return amount(job) or UNKNOWN
    full, empty = look.glyphs.bar(part, bar)
    return f"{full}{empty} {round(100 * part):3d}%" + (f" {amount(job)}" if job.progress and amounts else "")


def outcome(job: JobRow) -> str:
    """What a finished job made, from its result; empty when that says nothing."""
    result = job.result
    if job.kind == "selfplay" and "games_added" in result:
        return f"{count(result['games_added'])} games added"
    if job.kind == "export" and "samples" in result:
        return f"{count(result['samples'])} samples"
    if job.kind == "train" and result.get("label"):
        return f"made {result['label']}"
    if job.kind == "gauntlet":
        parts = [
            f"{str(row['opponent'])[:4]} {100 * row['wins'] / row['games']:.0f}%"
            for row in result.get("opponents", ())
            if row.get("games")
        ]
        return " ".join(parts)
    return ""


def against(model: ModelRow | None, opponent: str) -> WinRate | None:
    """The result against an opponent by its name without version."""
    if model is None:
        return None
    return next((rate for rate in model.win_rates if rate.opponent.split(":")[0] == opponent), None)


def win_text(result: WinRate | None, *, interval: bool = False) -> str:
    """Share of games won, with its 95 % interval on demand."""
    if result is None or result.rate is None:
        return UNKNOWN
    text = f"{100 * result.rate:.0f}%"
    return f"{text} {100 * result.low:.0f}–{100 * result.high:.0f}" if interval else text


def gauntlet_target(model: ModelRow | None, opponent: str) -> float | None:
    """The share of games that a model of this config should win against a baseline; None where there is no target."""
    try:
        config = parse_config(model.config or "") if model else None
    except UsageError:
        config = None
    limits, players = (thresholds(config), config.players) if config else (DEFAULT, 2)
    criterion = verdict.gauntlet_criterion(limits, players, opponent)
    return None if criterion is None else criterion.required


def win_span(result: WinRate | None, target: float | None, *, interval: bool = False) -> Span:
    """A win rate; where it does not reach the target this stands behind it: ``78%<85``."""
    if result is None or result.rate is None:
        return UNKNOWN, "dim"
    if target is None or result.rate >= target:
        return win_text(result, interval=interval), "good"
    room = " " if interval else ""
    return f"{win_text(result, interval=interval)}{room}<{math.ceil(100 * target - 1e-9)}", "text"


def model_name(model: ModelRow | None, config: str) -> str:
    """A model beside its config: only the version where the model is named after the config."""
    if model is None:
        return UNKNOWN
    return f"v{model.version}" if model.model_id == config else model.label


def event_text(event: EventRow) -> str:
    """An event in words."""
    what = event.type.replace("_", " ").lower()
    said = event.payload.get("title") or event.payload.get("reason") or event.payload.get("label") or ""
    return f"{what} {event.subject}" + (f": {said}" if said and str(said) != event.subject else "")
