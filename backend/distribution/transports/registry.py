"""The transports by name, in the order in which they are preferred; each is imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from backend.distribution.reasons import Failure, Reason
from backend.distribution.transports.base import Means, Transport
from backend.fleet.hosts import Host

REFERENCES: dict[str, str] = {
    "torrent": "backend.distribution.transports.torrent:TorrentTransport",
    "aria2": "backend.distribution.transports.aria2:Aria2",
    "rsync": "backend.distribution.transports.rsync:RsyncTransport",
    "stream": "backend.distribution.transports.stream:StreamTransport",
}
"""In order of preference; what moves the bytes when nothing else does comes last."""
SWARM_BYTES = 50 * 1000 * 1000
"""Below this size a swarm takes longer to come up than the file takes to send (research 8.4)."""
SWARM_HOSTS = 3
WITHOUT_A_LINK = frozenset({"rsync", "stream"})
"""Those that also reach a folder of this machine, the root of a pool whose login host it is; it needs no others."""


@cache
def transport(name: str) -> Transport:
    """The engine of a name; KeyError when there is none."""
    module, _, attribute = REFERENCES[name].partition(":")
    made: Transport = getattr(import_module(module), attribute)()
    return made


def routes_for(
    means: Means, host: Host, facts: Mapping[str, Any], size: int, hosts: int, only: str | None = None
) -> tuple[tuple[str, ...], dict[str, Failure]]:
    """Transports that may bring a file to a host, in order, and why the others may not.

    Args:
        hosts: how many hosts want it.
        only: the one that the operator asked for.
    """
    routes, why = [], {}
    for name in REFERENCES:
        if only is not None and name != only:
            continue
        engine = transport(name)
        if host.is_here and name not in WITHOUT_A_LINK:
            why[name] = Failure(Reason.NOT_THERE, "it is this machine", "leave --transport out")
            continue
        if engine.many and only is None and (size <= SWARM_BYTES or hosts < SWARM_HOSTS):
            continue
        failure = engine.here(means) or engine.there(means, host, facts)
        if failure is None:
            routes.append(name)
        else:
            why[name] = failure
    return tuple(routes), why
