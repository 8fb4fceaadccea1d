"""Whether the folder that a pool's nodes share is there: asked before anything of ours is put under it.

Whoever writes there without asking would make the folder on the login host's own disk, where no node looks.
"""

from __future__ import annotations

from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.remote import Remote

LOOK_S = 60.0


class RootMissing(RingRiftError):
    """The shared folder of a pool is not there, or not now; nothing was written."""


async def check_shared_root(remote: Remote, host: Host) -> None:
    """Passes a host that is no pool, and a pool whose ``shared_root`` is a folder on its login host.

    Args:
        remote: the way to the login host.

    Raises:
        RootMissing: it is not there.
        RingRiftError: the host cannot be asked.
    """
    if not host.is_pool:
        return
    root = str(host.settings["shared_root"])
    done = await remote.exec(host, ["test", "-d", root], timeout_s=LOOK_S)
    if done.code != 0:
        line = f" (hosts.yaml line {host.line})" if host.line else ""
        what = f"the shared_root {root} is not there{line}"
        raise RootMissing(what, where=host.name, hint="mount it on the login host, or mend hosts.yaml")
