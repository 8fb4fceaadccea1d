"""The criteria of a model's next stages, each with what is required, what was measured, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backend.errors import SchemaError
from backend.snapshot import ModelRow
from ringrift_console.actions import find_model
from ringrift_console.look import Look
from ringrift_console.widgets.line import Line, Span
from screens.cells import state_span
from screens.model_pages import ModelPage

if TYPE_CHECKING:
    from backend.evaluation.criteria import Assessment, Row

VERDICT_ROLES = {"PASS": "good", "FAIL": "bad", "CONTINUE": "warn", "INVALID": "bad", "NO EVIDENCE": "dim"}
_WIDTHS = {"criterion": 11, "required": 9, "measured": 8, "95 % interval": 13, "games (uniq)": 12, "verdict": 20}


class CriteriaPage(ModelPage):
    """The judgement by the records as they are now; the promotion judges once more."""

    WORD = "criteria"

    def read(self, model: ModelRow) -> list[Assessment]:
        from backend.registry.promotion import assess

        if model.config is None:
            raise SchemaError("nothing says which config the model plays", where=model.label)
        stages = ("staging", "production") if model.stage == "development" else ("production",)
        return [assess(self.app.paths, model, stage) for stage in stages]

    def lines(self, found: list[Assessment], width: int) -> Sequence[Line]:
        lines: list[Line] = []
        for one in found:
            champion = find_model(self.app.snapshot, one.champion)
            name = champion.label if champion else one.champion[:12]
            lines += [()] if lines else []
            lines += assessment_lines(one, name, self.app.look, width)
        model = self.model
        if model is not None and model.stage not in ("development", "staging"):
            lines += [(), (("  it is ", "dim"), state_span(self.app.look, model.stage))]
        return lines

    def do_registry_criteria(self) -> None:
        self.dismiss()


def assessment_lines(found: Assessment, champion: str, look: Look, width: int) -> list[Line]:
    """A heading with the outcome, then a row a criterion, with what stands behind it below."""
    fit, wide = look.glyphs.fit, width >= 140
    heading: list[Span] = [
        (f" To {found.stage} ", "title"), (verdict_text(found.outcome, found.more), VERDICT_ROLES[found.outcome]),
    ]  # fmt: skip
    against = f"  against {champion}" if found.stage == "staging" else ""
    lines: list[Line] = [(*heading, (f"{against}  up to match {found.seq}", "dim"))]
    lines.append(tuple((fit(f" {name}", cells + 1), "head") for name, cells in _widths(wide).items()))
    for row in found.rows:
        lines += _row(row, look, width, wide)
    return lines


def _widths(wide: bool) -> dict[str, int]:
    if not wide:
        return _WIDTHS
    return {
        "criterion": 24, "required": 50, "measured": 10, "95 % interval": 14, "games (uniq)": 13, "evidence": 27,
        "verdict": 13,
    }  # fmt: skip


def _row(row: Row, look: Look, width: int, wide: bool) -> list[Line]:
    fit, verdict = look.glyphs.fit, str(row.verdict)
    short, _, note = row.required.partition(" (")
    values = {
        "criterion": row.criterion, "required": row.required if wide else short.split(", ")[0],
        "measured": row.measured, "95 % interval": row.interval, "games (uniq)": row.games, "evidence": row.evidence,
        "verdict": verdict if wide else verdict_text(verdict, row.more),
    }  # fmt: skip
    spans: list[Span] = []
    for name, cells in _widths(wide).items():
        role = VERDICT_ROLES[verdict] if name == "verdict" else "strong" if name == "criterion" else "text"
        spans.append((fit(f" {values[name]}", cells + 1), role))
    below = [] if wide else [note.rstrip(")")] if note else []
    below = [row.criterion, *below] if len(row.criterion) > _widths(wide)["criterion"] else below
    below += [verdict_text(verdict, row.more) + ": " + row.reason] if wide else [row.reason]
    below += [row.evidence] if not wide and row.evidence != "-" else []
    said = "; ".join(text for text in below if text)
    return [tuple(spans), *(((" " * 13 + part, "dim"),) for part in look.glyphs.wrap(said, width - 15))]


def verdict_text(verdict: str, more: int) -> str:
    """A verdict, with about how many more games it takes where games would help."""
    return f"{verdict} (~{more} more)" if more and verdict in ("CONTINUE", "NO EVIDENCE") else verdict


def table_lines(table: Sequence[Sequence[str]], look: Look, width: int) -> list[Line]:
    """The criteria that a plan carries, as its dialog shows them: heading, rows, the verdict coloured."""
    if not table:
        return []
    heading, *rows = table
    at = {name: n for n, name in enumerate(heading)}
    shown = [name for name in ("criterion", "measured", "95 % interval", "games (unique)", "verdict") if name in at]
    cells: dict[str, int] = {name: max(len(str(row[at[name]])) for row in table) for name in shown}
    cells = {name: min(size, 16) for name, size in cells.items()}
    lines: list[Line] = [tuple((look.glyphs.fit(name, cells[name] + 2), "head") for name in shown)]
    for row in rows:
        spans: list[Span] = []
        for name in shown:
            text: Any = row[at[name]]
            role = VERDICT_ROLES.get(str(text), "text") if name == "verdict" else "text"
            spans.append((look.glyphs.fit(str(text), cells[name] + 2), role))
        lines.append(tuple(spans))
    return lines
