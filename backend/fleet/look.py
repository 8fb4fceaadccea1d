"""One look at a host, or at many, with what came of it stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

from backend.errors import RingRiftError
from backend.fleet.checkout import AI_SERVICE, look_at_checkout
from backend.fleet.errors import HostKeyUnknown, HostUnreachable, LinkLost
from backend.fleet.hosts import Host
from backend.fleet.pool_look import look_at_pool
from backend.fleet.probe import Report, folder_of, here, probe
from backend.fleet.remote import Remote, ThisMachine
from backend.fleet.store import record_report, record_trouble
from backend.paths import Paths
from backend.snapshot import HostState
from backend.state.store import StateStore

AT_ONCE = 32
"""Hosts that are asked at the same time."""


@asynccontextmanager
async def way_to(paths: Paths, hosts: Iterable[Host]) -> AsyncIterator[Remote | None]:
    """A pool of connections for some hosts, closed at the end; None, and asyncssh not imported, when all are local."""
    if all(host.is_here for host in hosts):
        yield None
        return
    from backend.fleet.ssh import SshPool

    async with SshPool(paths) as pool:
        yield pool


def state_after(error: RingRiftError) -> HostState:
    """What an error of a look says about the host: enrol it, look after it, or try again later."""
    if isinstance(error, HostKeyUnknown):
        return "new"
    return "refused" if getattr(error, "permanent", False) else "down"


def _way(remote: Remote | None) -> Remote:
    assert remote is not None, "there is a host besides this machine, and no way to it"
    return remote


async def _ask(remote: Remote, host: Host, what: Literal["facts", "sample"]) -> Report:
    try:
        return await _ask_once(remote, host, what)
    except HostUnreachable:
        raise
    except LinkLost:  # a connection that broke says nothing of the host yet; a new one does
        return await _ask_once(remote, host, what)


async def _ask_once(remote: Remote, host: Host, what: Literal["facts", "sample"]) -> Report:
    report = await probe(remote, host, what)
    if report.facts is not None and host.runtime == AI_SERVICE:
        report.facts["checkout"] = await look_at_checkout(remote, host)
    return report


async def look_at(
    store: StateStore,
    remote: Remote | None,
    host: Host,
    what: Literal["facts", "sample"] = "facts",
    *,
    silent: bool = False,
) -> Report:
    """Asks a host and stores what it says.

    Args:
        remote: the way to hosts other than this machine.

    Raises:
        RingRiftError: it could not be asked; that is stored too.
    """
    try:
        if host.is_here:
            folder = folder_of(host) if host.is_pool else str(store.paths.root)
            report = await asyncio.to_thread(here, host, folder, what)
        else:
            report = await _ask(_way(remote), host, what)
        if host.is_pool:
            way = ThisMachine() if host.is_here else _way(remote)
            report = replace(report, pool=await look_at_pool(way, host))
    except RingRiftError as error:
        await record_trouble(store, host.name, state_after(error), error.line(), silent=silent)
        raise
    await record_report(store, host.name, report, silent=silent)
    return report


async def look_at_all(
    store: StateStore,
    remote: Remote | None,
    hosts: Iterable[Host],
    what: Literal["facts", "sample"] = "facts",
    *,
    silent: bool = False,
) -> dict[str, Report | RingRiftError]:
    """Asks several hosts at the same time; a slow one does not hold up the others."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(host: Host) -> Report | RingRiftError:
        async with turn:
            try:
                return await look_at(store, remote, host, what, silent=silent)
            except RingRiftError as error:
                return error

    asked = list(hosts)
    answers = await asyncio.gather(*map(one, asked))
    return {host.name: answer for host, answer in zip(asked, answers, strict=True)}
