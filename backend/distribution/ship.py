"""Brings our small programs to a host: each lies under the hash of its text, so that another version replaces none."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from pathlib import Path

from backend.fleet.errors import TransferFailed
from backend.fleet.hosts import Host
from backend.fleet.remote import Remote

SHIP_S = 120.0
AGENT_ROOT = "~/.local/state/ringrift"


def base_of(host: Host) -> str:
    """The folder under which a host has its models and data.

    A host that runs a checkout has them there; one that runs our code, where everything of ours lies; a pool under its
    shared root, where all its nodes see them.
    """
    settings = host.settings
    if host.is_pool:  # one copy for all its nodes
        return str(settings["shared_root"]).rstrip("/")
    if host.runtime != "builtin" and settings.get("ringrift_path"):
        return str(settings["ringrift_path"])
    return str((settings.get("storage_paths") or {}).get("agent") or AGENT_ROOT)


async def ship(way: Remote, host: Host, program: Path) -> str:
    """Absolute path of ``program`` on the host, where it is put unless it lies there.

    Raises:
        SshError: the host cannot be talked to.
        ResourceError: its disk is full.
    """
    digest = hashlib.sha256(await asyncio.to_thread(program.read_bytes)).hexdigest()
    place = f"{base_of(host)}/.programs/{digest}/{program.name}"
    word = '"$HOME"' + shlex.quote(place[1:]) if place.startswith("~/") else shlex.quote(place)
    script = f"printf '\\nPLACE %s\\n' {word}; test -s {word} && echo PRESENT"
    done = await way.exec(host, ["/bin/sh", "-c", script], timeout_s=SHIP_S)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    found = next((line[6:] for line in reversed(lines) if line.startswith("PLACE ")), None)
    if found is None:
        raise TransferFailed("the host runs no commands of ours", where=host.name, hint=f"exit code {done.code}")
    if lines[-1] != "PRESENT":
        await way.put(host, program, found, sha256=digest)
    return found
