"""From an action to an operation: plan it, and submit what was confirmed. The console does nothing else."""

from __future__ import annotations

import asyncio
import getpass
import socket
from typing import Any

from backend.paths import Paths
from backend.plans import Plan
from ringrift_console.actions import Action, load


async def make_plan(action: Action, paths: Paths, params: dict[str, Any]) -> Plan:
    """The plan of ``action``; its module is imported on a thread, off the event loop.

    Raises:
        RingRiftError: it cannot be done, with the reason.
    """
    function = await asyncio.to_thread(load, action.plan)
    plan: Plan = await function(paths, **params)
    return plan


def same(one: Plan, other: Plan) -> bool:
    """True when two plans of one action depend on the same and would leave the same behind.

    What a thing is before may differ where the guard does not name it: a job that starts while its cancelling is
    being confirmed is cancelled all the same.
    """
    return one.guard == other.guard and _after(one) == _after(other)


def _after(plan: Plan) -> list[tuple[str, str]]:
    return [(change.subject, change.after) for change in plan.changes]


def operator() -> str:
    """Who confirms: user and machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


async def submit(plan: Plan, paths: Paths) -> str:
    """Writes the operation, sees to it that a supervisor runs, and returns the operation's id.

    Raises:
        RingRiftError: the state cannot be written, or the supervisor does not start.
    """
    state = await asyncio.to_thread(load, "backend.state.store:StateStore")
    store = await state.open(paths)
    try:
        operation: str = await store.submit(plan, operator())
    finally:
        await store.close()
    await start_supervisor(paths)
    return operation


async def start_supervisor(paths: Paths) -> int:
    """Starts the supervisor if it is down; returns its process id."""
    ensure = await asyncio.to_thread(load, "backend.supervisor:ensure_running")
    pid: int = await asyncio.to_thread(ensure, paths)
    return pid
