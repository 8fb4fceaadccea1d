"""How a kind of job becomes a command, and whether its output is there already.

The kinds of this program are in :mod:`.builtin`, those that the reference installation's checkout runs in
:mod:`.ai_service`, and those that an operator wrote down in :mod:`.custom`
(read by :mod:`.toml_file`). Which one a job means stands in its
parameters, so that a job goes on as it was confirmed whatever happens to the files it came from.
"""

from __future__ import annotations

import sys
from types import MappingProxyType

from backend.configs import Config
from backend.errors import NotFoundError, RingRiftError, SchemaError
from backend.jobs.recipes.ai_service import AI_SERVICE_RECIPES
from backend.jobs.recipes.base import (
    AI_SERVICE,
    BUILTIN,
    RUNTIMES,
    Input,
    Output,
    Params,
    Recipe,
    environment,
)
from backend.jobs.recipes.builtin import BUILTIN_RECIPES
from backend.jobs.recipes.custom import Custom, recipe_from
from backend.jobs.recipes.toml_file import load_recipes
from backend.paths import Paths

__all__ = [
    "AI_SERVICE", "BUILTIN", "RECIPES", "RUNTIMES", "Custom", "Input", "Output", "Params", "Recipe",
    "environment", "load_recipes", "no_command", "recipe_of", "satisfied", "title_of",
]  # fmt: skip

RECIPES = BUILTIN_RECIPES
"""The kinds of this program, by name."""

_AI_SERVICE = {**AI_SERVICE_RECIPES, "command": BUILTIN_RECIPES["command"]}  # a command is the same everywhere
_NOTHING: Params = MappingProxyType({})


def recipe_of(kind: str, params: Params = _NOTHING) -> Recipe:
    """The recipe of a kind, as the job's parameters mean it.

    Raises:
        SchemaError: nobody here knows it.
    """
    if "recipe" in params:
        return recipe_from(kind, params["recipe"])
    runtime = params.get("runtime") or BUILTIN
    recipe = (_AI_SERVICE if runtime == AI_SERVICE else BUILTIN_RECIPES).get(kind)
    if recipe is None:
        what = "unknown kind of job" if runtime == BUILTIN else f"unknown kind of job for runtime {runtime}"
        raise SchemaError(what, where=kind, hint="a newer program made it")
    return recipe


def no_command(runtime: str) -> dict[str, str]:
    """Kinds of this program that a runtime has no command for, and what is said of them."""
    if runtime != AI_SERVICE:
        return {}
    why = f"the documentation of {runtime} gives no command for"
    return {kind: f"{why} {kind} jobs" for kind in BUILTIN_RECIPES if kind not in _AI_SERVICE}


def satisfied(paths: Paths, kind: str, config: str, params: Params) -> str | None:
    """Why the output of such a job counts as there and valid, or None.

    What cannot be read is not there: the job itself will say what is wrong with it.
    """
    try:
        return recipe_of(kind, params).satisfied(paths, config, params)
    except NotFoundError:
        return None
    except RingRiftError as error:
        sys.stderr.write(f"{kind} {config}: {error.line()}\n")
        return None


def title_of(kind: str, config: Config | str) -> str:
    """How a job is called, e.g. ``train hex8_2p``."""
    return f"{kind} {config}"
