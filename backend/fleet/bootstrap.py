"""Sets a host up: checks it, ships the code by its hash, makes an environment, tests it, and records what is there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from backend.errors import RefusedError, ResourceError, RingRiftError
from backend.fleet import bootstrap_host
from backend.fleet.bundle import OPTIONAL, Bundle, make_bundle, pins
from backend.fleet.doctor import findings, packages_for
from backend.fleet.hosts import Host
from backend.fleet.probe import Report, expand_home, probe, python_of
from backend.fleet.remote import Ended, Remote
from backend.fleet.shared_root import check_shared_root
from backend.paths import Paths

STEP_S = 120.0
PIP_S = 1800.0
"""torch for GPUs is several gigabytes."""
SELFTEST_S = 600.0
"""Compiling the rules takes about a minute on one core, once for each version of the code."""
TAIL = 300
MODULES = ("numpy", "numba", "yaml", "aiosqlite", "psutil", "torch")
"""What a host's interpreter has to be able to import."""
TOLD = 5
"""Steps that :func:`bootstrap` tells of."""
BUNDLES = "bundles"
"""The folder of packed code, under ``Paths.console``."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What runs our code on a host.

    Attributes:
        python: the interpreter; its path names the hash of the code, so it never runs another.
        bundle: SHA-256 of the code.
        root: the folder under which jobs have theirs.
        versions: of Python and the packages there, None of an optional one that it cannot import, and the number of
            CUDA devices.
        made: whether anything had to be made.
        removed: folders of earlier versions that were removed.
    """

    python: str
    bundle: str
    root: str
    versions: dict[str, Any]
    made: bool
    removed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "python": self.python,
            "bundle": self.bundle,
            "root": self.root,
            "versions": self.versions,
            "at": time.time(),
        }


def preflight(host: Host, report: Report) -> None:
    """Refuses a host that cannot run our code.

    Raises:
        RefusedError: with the first thing that is wrong, and what mends it.
    """
    for finding in findings((report.facts or {}) | {"packages": host.packages}, report.sample):
        if finding.level == "error":
            raise RefusedError(finding.text, where=host.name, hint=finding.mend)


async def bootstrap(
    remote: Remote,
    host: Host,
    paths: Paths,
    *,
    owner: str = "",
    keep: Collection[str] = (),
    tell: Callable[[str], Awaitable[None]] | None = None,
    selftest: bool = True,
) -> tuple[Setup, Report]:
    """Sets a host up, or finds that it is; may be run again at any time and goes on where it stopped.

    Args:
        owner: names the root towards the host.
        keep: SHA-256 of code there that must stay, because attempts of the root may still run it.
        tell: gets a line at the begin of each of :data:`TOLD` steps.
        selftest: also let the host play a few games by the rules, which compiles them there.

    Raises:
        RefusedError: the host cannot run our code; nothing was changed there.
        ResourceError: its disk is full.
        RingRiftError: a step failed, or the host cannot be reached.
    """
    tell = tell or _to_nobody
    await tell("looking at the host")
    await check_shared_root(remote, host)
    report = await probe(remote, host)
    assert report.facts is not None
    preflight(host, report)
    folder = str(report.facts["folder"])
    bundle = await asyncio.to_thread(make_bundle, paths.console / BUNDLES)
    python = expand_home(python_of(host))
    given = python != ["python3"]
    await tell("checking the packages" if given else "making the environment (the first time takes minutes)")
    facts = report.facts | {"packages": host.packages}
    index = host.settings.get("torch_cpu_index") if packages_for(facts, report.sample) == "cpu" else None
    wanted: dict[str, Any] = {"folder": folder, "given": given, "pins": list(pins()), "index": index}
    wanted["optional"] = list(pins(OPTIONAL))
    packages = await _step(remote, host, python, "environment", wanted, PIP_S)
    await tell(f"sending the code {bundle.sha256[:12]}")
    placed = await _place(remote, host, python, folder, bundle, packages)
    await tell("testing it")
    hint = "install it there" if given else "remove the folder venvs there and bootstrap again"
    request = {"folder": folder, "sha256": bundle.sha256, "hint": hint, "modules": list(MODULES)}
    request["optional"] = list(OPTIONAL)
    versions = await _step(remote, host, [placed["python"]], "check", request, STEP_S)
    if selftest:
        await _play(remote, host, placed["python"], folder)
    made = bool(packages["made"] or placed["made"])
    await tell("removing code that nobody uses any more")
    request = {"folder": folder, "owner": owner, "sha256": bundle.sha256, "keep": sorted(keep)}
    removed = (await _step(remote, host, python, "prune", request, STEP_S))["removed"]
    return Setup(str(placed["python"]), bundle.sha256, folder, versions, made, tuple(removed)), report


async def _to_nobody(line: str) -> None:
    return None


async def _place(
    remote: Remote, host: Host, python: list[str], folder: str, bundle: Bundle, packages: dict[str, Any]
) -> dict[str, Any]:
    """Unpacks the code there; sends it first when it is not there."""
    request = {"folder": folder, "sha256": bundle.sha256, "key": packages["key"], "sites": packages["sites"]}
    there = await remote.exec(host, ["test", "-e", f"{folder}/bundles/{bundle.sha256}/.complete"], timeout_s=STEP_S)
    if there.code != 0:
        await remote.put(host, bundle.path, f"{folder}/incoming/{bundle.sha256}.tar.gz", sha256=bundle.sha256)
    return await _step(remote, host, python, "unpack", request, STEP_S)


async def _play(remote: Remote, host: Host, python: str, folder: str) -> None:
    """Lets the host play by the rules for a moment."""
    argv = [python, "-m", "ringrift_console.cli", "rules", "bench", "--config", "square8_2p", "--seconds", "0.1"]
    done = await remote.exec(host, [*argv, "--json", "--root", f"{folder}/selftest"], timeout_s=SELFTEST_S)
    try:
        text = done.stdout.decode("utf-8", "replace")
        rates = json.loads(text[text.index("[") :])
        good = done.code == 0 and rates[0]["decisions_per_s"] > 0
    except (ValueError, KeyError, IndexError, TypeError):
        good = False
    if not good:
        raise RingRiftError("the self-test failed", where=host.name, hint=_last_words(done))


@cache
def _script() -> bytes:
    return Path(bootstrap_host.__file__).read_bytes()


async def _step(
    remote: Remote, host: Host, python: list[str], step: str, request: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    argv = [*python, "-I", "-", step, json.dumps(request)]
    done = await remote.exec(host, argv, stdin=_script(), timeout_s=timeout_s)
    mark = bootstrap_host.MAGIC.encode() + b" "
    line = next((line for line in reversed(done.stdout.splitlines()) if line.startswith(mark)), None)
    if line is None:
        raise RingRiftError(f"the step '{step}' broke off", where=host.name, hint=_last_words(done))
    answer = json.loads(line.removeprefix(mark))
    if "ok" in answer:
        return dict(answer["ok"])
    error = answer["error"]
    if error["kind"] == "full":
        raise ResourceError("the disk is full", where=host.name, hint="free some space and bootstrap again")
    raise RingRiftError(str(error["text"]), where=host.name, hint=str(error["hint"]))


def _last_words(done: Ended) -> str:
    words = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())
    how = f"signal {done.signal}" if done.signal else f"exit code {done.code}"
    return f"{how}: {words[-TAIL:]}" if words else how
