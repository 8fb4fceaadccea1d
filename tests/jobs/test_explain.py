"""Attempts in words, from what the agent itself reports."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backend.jobs.explain import derivation, exit_word, outcome_word, repeating, silence, ways_out
from backend.jobs.launchers.base import observation
from backend.snapshot import AttemptRow, JobRow
from tests.jobs.conftest import AgentBed

NOW = datetime(2026, 3, 4, 14, 7, tzinfo=UTC)


def when(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%H:%M}"


def attempt(phase: str, **more: Any) -> AttemptRow:
    return AttemptRow("c1.1", "alder-1", phase, seen_at=NOW, **more)


def job(*attempts: AttemptRow, kind: str = "command", state: str = "unknown") -> JobRow:
    return JobRow("c1", kind, "hex8_2p", "a job", state, "alder-1", "c1.1", None, NOW, attempts=attempts)  # type: ignore[arg-type]


def leave_evidence(bed: AgentBed, **executed: Any) -> None:
    """The folder of an attempt whose runner and command are gone."""
    folder = bed.folder("c1.1")
    folder.mkdir(parents=True)
    who = {"pid": 2**22 + 1, "start_time": "1", "at": 0.0} | executed
    for name in ("child.json", "executed"):
        (folder / name).write_text(json.dumps(who))


def explained(bed: AgentBed) -> dict[str, str]:
    seen = observation(bed.report("c1.1"))
    return dict(derivation(attempt(seen.phase.value, evidence=seen.evidence), when))


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_an_outcome_that_nobody_saw_is_derived_piece_by_piece(bed: AgentBed) -> None:
    leave_evidence(bed, boot_id=boot_id())
    assert bed.state("c1.1") == "unknown"
    words = explained(bed)
    assert words["exit record"].startswith("none")
    assert words["runner's lock"].startswith("free")
    assert "is there" in words["claim"]
    assert words["command"] == f"pid {2**22 + 1}, start 1: gone, and the host was not booted since"
    assert words["others"] == "no process carries its mark"
    assert words["said by"] == "alder-1, 14:07"


def test_a_boot_since_is_named_with_both_boots(bed: AgentBed) -> None:
    leave_evidence(bed, boot_id="0123456789abcdef")
    assert bed.state("c1.1") == "lost"
    assert f"the host was booted since (boot 01234567 then, {boot_id()[:8]} now)" in explained(bed)["command"]


def test_evidence_that_has_vanished_is_said_so(bed: AgentBed) -> None:
    assert explained(bed)["its folder"].startswith("not there any more")
    bed.folder("c1.1").mkdir(parents=True)
    assert bed.state("c1.1") == "prepared"
    assert "`executed` is not there any more" in explained(bed)["claim"]
    assert dict(derivation(attempt("unknown"), when))["evidence"] == "none was kept"


def test_a_state_and_its_evidence_are_of_one_look(bed: AgentBed) -> None:
    bed.python_job("c1.1", "pass")
    bed.ended("c1.1")
    report = bed.report("c1.1")
    assert (report["state"], report["evidence"]) == ("exited", {"folder": True, "exit": True})


@pytest.mark.parametrize(
    ("row", "word", "code"),
    [
        (attempt("placed"), "placing", "-"),
        (attempt("running"), "running", "-"),
        (attempt("orphaned"), "orphaned", "-"),
        (attempt("lost"), "lost", "-"),
        (attempt("void"), "cancelled", "-"),
        (attempt("void", reason="the disk is full"), "refused", "-"),
        (attempt("exited", exit={"code": 0}), "done", "0"),
        (attempt("exited", exit={"code": 0}, reason="another file arrived"), "failed", "0"),
        (attempt("exited", exit={"code": 3}), "failed", "3"),
        (attempt("exited", exit={"code": None, "signal": 9}), "failed", "signal 9"),
        (attempt("exited", exit={"cancelled": True, "signal": 15}), "cancelled", "signal 15"),
        (attempt("exited", exit={"cancelled": True, "unwitnessed": True}), "given up", "-"),
    ],
)
def test_an_attempt_is_one_word_and_an_exit(row: AttemptRow, word: str, code: str) -> None:
    assert (outcome_word(row), exit_word(row)) == (word, code)


def test_the_ways_out_say_what_they_mean_for_this_kind() -> None:
    lost = attempt("unknown")
    assert [way.action for way in ways_out(job(lost))] == ["", "jobs.cancel", "jobs.retry"]
    assert repeating(job(lost)).startswith("not known to be safe")
    assert repeating(replace(job(lost), repeatable=True)).startswith("safe")
    assert "nothing else will change" in ways_out(job(lost))[0].text
    assert ways_out(job(replace(lost, unreachable_since=NOW)))[0].text.startswith("until alder-1 answers")
    assert ways_out(job(lost, state="failed")) == ways_out(job()) == ()


def test_only_the_silence_about_an_open_job_counts() -> None:
    silent = attempt("running", unreachable_since=NOW)
    assert silence(job(silent, state="running"), when).startswith("alder-1 has not answered since 14:07")
    assert silence(job(silent, state="cancelled"), when) == ""
    assert silence(job(attempt("running"), state="running"), when) == ""
