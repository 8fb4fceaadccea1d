"""Positions by hand: stacks are given from the top down, as people say them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.rules import load
from backend.rules.engine import Rules
from backend.rules.layout import State

Cells = dict[str, str] | None


@dataclass
class Position:
    """A position under test, played on by the notation."""

    rules: Rules
    state: State

    def legal(self) -> set[str]:
        return {self.rules.move_text(self.state, move) for move in self.rules.legal(self.state)}

    def starting(self, *words: str) -> set[str]:
        return {text for text in self.legal() if text.startswith(words)}

    def play(self, *moves: str) -> Position:
        for text in moves:
            self.rules.apply(self.state, self.rules.parse_move(self.state, text))
        return self

    def field(self, index: int) -> str:
        return self.rules.text(self.state).split("|")[index]

    @property
    def phase(self) -> str:
        return self.field(0)

    @property
    def player(self) -> int:
        return self.rules.player(self.state)

    @property
    def eliminated(self) -> list[int]:
        return [int(part) for part in self.field(5).split(",")]

    @property
    def territory(self) -> list[int]:
        return [int(part) for part in self.field(6).split(",")]

    def _cells(self, index: int) -> dict[str, str]:
        return dict(item.split(":") for item in self.field(index).split())

    @property
    def stacks(self) -> dict[str, str]:
        return {cell: rings[::-1] for cell, rings in self._cells(7).items()}

    @property
    def markers(self) -> dict[str, str]:
        return self._cells(8)

    @property
    def collapsed(self) -> dict[str, str]:
        return self._cells(9)


def _joined(cells: Cells, reverse: bool = False) -> str:
    return " ".join(f"{cell}:{value[::-1] if reverse else value}" for cell, value in (cells or {}).items())


@pytest.fixture
def at() -> Callable[..., Position]:
    """Makes a position; territory follows from the collapsed cells, the ring supply is the board's own."""

    def make(
        config: str = "square8_2p",
        stacks: Cells = None,
        markers: Cells = None,
        collapsed: Cells = None,
        *,
        phase: str = "move",
        player: int = 1,
        hands: tuple[int, ...] = (),
        eliminated: tuple[int, ...] = (),
        **told: object,
    ) -> Position:
        rules = load(config)
        none = (0,) * rules.players
        owned = [
            sum(value == str(seat) for value in (collapsed or {}).values()) for seat in range(1, rules.players + 1)
        ]
        numbers = [",".join(map(str, part)) for part in (hands or none, eliminated or none, owned)]
        parts = [phase, str(player), "active", "0", *numbers, _joined(stacks, True), _joined(markers)]
        text = "|".join([*parts, _joined(collapsed)])
        told.setdefault("ring_supply", rules.board.supply)
        return Position(rules, rules.parse_text(text, **told))

    return make


GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.jsonl.gz"))


def recordings() -> list[Path]:
    """The golden games, and the recordings of the reference where a folder of them lies beside the checkout."""
    beside = Path(os.environ.get("RINGRIFT_TRACES") or Path(__file__).parents[3] / "shared" / "traces")
    return GOLDEN + sorted(beside.glob("*.jsonl.gz"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "recording" in metafunc.fixturenames:
        paths = recordings()
        metafunc.parametrize("recording", paths, ids=[f"{path.parent.name}-{path.name[:-9]}" for path in paths])
    if "golden" in metafunc.fixturenames:
        metafunc.parametrize("golden", GOLDEN, ids=[path.name[:-9] for path in GOLDEN])
