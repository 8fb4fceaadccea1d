"""The stages of a model and the ways between them; pure."""

from __future__ import annotations

from collections import deque

STAGES: tuple[str, ...] = ("development", "staging", "production", "archived", "rejected")

TRANSITIONS: dict[str, tuple[str, ...]] = {
    "development": ("staging", "archived", "rejected"),
    "staging": ("production", "development", "archived", "rejected"),
    "production": ("archived", "staging", "rejected"),
    "archived": ("development",),
    "rejected": ("development",),
}
"""Stages that a model may go to from each stage: the ai-service's own table, and "any -> rejected" of the contract."""

PROTECTED: tuple[str, ...] = ("staging", "production")
"""Stages whose models are not archived by hand or by policy."""


def next_stage(stage: str) -> str:
    """The stage that a model is promoted to from its own, when nobody says which."""
    return "staging" if stage == "development" else "production"


def hops(before: str, after: str) -> tuple[tuple[str, str], ...]:
    """The shortest legal way from one stage to another, step by step; empty when they are the same.

    A rollback to an archived model goes ``archived -> development -> staging -> production``: every step is legal for
    a reader that knows only the ai-service's table.

    Raises:
        ValueError: there is none (an unknown stage).
    """
    came: dict[str, str] = {}
    queue = deque([before])
    while queue and after not in (before, *came):
        here = queue.popleft()
        for there in TRANSITIONS.get(here, ()):
            if there != before and there not in came:
                came[there] = here
                queue.append(there)
    if before != after and after not in came:
        raise ValueError(f"no way from {before} to {after}")
    way: list[tuple[str, str]] = []
    while after != before:
        way.append((came[after], after))
        after = came[after]
    return tuple(reversed(way))
