"""The hosts file as the supervisor goes by it: a copy of what it read last, until a reload is confirmed.

An editor that saves a half-done change, or a typo in an address, must not move jobs. A supervisor reads the file when
it starts; while it lives, and when it starts again after a crash, it goes by its copy. One that was stopped in order
leaves none, so the next one reads the file anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from backend.atomic import write_bytes
from backend.errors import SettingsError
from backend.fleet.hosts import Host, Hosts, load_hosts, parse_hosts
from backend.paths import Paths
from backend.plans import Change

IN_USE = "hosts-in-use.yaml"
"""The copy, under ``Paths.console``; its first line is a comment with the path of the file that it was read from."""
_MARK = "# read from "
NAMED = 4
"""Hosts named for one change; the others are counted."""


def hosts_in_use(paths: Paths) -> Path:
    """The file that decides where jobs go: the copy where there is one, else the hosts file itself."""
    copy = paths.console / IN_USE
    return copy if copy.exists() else paths.hosts_yaml


def load_in_use(paths: Paths) -> Hosts | None:
    """The hosts of the copy; None when there is no copy."""
    copy = paths.console / IN_USE
    return load_hosts(copy) if copy.exists() else None


def source_in_use(paths: Paths) -> str:
    """The path of the file that the copy was read from; empty when there is no copy."""
    try:
        with (paths.console / IN_USE).open(encoding="utf-8") as stream:
            line = stream.readline()
    except FileNotFoundError:
        return ""
    return str(json.loads(line.removeprefix(_MARK))) if line.startswith(_MARK) else ""


def read_text(paths: Paths) -> str:
    """The text of the hosts file; empty when there is none, which means this machine alone.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return paths.hosts_yaml.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("cannot read the hosts file", where=str(paths.hosts_yaml), hint=str(error)) from None


def digest(text: str) -> str:
    """SHA-256 of a hosts file's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def take(paths: Paths, text: str) -> None:
    """Makes ``text`` what the supervisor goes by.

    Raises:
        SettingsError: it cannot be understood; the copy stays as it was.
    """
    parse_hosts(text, str(paths.hosts_yaml))
    head = f"{_MARK}{json.dumps(str(paths.hosts_yaml))}\n"
    write_bytes(paths.console / IN_USE, (head + text).encode())


def begin(paths: Paths) -> None:
    """At the start of a supervisor: reads the hosts file unless a copy of that very file is there from before.

    Raises:
        SettingsError: it cannot be understood.
    """
    if source_in_use(paths) != str(paths.hosts_yaml):
        take(paths, read_text(paths))


def end(paths: Paths) -> None:
    """At the ordered end of a supervisor: the next one reads the file."""
    (paths.console / IN_USE).unlink(missing_ok=True)


def changed_settings(host: Host, used: Hosts) -> tuple[str, ...]:
    """How a host differs from what is in use of it, ``key: old -> new``."""
    before = used.get(host.name)
    if before is None:
        return ("new in the hosts file",)
    return tuple(f"{key}: {old} -> {new}" for key, old, new in _differing(before, host))


def differences(used: Hosts, now: Hosts) -> tuple[Change, ...]:
    """What going by ``now`` instead of ``used`` changes: hosts that come and go, then settings.

    A setting that changes in the same way for several hosts, as one of a group does, is one change.
    """
    changes = [Change(f"host {host.name}", "", _described(host)) for host in now.hosts if used.get(host.name) is None]
    changes += [Change(f"host {host.name}", "used", "taken out") for host in used.hosts if now.get(host.name) is None]
    shared: dict[tuple[str, str, str], list[str]] = {}
    for host in now.hosts:
        before = used.get(host.name)
        for difference in _differing(before, host) if before is not None else ():
            shared.setdefault(difference, []).append(host.name)
    changes += [Change(key, old, f"{new} ({_names(names)})") for (key, old, new), names in shared.items()]
    return tuple(changes)


def _differing(before: Host, after: Host) -> Iterable[tuple[str, str, str]]:
    for key in sorted(before.settings.keys() | after.settings.keys()):
        old, new = before.settings.get(key), after.settings.get(key)
        if old != new:
            yield key, _word(old), _word(new)


def _word(value: object) -> str:
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value)


def _described(host: Host) -> str:
    words = [str(host.settings[key]) for key in ("role", "ssh_host") if key in host.settings]
    return "new: " + (", ".join(words) or "no settings")


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return " ".join(names[:NAMED]) + more
