"""Attempts in words, for screens and verbs alike: how each stands, why an outcome is unknown, and the ways out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.snapshot import AttemptRow, JobRow


@dataclass(frozen=True, slots=True)
class WayOut:
    """Something that can be done about an unknown outcome.

    Attributes:
        name: in two or three words.
        action: its name in the action registry, empty where there is nothing to press.
        text: what it means for this job.
    """

    name: str
    action: str
    text: str


def outcome_word(attempt: AttemptRow) -> str:
    """How an attempt stands, in one word."""
    end = attempt.exit
    if attempt.phase == "void":
        return "refused" if attempt.reason else "cancelled"
    if attempt.phase != "exited" or end is None:
        return {"placed": "placing", "absent": "placing", "prepared": "placing"}.get(attempt.phase, attempt.phase)
    if end.get("cancelled"):
        return "given up" if end.get("unwitnessed") else "cancelled"
    return "done" if end.get("code") == 0 and not attempt.reason else "failed"


def exit_word(attempt: AttemptRow) -> str:
    """The exit code of an attempt (``3``), the signal that ended it (``signal 9``), or ``-``."""
    end = attempt.exit or {}
    if end.get("signal") is not None:
        return f"signal {end['signal']}"
    return "-" if end.get("code") is None else str(end["code"])


def silence(job: JobRow, when: Callable[[datetime | None], str]) -> str:
    """That the host of a job does not answer, and since when; empty when it does."""
    if job.silent_since is None:
        return ""
    last = job.attempts[-1]
    return (
        f"{last.host} has not answered since {when(job.silent_since)}; the last that is known is shown: "
        f"{outcome_word(last)}, told {when(last.seen_at) if last.seen_at else 'by nobody yet'}"
    )


def derivation(attempt: AttemptRow, when: Callable[[datetime | None], str]) -> list[tuple[str, str]]:
    """What was found on the host, piece by piece, from which it follows that the outcome of an attempt is unknown.

    The pieces are those of :func:`backend.jobs.agent.examine`. ``when`` writes a time.
    """
    seen = attempt.evidence
    said = f"{attempt.host}, {when(attempt.seen_at)}"
    if attempt.unreachable_since is not None:
        said += f"; it has not answered since {when(attempt.unreachable_since)}"
    if not seen:
        return [("evidence", "none was kept"), ("said by", said)]
    if "lock" not in seen:
        gone = "not there any more, though the host told earlier that the command ran"
        return [("its folder", gone), ("said by", said)]
    if not seen.get("executed"):
        gone = "`executed` is not there any more, though the host told earlier that the command ran"
        return [("exit record", "none"), ("claim", gone), ("said by", said)]
    return [
        ("exit record", "none: nobody wrote how it ended"),
        ("runner's lock", "held" if seen["lock"] else "free: its runner is gone"),
        ("claim", "`executed` is there: the command was started"),
        ("command", _command(seen)),
        *([("others", "no process carries its mark")] if seen.get("marked") == 0 else []),
        ("said by", said),
    ]


def _command(seen: dict[str, Any]) -> str:
    command = seen.get("command") or {}
    who = f"pid {command.get('pid') or 'unknown'}, start {command.get('start_time') or 'unknown'}"
    before, now = str(command.get("boot_id") or ""), str(seen.get("boot_id") or "")
    if before and before != now:
        return f"{who}: the host was booted since (boot {before[:8]} then, {now[:8]} now), so it is gone"
    return f"{who}: gone, and the host was not booted since"


def ways_out(job: JobRow) -> tuple[WayOut, ...]:
    """What can be done about a job whose outcome is unknown."""
    if not job.attempts or job.state != "unknown":
        return ()
    last = job.attempts[-1]
    wait = f"an exit record that turns up on {last.host} (a disk that is mounted late, say) counts at once"
    wait = f"until {last.host} answers; " + wait if last.unreachable_since else wait + "; nothing else will change"
    return (
        WayOut("wait", "", wait),
        WayOut(
            "give it up", "jobs.cancel",
            f"closes {last.attempt} on {last.host} for good and counts it as cancelled; what it made is kept",
        ),
        WayOut("run it again", "jobs.retry", repeating(job)),
    )  # fmt: skip


def repeating(job: JobRow) -> str:
    """What running a job again means when nobody knows how its last attempt ended."""
    if job.repeatable:
        return "safe: it goes on from what is there and makes nothing twice"
    last = job.attempts[-1]
    return (
        f"not known to be safe: {last.attempt} may have done its work, which a {job.kind} job then does a second time; "
        f"{last.attempt} is closed on {last.host} first"
    )
