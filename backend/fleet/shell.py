"""The command that opens a shell on a host: the real ssh, checking against the same enrolled key."""

from __future__ import annotations

import os

from backend.atomic import write_bytes
from backend.errors import SettingsError
from backend.fleet.hosts import Host, jumps, load_hosts
from backend.fleet.store import KNOWN_HOSTS
from backend.paths import Paths

CONFIG = "ssh_config"
"""The file under ``Paths.console`` that tells ssh of jump hosts, as ``-J`` alone knows only ``~/.ssh/config``."""


def shell_argv(host: Host, paths: Paths) -> list[str]:
    """``ssh`` with what the hosts file says; this machine's own shell for the local host.

    What the hosts file leaves open, ``~/.ssh/config`` decides, as for every other use of ssh. For a host behind
    others a configuration is written that describes these as the hosts file does, and that includes the operator's.

    Raises:
        SettingsError: a ``proxy_jump`` names no host or leads back, or a setting cannot be told to ssh.
    """
    if host.is_here:
        return [os.environ.get("SHELL") or "/bin/sh", "-l"]
    settings = host.settings
    argv = ["ssh"]
    if settings.get("proxy_jump"):
        way = jumps(host, load_hosts(paths.hosts_yaml))
        write_bytes(paths.console / CONFIG, _configuration(way, paths).encode(), mode=0o600)
        argv += ["-F", str(paths.console / CONFIG), "-J", way[0].name]
    for name, value in _checks(host, paths).items():
        argv += ["-o", f"{name}={_quoted(value)}"]
    if settings.get("ssh_port"):
        argv += ["-p", str(int(settings["ssh_port"]))]
    if settings.get("ssh_key"):
        argv += ["-i", os.path.expanduser(str(settings["ssh_key"]))]
    target = host.target
    if settings.get("ssh_user") and "@" not in target:
        argv += ["-l", str(settings["ssh_user"])]
    return [*argv, "--", target]


def ssh_configuration(host: Host, paths: Paths) -> str:
    """ssh_config(5) by which ssh reaches a host under its name in the hosts file, for programs that call ssh.

    Raises:
        SettingsError: a ``proxy_jump`` names no host or leads back, or a setting cannot be told to ssh.
    """
    way = jumps(host, load_hosts(paths.hosts_yaml)) if host.settings.get("proxy_jump") else ()
    return _configuration((host, *way), paths)


def _checks(host: Host, paths: Paths) -> dict[str, str]:
    """Options that hold ssh to the key that is enrolled for a host."""
    return {
        "UserKnownHostsFile": str(paths.console / KNOWN_HOSTS),
        "HostKeyAlias": host.name,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
    }


def _configuration(way: tuple[Host, ...], paths: Paths) -> str:
    """ssh_config(5) for the hosts on the way; of each option ssh takes the first value, so the operator's come last."""
    lines = []
    for number, host in enumerate(way):
        user, _, address = host.target.rpartition("@")
        options = {"HostName": address} | _checks(host, paths)
        options["ProxyJump"] = way[number + 1].name if number + 1 < len(way) else "none"
        if user or host.settings.get("ssh_user"):
            options["User"] = user or str(host.settings["ssh_user"])
        if host.settings.get("ssh_port"):
            options["Port"] = str(int(host.settings["ssh_port"]))
        if host.settings.get("ssh_key"):
            options["IdentityFile"] = os.path.expanduser(str(host.settings["ssh_key"]))
        lines += [f"Host {host.name}", *(f"  {name} {_quoted(value)}" for name, value in options.items())]
    return "\n".join([*lines, "Host *", "  Include ~/.ssh/config", "  Include /etc/ssh/ssh_config", ""])


def _quoted(value: str) -> str:
    """A value of ssh_config(5), where ``%`` begins a token and blanks separate words."""
    if '"' in value or not value.isprintable():
        raise SettingsError("ssh cannot be told of this", where=repr(value), hint="use a name without quotes")
    value = value.replace("%", "%%")
    return f'"{value}"' if " " in value else value
