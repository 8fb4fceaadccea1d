"""A plan: what an action will do, computed before anybody confirms it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that will be different: ``subject`` goes from ``before`` to ``after``."""

    subject: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a dialog shows and an operation carries out.

    Attributes:
        action: name in the action registry, e.g. ``jobs.cancel``.
        title: one line, e.g. ``Cancel job train hex8_2p``.
        params: everything the supervisor needs to carry it out; JSON values only.
        changes: before -> after, one row a thing touched.
        steps: what will be done, in order, in words.
        command: the equivalent command line of the CLI.
        undo: how to take it back, or why it cannot be.
        warnings: what the operator should know before saying yes.
        revision: revision of the state that the plan was computed from; apply refuses when ``guard`` moved on.
        table: what speaks for and against it, a heading and its rows, e.g. the criteria of a promotion.
        typed: what a person at a screen has to type to confirm it; empty where a key is enough.
        guard: the rows this plan depends on with the state they had, e.g. ``{"job 01H..": "running"}``.
    """

    action: str
    title: str
    params: dict[str, Any]
    changes: tuple[Change, ...] = ()
    steps: tuple[str, ...] = ()
    command: str = ""
    undo: str = ""
    warnings: tuple[str, ...] = ()
    revision: int = 0
    guard: dict[str, str] = field(default_factory=dict)
    table: tuple[tuple[str, ...], ...] = ()
    typed: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        changes = tuple(Change(**change) for change in value.get("changes", ()))
        tuples = {name: tuple(value.get(name, ())) for name in ("steps", "warnings")}
        table = tuple(tuple(row) for row in value.get("table", ()))
        return cls(**(value | tuples | {"changes": changes, "table": table}))
