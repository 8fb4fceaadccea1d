"""Models: what the registry holds, with the results that speak for each model."""

from __future__ import annotations

from collections.abc import Sequence

from backend.snapshot import ModelRow, Snapshot
from backend.text import size_text
from ringrift_console.widgets.line import Span
from ringrift_console.widgets.table import Column
from screens.cells import UNKNOWN, against, count, gauntlet_target, state_span, win_span
from screens.facts import Fact, model_facts
from screens.listing import ListScreen
from screens.model_actions import ModelActions

_FOREIGN = {"random": "foreign,", "heuristic": "read-only"}
"""Stands where a model of another installation has no results here."""


class ModelsScreen(ModelActions, ListScreen[ModelRow]):
    """The table of models."""

    KIND = "models"
    TITLE = "Models"
    NOUN = "model"
    EMPTY = "no models yet; a pipeline registers the first (1, then p)"

    def items(self, snapshot: Snapshot) -> Sequence[ModelRow]:
        return snapshot.models

    def called(self, item: ModelRow) -> str:
        return item.label

    def identity(self, item: ModelRow) -> str:
        return item.label if item.foreign else item.sha256  # several names of theirs may mean one file

    def facts(self, item: ModelRow) -> list[Fact]:
        return model_facts(self.app, item)

    def columns(self) -> list[Column[ModelRow]]:
        look = self.app.look
        return [
            Column(
                "MODEL", self._label, 13, flex=1,
                find=_called, sort=lambda model: (model.model_id, model.version),
            ),
            Column(
                "STAGE", lambda model: state_span(look, model.stage), 13,
                find=lambda model: model.stage, sort=lambda model: model.stage,
            ),
            Column("GAMES", lambda model: count(model.games), 5, align="right", sort=lambda model: model.games),
            Column("RANDOM", lambda model: self._win(model, "random"), 13, sort=lambda model: _rate(model, "random")),
            Column(
                "HEURISTIC", lambda model: self._win(model, "heuristic"), 13,
                sort=lambda model: _rate(model, "heuristic"),
            ),
            Column("CONFIG", _config, 12, from_width=999, find=_config),  # for the filter
            Column("SIZE", lambda model: size_text(model.size), 8, from_width=96, align="right"),
            Column("MADE", self._made, 6, align="right", sort=lambda model: model.created_at),
            Column("LIVE ON", self._live, 7, from_width=100, align="right"),
            Column("SHA-256", self._sha, 8, find=lambda model: model.sha256, from_width=90),
        ]  # fmt: skip

    def _label(self, model: ModelRow) -> Span:
        """The model; the one that others are compared with is marked."""
        marked = model.sha256 == self.app.marked
        return (f"{model.label} {self.app.look.glyphs.cursor}", "accent") if marked else (model.label, "text")

    def _win(self, model: ModelRow, opponent: str) -> Span:
        if model.foreign and against(model, opponent) is None:
            return _FOREIGN[opponent], "warn"
        return win_span(against(model, opponent), gauntlet_target(model, opponent), interval=True)

    def _live(self, model: ModelRow) -> Span:
        """Hosts that hold it, of those that were to."""
        live, wanted = self.app.snapshot.live_hosts(model.sha256)
        return (f"{live}/{wanted}", "good" if live == wanted else "warn") if wanted else (UNKNOWN, "dim")

    def _made(self, model: ModelRow) -> Span:
        return self.app.clock.short(model.created_at), "dim"

    def _sha(self, model: ModelRow) -> Span:
        return (model.sha256[:8] or "unknown", "dim") if model.present else ("missing", "bad")

    async def do_open(self) -> None:
        self.do_registry_info()


def _called(model: ModelRow) -> str:
    return f"{model.label} foreign" if model.foreign else model.label


def _config(model: ModelRow) -> str:
    return model.config or "-"


def _rate(model: ModelRow, opponent: str) -> float | None:
    result = against(model, opponent)
    return result.rate if result else None
