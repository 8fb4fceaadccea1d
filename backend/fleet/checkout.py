"""Whether a host of ``runtime: ai-service`` has the checkout that its settings claim, and what it can run of it.

A look (with every probe) sees whether the files are there; a trial (``ringrift hosts bootstrap``) lets its Python
import what is needed and asks every program for its ``--help``. Neither changes anything on the host.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from backend.errors import RefusedError, RingRiftError, UnverifiedError
from backend.fleet import checkout_host
from backend.fleet.hosts import Host
from backend.fleet.probe import Report, expand_home, probe, python_of
from backend.fleet.remote import Remote

AI_SERVICE = "ai-service"
DEFAULT_PATH = "~/ringrift/ai-service"
"""Where the reference installation's hosts file puts it."""
IMPORTS = ("numpy", "torch", "app")
LOOK_S = 60.0
TRIAL_S = 900.0
OUTPUT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Command:
    """A program of the checkout as its documentation (``docs/MODEL_LIFECYCLE.md`` there) calls it.

    Attributes:
        words: what stands behind the interpreter.
        file: where it lies.
        flags: those that jobs use.
        word: whether it takes a word without a flag.
    """

    words: tuple[str, ...]
    file: str
    flags: tuple[str, ...]
    word: bool = False


COMMANDS: Mapping[str, Command] = {
    "export": Command(
        ("scripts/export_replay_dataset.py",),
        "scripts/export_replay_dataset.py",
        ("--use-discovery", "--board-type", "--num-players", "--output"),
    ),
    "train": Command(
        ("-m", "app.training.train"),
        "app/training/train.py",
        ("--board-type", "--num-players", "--data-path", "--save-path", "--epochs"),
    ),
    "gauntlet": Command(
        ("scripts/baseline_gauntlet.py",), "scripts/baseline_gauntlet.py", ("--board", "--games"), word=True
    ),
    "promote": Command(
        ("scripts/auto_promote.py",),
        "scripts/auto_promote.py",
        ("--gauntlet", "--model", "--board-type", "--num-players", "--games"),
    ),
}
"""By the kind of job."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look or a trial means.

    Attributes:
        problem: why nothing can run there, with ``mend``; empty when something can.
        kinds: for every kind of :data:`COMMANDS` why it cannot run, or an empty text.
    """

    kinds: Mapping[str, str]
    problem: str = ""
    mend: str = ""


def path_of(host: Host) -> str:
    """Where its settings say that the checkout lies."""
    return str(host.settings.get("ringrift_path") or DEFAULT_PATH)


def judge(answer: Mapping[str, Any]) -> Verdict:
    """What the host's facts mean; pure."""
    path, python = str(answer["path"]), str(answer["python"])
    none = dict.fromkeys(COMMANDS, "")
    if not answer["there"]:
        return Verdict(none, f"there is no checkout at {path}", "clone it there, or give ringrift_path in hosts.yaml")
    missing = {kind: names for kind, names in answer["missing"].items() if names}
    if len(missing) == len(COMMANDS):
        mend = "ringrift_path in hosts.yaml has to be the folder ai-service of a RingRift checkout"
        return Verdict(none, f"{path} has none of the programs of an ai-service checkout", mend)
    for name, found in (answer.get("imports") or {}).items():
        if "error" in found:
            mend = f"{python} -m pip install -r requirements.txt in {path}, or give venv_activate in hosts.yaml"
            return Verdict(none, f"its Python cannot import {name}: {found['error']}", mend)
    helps = answer.get("helps") or {}
    kinds = {kind: _lacking(kind, missing.get(kind) or (), helps.get(kind)) for kind in COMMANDS}
    if all(kinds.values()):
        return Verdict(kinds, next(iter(kinds.values())), f"update the checkout at {path}")
    return Verdict(kinds)


def _lacking(kind: str, missing: Any, found: Mapping[str, Any] | None) -> str:
    command = COMMANDS[kind]
    if missing:
        return f"its checkout has no {missing[0]}"
    if found is None:  # it was only looked at
        return ""
    if "error" in found:
        return f"{command.file} does not run: {found['error']}"
    if found["lacks"]:
        return f"{command.file} takes no {' '.join(found['lacks'])}"
    if command.word and not found["words"]:
        return f"{command.file} takes no model by its path"
    return ""


def closed_reason(name: str, facts: Mapping[str, Any]) -> str:
    """Why such a host takes no jobs, as its stored facts have it; empty when it takes some."""
    seen = facts.get("checkout") or {}
    if seen.get("problem") or facts.get("refused"):
        return str(seen.get("problem") or facts["refused"])
    commands = facts.get("commands")
    if facts.get("runtime") != AI_SERVICE or not isinstance(commands, dict):
        return f"its checkout was not checked (ringrift hosts bootstrap {name})"
    if all(commands.values()):
        return str(next(iter(commands.values()), "its checkout has no commands"))
    return ""


def lacking(runtime: str, facts: Mapping[str, Any]) -> dict[str, str]:
    """Kinds that a host of that runtime cannot run, and why, as its stored facts have it."""
    if runtime != AI_SERVICE:
        return {}
    seen = (facts.get("checkout") or {}).get("kinds") or {}
    tried = facts.get("commands") or {}
    found = {kind: str(seen.get(kind) or tried.get(kind) or "") for kind in COMMANDS}
    return {kind: why for kind, why in found.items() if why}


async def look_at_checkout(remote: Remote, host: Host) -> dict[str, Any]:
    """What is there without running any of it, as it is stored under ``checkout`` among a host's facts.

    Raises:
        RingRiftError: the host cannot be asked.
    """
    answer = await _ask(remote, host, _request(host), LOOK_S)
    verdict = judge(answer)
    return {
        "path": answer["path"], "revision": answer["revision"], "python": answer["python"],
        "python_version": answer["python_version"],
        "problem": verdict.problem, "mend": verdict.mend, "kinds": dict(verdict.kinds),
    }  # fmt: skip


async def _silent(line: str) -> None:
    pass


async def check_checkout(
    remote: Remote, host: Host, *, tell: Callable[[str], Awaitable[None]] | None = None
) -> tuple[dict[str, Any], Report]:
    """Lets the checkout show that it can do what jobs will ask; returns what is stored of it, and the host's report.

    Raises:
        RefusedError: it cannot; the first thing that is wrong, and what mends it. Nothing was changed there.
        RingRiftError: the host cannot be asked.
    """
    from backend.fleet.bootstrap import preflight

    say = tell or _silent
    await say("looking at the host")
    report = await probe(remote, host)
    assert report.facts is not None
    report.facts["checkout"] = await look_at_checkout(remote, host)
    preflight(host, report)
    await say("asking the checkout's programs what they take (some minutes where torch is cold)")
    more = {
        "imports": list(IMPORTS),
        "helps": {kind: list(command.words) for kind, command in COMMANDS.items()},
        "flags": {kind: list(command.flags) for kind, command in COMMANDS.items()},
    }
    answer = await _ask(remote, host, _request(host) | more, TRIAL_S)
    verdict = judge(answer)
    if verdict.problem:
        raise RefusedError(verdict.problem, where=host.name, hint=verdict.mend)
    versions = {name: found.get("version", "") for name, found in answer["imports"].items() if name != "app"}
    made = {
        "runtime": AI_SERVICE,
        "python": answer["python"],
        "root": str(report.facts["folder"]),
        "bundle": "",
        "checkout_path": answer["path"],
        "checkout_revision": answer["revision"],
        "commands": dict(verdict.kinds),
        "versions": {"python": answer["python_version"]} | versions,
        "at": time.time(),
    }
    return made, report


def _request(host: Host) -> dict[str, Any]:
    return {"path": path_of(host), "files": {kind: [command.file] for kind, command in COMMANDS.items()}}


async def _ask(remote: Remote, host: Host, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    argv = [*expand_home(python_of(host)), "-I", "-", json.dumps(request)]
    done = await remote.exec(host, argv, stdin=_script(), timeout_s=timeout_s)
    mark = checkout_host.MAGIC.encode() + b" "
    line = next((line for line in reversed(done.stdout.splitlines()) if line.startswith(mark)), None)
    if line is None:
        how = f"signal {done.signal}" if done.signal else f"exit code {done.code}"
        said = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())[-OUTPUT_CHARACTERS:]
        raise RingRiftError(f"the look at its checkout ended with {how}", where=host.name, hint=said)
    try:
        answer = json.loads(line.removeprefix(mark))
        judge(answer)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnverifiedError("it answered something else", where=host.name, hint=str(error)) from None
    return dict(answer)


@cache
def _script() -> bytes:
    return Path(checkout_host.__file__).read_bytes()
