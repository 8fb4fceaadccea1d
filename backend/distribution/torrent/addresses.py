"""By which address a swarm knows a host, and by which one that host reaches the head.

Both are numbers: libtorrent looks no name up, and a name may mean another machine on every machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from backend.distribution.reasons import Failure, Reason
from backend.fleet.hosts import Host

LOOK_UP_S = 5.0
Reached = Callable[[Host], str | None]
"""The address that the open connection to a host leads to; None when there is none, or it leads through another."""


@dataclass(frozen=True, slots=True)
class Ends:
    """IPv4 addresses of a host and, on the way to it, of this machine."""

    host: str
    head: str


async def find_ends(host: Host, reached: Reached) -> Ends | Failure:
    """Looks a host up: what the hosts file says, else where SSH has found it."""
    name = host.peer_address
    address = name if is_ipv4(name) else None
    if address is None and not host.settings.get("peer_address") and is_ipv4(known := reached(host) or ""):
        address = known  # also where only the SSH configuration knows what the name means
    if address is None:
        address = await _look_up(name)
    if address is None:
        hint = "set peer_address in hosts.yaml to its number"
        return Failure(Reason.NO_ROUTE, f"no IPv4 address is known of {name}", hint)
    head = await asyncio.to_thread(_way_to, address)
    return Ends(address, head) if head else Failure(Reason.NO_ROUTE, f"this machine has no way to {address}")


def is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


async def _look_up(name: str) -> str | None:
    with suppress(OSError, UnicodeError, TimeoutError):
        async with asyncio.timeout(LOOK_UP_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, family=socket.AF_INET)
            return str(found[0][4][0])
    return None


def _way_to(address: str) -> str | None:
    """The address of this machine from which it reaches another one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((address, 9))  # sends nothing: the kernel looks up the route
        return str(probe.getsockname()[0])
    return None
