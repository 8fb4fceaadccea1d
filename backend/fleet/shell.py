"""The command that opens a shell on a host: the real ssh, checking against the same enrolled key."""

from __future__ import annotations

import os

from backend.fleet.hosts import Host
from backend.fleet.store import KNOWN_HOSTS
from backend.paths import Paths


def shell_argv(host: Host, paths: Paths) -> list[str]:
    """``ssh`` with what the hosts file says; this machine's own shell for the local host.

    What the hosts file leaves open, ``~/.ssh/config`` decides, as for every other use of ssh.
    """
    if host.is_local:
        return [os.environ.get("SHELL") or "/bin/sh", "-l"]
    settings = host.settings
    argv = ["ssh", "-o", f"UserKnownHostsFile={paths.console / KNOWN_HOSTS}", "-o", f"HostKeyAlias={host.name}"]
    argv += ["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]
    if settings.get("ssh_port"):
        argv += ["-p", str(int(settings["ssh_port"]))]
    if settings.get("ssh_key"):
        argv += ["-i", os.path.expanduser(str(settings["ssh_key"]))]
    if settings.get("proxy_jump"):
        argv += ["-J", str(settings["proxy_jump"])]
    target = str(settings.get("tailscale_ip") or settings.get("ssh_host") or host.name)
    if settings.get("ssh_user") and "@" not in target:
        argv += ["-l", str(settings["ssh_user"])]
    return [*argv, "--", target]
