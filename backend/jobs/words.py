"""From the words that an operator typed behind ``--`` to the parameters of a job, for every kind there is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.configs import Config
from backend.errors import NotFoundError, UsageError
from backend.jobs.pipelines import DEFAULT_EPOCHS, DEFAULT_GAMES, DEFAULT_GAUNTLET_GAMES
from backend.jobs.recipes import AI_SERVICE, BUILTIN, Custom, no_command, recipe_of
from backend.jobs.recipes.ai_service import made_here
from backend.paths import Paths
from backend.registry.hashing import sha256_file


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


@dataclass(frozen=True, slots=True)
class Taken:
    """What may stand behind ``--`` for one kind.

    Attributes:
        options: that become parameters of the job: name, parameter and what its value is.
        passed: that are handed to the command as they are.
        words: how many words without an option there have to be.
    """

    options: Mapping[str, tuple[str, Callable[[str], Any]]]
    passed: Mapping[str, Callable[[str], Any]]
    words: int = 0


KINDS: dict[str, Taken] = {
    "selfplay": Taken(
        {"--games": ("games", _count), "--seed": ("seed", _seed)}, {"--players": str, "--workers": _count}
    ),
    "export": Taken({}, {"--validation": float, "--max-games": _count}),
    "train": Taken(
        {"--epochs": ("epochs", _count), "--seed": ("seed", _seed), "--save-path": ("save", str)},
        {
            "--batch-size": _count, "--lr": float, "--blocks": _count, "--channels": _count, "--device": str,
            "--init-weights": str,
        },
    ),
    "gauntlet": Taken(
        {"--games": ("games", _count), "--seed": ("seed", _seed)},
        {"--simulations": _seed, "--opponents": str, "--workers": _count},
        words=1,
    ),
}  # fmt: skip
"""Kinds that take options of their own; a ``command`` takes all its words as they are."""

AI_SERVICE_KINDS: dict[str, Taken] = {
    "export": Taken(
        {},
        {
            "--max-games": _count, "--max-samples": _count, "--min-moves": _count, "--max-moves": _count,
            "--sample-every": _count, "--min-quality": float, "--encoder-version": str, "--quality-tier": str,
        },
    ),
    "train": Taken(
        {"--epochs": ("epochs", _count), "--data-path": ("data", str)},
        {
            "--batch-size": _count, "--learning-rate": float, "--model-version": str, "--model-type": str,
            "--memory-tier": str, "--dropout": float, "--early-stopping-patience": _count,
        },
    ),
    "gauntlet": Taken({"--games": ("games", _count)}, {}, words=1),
    "promote": Taken({"--games": ("games", _count)}, {}, words=1),
}  # fmt: skip
"""The same for ``runtime: ai-service``: flags that its documentation has, and no switch that loosens a check."""


def read_words(kind: str, words: Sequence[str], kinds: Mapping[str, Taken] = KINDS) -> dict[str, Any]:
    """The parameters of a job that its words mean; ``options`` holds those for the command itself.

    Raises:
        UsageError: an option is unknown for this kind, lacks its value or has a bad one.
    """
    taken = kinds[kind]
    params: dict[str, Any] = {}
    passed: list[str] = []
    plain: list[str] = []
    rest = list(words)
    while rest:
        word, _, joined = rest.pop(0).partition("=")
        if not word.startswith("-"):
            plain.append(f"{word}={joined}" if joined else word)
            continue
        known = [*taken.options, *taken.passed]
        if word not in known:
            raise UsageError(f"{kind} jobs take no such option", where=word, hint="they take " + " ".join(known))
        if not joined and not rest:
            raise UsageError("the option lacks its value", where=word)
        text = joined or rest.pop(0)
        name, check = taken.options.get(word) or ("", taken.passed.get(word, str))
        try:
            value = check(text)
        except ValueError:
            raise UsageError("not a value that the option takes", where=f"{word} {text}") from None
        if name:
            params[name] = value
        else:
            passed += [word, text]
    if len(plain) != taken.words:
        hint = "name the model" if taken.words else "options only"
        raise UsageError(
            f"{kind} jobs take {taken.words or 'no'} word besides options", where=" ".join(plain), hint=hint
        )
    return params | ({"options": passed} if passed else {}) | ({"model": plain[0]} if plain else {})


def parameters(paths: Paths, kind: str, config: Config, words: Sequence[str]) -> dict[str, Any]:
    if kind == "command":
        if not words:
            raise UsageError("no command given", hint="ringrift jobs submit command hex8_2p -- PROGRAM ARGUMENTS")
        return {"argv": list(words)}
    params = read_words(kind, words)
    if kind == "selfplay":
        return {"games": DEFAULT_GAMES, "seed": 1} | params
    if kind == "train":
        params = {"epochs": DEFAULT_EPOCHS, "seed": 1} | params
        made = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8]
        return {"save": f"models/candidates/{config.key}_{made}.pth"} | params
    if kind == "gauntlet":
        model = str(params.pop("model"))
        return {"games": DEFAULT_GAUNTLET_GAMES} | params | {"save": _model_file(paths, model, config)}
    return params


def ai_service_parameters(paths: Paths, kind: str, config: Config, words: Sequence[str]) -> dict[str, Any]:
    """The same for a command of the reference installation.

    Raises:
        UsageError: its documentation has no such command, or it cannot do what is asked.
    """
    why = no_command(AI_SERVICE).get(kind)
    if why is not None:
        raise UsageError(why, where=kind, hint="it has " + " ".join([*AI_SERVICE_KINDS, "command"]))
    about = {"runtime": AI_SERVICE}
    if kind == "command":
        return parameters(paths, kind, config, words) | about
    params = read_words(kind, words, AI_SERVICE_KINDS)
    if kind == "export":
        return params | about
    if kind == "train":
        params = {"epochs": DEFAULT_EPOCHS} | params
        if params.get("data"):
            params["data"] = str(_file(paths, str(params["data"]))).removeprefix(f"{paths.root}/")
        made = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8]
        return {"save": f"models/candidates/{config.key}_{AI_SERVICE}_{made}.pth"} | params | about
    model = str(params.pop("model"))
    save = _model_file(paths, model, config)
    if made_here(paths.root / save):
        what = "a network of this program cannot be loaded there; its gauntlet would play Heuristic in its place"
        raise UsageError(what, where=model, hint="name a checkpoint of an ai-service")
    games = {"games": DEFAULT_GAUNTLET_GAMES, "sha256": sha256_file(paths.root / save)}
    return games | params | {"save": save} | about


def _file(paths: Paths, name: str) -> Path:
    path = paths.root / name
    if not path.is_file():
        raise NotFoundError("no such file", where=str(path))
    return path


def custom_parameters(recipe: Custom, config: Config, words: Sequence[str]) -> dict[str, Any]:
    """Words ``--NAME VALUE`` of a recipe of the file, with the recipe itself."""
    taken = Taken({f"--{name}": (name, str) for name in recipe.params}, {})
    given = read_words(recipe.kind, words, {recipe.kind: taken})
    about = {"runtime": recipe.runtime} if recipe.runtime != BUILTIN else {}
    params = {"recipe": recipe.to_json(), "words": recipe.words(given)} | about
    made = recipe_of(recipe.kind, params)
    made.outputs(config.key, params)  # refuses what would lie outside of the root
    return params


def _model_file(paths: Paths, name: str, config: Config) -> str:
    """The file of a model, relative to the root where it lies in it.

    Raises:
        NotFoundError: there is no such file and no such model.
    """
    from backend.registry.files import full_path
    from backend.registry.store import find

    path = paths.root / name
    if not path.is_file():
        if "/" in name or name.endswith((".pth", ".pt")):
            raise NotFoundError("no such file", where=str(path))
        row = find(paths, name)
        if row.config not in (None, config.key):
            raise UsageError(f"the model is for {row.config}, not {config.key}", where=name)
        path = full_path(paths, row.path)
    return str(path).removeprefix(f"{paths.root}/")
