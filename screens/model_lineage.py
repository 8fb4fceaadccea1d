"""Where a model comes from and where it went, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from backend.snapshot import ModelRow
from ringrift_console.widgets.line import Line
from screens.cells import against, count, state_span, win_text
from screens.facts import Fact, to_lines
from screens.model_pages import ModelPage

if TYPE_CHECKING:
    from backend.registry.lineage import Lineage

_NAMED = 8


class LineagePage(ModelPage):
    """Data, run, parents, the model, its evaluations, where it was deployed, and what was made from it."""

    WORD = "lineage"

    def read(self, model: ModelRow) -> Lineage:
        from backend.registry.lineage import lineage

        return lineage(self.app.paths, model.sha256)

    def lines(self, found: Lineage, width: int) -> Sequence[Line]:
        return to_lines(
            [*self._data(found), *self._model(found), *self._evaluations(found), *self._deployment(found),
             *self._after(found)],
            self.app.look, width,
        )  # fmt: skip

    def _data(self, found: Lineage) -> list[Fact]:
        data = found.data
        facts: list[Fact] = [("Data", None)]
        if data.get("samples") is not None:
            facts.append(("samples", count(data["samples"])))
        if data.get("games") is not None:
            facts.append(("games", count(data["games"])))
        facts.append(("content", (found.digest or "unknown", "text" if found.digest else "dim")))
        if found.siblings:
            facts.append(("also made", self._names(found.siblings)))
        return facts

    def _model(self, found: Lineage) -> list[Fact]:
        model, clock = found.model, self.app.clock
        facts: list[Fact] = [("Run", None)]
        job = found.run or next(
            (
                job.id
                for job in self.app.snapshot.jobs
                if job.kind == "train" and job.result.get("label") == model.label
            ),
            None,
        )
        facts.append(("job", job or ("unknown", "dim")))
        facts.append(("registered", f"{clock.long(model.created_at)} by {found.source or 'unknown'}"))
        chain = [one if isinstance(one, str) else one.label for one in found.ancestors]
        facts.append(("parents", " ← ".join(name[:24] for name in chain) if chain else ("none, from scratch", "dim")))
        stage = state_span(self.app.look, model.stage)
        facts += [("Model", None), ("model", (f"{model.label}  {stage[0]}", stage[1])), ("sha256", model.sha256)]
        return facts

    def _evaluations(self, found: Lineage) -> list[Fact]:
        facts: list[Fact] = [("Evaluation", None)]
        for opponent in ("random", "heuristic"):
            result = against(self.model, opponent)
            if result is not None:
                facts.append((f"vs {opponent}", f"{win_text(result, interval=True)} in {result.games} games"))
        for run in found.evaluations:
            facts.append(
                ("run", f"{run.run}  {run.games} games, {self.app.clock.long(run.at)}: {' '.join(run.opponents)}")
            )
        if len(facts) == 1:
            facts.append(("none", ("it has not played", "dim")))
        return facts

    def _deployment(self, found: Lineage) -> list[Fact]:
        model, clock = found.model, self.app.clock
        facts: list[Fact] = [("Deployment", None)]
        for move in found.moves:
            came = move.after == model.label
            said = f"into production, after {move.before or 'none'}" if came else f"left production to {move.after}"
            facts.append((clock.short(move.at), (f"{said} ({move.action}: {move.reason})", "good" if came else "warn")))
        if model.stage == "production":
            facts.append(("file", f"models_essential/canonical_{model.config}.pth"))
        if found.previous:
            facts.append(("previous", (f"a rollback of {model.config} goes to it", "info")))
        if len(facts) == 1:
            facts.append(("none", ("it was never in production", "dim")))
        return facts

    def _after(self, found: Lineage) -> list[Fact]:
        if not found.children:
            return [("Trained on from it", None), ("none", ("no model has it as its parent", "dim"))]
        return [("Trained on from it", None), ("models", self._names(found.children))]

    def _names(self, rows: Iterable[ModelRow]) -> str:
        names = [f"{row.label} ({row.stage})" for row in rows]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ", ".join(names[:_NAMED]) + more

    def do_registry_lineage(self) -> None:
        self.dismiss()
