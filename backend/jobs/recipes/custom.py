"""Kinds of jobs that an operator wrote down (:mod:`.toml_file`), from what a job carries to what is done.

A recipe is copied into each job that is submitted with it, so a job goes on as it was confirmed whatever becomes of
the file. Nothing of it is given to a shell: every word of ``argv`` stays one word, whatever is put into it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from backend.configs import parse_config
from backend.errors import SchemaError, UsageError
from backend.jobs.recipes.ai_service import read_argv, reader_input
from backend.jobs.recipes.base import AI_SERVICE, BUILTIN, Input, Output, Params, Recipe, never
from backend.paths import Paths

JSON = "json"
"""A ``result`` that is the last line that is a JSON object."""
_HOLE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Custom:
    """One recipe of the file.

    Attributes:
        argv, inputs, outputs: templates.
        params: words that a job may be given, with what they are otherwise; an empty one has to be given.
        progress: regular expressions with the groups ``done`` and perhaps ``total`` and ``message``.
        result: regular expressions whose named groups are the job's result, or ``("json",)``.
        unit: what is counted.
    """

    kind: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    repeatable: bool = False
    runtime: str = BUILTIN
    params: Mapping[str, str] = field(default_factory=dict)
    progress: tuple[str, ...] = ()
    result: tuple[str, ...] = ()
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """The recipe as a job carries it."""
        return asdict(self)

    def words(self, given: Mapping[str, str]) -> dict[str, str]:
        """What a job's words are, given those that an operator named.

        Raises:
            UsageError: one is unknown, or one is missing.
        """
        for name in given:
            if name not in self.params:
                hint = "it takes " + (" ".join(f"--{one}" for one in self.params) or "none")
                raise UsageError(f"{self.kind} jobs take no such option", where=f"--{name}", hint=hint)
        words = dict(self.params) | dict(given)
        missing = [f"--{name}" for name, value in words.items() if not value]
        if missing:
            raise UsageError(f"{self.kind} jobs need {' '.join(missing)}", where=self.kind)
        return words


def holes(word: str) -> list[str | None]:
    """The placeholders of a template; None for a brace that is neither one nor written twice."""
    return [match[1] for match in _HOLE.finditer(word) if match[0] not in ("{{", "}}")]


def filled(word: str, values: Mapping[str, str]) -> str:
    """A template with its placeholders filled."""
    return _HOLE.sub(lambda match: {"{{": "{", "}}": "}"}.get(match[0]) or values[match[1]], word)


def is_inside(name: str) -> bool:
    """Whether a name stays in the folder that it is relative to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) != "."


def recipe_from(kind: str, value: Any) -> Recipe:
    """The recipe that a job carries.

    Raises:
        SchemaError: this is none.
    """
    try:
        lists = {name: tuple(value[name]) for name in ("argv", "inputs", "outputs", "progress", "result")}
        made = Custom(**(dict(value) | lists))
    except (TypeError, KeyError) as error:
        raise SchemaError("the job's recipe cannot be understood", where=kind, hint=str(error)) from None
    away = made.runtime == AI_SERVICE

    def words(config: str, params: Params, **more: str) -> dict[str, str]:
        about = parse_config(config)
        given = {"config": config, "board": about.board, "players": str(about.players)}
        return dict(params.get("words") or {}) | given | more

    def names(templates: tuple[str, ...], config: str, params: Params) -> list[str]:
        found = [filled(one, words(config, params)) for one in templates]
        for name in found:
            if not is_inside(name):
                raise UsageError(f"the file of a {kind} job does not lie in the root", where=name)
        return found

    def argv(paths: Paths, config: str, params: Params) -> list[str]:
        values = words(config, params, python=sys.executable, root=str(paths.root))
        command = [filled(word, values) for word in made.argv]
        return read_argv(paths, *command)[:3] + command if away else [
            sys.executable, "-m", "backend.jobs.reader", *command,
        ]  # fmt: skip

    def inputs(paths: Paths, config: str, params: Params) -> tuple[Input, ...]:
        found = tuple(Input(paths.root / name, name) for name in names(made.inputs, config, params))
        return (reader_input(), *found) if away else found

    def outputs(config: str, params: Params) -> tuple[Output, ...]:
        return tuple(Output(name) for name in names(made.outputs, config, params))

    def reading(paths: Paths, config: str, params: Params) -> dict[str, Any]:
        facts = [one for one in made.result if one != JSON]
        return {
            "unit": made.unit, "progress": list(made.progress), "facts": facts, "json": JSON in made.result,
            "need": sorted({name for one in facts for name in re.compile(one).groupindex}),
            "outputs": names(made.outputs, config, params),
            "result": {"runtime": made.runtime} if away else {},
        }  # fmt: skip

    return Recipe(
        kind, "x", made.repeatable, argv, never, inputs=inputs, outputs=outputs, merge="files", reading=reading
    )
