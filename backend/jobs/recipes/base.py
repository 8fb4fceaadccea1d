"""What a recipe is: how a kind of job becomes a command, and which files go there and come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backend
from backend.paths import Paths

Params = Mapping[str, Any]

BUILTIN = "builtin"
AI_SERVICE = "ai-service"
RUNTIMES = (BUILTIN, AI_SERVICE)
"""What a host may run, as ``runtime`` of the hosts file: this program, or a checkout of the reference installation."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file that an attempt on another host needs: where it lies here, and under which name it is found there.

    ``kind`` is ``file`` or ``sqlite``; of a database, a copy of one moment is sent.
    """

    path: Path
    name: str
    kind: str = "file"


@dataclass(frozen=True, slots=True)
class Output:
    """A file that an attempt leaves in its root; without one that is not ``optional`` it has failed."""

    name: str
    kind: str = "file"
    optional: bool = False


def _no_inputs(paths: Paths, config: str, params: Params) -> tuple[Input, ...]:
    return ()


def _no_outputs(config: str, params: Params) -> tuple[Output, ...]:
    return ()


def _as_here(paths: Paths, config: str, params: Params) -> Params:
    return params


def _not_read(paths: Paths, config: str, params: Params) -> None:
    return None


def never(paths: Paths, config: str, params: Params) -> None:
    """A command that has to run whatever is there already."""
    return None


@dataclass(frozen=True, slots=True)
class Recipe:
    """One kind of job.

    Attributes:
        letter: starts the ids of its jobs.
        repeatable: an attempt whose outcome nobody knows may be followed by another, because the command goes on
            where it was stopped and makes nothing twice.
        argv: the command, from the root, the config key and the job's parameters.
        satisfied: why the output counts as there and valid, or None when the command has to run.
        completed: type of the event of its success.
        inputs, outputs: files of an attempt that runs in a root of its own, on this or another host.
        away: the parameters of such an attempt, given those of the job.
        merge: what takes its outputs into the root, a name in :data:`backend.jobs.merge.MERGES`; the kind's by default.
        reading: how :mod:`backend.jobs.reader` has to read the command's text, given the root it runs in; None for a
            command that tells its progress itself.
    """

    kind: str
    letter: str
    repeatable: bool
    argv: Callable[[Paths, str, Params], list[str]]
    satisfied: Callable[[Paths, str, Params], str | None]
    completed: str = "JOB_COMPLETED"
    inputs: Callable[[Paths, str, Params], tuple[Input, ...]] = _no_inputs
    outputs: Callable[[str, Params], tuple[Output, ...]] = _no_outputs
    away: Callable[[Paths, str, Params], Params] = _as_here
    merge: str = ""
    reading: Callable[[Paths, str, Params], dict[str, Any] | None] = _not_read


def environment() -> dict[str, str]:
    """What a job's environment needs besides the supervisor's: the place this program was imported from."""
    return {"PYTHONPATH": str(Path(backend.__file__).parents[1])}


def away_name(save: str) -> str:
    """A name for a checkpoint in another root: its own, unless it lies outside of this one."""
    return f"models/candidates/{Path(save).name}" if Path(save).is_absolute() else str(save)
