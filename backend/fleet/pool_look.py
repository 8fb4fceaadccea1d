"""What a pool looks like now: its nodes, its queue, and how much of that is ours."""

from __future__ import annotations

from collections import Counter
from typing import Any

from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.pools import Pool, command, pool_of, rule_text
from backend.fleet.remote import Remote

LOOK_S = 30.0


async def look_at_pool(remote: Remote, host: Host) -> dict[str, Any]:
    """``{nodes: {state: number}, queue: {state: number}, ours: {state: number}, rule}``, or ``{error}``.

    ``queue`` counts the jobs of everybody in the pool's partition, ``ours`` those of this login.
    """
    pool = pool_of(host.name, host.settings)
    partition = dict(pool.options).get("--partition")
    only = [f"--partition={partition}"] if partition else []
    try:
        nodes = await _ask(remote, host, pool, "sinfo", "--noheader", "--format=%D|%T", *only)
        queue = await _ask(remote, host, pool, "squeue", "--noheader", "--array", "--format=%T|%U", *only)
        who = await remote.exec(host, ["id", "-u"], timeout_s=LOOK_S)
    except RingRiftError as error:
        return {"error": error.what}
    preferred = [str(kind) for kind in host.settings.get("preferred_workloads") or ()]
    return {
        "rule": rule_text(pool, preferred),
        "nodes": node_counts(nodes),
        "queue": job_counts(queue),
        "ours": job_counts(queue, who.stdout.decode("utf-8", "replace").strip()),
    }


async def _ask(remote: Remote, host: Host, pool: Pool, *words: str) -> str:
    done = await remote.exec(host, command(pool, *words), timeout_s=LOOK_S)
    if done.code != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise RingRiftError(said[-1] if said else f"{words[0]} ended with {done.code}", where=pool.name)
    return done.stdout.decode("utf-8", "replace")


def node_counts(text: str) -> dict[str, int]:
    """Nodes by state, from ``sinfo --format=%D|%T``; marks behind a state (``idle*``: not answering) stay."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        number, _, state = line.strip().partition("|")
        if number.isdigit() and state:
            found[state] += int(number)
    return dict(found)


def job_counts(text: str, user: str = "") -> dict[str, int]:
    """Jobs by state, from ``squeue --format=%T|%U``; with ``user`` those of one number alone."""
    lines = [line.strip().partition("|") for line in text.splitlines()]
    return dict(Counter(state.lower() for state, _, owner in lines if state and owner and user in ("", owner)))


def pool_text(found: dict[str, Any]) -> list[tuple[str, str]]:
    """It in a few lines: a name and its value."""
    if "error" in found:
        return [("nodes", f"not known: {found['error']}")]

    def words(counts: dict[str, int]) -> str:
        return ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "none"

    return [
        ("nodes", words(found.get("nodes") or {})),
        ("queue", words(found.get("queue") or {})),
        ("ours", words(found.get("ours") or {})),
        ("places", str(found.get("rule") or "-")),
    ]
