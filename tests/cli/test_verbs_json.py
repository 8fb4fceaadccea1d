"""Every verb about hosts and jobs with ``--json``: one value on standard output, narration on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend.errors import Exit
from backend.paths import Paths
from backend.supervisor import stop
from ringrift_console.actions import ACTIONS
from tests.cli.test_bad_hosts import describe
from tests.cli.test_bad_input import ringrift
from tests.lab.sshd import Sshd

WITHOUT = {"hosts shell"}
"""Takes the terminal over."""


@pytest.fixture
def fleet(paths: Paths) -> Iterator[Paths]:
    paths.root.mkdir()
    yield paths
    stop(paths)


def told(paths: Paths, *words: str, code: Exit = Exit.DONE) -> Any:
    """What a verb prints with ``--json``."""
    own = words.index("--") if "--" in words else len(words)
    outcome = ringrift(paths.root, *words[:own], "--json", *words[own:])
    assert outcome.code == code, outcome.err
    return json.loads(outcome.out)


def test_every_verb_about_hosts_and_jobs_can_speak_json() -> None:
    verbs = {" ".join(action.verb): action for action in ACTIONS if action.verb[:1] in (("hosts",), ("jobs",))}
    assert {"hosts list", "hosts reload", "jobs submit", "jobs logs"} <= verbs.keys()
    without = {verb for verb, action in verbs.items() if not any(param.name == "--json" for param in action.params)}
    assert without == WITHOUT


def test_verbs_about_hosts(fleet: Paths, make_sshd: Callable[..., Sshd]) -> None:
    server = make_sshd()
    describe(fleet, server)
    assert [row["state"] for row in told(fleet, "hosts", "list")] == ["up", "new"]
    plan = told(fleet, "hosts", "enrol", "alpha", "--dry-run")
    fingerprint = plan["params"]["fingerprint"]
    done = told(fleet, "hosts", "enrol", "alpha", "--fingerprint", fingerprint, "--wait")
    assert (done["state"], done["host"], done["trouble"]) == ("done", "alpha", "")
    (row,) = told(fleet, "hosts", "probe", "alpha")
    assert (row["state"], row["fingerprint"], row["facts"]["system"]) == ("up", fingerprint, "Linux")
    assert told(fleet, "hosts", "bootstrap", "alpha", "--dry-run")["action"] == "hosts.bootstrap"
    assert told(fleet, "hosts", "drain", "alpha", "--reason", "new disk", "--wait")["drained"] is True
    assert told(fleet, "hosts", "show", "alpha")["drained"] == "new disk"
    assert told(fleet, "hosts", "undrain", "alpha", "--wait")["drained"] is False
    describe(fleet, server, max_parallel_jobs=3)
    assert told(fleet, "hosts", "show", "alpha")["changed"] == ["max_parallel_jobs: not set -> 3"]
    changes = told(fleet, "hosts", "reload", "--dry-run")["changes"]
    assert changes == [{"subject": "max_parallel_jobs", "before": "not set", "after": "3 (alpha)"}]
    assert told(fleet, "hosts", "reload", "--wait")["hosts"] == 2
    assert told(fleet, "hosts", "show", "alpha")["changed"] == []
    outcome = ringrift(fleet.root, "hosts", "reload")
    outcome.assert_refused(Exit.REFUSED, "the supervisor goes by this file already", "hosts.yaml")


def test_verbs_about_jobs(fleet: Paths) -> None:
    code = "import os, sys, time\nprint('one\\ntwo', flush=True)\nos.path.exists('go') or time.sleep(600)"
    job = told(fleet, "jobs", "submit", "command", "hex8_2p", "--", sys.executable, "-I", "-S", "-c", code)["jobs"]
    assert job == ["c1"]
    while (row := told(fleet, "jobs", "show", "c1"))["state"] != "running":
        assert row["state"] in ("waiting", "placing"), row
    assert [(one["host"], one["phase"], one["exit"]) for one in row["attempts"]] == [("local", "running", None)]
    while (log := told(fleet, "jobs", "logs", "c1"))["lines"] != ["one", "two"]:
        assert log["lines"] in ([], ["one"]), log
    tail = told(fleet, "jobs", "logs", "c1", "--tail", "1")
    assert (tail["lines"], tail["offset"], tail["next"]) == (["two"], 4, 8)
    assert [(one["id"], one["host"]) for one in told(fleet, "jobs", "list")] == [("c1", "local")]
    assert told(fleet, "jobs", "cancel", "c1", "--wait")["jobs"][0]["state"] == "cancelled"
    assert told(fleet, "jobs", "retry", "c1", "--dry-run")["changes"][0]["before"] == "cancelled"
    (fleet.root / "go").touch()
    assert told(fleet, "jobs", "retry", "c1", "--wait")["jobs"][0]["attempt"] == "c1.2"
    attempts = told(fleet, "jobs", "show", "c1")["attempts"]
    assert [(one["attempt"], one["exit"]["code"]) for one in attempts][1] == ("c1.2", 0)
    ringrift(fleet.root, "jobs", "logs", "c1", "--json", "--follow").assert_refused(Exit.USAGE, "exclude each other")
