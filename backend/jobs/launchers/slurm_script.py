"""Batch scripts: from what is to run to the text that ``sbatch`` gets; pure.

The payload of every task is the agent's ``run KEY``, so a task that Slurm starts twice runs its command once. ``exec
srun`` stands last, for the exit code of a batch job is that of its last line.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.fleet.pools import Pool
from backend.jobs.agent import KEY

PREFIX = "ringrift-"
"""What the names of our jobs begin with, whatever root they belong to."""
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]+")
MAX_ARRAY = 1000
"""Elements of one array; Slurm's own limit, ``MaxArraySize``, is 1001 unless an administrator has changed it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one attempt asks of the scheduler; those with an equal one may share an array.

    Attributes:
        gpus: for each task; None for what the pool gives.
        kind: of job.
        gang: keys of the members that run as one job, one on each node; empty for a job by itself.
        port: where the members of a gang meet, on the first one's node.
    """

    kind: str = ""
    gpus: int = 0
    gang: tuple[str, ...] = ()
    port: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Request:
        """From ``AttemptSpec.engine``."""
        return cls(
            str(value.get("kind", "")), int(value.get("gpus", 0)), tuple(value.get("gang", ())),
            int(value.get("port", 0)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    """One submission: a job, an array of them, or a gang.

    Attributes:
        owner: names the root that the attempts belong to.
        keys: of the attempts, in the order of the elements or members.
        tries: how often the first of them was submitted, this time included.
    """

    owner: str
    shape: Literal["one", "array", "gang"]
    keys: tuple[str, ...]
    request: Request = field(default_factory=Request)
    tries: int = 1

    @property
    def name(self) -> str:
        """The job's name, by which it is found again; the same only for the same submission.

        Every root has an attempt ``s1.1``, and several may use one login.
        """
        if len(self.keys) == 1:
            more = ""
        else:
            more = f"+{len(self.keys) - 1}.{hashlib.sha256(' '.join(self.keys).encode()).hexdigest()[:8]}"
        again = f"_t{self.tries}" if self.tries > 1 else ""
        root = hashlib.sha256(self.owner.encode()).hexdigest()[:8]
        return f"{PREFIX}{root}-{self.keys[0]}{more}{again}"

    def out(self, number: int) -> str:
        """The file, in the agent's folder ``engine``, that has what Slurm says about an element."""
        return f"{self.name}.{number}.out" if self.shape == "array" else f"{self.name}.out"

    def notes(self, job: str = "") -> dict[str, dict[str, Any]]:
        """``engine.json`` of each attempt; ``job`` is Slurm's number, for people to read."""
        return {
            key: {
                "name": self.name, "number": number if self.shape == "array" else None, "out": self.out(number),
                "tries": self.tries, "job": job, "shape": self.shape,
            }
            for number, key in enumerate(self.keys)
        }  # fmt: skip


def batches(wanted: Mapping[str, tuple[Request, int]], owner: str) -> list[Batch]:
    """Attempts by what they ask for: a gang as one job, those that ask the same as arrays.

    Args:
        wanted: by key, what it asks for and how often it was submitted before. Of a gang, all members or none.
    """
    found: list[Batch] = []
    alike: dict[tuple[Request, int], list[str]] = {}
    for key, (request, tries) in wanted.items():
        if request.gang:
            if key == request.gang[0]:
                most = max(wanted[one][1] for one in request.gang)
                found.append(Batch(owner, "gang", request.gang, request, most + 1))
        else:
            alike.setdefault((request, tries), []).append(key)
    for (request, tries), keys in alike.items():
        for first in range(0, len(keys), MAX_ARRAY):
            some = tuple(keys[first : first + MAX_ARRAY])
            found.append(Batch(owner, "array" if len(some) > 1 else "one", some, request, tries + 1))
    return found


def script(pool: Pool, batch: Batch, python: str, agent: str) -> str:
    """The text of a batch script.

    Args:
        python: the interpreter that the nodes have for the agent.
        agent: the agent's file, where the nodes see it.
    """
    if not all(KEY.match(key) for key in batch.keys) or not batch.keys:
        raise ValueError(f"not attempt keys: {batch.keys}")
    # Since 22.05 a step does not take this over from its job.
    cpus = "".join(f" {flag}={_word(value)}" for flag, value in pool.options if flag == "--cpus-per-task")
    run = f"{_word(python)} -I -S {_word(agent)} --root {_word(pool.agent)} run"
    choice = "\n".join(f"{number}) key={key} ;;" for number, key in enumerate(batch.keys))
    if batch.shape == "gang":
        count = len(batch.keys)
        inner = (
            f'case "$SLURM_PROCID" in\n{choice}\n*) exit 125 ;;\nesac\n'
            f'export PET_RDZV_ENDPOINT="$SLURM_LAUNCH_NODE_IPADDR:{batch.request.port}"\nexec {run} "$key"\n'
        )
        srun = f"exec srun --nodes={count} --ntasks={count} --ntasks-per-node=1 --kill-on-bad-exit=1{cpus}"
        body = f"{srun} /bin/sh -c {shlex.quote(inner)}"
    elif batch.shape == "array":
        select = f'case "$SLURM_ARRAY_TASK_ID" in\n{choice}\n*) exit 125 ;;\nesac\n'
        body = f'{select}exec srun --nodes=1 --ntasks=1{cpus} {run} "$key"'
    else:
        body = f"exec srun --nodes=1 --ntasks=1{cpus} {run} {batch.keys[0]}"
    lines = [f"#SBATCH {flag}={_option(value)}" for flag, value in _options(pool, batch)]
    return "\n".join(["#!/bin/sh", *lines, "#SBATCH --no-requeue", "#SBATCH --open-mode=append", "", body, ""])


def _options(pool: Pool, batch: Batch) -> list[tuple[str, str]]:
    gres = pool.gres_of(batch.request.gpus)
    where = "%a" if batch.shape == "array" else ""
    name = f"{batch.name}.{where}.out" if where else f"{batch.name}.out"
    comment = f"ringrift:{batch.owner}:{batch.keys[0]}:{len(batch.keys)}"
    return [
        ("--job-name", batch.name),
        ("--comment", comment),
        *([("--array", f"0-{len(batch.keys) - 1}")] if batch.shape == "array" else []),
        *([("--nodes", str(len(batch.keys))), ("--ntasks-per-node", "1")] if batch.shape == "gang" else
          [("--nodes", "1"), ("--ntasks", "1")]),
        *pool.options,
        *([("--gres", gres)] if gres else []),
        ("--chdir", pool.shared_root),
        ("--output", f"{pool.agent}/engine/{name}"),
    ]  # fmt: skip


def _word(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else shlex.quote(value)


def _option(value: str) -> str:
    """A value within a line of options: no line break gets in, and quotes are those that Slurm reads."""
    if "\n" in value or '"' in value or "\r" in value:
        raise ValueError(f"not an option's value: {value!r}")
    return value if re.fullmatch(r"[^\s'#\\]+", value) else f'"{value}"'
