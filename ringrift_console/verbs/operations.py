"""From a plan to its outcome on the command line: print it, or submit it, have it carried out, and wait."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from backend.errors import Exit
from backend.fleet.hosts import load_hosts
from backend.paths import Paths
from backend.plans import Plan
from backend.snapshot import OperationRow
from backend.state.store import StateStore
from backend.supervisor import ensure_running, running_pid
from ringrift_console.verbs.common import to_json

POLL_S = 0.2
SHORT_WAIT_S = 10.0

EXITS: dict[str, Exit] = {"done": Exit.DONE, "failed": Exit.FAILED, "refused": Exit.REFUSED}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation stands; ``result`` is what it returned."""

    operation: OperationRow

    @property
    def ended(self) -> bool:
        return self.operation.state in EXITS

    @property
    def exit(self) -> Exit:
        """The exit code; an operation that is still under way has been taken on, which is what was asked for."""
        told = self.operation.result.get("exit")  # that of the error which ended it
        return Exit(told) if told is not None else EXITS.get(self.operation.state, Exit.DONE)


def say(line: str) -> None:
    """A line of narration."""
    print(line, file=sys.stderr, flush=True)


def plan_text(plan: Plan) -> str:
    """A plan as an operator reads it."""
    lines = [plan.title]
    width = max((len(change.subject) for change in plan.changes), default=0)
    lines += [f"  {change.subject:<{width}}  {change.before or '-'} -> {change.after}" for change in plan.changes]
    lines += [f"  {number}. {step}" for number, step in enumerate(plan.steps, 1)]
    lines += [f"  warning: {warning}" for warning in plan.warnings]
    lines += [f"  undo: {plan.undo}"] if plan.undo else []
    lines += [f"  command: {plan.command}"] if plan.command else []
    return "\n".join(lines)


def carry_out(
    args: argparse.Namespace,
    paths: Paths,
    plan: Awaitable[Plan],
    *,
    after: Callable[[StateStore, Outcome], Awaitable[tuple[Exit, dict[str, Any]]]] | None = None,
) -> int:
    """What every verb that changes something does with its plan.

    ``--dry-run`` prints it. Otherwise it is submitted, the supervisor is started if there is none, and its end is
    awaited: for as long as it takes with ``--wait``, else for a few seconds, after which it goes on by itself.

    Args:
        after: with ``--wait``, what else to wait for once the operation is done; gives the exit code and more fields
            for ``--json``.
    """
    try:
        return asyncio.run(_carry_out(args, paths, plan, after))
    except KeyboardInterrupt:
        say("left waiting; what was asked for goes on")
        return Exit.INTERRUPTED


async def _carry_out(
    args: argparse.Namespace,
    paths: Paths,
    planned: Awaitable[Plan],
    after: Callable[[StateStore, Outcome], Awaitable[tuple[Exit, dict[str, Any]]]] | None,
) -> int:
    plan = await planned
    if args.dry_run:
        print(to_json(plan.to_json()) if args.json else plan_text(plan))
        return Exit.DONE
    await asyncio.to_thread(load_hosts, paths.hosts_yaml)
    async with await StateStore.open(paths) as store:
        for warning in plan.warnings:
            say(f"warning: {warning}")
        name = await store.submit(plan)
        say(f"{name}: {plan.title}")
        outcome = await wait_for(store, name, None if args.wait else SHORT_WAIT_S)
        code, more = outcome.exit, dict[str, Any]()
        if args.wait and outcome.exit is Exit.DONE and after is not None:
            code, more = await after(store, outcome)
    row = outcome.operation
    if row.error:
        say(f"{row.id} {row.state}: {row.error}")
    elif not outcome.ended:
        say(f"{row.id} is under way")
    if args.json:
        print(to_json({"operation": row.id, "state": row.state, "error": row.error} | row.result | more))
    return code


async def keep_supervised(paths: Paths) -> None:
    """Starts the supervisor when there is none, whatever became of the last one."""
    if running_pid(paths) is None:
        await asyncio.to_thread(ensure_running, paths)


async def wait_for(store: StateStore, name: str, seconds: float | None) -> Outcome:
    """Waits until an operation has ended, or for so many seconds; keeps a supervisor running meanwhile."""
    loop = asyncio.get_running_loop()
    end = None if seconds is None else loop.time() + seconds
    told = ""
    while True:
        await keep_supervised(store.paths)
        row = await store.operation(name)
        assert row is not None
        outcome = Outcome(row)
        if not outcome.ended and row.progress not in ("", told):
            told = row.progress
            say(f"{name} {told}")
        if outcome.ended or (end is not None and loop.time() >= end):
            return outcome
        await asyncio.sleep(POLL_S)
