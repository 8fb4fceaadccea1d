"""A page about one model that takes reading: shown at once, filled when a thread has read; and its history."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual.widget import Widget

from backend.errors import RingRiftError
from backend.snapshot import ModelRow, Snapshot
from ringrift_console.actions import find_model
from ringrift_console.reader import trace
from ringrift_console.widgets.line import Line, Lines
from screens.cells import state_span
from screens.facts import Fact, to_lines
from screens.model_actions import ModelActions

if TYPE_CHECKING:
    from backend.registry.history import PastDecision
    from backend.registry.store import Transition


class ModelPage(ModelActions):
    """A subclass gives :meth:`read`, which runs on a thread, and :meth:`lines`."""

    KIND = "model"
    WORD: ClassVar[str] = ""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.found: Any = None
        self.trouble = ""
        self._seen: Any = None

    def read(self, model: ModelRow) -> Any:
        """What the page shows.

        Raises:
            RingRiftError: it cannot be read.
        """
        raise NotImplementedError

    def lines(self, found: Any, width: int) -> Sequence[Line]:
        raise NotImplementedError

    @property
    def model(self) -> ModelRow | None:
        return find_model(self.app.snapshot, self.key)

    @property
    def subject(self) -> str | None:
        model = self.model
        return model.label if model else self.key

    @property
    def crumb(self) -> str:
        return f"Models › {self.subject} › {self.WORD}"

    def body(self) -> Iterable[Widget]:
        yield Lines(id="facts", classes="body")

    def _scrollable(self) -> Widget | None:
        return self.query_one("#facts", Lines)

    def show_snapshot(self, snapshot: Snapshot) -> None:
        model = self.model
        if model is not None:
            seen = (trace(self.app.paths), model)
            if seen != self._seen:
                self._seen = seen
                self.run_worker(partial(self._read, model), group="page", exclusive=True)
        self.show_lines()

    async def _read(self, model: ModelRow) -> None:
        try:
            self.found = await asyncio.to_thread(self.read, model)
            self.trouble = ""
        except RingRiftError as error:
            self.trouble = error.line()
        if self.is_mounted:
            self.show_lines()

    def show_lines(self) -> None:
        width = self.app.size.width
        lines: list[Line] = []
        if self.model is None:
            lines.append(((f" {self.key} is no longer there", "warn"),))
        if self.trouble:
            lines += [((" " + row, "notice_bad"),) for row in self.app.look.glyphs.wrap(self.trouble, width - 2)]
        if self.found is not None:
            lines += self.lines(self.found, width)
        elif not lines:
            lines.append(((" reading…", "dim"),))
        self.query_one("#facts", Lines).show(lines)


@dataclass(frozen=True, slots=True)
class Past:
    """What became of a model: its stages, and the decisions about it."""

    transitions: tuple[Transition, ...]
    decisions: tuple[PastDecision, ...]


class HistoryPage(ModelPage):
    """Stage transitions and decisions, newest first, with every reason and override."""

    WORD = "history"

    def read(self, model: ModelRow) -> Past:
        from backend.registry.history import decisions_of
        from backend.registry.store import info

        return Past(info(self.app.paths, model.sha256).transitions, decisions_of(self.app.paths, model.sha256))

    def lines(self, found: Past, width: int) -> Sequence[Line]:
        return to_lines([*self._decisions(found), *self._transitions(found)], self.app.look, width)

    def _decisions(self, past: Past) -> list[Fact]:
        clock = self.app.clock
        facts: list[Fact] = [("Decisions", None)]
        for one in reversed(past.decisions):
            facts.append((one.action, (f"{one.before} → {one.after}", "strong")))
            if one.override:
                facts.append(("OVERRIDE", (f"{one.override} (the evidence said {one.outcome})", "bad")))
            elif one.outcome:
                facts.append(("evidence", (one.outcome, "good" if one.outcome == "PASS" else "warn")))
            facts += [("reason", one.reason)] if one.reason and one.reason != one.override else []
            for row in _criteria(one.record):
                said = (
                    f"{row.get('criterion')} {row.get('measured')} of {row.get('required')}, {row.get('games')} games"
                )
                facts.append((str(row.get("verdict", "")), (said, "dim")))
            facts.append(("by", (f"{one.by}, {clock.long(one.at)}, operation {one.operation}", "dim")))
        if not past.decisions:
            facts.append(("none", ("nobody has decided anything about it here", "dim")))
        return facts

    def _transitions(self, past: Past) -> list[Fact]:
        facts: list[Fact] = [("Stages", None)]
        for step in reversed(past.transitions):
            said = state_span(self.app.look, step.after or "unknown")
            words = [f"{step.before or 'new'} → {said[0]}", step.reason or "", f"by {step.by}" if step.by else ""]
            text = "  ".join(word for word in words if word)
            facts.append((self.app.clock.short(step.at), (text, said[1])))
        return facts

    def do_models_decisions(self) -> None:
        self.dismiss()


def _criteria(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a stored judgement; nothing where a foreign program wrote something else."""
    rows = record.get("criteria")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
