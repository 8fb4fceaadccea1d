"""What a checkout of the reference installation is, seen on its host; run there as ``python3 -I - REQUEST``.

Standard library only, Python 3.8 on. The interpreter that runs this is the one that jobs will have. It changes nothing
and prints one line: :data:`MAGIC` and a JSON object with facts; what they mean is decided by who asked.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from typing import Any

MAGIC = "RINGRIFT-CHECKOUT"
HELP_S = 180.0
"""Importing torch from a cold disk takes most of a minute."""
GIT_S = 10.0
TAIL = 200


def look(request: dict[str, Any]) -> dict[str, Any]:
    """What can be told without running anything of it: ``{path, files: {kind: [names]}}``."""
    path = os.path.abspath(os.path.expanduser(request["path"]))
    there = os.path.isdir(path)
    missing = {
        kind: [name for name in names if not os.path.exists(os.path.join(path, name))]
        for kind, names in request["files"].items()
    }
    return {
        "path": path,
        "there": there,
        "python": sys.executable,
        "python_version": platform.python_version(),
        "revision": revision(path) if there else "",
        "missing": missing,
    }


def trial(request: dict[str, Any]) -> dict[str, Any]:
    """What its programs say of themselves: ``{..., imports: [names], helps: {kind: words}, flags: {kind: flags}}``."""
    answer = look(request)
    path = answer["path"]
    if not answer["there"]:
        return answer
    answer["imports"] = {name: imported(path, name) for name in request["imports"]}
    answer["helps"] = {
        kind: helped(path, words, request["flags"][kind])
        for kind, words in request["helps"].items()
        if not answer["missing"][kind]
    }
    return answer


def revision(path: str) -> str:
    """The commit of the checkout, or nothing where it is none."""
    try:
        done = run(path, ["git", "rev-parse", "--short=12", "HEAD"], GIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def imported(path: str, name: str) -> dict[str, str]:
    """The version of a module as the checkout's programs would import it, or why it cannot be imported."""
    code = "import importlib, sys; print(getattr(importlib.import_module(sys.argv[1]), '__version__', ''))"
    try:
        done = run(path, [sys.executable, "-c", code, name], HELP_S)
    except subprocess.TimeoutExpired:
        return {"error": f"it takes more than {HELP_S:.0f} s"}
    if done.returncode != 0:
        return {"error": last_line(done.stderr)}
    lines = done.stdout.split()
    return {"version": lines[-1] if lines else ""}


def helped(path: str, words: list[str], flags: list[str]) -> dict[str, Any]:
    """Which flags a program's ``--help`` does not name, and whether it takes words besides."""
    try:
        done = run(path, [sys.executable, *words, "--help"], HELP_S)
    except subprocess.TimeoutExpired:
        return {"error": f"its --help takes more than {HELP_S:.0f} s"}
    if done.returncode != 0:
        return {"error": last_line(done.stderr) or f"its --help ended with {done.returncode}"}
    text = done.stdout
    return {
        "lacks": [flag for flag in flags if not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text)],
        "words": re.search(r"^positional arguments:", text, re.MULTILINE) is not None,
    }


def run(path: str, argv: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """A program in the checkout."""
    return subprocess.run(
        argv, cwd=path, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False, text=True,
        errors="replace",
    )  # fmt: skip


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-TAIL:] if lines else ""


def main(argv: list[str]) -> int:
    """Prints what is asked for."""
    request = json.loads(argv[0])
    answer = trial(request) if request.get("helps") else look(request)
    sys.stdout.write("\n" + MAGIC + " " + json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
