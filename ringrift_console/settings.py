"""The console's settings: ``$XDG_CONFIG_HOME/ringrift/console.toml``, all of it optional.

Example::

    theme = "ansi"
    time = "utc"

    [keys]
    "jobs.cancel" = "c"
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from ringrift_console.clock import TIME_MODES
from ringrift_console.keymap import Keymap, make_keymap
from ringrift_console.look import THEMES


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may set."""

    theme: str = "auto"
    """Colours: ``auto`` (NO_COLOR, COLORTERM and TERM decide), ``dark``, ``light``, ``ansi`` (16) or ``mono``."""
    ascii: bool = False
    """Draw with ASCII only; on its own where the terminal has no UTF-8."""
    time: str = "local"
    """Times as ``local``, ``utc`` or ``age``; ``T`` changes it while the console runs."""
    refresh_hz: float = 2.0
    """Looks at the state a second, 0.1 to 4. Over SSH never more than 1."""
    log_hz: float = 2.0
    """Updates a second of a log that is followed, 0.2 to 4: each sends one pane of text."""
    mouse: bool = False
    """Let the mouse click and scroll. Off, the terminal's own selection works."""
    keys: Keymap = field(default_factory=Keymap)
    """Keys by action name, e.g. ``"jobs.cancel" = "c"``; several with commas, an empty text unbinds."""


_CHOICES = {"theme": ("auto", *THEMES), "time": TIME_MODES}
_RANGES = {"refresh_hz": (0.1, 4.0), "log_hz": (0.2, 4.0)}


def settings_path() -> Path:
    """Where the settings lie."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "ringrift" / "console.toml"


def parse_settings(text: str, where: str) -> Settings:
    """Settings from TOML text.

    Raises:
        SettingsError: it is no TOML, a name is unknown, or a value is of the wrong kind or out of range.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML, {error}", where=where) from None
    known = {item.name: item for item in fields(Settings)}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(f"unknown setting {name}", where=where, hint="known: " + ", ".join(known))
        _check(name, value, where)
    keys = make_keymap(values.pop("keys", {}), where=where)
    floats = {name: float(values[name]) for name in _RANGES if name in values}
    return Settings(**(values | floats), keys=keys)


def _check(name: str, value: Any, where: str) -> None:
    if name in _CHOICES and value not in _CHOICES[name]:
        raise SettingsError(f"{name} = {value!r}", where=where, hint="one of " + ", ".join(_CHOICES[name]))
    if name in ("ascii", "mouse") and not isinstance(value, bool):
        raise SettingsError(f"{name} = {value!r}", where=where, hint="true or false")
    if name in _RANGES:
        low, high = _RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise SettingsError(f"{name} = {value!r}", where=where, hint=f"a number from {low:g} to {high:g}")
    if name == "keys" and not (isinstance(value, dict) and all(isinstance(v, str) for v in value.values())):
        raise SettingsError("[keys] takes action names with texts", where=where, hint='e.g. "jobs.cancel" = "c"')


def read_settings(path: Path | None = None) -> Settings:
    """The operator's settings; defaults where there is no file.

    Raises:
        SettingsError: the file cannot be read or understood.
    """
    path = path or settings_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot be read ({error})", where=str(path)) from None
    return parse_settings(text, str(path))
