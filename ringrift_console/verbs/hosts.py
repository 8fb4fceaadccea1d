"""``ringrift hosts list | show | probe | enrol | bootstrap | drain | undrain | reload | shell``."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
import time
from typing import Any

from backend.errors import Exit, RefusedError, RingRiftError
from backend.fleet.doctor import findings
from backend.fleet.hosts import load_hosts
from backend.fleet.look import look_at_all, way_to
from backend.fleet.pool_look import pool_text
from backend.fleet.store import find_host, host_rows
from backend.overview import read_snapshot
from backend.paths import HOSTS_VARIABLE, Paths
from backend.plans import Plan
from backend.snapshot import HostRow
from backend.state.store import StateStore
from backend.text import size_text
from ringrift_console.verbs.common import table, to_json

FRESH_S = 60.0
"""Hosts that were asked within this time are not asked again by a list."""


def _use(args: argparse.Namespace) -> None:
    """Makes ``--hosts FILE`` the hosts file of this process and of what it starts."""
    if getattr(args, "hosts", None):
        os.environ[HOSTS_VARIABLE] = os.path.abspath(args.hosts)


def list_hosts(args: argparse.Namespace, paths: Paths) -> int:
    """Prints the hosts, after asking those whose last answer is older than a minute."""
    _use(args)
    rows = asyncio.run(_cached(paths) if args.cached else _fresh(paths))
    if args.json:
        print(to_json([to_object(row) for row in rows]))
        return Exit.DONE
    print(table(("HOST", "STATE", "ROLE", "GPUS", "MEMORY", "DISK FREE", "LOAD", "JOBS", "SEEN"), map(_line, rows)))
    for row in rows:
        changed = [f"{change} (not used before ringrift hosts reload)" for change in row.changed]
        for note in (f"drained: {row.drained}" if row.drained is not None else "", row.why, *changed):
            if note:
                print(f"{row.name}: {note}", file=sys.stderr)
    for note in load_hosts(paths.hosts_yaml).notes:
        print(f"{paths.hosts_yaml} {note}", file=sys.stderr)
    return Exit.DONE


def to_object(row: HostRow) -> dict[str, Any]:
    """A host as JSON: the row with its newest sample alone, and what its facts mean."""
    sample = row.samples[-1] if row.samples else None
    value = dataclasses.asdict(row) | {"ready": row.ready, "sample": dataclasses.asdict(sample) if sample else None}
    del value["samples"]
    found = findings(row.facts, sample) if row.facts_at else ()
    return value | {"findings": [dataclasses.asdict(finding) for finding in found]}


async def _cached(paths: Paths) -> tuple[HostRow, ...]:
    load_hosts(paths.hosts_yaml)  # its mistakes end the verb; a snapshot would only mention them
    if paths.state_db.exists():
        async with await StateStore.open(paths):  # so does a damaged state.db
            pass
    return (await read_snapshot(paths)).hosts


async def _fresh(paths: Paths) -> tuple[HostRow, ...]:
    hosts = load_hosts(paths.hosts_yaml)
    async with await StateStore.open(paths) as store, way_to(paths, hosts.hosts) as remote:
        now = time.time()
        known = {row.name: row for row in await host_rows(store)}
        due = []
        for host in hosts.hosts:
            row = known[host.name]
            seen = row.seen_at.timestamp() if row.seen_at else 0.0
            if row.state not in ("off", "new") and (row.state != "up" or now - seen > FRESH_S):
                due.append(host)
        await look_at_all(store, remote, [host for host in due if known[host.name].facts_at], "sample", silent=True)
        await look_at_all(store, remote, [host for host in due if not known[host.name].facts_at], "facts", silent=True)
    return (await read_snapshot(paths)).hosts


def _line(row: HostRow) -> tuple[str, ...]:
    sample = row.samples[-1] if row.samples else None
    if sample is None:
        gpus, memory, disk, load = "-", "-", "-", "-"
    else:
        gpus = str(len(sample.gpus)) if sample.gpus else "-"
        memory = size_text(sample.memory_total) if sample.memory_total else "-"
        disk = "-" if sample.disk_free is None else size_text(sample.disk_free)
        load = "-" if sample.load is None else f"{sample.load:.2f}"
    state = f"{row.state} (drained)" if row.drained is not None else row.state
    seen = f"{row.seen_at:%Y-%m-%d %H:%M} UTC" if row.seen_at else "-"
    return row.name, state, row.role or "-", gpus, memory, disk, load, f"{row.jobs}/{row.slots}", seen


def show(args: argparse.Namespace, paths: Paths) -> int:
    """Everything known of one host, without asking it."""
    _use(args)
    find_host(load_hosts(paths.hosts_yaml), args.host)
    rows = asyncio.run(_cached(paths))
    row = next(row for row in rows if row.name == args.host)
    if args.json:
        print(to_json(to_object(row)))
    else:
        print("\n".join(describe(row)))
    return Exit.DONE


def describe(row: HostRow) -> list[str]:
    """A host as an operator reads it: how it is, then what its facts mean."""
    state = f"{row.state} ({row.why})" if row.why else row.state
    pairs = {
        "host": row.name,
        "state": state,
        "address": row.address or "this machine",
        "role": row.role or "-",
        "groups": " ".join(row.groups) or "-",
        "jobs": f"{row.jobs} of {row.slots}",
        "drained": "no" if row.drained is None else f"yes: {row.drained}",
        "key": "not needed" if row.local else row.fingerprint or "not enrolled",
        "code": str(row.facts.get("bundle") or ("this installation" if row.local else _checkout(row) or "not set up")),
        "python": str(row.facts.get("python") or "-"),
        "latency": "-" if row.latency_ms is None else f"{row.latency_ms:.0f} ms",
        "seen": f"{row.seen_at:%Y-%m-%d %H:%M:%S} UTC" if row.seen_at else "never",
    }
    lines = [f"{name:<10}{value}" for name, value in pairs.items()]
    lines += [f"{name:<10}{value}" for name, value in pool_text(row.facts.get("pool") or {}) if "pool" in row.facts]
    lines += [f"{'changed':<10}{change} (not used before ringrift hosts reload)" for change in row.changed]
    lines += [f"{'trouble':<10}{trouble.at:%Y-%m-%d %H:%M} UTC  {trouble.text}" for trouble in row.troubles]
    return lines + (doctor(row) if row.facts_at else [])


def _checkout(row: HostRow) -> str:
    if row.runtime == "builtin" or "commands" not in row.facts:
        return ""
    return f"checkout {row.facts.get('checkout_path')} {row.facts.get('checkout_revision')}".rstrip()


def doctor(row: HostRow) -> list[str]:
    """What the facts of a host mean, one line each, with the command that mends it."""
    lines = []
    for finding in findings(row.facts, row.samples[-1] if row.samples else None):
        lines.append(f"  {finding.level:<8}{finding.text}")
        if finding.mend:
            lines.append(f"  {'':<8}-> {finding.mend}")
    return lines


def probe(args: argparse.Namespace, paths: Paths) -> int:
    """Asks hosts now and prints what is missing there; fails when one cannot be asked or has an error."""
    _use(args)
    hosts = load_hosts(paths.hosts_yaml)
    asked = [find_host(hosts, name) for name in dict.fromkeys(args.host)] or list(hosts.hosts)
    answers, rows = asyncio.run(_probe(paths, asked))
    wrong = False
    for row in rows:
        answer = answers[row.name]
        if isinstance(answer, RingRiftError):
            wrong = True
            print(f"{row.name}: {answer.line()}", file=sys.stderr)
        else:
            sample = row.samples[-1] if row.samples else None
            wrong = wrong or any(finding.level == "error" for finding in findings(row.facts, sample))
            if not args.json:
                print("\n".join([f"{row.name}: up, {row.latency_ms or 0:.0f} ms", *doctor(row)]))
    if args.json:
        print(to_json([to_object(row) for row in rows]))
    return Exit.FAILED if wrong else Exit.DONE


async def _probe(paths: Paths, asked: list[Any]) -> tuple[dict[str, Any], list[HostRow]]:
    async with await StateStore.open(paths) as store, way_to(paths, asked) as remote:
        answers = await look_at_all(store, remote, asked)
        return answers, [row for row in await host_rows(store) if row.name in answers]


def enrol(args: argparse.Namespace, paths: Paths) -> int:
    """Trusts a host's key, when the fingerprint that was compared is given; else only shows the key."""
    from backend.fleet.plans import plan_enrol
    from ringrift_console.verbs.operations import carry_out

    _use(args)

    async def checked() -> Plan:
        plan = await plan_enrol(paths, host=args.host)
        shown = str(plan.params["fingerprint"])
        if args.dry_run or args.fingerprint == shown:
            return plan
        if args.fingerprint:
            raise RefusedError("the host shows another key", where=f"{args.host} {shown}", hint="nothing was trusted")
        raise RefusedError("a person has to compare the key", where=f"{args.host} {shown}", hint=plan.command)

    return carry_out(args, paths, checked())


def bootstrap(args: argparse.Namespace, paths: Paths) -> int:
    """Sets a host up, through the supervisor."""
    from backend.fleet.plans import plan_bootstrap
    from ringrift_console.verbs.operations import carry_out

    _use(args)
    return carry_out(args, paths, plan_bootstrap(paths, host=args.host))


def drain(args: argparse.Namespace, paths: Paths) -> int:
    """Places no new jobs on a host, through the supervisor."""
    from backend.fleet.plans import plan_drain
    from ringrift_console.verbs.operations import carry_out

    _use(args)
    return carry_out(args, paths, plan_drain(paths, host=args.host, reason=args.reason))


def undrain(args: argparse.Namespace, paths: Paths) -> int:
    """Places new jobs on a host again, through the supervisor."""
    from backend.fleet.plans import plan_undrain
    from ringrift_console.verbs.operations import carry_out

    _use(args)
    return carry_out(args, paths, plan_undrain(paths, host=args.host))


def reload(args: argparse.Namespace, paths: Paths) -> int:
    """Lets the supervisor go by the hosts file as it is now."""
    from backend.fleet.reload import plan_reload
    from ringrift_console.verbs.operations import carry_out

    _use(args)
    return carry_out(args, paths, plan_reload(paths))


def shell(args: argparse.Namespace, paths: Paths) -> int:
    """Becomes a shell on a host."""
    from backend.fleet.shell import shell_argv

    _use(args)
    argv = shell_argv(find_host(load_hosts(paths.hosts_yaml), args.host), paths)
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        raise RingRiftError("there is no such program", where=argv[0], hint="install openssh-client") from None
