"""``recipes.toml``: kinds of jobs that an operator wrote down, checked with the line of every mistake."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.jobs.recipes.ai_service import AI_SERVICE_RECIPES
from backend.jobs.recipes.base import BUILTIN, RUNTIMES
from backend.jobs.recipes.builtin import BUILTIN_RECIPES
from backend.jobs.recipes.custom import JSON, Custom, filled, holes, is_inside

TAKEN = frozenset({*BUILTIN_RECIPES, *AI_SERVICE_RECIPES, "training", "evaluation", "tournament"})
"""Names that mean something already, here or in ``hosts.yaml``."""
GIVEN = ("python", "root", "config", "board", "players")
"""What every recipe may put into its words; ``root`` is the folder that outputs go to."""
KEYS = ("argv", "inputs", "outputs", "params", "progress", "repeatable", "result", "runtime", "unit")

_KIND = re.compile(r"[a-z][a-z0-9-]{0,30}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_GROUPS = {"done", "total", "message"}


def load_recipes(path: Path) -> dict[str, Custom]:
    """The recipes of a file by their kinds; none when there is no such file.

    Raises:
        SettingsError: the file cannot be understood; the message has the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("cannot read the recipes", where=str(path), hint=str(error)) from None
    return parse_recipes(text, str(path))


def parse_recipes(text: str, source: str) -> dict[str, Custom]:
    """The recipes that ``text`` describes; ``source`` names it in messages."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, at = str(error).partition(" (at ")
        found = re.search(r"line (\d+)", at)
        line = int(found[1]) if found else text.count("\n") + 1
        raise SettingsError(f"not TOML: {what[:1].lower()}{what[1:]}", where=f"{source} line {line}") from None
    return {kind: _Checked(kind, body, text, source).recipe() for kind, body in content.items()}


class _Checked:
    """One table of the file on its way to a recipe."""

    def __init__(self, kind: str, body: Any, text: str, source: str) -> None:
        self.kind, self.body, self.text, self.source = kind, body, text, source

    def error(self, what: str, key: str = "", word: str = "", hint: str = "") -> SettingsError:
        line = line_of(self.text, self.kind, key, word)
        return SettingsError(what, where=f"{self.source} line {line}", hint=hint)

    def recipe(self) -> Custom:
        kind = self.kind
        if not isinstance(self.body, dict):
            raise self.error(f"'{kind}' is no recipe", hint=f"[{kind}] begins one")
        if not _KIND.fullmatch(kind):
            raise self.error(f"'{kind}' is no name for a kind", hint="small letters, digits and '-', up to 31")
        if kind in TAKEN:
            raise self.error(f"'{kind}' is a kind of its own already", hint="give the recipe another name")
        for key in self.body:
            if key not in KEYS:
                raise self.error(f"a recipe has no '{key}'", key, hint="it has " + " ".join(KEYS))
        params = self._params()
        argv = self._strings("argv")
        if not argv:
            raise self.error(f"'{kind}' has no argv", "argv", hint='argv = ["{python}", "program.py", "{config}"]')
        made = Custom(
            kind, argv, self._strings("inputs"), self._strings("outputs"), self._flag(), self._runtime(), params,
            self._strings("progress"), self._strings("result"), self._text("unit", ""),
        )  # fmt: skip
        self._check_words(made)
        self._check_patterns(made)
        return made

    def _strings(self, key: str) -> tuple[str, ...]:
        value = self.body.get(key, [])
        if isinstance(value, str) and key in ("progress", "result"):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            hint = "one word of the command each; there is no shell" if key == "argv" else ""
            raise self.error(f"'{key}' of '{self.kind}' must be a list of texts", key, hint=hint)
        return tuple(value)

    def _text(self, key: str, default: str) -> str:
        value = self.body.get(key, default)
        if not isinstance(value, str):
            raise self.error(f"'{key}' of '{self.kind}' must be text", key)
        return value

    def _flag(self) -> bool:
        value = self.body.get("repeatable", False)
        if not isinstance(value, bool):
            raise self.error(f"'repeatable' of '{self.kind}' must be true or false", "repeatable")
        return value

    def _runtime(self) -> str:
        value = self._text("runtime", BUILTIN)
        if value not in RUNTIMES:
            raise self.error(f"there is no runtime '{value}'", "runtime", hint="one of " + " ".join(RUNTIMES))
        return value

    def _params(self) -> dict[str, str]:
        value = self.body.get("params", {})
        if not isinstance(value, dict):
            raise self.error(f"'params' of '{self.kind}' must map names to defaults", "params")
        for name, default in value.items():
            if not _NAME.fullmatch(name) or name in GIVEN:
                hint = "small letters, digits and '_'; not " + " ".join(GIVEN)
                raise self.error(f"'{name}' is no name for a param", "params", name, hint)
            if not isinstance(default, str | int | float) or isinstance(default, bool):
                raise self.error(f"the default of '{name}' must be text or a number", "params", name)
        return {name: str(default) for name, default in value.items()}

    def _check_words(self, made: Custom) -> None:
        known = {*GIVEN, *made.params}
        for key in ("argv", "inputs", "outputs"):
            for word in getattr(made, key):
                for hole in holes(word):
                    if hole is None:
                        raise self.error("a brace that is no placeholder", key, word, "write {{ and }} for braces")
                    if hole not in known or (key != "argv" and hole in ("python", "root")):
                        allowed = " ".join(sorted(known if key == "argv" else known - {"python", "root"}))
                        raise self.error(f"'{key}' knows no {{{hole}}}", key, word, f"it knows {allowed}")
                if "{python}" in word and word != "{python}":
                    raise self.error("{python} has to be a word of its own", key, word)
                if key != "argv" and not is_inside(filled(word, dict.fromkeys(known, "x"))):
                    raise self.error(f"'{word}' does not lie in the root", key, word, "a relative path without ..")

    def _check_patterns(self, made: Custom) -> None:
        for key in ("progress", "result"):
            for text in getattr(made, key):
                if key == "result" and text == JSON:
                    continue
                try:
                    groups = set(re.compile(text).groupindex)
                except re.error as error:
                    what = f"'{key}' is no regular expression: {error}"
                    raise self.error(what, key, text) from None
                if key == "progress" and ("done" not in groups or groups - _GROUPS):
                    hint = r"e.g. 'game (?P<done>\d+) of (?P<total>\d+)'"
                    raise self.error("'progress' needs the group done, and may have total and message", key, text, hint)
                if not groups:
                    raise self.error("'result' needs named groups", key, text, r"e.g. 'score (?P<score>[\d.]+)'")


def line_of(text: str, kind: str, key: str = "", word: str = "") -> int:
    """The line of a key of a kind, or of a word in its value; that of the kind when the key is not there."""
    table = re.compile(rf"""\s*\[\s*["']?{re.escape(kind)}["']?\s*(?:\.\s*["']?(?P<sub>\w+)["']?\s*)?\]""")
    inline = re.compile(rf"""\s*["']?{re.escape(kind)}["']?\s*[.=]""")
    start = found = 0
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        heading = table.match(line)
        if heading or (inline.match(line) and not inside):
            inside, start = True, start or number
            if heading and key and heading["sub"] == key:
                found = number
        elif re.match(r"\s*\[\s*[\w\"']+(\.[\w\"']+)*\s*\]\s*(#.*)?$", line):
            inside = False
        if inside and key and not found and re.search(rf"""(^|[\s{{,.])["']?{re.escape(key)}["']?\s*=""", line):
            found = number
        if inside and found and word and word in line.replace("\\\\", "\\"):
            return number
    return found or start or 1
