"""Runs one command, reads the text that it prints, and says at the end whether it did what it was asked to.

For commands that know nothing of this program. It sees only what they print and leave behind, and trusts their exit
code in one direction: a command that says that it failed did, one that ends well has yet to show for it. It runs on
hosts that have none of our code, so it is one file, standard library only, Python 3.9 or newer::

    RINGRIFT_READING='{"outputs": ["data/x.npz"], ...}' python3 reader.py PROGRAM ARGUMENTS...

It copies the text through, appends progress rows and in the end the result to the file ``RINGRIFT_PROGRESS`` names,
and exits as the command did, or with :data:`NO_EVIDENCE` when that ended well and there is nothing to show for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import subprocess
import sys
import time
from datetime import datetime, timezone
from typing import Any

READING = "RINGRIFT_READING"
NO_EVIDENCE = 4
NOT_STARTED = 3
USAGE = 2
"""Exit code of Python's argparse, and of most programs, for arguments that they do not take."""
LINE = 4096
"""Characters of a line that are looked at."""
TEXT = 200
PER_SECOND = 2.0
DRAIN_S = 2.0
"""How long text is waited for after the command has ended: a stray child may hold its output open for ever."""


class Reading:
    """What a command's lines mean; no clock, no files.

    Args:
        spec: all keys may be left out.

            ``progress``: regular expressions with the groups ``done`` and perhaps ``total`` and ``message``.
            ``phase``: one with the group ``phase``; what follows counts from where the phase before ended.
            ``phases``: how many there will be.
            ``total``, ``unit``: of the work.
            ``facts``: regular expressions whose named groups are what the command found out; the last mention counts.
            ``json``: the last line that is a JSON object holds facts too.
            ``fatal``: pairs of a regular expression and what a line that it finds means: the result is worthless.
            ``need``: facts without which the command has shown nothing.
            ``equal``, ``least``: what facts have to be, where the command tells them.
            ``result``: laid under the facts.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self._progress = [re.compile(one) for one in spec.get("progress") or ()]
        self._facts = [re.compile(one) for one in spec.get("facts") or ()]
        self._fatal = [(re.compile(one), text) for one, text in spec.get("fatal") or ()]
        self._phase = re.compile(spec["phase"]) if spec.get("phase") else None
        self.facts: dict[str, Any] = {}
        self.fatal = ""
        self.last = ""
        self.refused = ""
        self._base = 0.0
        self._in_phase = 0.0
        self._message = ""

    def line(self, text: str) -> dict[str, Any] | None:
        """Takes one line; the progress that it tells, ``{done, total, unit, message}``, or None."""
        text = text[:LINE].rstrip()
        if text.strip():
            self.last = text.strip()
        if "error: " in text:
            self.refused = text.strip()
        if self.spec.get("json") and text.lstrip().startswith("{"):
            self._take_json(text)
        for pattern, meaning in self._fatal:
            if not self.fatal and pattern.search(text):
                self.fatal = meaning
        for pattern in self._facts:
            found = pattern.search(text)
            if found:
                self.facts.update({name: value_of(word) for name, word in found.groupdict().items() if word})
        self._take_phase(text)
        for pattern in self._progress:
            found = pattern.search(text)
            if found:
                return self._row(found.groupdict())
        return None

    def _take_json(self, text: str) -> None:
        try:
            value = json.loads(text)
        except ValueError:
            return
        if isinstance(value, dict):
            self.facts.update(value)

    def _take_phase(self, text: str) -> None:
        found = self._phase.search(text) if self._phase else None
        if found and found.group("phase") != self._message:
            self._message = found.group("phase")
            self._base += self._in_phase
            self._in_phase = 0.0

    def _row(self, groups: dict[str, str | None]) -> dict[str, Any] | None:
        done, total = number_of(groups.get("done")), number_of(groups.get("total"))
        if done is None:
            return None
        if total is not None and self._phase is not None:
            self._in_phase = total
            total = total * int(self.spec.get("phases") or 1)
        total = number_of(self.spec.get("total")) if total is None else total
        message = groups.get("message") or self._message
        unit = str(self.spec.get("unit") or "")
        return {"done": self._base + done, "total": total, "unit": unit, "message": message[:TEXT]}

    def problem(self, code: int) -> str:
        """Why the command has not done its work, in one line; empty when its text speaks for it."""
        if self.fatal:
            return self.fatal
        if code == USAGE and self.refused:
            return "the command does not take what it was given: " + self.refused[-TEXT:]
        if code != 0:
            return ""  # its own last words say it best
        missing = [name for name in self.spec.get("need") or () if name not in self.facts]
        if self.spec.get("json") and not self.facts:
            missing.append("result")
        if missing:
            return "it ended with exit code 0 and told no " + ", ".join(missing).replace("_", " ") + self.said()
        for name, wanted in (self.spec.get("equal") or {}).items():
            if name in self.facts and self.facts[name] != wanted:
                return "its {} is {}, not {}".format(name.replace("_", " "), self.facts[name], wanted)
        for name, least in (self.spec.get("least") or {}).items():
            if name in self.facts and not _at_least(self.facts[name], least):
                return "its {} is {}, less than {}".format(name.replace("_", " "), self.facts[name], least)
        return ""

    def said(self) -> str:
        return "; it said last: " + self.last[-TEXT:] if self.last else "; it said nothing"

    def result(self) -> dict[str, Any]:
        return dict(self.spec.get("result") or {}, **self.facts)


def value_of(word: str) -> Any:
    """A number where the word is one (``1,234`` too), else the word itself."""
    number = number_of(word)
    if number is None or number != number or number in (float("inf"), float("-inf")):
        return word.strip()[:TEXT]
    return int(number) if number == int(number) and "." not in word else number


def number_of(word: Any) -> float | None:
    try:
        return float(str(word).replace(",", ""))
    except ValueError:
        return None


def _at_least(value: Any, least: float) -> bool:
    return isinstance(value, (int, float)) and value >= least


def sha256_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while True:
            block = stream.read(1 << 20)
            if not block:
                return digest.hexdigest()
            digest.update(block)


class Told:
    """The progress file; a row is written at most :data:`PER_SECOND` times a second, the last one always."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.seq = 0
        self._held: dict[str, Any] | None = None
        self._next = 0.0
        self._first: Any = None

    def row(self, row: dict[str, Any], now: float) -> None:
        if self._first is None or row["done"] < self._first[1]:
            self._first = (now, row["done"])
        began, start = self._first
        rate = (row["done"] - start) / (now - began) if now > began and row["done"] > start else None
        left = (row["total"] - row["done"]) / rate if rate and row["total"] is not None else None
        self._held = dict(row, rate=rate, eta_s=left)
        if now >= self._next:
            self.flush(now)

    def flush(self, now: float) -> None:
        if self._held is not None:
            self._append(self._held)
            self._held, self._next = None, now + 1.0 / PER_SECOND

    def result(self, value: dict[str, Any]) -> None:
        self.flush(0.0)
        self._append({"result": value})

    def _append(self, fields: dict[str, Any]) -> None:
        if not self.path:
            return
        self.seq += 1
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")  # noqa: UP017 (Python 3.9)
        with open(self.path, "ab") as stream:
            stream.write((json.dumps(dict(seq=self.seq, at=at, **fields)) + "\n").encode())


def follow(process: subprocess.Popen[bytes], reading: Reading, told: Told) -> int:
    """Copies a command's text through and reads it, until it has ended; returns how it ended."""
    assert process.stdout is not None
    source, left, end = process.stdout.fileno(), b"", float("inf")
    while time.monotonic() < end:
        if process.poll() is not None and end == float("inf"):
            end = time.monotonic() + DRAIN_S
        if not select.select([source], [], [], 0.2)[0]:
            if process.poll() is not None:
                break
            told.flush(time.monotonic())
            continue
        data = os.read(source, 1 << 16)
        if not data:
            break
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        *lines, left = re.split(rb"[\r\n]", left + data)
        if len(left) > 1 << 20:
            lines, left = [*lines, left], b""
        for line in lines:
            _take(line, reading, told)
    _take(left, reading, told)
    if left:
        sys.stdout.buffer.write(b"\n")  # what we say stands on a line of its own
    return process.wait()


def _take(line: bytes, reading: Reading, told: Told) -> None:
    row = reading.line(line.decode("utf-8", "replace"))
    if row is not None:
        told.row(row, time.monotonic())


def before(spec: dict[str, Any], here: str, cwd: str) -> str:
    """Why the command cannot be started; removes what an earlier attempt left of its outputs."""
    if not os.path.isdir(cwd):
        return "there is no checkout at " + cwd
    for name in spec.get("present") or ():
        if not os.path.exists(os.path.join(cwd, name)):
            return f"the checkout at {cwd} has no {name}"
    for name, wanted in (spec.get("inputs") or {}).items():
        path = os.path.join(here, name)
        if not os.path.isfile(path) or (wanted and sha256_of(path) != wanted):
            return f"its input {name} is not there as it was sent"
    if spec.get("fresh"):
        for name in spec.get("outputs") or ():
            path = os.path.join(here, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.exists(path):
                os.unlink(path)
    return ""


def after(spec: dict[str, Any], here: str, cwd: str, reading: Reading) -> str:
    """What a command that ended well and said so did not leave behind."""
    for name in spec.get("outputs") or ():
        path = os.path.join(here, name)
        if not os.path.isfile(path):
            return f"it ended with exit code 0 and left no {name}{reading.said()}"
        if not os.path.getsize(path):
            return f"it ended with exit code 0 and left an empty {name}{reading.said()}"
    for there, name in (spec.get("same") or {}).items():
        path = os.path.join(cwd, there)
        if not os.path.isfile(path) or sha256_of(path) != sha256_of(os.path.join(here, name)):
            return f"it ended with exit code 0, and {there} is not the model{reading.said()}"
    return ""


def say(text: str) -> None:
    sys.stdout.flush()
    sys.stdout.write("ringrift: {}\n".format(" ".join(text.split())))
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    spec = json.loads(os.environ.pop(READING, "{}"))
    here = os.getcwd()
    cwd = spec.get("cwd") or here
    problem = before(spec, here, cwd)
    if problem:
        say(problem)
        return NOT_STARTED
    reading, told = Reading(spec), Told(os.environ.get("RINGRIFT_PROGRESS"))
    environment = {name: value for name, value in os.environ.items() if name != "RINGRIFT_PROGRESS"}
    try:
        process = subprocess.Popen(
            argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        say(f"cannot run {argv[0]}: {error.strerror}")
        return NOT_STARTED
    code = follow(process, reading, told)
    told.flush(0.0)
    problem = reading.problem(code) or (after(spec, here, cwd, reading) if code == 0 else "")
    if problem:
        say(problem)
        return code if code > 0 else NO_EVIDENCE
    if code < 0:
        say(f"the command was ended by signal {-code}")
        return 128 - code
    if code == 0:
        told.result(reading.result())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
