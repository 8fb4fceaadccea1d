"""Inputs to a host before an attempt starts, outputs from it before the job counts as done; everything by SHA-256.

A staged attempt runs in a root of its own on the host, ``<host root>/work/<owner>/<job>``. Every step may be repeated:
what is there with the right hash is not sent again, what was merged is not merged twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from backend.databases import open_reader, sqlite_errors
from backend.errors import Exit, NotFoundError, ResourceError, RingRiftError, UnverifiedError, UsageError
from backend.fleet.hosts import Host
from backend.fleet.remote import Remote, ThisMachine
from backend.fleet.shared_root import check_shared_root
from backend.jobs import onhost
from backend.jobs.reader import READING
from backend.jobs.recipes import AI_SERVICE, Input, environment, recipe_of
from backend.paths import Paths
from backend.registry.hashing import sha256_file

STEP_S = 600.0
NO_SPACE = (28, 122)  # ENOSPC, EDQUOT
FINAL = (NotFoundError, ResourceError, UsageError)
"""Errors of sending that another try does not mend."""


class Transfer(Remote, Protocol):
    """The way to a host with files in both directions."""

    async def get(self, host: Host, remote: str, local: Path, *, sha256: str | None) -> object:
        """Fetches a file, whole and verified or not at all."""
        ...


class LocalTransfer(ThisMachine):
    """This machine as one end and the other."""

    async def get(self, host: Host, remote: str, local: Path, *, sha256: str | None) -> None:
        """Copies a file and verifies the copy."""
        local.parent.mkdir(parents=True, exist_ok=True)
        if sha256 is None:
            sha256 = await asyncio.to_thread(sha256_file, Path(remote))
        await self.put(host, Path(remote), str(local), sha256=sha256)


@dataclass(frozen=True, slots=True)
class Site:
    """Where staged attempts run on one host.

    Attributes:
        python: the interpreter that has this program, or what another runtime needs.
        root: an absolute folder for their roots.
        checkout: where the host's own checkout of another runtime lies.
    """

    host: Host
    transfer: Transfer
    python: str
    root: str
    checkout: str | None = None

    def folder(self, owner: str, job: str) -> str:
        """The root of a job's attempts there; a second attempt goes on with what the first left."""
        return f"{self.root}/work/{owner}/{job}"

    def kept(self, owner: str) -> str:
        """Where the host keeps, by their SHA-256, the files that were distributed to it."""
        return f"{self.root}/.distribution/{owner}/store"

    async def ask(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Runs one operation of :mod:`backend.jobs.onhost` there.

        Raises:
            ResourceError: the disk there is full.
            RootMissing: the folder that a pool's nodes share is not there.
            RingRiftError: it did not work, or the host cannot be asked.
        """
        await check_shared_root(self.transfer, self.host)
        program = await asyncio.to_thread(Path(onhost.__file__).read_bytes)
        argv = [self.python, "-I", "-", operation, json.dumps(dict(request))]
        done = await self.transfer.exec(self.host, argv, stdin=program, timeout_s=STEP_S)
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        line = next((line for line in lines if line.startswith(onhost.MARK)), None)
        if line is None:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise RingRiftError(
                f"{operation} ended with {done.code if done.code is not None else done.signal}",
                where=self.host.name,
                hint=said[-1] if said else "it said nothing",
            )
        answer: dict[str, Any] = json.loads(line.removeprefix(onhost.MARK))
        if "error" in answer:
            kind = ResourceError if answer.get("errno") in NO_SPACE else RingRiftError
            raise kind(str(answer["error"]), where=self.host.name)
        return answer


def staged_argv(paths: Paths, kind: str, config: str, params: Mapping[str, Any], python: str, folder: str) -> list[str]:
    """The command of a staged attempt: that of its recipe, in a root of its own and with the host's interpreter."""
    recipe = recipe_of(kind, params)
    argv = recipe.argv(Paths(Path(folder)), config, recipe.away(paths, config, params))
    return [python if word == sys.executable else word for word in argv]


def reading_env(
    root: Path, kind: str, config: str, params: Mapping[str, Any], checkout: str | None = None
) -> dict[str, str]:
    """What the environment of an attempt tells the reader of its text, where it needs one.

    Args:
        root: the one it runs in.
        checkout: where commands of another runtime run.
    """
    spec = recipe_of(kind, params).reading(Paths(root), config, params)
    if spec is None:
        return {}
    return {READING: json.dumps(spec | ({"cwd": checkout} if params.get("runtime") == AI_SERVICE else {}))}


async def push(
    site: Site, paths: Paths, owner: str, job: str, kind: str, config: str, params: Mapping[str, Any]
) -> dict[str, str]:
    """Brings an attempt's inputs to its host and makes its folder; harmless when they are there.

    Returns:
        The SHA-256 of each input by its name there, as this machine and the host have both computed it.

    Raises:
        NotFoundError: an input is not here.
        ResourceError: a disk is full.
        RingRiftError: it did not come through this time.
    """
    recipe = recipe_of(kind, params)
    inputs = recipe.inputs(paths, config, params)
    folder = site.folder(owner, job)
    held = paths.console / "staging" / job
    files = await asyncio.to_thread(_gather, inputs, held)
    request = {
        "root": folder,
        "owner": owner,
        "files": {name: sha256 for name, (_, sha256) in files.items()},
        "kept": site.kept(owner),
        "folders": [str(Path(out.name).parent) for out in recipe.outputs(config, params) if "/" in out.name],
    }
    answer = await site.ask("prepare", request)
    for name in answer["missing"]:
        source, sha256 = files[name]
        await site.transfer.put(site.host, source, f"{answer['root']}/{name}", sha256=sha256)
    if answer["missing"]:
        left = (await site.ask("prepare", request))["missing"]
        if left:
            raise UnverifiedError(
                "inputs did not arrive as they were sent", where=f"{site.host.name}: {' '.join(left)}"
            )
    return {name: sha256 for name, (_, sha256) in files.items()}


def _gather(inputs: Sequence[Input], held: Path) -> dict[str, tuple[Path, str]]:
    """Name there -> file here and its SHA-256; of a live database, a copy of this moment."""
    files = {}
    for one in inputs:
        if not one.path.is_file():
            hint = "make it, then ringrift jobs retry"
            raise NotFoundError("an input is not there", where=str(one.path), hint=hint)
        source = one.path
        if one.kind == "sqlite":
            held.mkdir(parents=True, exist_ok=True)
            source = _snapshot(one.path, held / one.path.name)
        files[one.name] = (source, sha256_file(source))
    return files


def _snapshot(path: Path, target: Path) -> Path:
    reader = open_reader(path)
    try:
        with sqlite_errors(path):
            target.unlink(missing_ok=True)
            copy = sqlite3.connect(target)
            try:
                reader.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
            finally:
                copy.close()
    finally:
        reader.close()
    return target


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of an attempt's outputs: the job's result, or why they cannot be used."""

    result: dict[str, Any] | None
    failure: str = ""


async def collect(
    site: Site, paths: Paths, owner: str, job: str, key: str, kind: str, config: str, params: Mapping[str, Any],
    reported: Mapping[str, Any], turn: asyncio.Lock,
) -> Collected:  # fmt: skip
    """Fetches an ended attempt's outputs, verifies them here and merges them into the root.

    Args:
        reported: the result as the attempt told it.
        turn: held while merging, so that shards that end together do not find the files of the root locked.

    Raises:
        RingRiftError: it did not come through this time; the outputs are still there.
    """
    recipe = recipe_of(kind, params)
    outputs = recipe.outputs(config, params)
    if not outputs and not recipe.merge:  # what it told is all there is, and it is ours
        return Collected(dict(reported) | {"host": site.host.name, "collected": {}})
    folder = site.folder(owner, job)
    held = paths.console / "staging" / key
    sealed = await site.ask("seal", {"root": folder, "outputs": {out.name: out.kind for out in outputs}})
    missing = [out.name for out in outputs if out.name in sealed["missing"] and not out.optional]
    if missing:
        return Collected(None, f"it ended well and left no {' '.join(missing)}")
    for name, about in sealed["files"].items():
        local = held / name
        if await asyncio.to_thread(_has, local, str(about["sha256"])):
            continue
        local.parent.mkdir(parents=True, exist_ok=True)
        await site.transfer.get(site.host, str(about["path"]), local, sha256=str(about["sha256"]))
        if not await asyncio.to_thread(_has, local, str(about["sha256"])):
            raise UnverifiedError("an output did not arrive as it was sent", where=f"{site.host.name}: {name}")
    async with turn:
        merged = await merge_outputs(paths, kind, config, params, held, reported)
    if not merged.failure:
        files = {name: about["sha256"] for name, about in sealed["files"].items()}
        merged = Collected((merged.result or {}) | {"host": site.host.name, "collected": files})
    return merged


def _has(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


async def clean(site: Site, paths: Paths, owner: str, job: str, key: str) -> None:
    """Removes what staging keeps of a job that is over, there and here."""
    for name in (job, key):
        await asyncio.to_thread(shutil.rmtree, paths.console / "staging" / name, ignore_errors=True)
    await site.ask("clean", {"root": site.folder(owner, job), "owner": owner})


async def merge_outputs(
    paths: Paths, kind: str, config: str, params: Mapping[str, Any], folder: Path, reported: Mapping[str, Any]
) -> Collected:
    """:mod:`backend.jobs.merge` in a process of its own: it needs NumPy or PyTorch, and seconds.

    Raises:
        RingRiftError: something holds the root's files now; try again.
    """
    request = {"config": config, "params": dict(params), "reported": dict(reported)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "backend.jobs.merge", str(paths.root), kind, str(folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ) | environment(),
    )  # fmt: skip
    try:
        out, _ = await process.communicate(json.dumps(request).encode())
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode != 0:
        raise RingRiftError(f"the merge ended with {process.returncode}", where=kind, hint="see the supervisor's log")
    answer = json.loads(out)
    if "error" not in answer:
        return Collected(answer["result"])
    if answer["exit"] in (Exit.LOCKED, Exit.RESOURCE):
        raise RingRiftError(str(answer["error"]))
    return Collected(None, f"its outputs cannot be used: {answer['error']}")
