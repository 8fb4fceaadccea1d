"""What an action is, and what its parameters are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import import_module
from typing import Any, Literal

from backend.snapshot import Snapshot


class Tier(IntEnum):
    """How much an action asks before it acts."""

    READ = 0  # changes nothing
    PLAN = 1  # a plan dialog, Cancel is the default
    NAMED = 2  # a plan dialog, answered by typing the object's name; a plan may ask for that by itself


Scope = Literal[
    "global", "move", "list", "pulse", "hosts", "jobs", "models", "elo", "transfers", "policies", "log"
]  # fmt: skip
"""Where a key holds: everywhere; wherever one moves about; on tables; on one screen."""


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of an action. A name that starts with ``--`` is an option, any other a positional argument."""

    name: str
    help: str
    type: Literal["str", "int", "float", "flag", "path"] = "str"
    default: Any = None
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    required: bool = False
    repeat: Literal["", "+", "*", "append"] = ""
    metavar: str | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """One thing an operator can do.

    Attributes:
        name: identity, dotted, e.g. ``jobs.cancel``.
        help: one line.
        label: the word in the footer; "…" at its end means that a dialog follows.
        verb: words on the command line, e.g. ``("jobs", "cancel")``; empty when it only makes sense on screen.
        run: CLI handler ``module:function`` with signature ``(args, paths) -> exit code``.
        plan: ``module:function``, async ``(paths, **params) -> Plan``.
        key: default key on the screens of ``scope``.
        available: reason why it cannot be done now on ``subject`` (a job id, a model label, a config key), or None.
    """

    name: str
    help: str
    label: str = ""
    verb: tuple[str, ...] = ()
    params: tuple[Param, ...] = ()
    run: str = ""
    plan: str = ""
    key: str = ""
    scope: Scope = "global"
    tier: Tier = Tier.READ
    footer: bool = True
    available: Callable[[Snapshot, str | None], str | None] = field(default=lambda snapshot, subject: None)


def load(reference: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
