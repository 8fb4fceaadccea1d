"""Which key does what: the actions' default keys with the operator's own changes laid over them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backend.errors import SettingsError
from ringrift_console.actions import ACTIONS, BY_NAME, Action, Scope, Tier

ACCEPT = "y"
"""The key that accepts a plan; never one that opens a dialog."""

FORBIDDEN = frozenset(
    {
        "ctrl+a",
        "ctrl+b",
        "ctrl+s",
        "ctrl+q",
        "ctrl+w",
        "ctrl+h",
        "ctrl+i",
        "ctrl+j",
        "ctrl+m",
        "ctrl+left_square_bracket",
    }
    | {"delete", "shift+delete", "f1", "f10", "f11"}
)
"""Taken by multiplexers and flow control, the same byte as another key, or not sent by some terminals."""
_FORBIDDEN_SHAPES = re.compile(r"(alt\+\d|ctrl\+shift\+.+)\Z")

SCREENS: dict[str, tuple[Scope, ...]] = {
    "pulse": ("pulse", "list", "move", "global"),
    "hosts": ("hosts", "list", "move", "global"),
    "jobs": ("jobs", "list", "move", "global"),
    "models": ("models", "list", "move", "global"),
    "elo": ("elo", "models", "list", "move", "global"),
    "transfers": ("transfers", "list", "move", "global"),
    "transfer": ("transfers", "move", "global"),
    "policies": ("policies", "list", "move", "global"),
    "host": ("hosts", "move", "global"),
    "job": ("jobs", "move", "global"),
    "model": ("models", "move", "global"),
    "log": ("log", "move", "global"),
    "text": ("move", "global"),
}
"""The scopes of every screen, nearest first."""

_NAMES = {
    "slash": "/", "question_mark": "?", "colon": ":", "escape": "esc", "pagedown": "pgdn", "pageup": "pgup",
    "less_than_sign": "<", "greater_than_sign": ">", "exclamation_mark": "!", "full_stop": ".", "comma": ",",
    "plus": "+", "minus": "-", "asterisk": "*", "left_square_bracket": "[", "right_square_bracket": "]",
    "equals_sign": "=",
}  # fmt: skip
_SYMBOLS = {symbol: name for name, symbol in _NAMES.items() if len(symbol) == 1}


def key_name(text: str) -> str:
    """The name of a key as settings give it: ``/`` and ``slash`` are the same key."""
    text = text.strip()
    return _SYMBOLS.get(text, text if len(text) == 1 else text.lower())


def key_text(key: str) -> str:
    """A key as a person reads it; the first one where there are several."""
    first = key.split(",")[0]
    return _NAMES.get(first, first)


def forbidden(key: str) -> bool:
    return key in FORBIDDEN or _FORBIDDEN_SHAPES.match(key) is not None


@dataclass(frozen=True)
class Keymap:
    """Keys by action name; an empty key unbinds the action (it stays on the command line)."""

    overrides: Mapping[str, str] = field(default_factory=dict)

    def key(self, action: Action) -> str:
        return self.overrides.get(action.name, action.key)

    def hint(self, name: str) -> str:
        """How an action is reached, for a person: its key, else its words on the ``:`` line."""
        action = BY_NAME[name]
        return key_text(self.key(action)) or ":" + " ".join(action.verb or (action.label,))

    def keys(self, action: Action) -> list[str]:
        return [key for key in self.key(action).split(",") if key]

    def actions(self, scopes: Sequence[Scope]) -> list[Action]:
        """Actions with a key in ``scopes``, in the order of the scopes and then of the registry."""
        return [a for scope in scopes for a in ACTIONS if a.scope == scope and self.key(a)]

    def table(self, scopes: Sequence[Scope]) -> dict[str, Action]:
        """The action of every key that holds in ``scopes``; the nearest scope wins."""
        found: dict[str, Action] = {}
        for action in self.actions(scopes):
            for key in self.keys(action):
                found.setdefault(key, action)
        return found

    def problems(self) -> list[str]:
        """What is wrong with this map, one line each: unknown actions, forbidden keys, clashes."""
        wrong = [f"unknown action {name}" for name in self.overrides if name not in BY_NAME]
        for action in ACTIONS:
            for key in self.keys(action):
                if forbidden(key):
                    wrong.append(f"{key} cannot be used for {action.name}: terminals or multiplexers take it")
                if key == ACCEPT and action.tier > Tier.READ:
                    wrong.append(f"{key} cannot open {action.name}: it is the key that accepts a plan")
        for screen, scopes in SCREENS.items():
            holders: dict[str, str] = {}
            for action in self.actions(scopes):
                for key in self.keys(action):
                    if key in holders:
                        wrong.append(f"{key} is both {holders[key]} and {action.name} on {screen}")
                    holders[key] = action.name
        return list(dict.fromkeys(wrong))


def make_keymap(overrides: Mapping[str, str], *, where: str = "") -> Keymap:
    """The keymap with the operator's changes.

    Raises:
        SettingsError: an action is unknown, a key is forbidden, or one key would do two things.
    """
    keymap = Keymap(
        {
            name: ",".join(map(key_name, re.split(r"[, ]+", keys))) if keys.strip() else ""
            for name, keys in overrides.items()
        }
    )
    if problems := keymap.problems():
        raise SettingsError(problems[0], where=where, hint="see docs/keys.md for the actions and their keys")
    return keymap
