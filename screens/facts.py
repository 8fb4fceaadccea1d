"""Everything known of one job or model, as headed lists of names and values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from backend.jobs.explain import WayOut, derivation, exit_word, outcome_word, silence, ways_out
from backend.snapshot import JobRow, ModelRow, Snapshot
from backend.text import size_text
from ringrift_console.actions import BY_NAME
from ringrift_console.keymap import key_text
from ringrift_console.look import STATE_ROLES, Look
from ringrift_console.widgets.line import Line, Span
from screens.cells import amount, eta, gauntlet_target, rate, state_span, win_text

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp

Fact = tuple[str, str | Span | None]
"""A name and its value; a name with None is a heading."""
_LABEL = 14


def to_lines(facts: Iterable[Fact], look: Look, width: int) -> list[Line]:
    """Facts as lines; long values are folded under themselves."""
    lines: list[Line] = []
    for name, value in facts:
        if value is None:
            lines += [(), ((f" {name}", "title"),)] if lines else [((f" {name}", "title"),)]
            continue
        text, role = (value or "-", "text") if isinstance(value, str) else value
        for n, row in enumerate(look.glyphs.wrap(text, max(8, width - _LABEL - 2))):
            label = look.glyphs.fit(name if n == 0 else "", _LABEL)
            lines.append(((f" {label} ", "dim"), (row, role)))
    return lines


def _words(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _dict(heading: str, values: dict[str, Any]) -> list[Fact]:
    """Names and values under a heading; what holds names itself follows under a heading of its own."""
    flat: list[Fact] = [
        (name.replace("_", " "), _words(value)) for name, value in values.items() if not isinstance(value, dict)
    ]
    facts: list[Fact] = [(heading, None), *flat] if flat else []
    for name, value in values.items():
        if isinstance(value, dict):
            facts += _dict(f"{heading}: {name.replace('_', ' ')}", value)
    return facts


def job_facts(app: ConsoleApp, job: JobRow) -> list[Fact]:
    """Everything known of one job."""
    clock, progress = app.clock, job.progress
    facts: list[Fact] = [
        ("state", state_span(app.look, job.state)),
        *([("why", (job.why, "warn"))] if job.why else []),
    ]
    if job.state == "unknown" and job.attempts:
        facts += [("Why the outcome is unknown", None), *derivation(job.attempts[-1], clock.long)]
        facts += [("Ways out", None), *(_way_out(app, job, way) for way in ways_out(job)), ("Job", None)]
    elif silent := silence(job, clock.long):
        facts.append(("silent", (silent, "warn")))
    facts += [
        *(("no place", f"{' '.join(hosts)}: {reason}") for reason, hosts in job.waits),
        ("kind", f"{job.kind} {job.config}"),
        *([("title", job.title)] if job.title != f"{job.kind} {job.config}" else []),
        *([("gang", f"{job.gang}, member {job.part}")] if job.gang else []),
        ("pipeline", job.pipeline or "-"),
        ("host", job.host or "-"),
        ("created", clock.long(job.created_at)),
        ("started", clock.long(job.started_at)),
        ("ended", clock.long(job.ended_at)),
        *_attempts(app, job),
    ]
    if progress is not None:
        facts += [("Progress", None), ("done", amount(job)), ("rate", rate(job)), ("left", eta(job))]
        facts += [("message", progress.message)] if progress.message else []
        facts += [("reported", clock.long(progress.at))]
        facts += [(name, _words(value)) for name, value in progress.metrics.items()]
    facts += _dict("Result", job.result)
    facts += [("Where", None), ("log", job.log_path or "-")]
    facts += [("command", shlex.join(job.argv))] if job.argv else []
    return facts


def _way_out(app: ConsoleApp, job: JobRow, way: WayOut) -> Fact:
    if not way.action:
        return way.name, way.text
    key = key_text(app.keymap.key(BY_NAME[way.action]))
    return way.name, f"{f'{key}: ' if key else ''}{way.text} (ringrift {way.action.replace('.', ' ')} {job.id})"


def _attempts(app: ConsoleApp, job: JobRow) -> list[Fact]:
    """The attempts of a job, newest first, one line each and why it ended so under it."""
    if not job.attempts:
        return []
    fit = app.look.glyphs.fit
    facts: list[Fact] = [
        ("Attempts", None),
        ("", (f"{'HOST':<14}{'OUTCOME':<13}{'STARTED':<8}{'ENDED':<8}EXIT", "head")),
    ]
    for one in reversed(job.attempts):
        word = outcome_word(one)
        times = f"{app.clock.short(one.started_at):<8}{app.clock.short(one.ended_at):<8}"
        text = f"{fit(one.host, 13)} {state_span(app.look, word)[0]:<13}{times}{exit_word(one)}"
        facts.append((one.attempt, (text, STATE_ROLES.get(word, "text"))))
        facts += [("", (one.reason, "dim"))] if one.reason else []
    return facts


def live_on(snapshot: Snapshot, sha256: str) -> list[Fact]:
    """On how many of the hosts that were to have a file it is live; nothing where it was never sent."""
    live, wanted = snapshot.live_hosts(sha256)
    return [("live on", (f"{live} of {wanted} hosts", "good" if live == wanted else "warn"))] if wanted else []


def model_facts(app: ConsoleApp, model: ModelRow) -> list[Fact]:
    """Everything known of one model."""
    clock = app.clock
    since = f" since {clock.long(model.stage_since)}" if model.stage_since else ""
    glyph, role = state_span(app.look, model.stage)
    facts: list[Fact] = [
        ("stage", (glyph + since, role)),
        *([("foreign", ("read-only: adopt with ringrift adopt", "warn"))] if model.foreign else []),
        ("config", model.config or "unknown"),
        ("made", clock.long(model.created_at)),
        *live_on(app.snapshot, model.sha256),
        ("games", f"{model.games} played"),
        ("parent", model.parent or "-"),
        ("network", model.architecture or "-"),
        ("Results", None),
    ]
    for result in model.win_rates:
        text = (
            f"{win_text(result, interval=True).strip()} won {result.wins} of {result.games}, {result.unique} different"
        )
        facts.append((result.opponent, text + (f", {result.crashes} crashed" if result.crashes else "")))
        target = gauntlet_target(model, result.opponent.split(":")[0])
        if target is not None and result.rate is not None:
            reached = "reached" if result.rate >= target else "not reached"
            facts.append(("", f"target of {100 * target:.0f}% {reached}"))
    if not model.win_rates:
        facts.append(("none", ("no games against Random or Heuristic yet", "dim")))
    facts += [
        ("File", None),
        ("sha256", model.sha256),
        ("size", size_text(model.size)),
        ("path", model.path if model.present else (f"{model.path} is missing", "bad")),
    ]
    metadata = dict(model.metadata)
    measured = metadata.pop("metrics", None)
    if isinstance(measured, dict):
        facts += _dict("Measured in training", measured)
    return facts + _dict("Training", metadata)
