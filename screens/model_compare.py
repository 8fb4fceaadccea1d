"""Two models side by side: what they are, what they scored, and which is better by all games."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.configs import parse_config
from backend.evaluation.rating_view import Meeting, RatingReader, head_to_head
from backend.snapshot import ModelRow
from backend.text import size_text
from ringrift_console.actions import find_model, models_by_name
from ringrift_console.widgets.line import Line
from screens.cells import UNKNOWN, state_span, win_text
from screens.elo_data import Entrant, entrants, player_of
from screens.elo_matrix import told
from screens.model_pages import ModelPage

_NAME = 18


@dataclass(frozen=True, slots=True)
class Rated:
    """The two by their ratings, None where they have none, and their own games."""

    first: Entrant | None
    second: Entrant | None
    words: str


class ComparePage(ModelPage):
    """``key`` is the model in front, ``other`` the marked one."""

    def __init__(self, key: str, other: str) -> None:
        super().__init__(key)
        self.other = other

    @property
    def crumb(self) -> str:
        return f"Models › compare {self.subject}"

    def read(self, model: ModelRow) -> Rated:
        other = find_model(self.app.snapshot, self.other)
        if model.config is None or other is None or other.config != model.config:
            return Rated(None, None, "they play different configs: their ratings do not compare")
        view = RatingReader(self.app.paths).view(model.config, 1)
        listed = entrants(view, models_by_name(self.app.snapshot.models))
        one, two = player_of(listed, model.label), player_of(listed, other.label)
        if one is None or two is None:
            return Rated(one, two, "one of them has no rating")
        met: dict[tuple[str, str], Meeting] = head_to_head(self.app.paths, model.config, [one.player, two.player])
        players = parse_config(model.config).players
        return Rated(one, two, told(view, one, two, met.get((one.player, two.player)), players))

    def lines(self, found: Rated, width: int) -> Sequence[Line]:
        first, second = self.model, find_model(self.app.snapshot, self.other)
        if first is None or second is None:
            return [((" the marked model is no longer there", "warn"),)]
        fit, cells = self.app.look.glyphs.fit, (width - _NAME - 3) // 2
        lines: list[Line] = [
            (
                (fit("", _NAME + 1), "head"),
                (fit(first.label, cells) + " ", "title"),
                (fit(second.label, cells), "title"),
            )
        ]
        sides = self._values(first, found.first), self._values(second, found.second)
        for name in dict.fromkeys([*sides[0], *sides[1]]):
            one, two = (side.get(name, UNKNOWN) for side in sides)
            role = "text" if one == two else "strong"
            lines.append(
                ((fit(f" {name}", _NAME) + " ", "dim"), (fit(one, cells) + " ", role), (fit(two, cells), role))
            )
        lines.append(())
        lines += [((" " + row, "accent"),) for row in self.app.look.glyphs.wrap(found.words, width - 2)]
        return lines

    def _values(self, model: ModelRow, rated: Entrant | None) -> dict[str, str]:
        """Everything of a model by name, as text."""
        clock = self.app.clock
        values = {
            "stage": state_span(self.app.look, model.stage)[0], "config": model.config or UNKNOWN,
            "Elo": f"{rated.band.elo:.0f} ({rated.band.words('–')})" if rated else UNKNOWN,
            "games": str(model.games), "made": f"{clock.zoned(model.created_at):%Y-%m-%d %H:%M}",
            "size": size_text(model.size), "network": model.architecture or UNKNOWN,
            "parent": (model.parent or UNKNOWN)[:16],
            "sha256": model.sha256[:16],
        }  # fmt: skip
        for result in model.win_rates:
            values[f"vs {result.opponent}"] = f"{win_text(result, interval=True)} of {result.games}"
        measured = model.metadata.get("metrics")
        if isinstance(measured, dict):
            values |= {
                name.replace("_", " "): f"{value:.4g}" if isinstance(value, float) else str(value)
                for name, value in measured.items()
            }
        return values

    def do_registry_compare(self) -> None:
        self.dismiss()
