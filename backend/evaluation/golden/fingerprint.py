"""What a network says about the golden positions of its config, small enough to be kept for every model.

Of each position the three likeliest moves with their probabilities, and the win chance of every seat: a weight that
has changed, another encoder or another arithmetic moves nearly all of these numbers at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import SchemaError
from backend.evaluation.golden.positions import COUNT, golden_states, suite

if TYPE_CHECKING:
    from backend.training.checkpoint import LoadedModel

TOP = 3
"""Moves kept of a position."""
TOLERANCE = 1e-4
"""Largest difference of a probability that is no drift; below it are the roundings of another run, number of threads
or processor of the same kind (``docs/monitoring.md`` has what was measured)."""
_DIGITS = 7


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Outputs for the positions of ``suite``.

    Attributes:
        moves: int64[COUNT, TOP], -1 where a position has fewer.
        chances: float64[COUNT, TOP], the probabilities of these moves.
        values: float64[COUNT, n], win chances by seat.
    """

    suite: str
    moves: NDArray[np.int64]
    chances: NDArray[np.float64]
    values: NDArray[np.float64]

    def text(self) -> str:
        """As JSON, numbers to seven digits."""
        value = {
            "suite": self.suite, "moves": self.moves.tolist(), "chances": np.round(self.chances, _DIGITS).tolist(),
            "values": np.round(self.values, _DIGITS).tolist(),
        }  # fmt: skip
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def of_text(cls, text: str) -> Fingerprint:
        """The fingerprint that :meth:`text` wrote.

        Raises:
            SchemaError: it is not one.
        """
        try:
            value: dict[str, Any] = json.loads(text)
            made = cls(
                str(value["suite"]),
                np.array(value["moves"], dtype=np.int64),
                np.array(value["chances"], dtype=np.float64),
                np.array(value["values"], dtype=np.float64),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise SchemaError("a stored fingerprint cannot be read", hint=str(error)[:80]) from error
        if made.moves.shape != (COUNT, TOP) or made.chances.shape != (COUNT, TOP) or made.values.ndim != 2:
            raise SchemaError("a stored fingerprint is of other sizes", where=made.suite)
        return made


@dataclass(frozen=True, slots=True)
class Outputs:
    """All that a network says about the golden positions: logits of every legal move, win chances by seat."""

    suite: str
    moves: tuple[NDArray[np.int64], ...]
    chances: tuple[NDArray[np.float64], ...]
    values: NDArray[np.float64]

    def fingerprint(self) -> Fingerprint:
        """What is kept of it."""
        moves = np.full((COUNT, TOP), -1, dtype=np.int64)
        chances = np.zeros((COUNT, TOP))
        for row, (listed, chance) in enumerate(zip(self.moves, self.chances, strict=True)):
            best = np.argsort(-chance, kind="stable")[:TOP]
            moves[row, : len(best)] = listed[best]
            chances[row, : len(best)] = chance[best]
        return Fingerprint(self.suite, moves, chances, self.values)

    def drift(self, known: Fingerprint) -> float:
        """The largest difference of a probability from what is kept; infinite where something is no number.

        Moves are compared by what they are, not by their place: two equally likely ones may swap.

        Raises:
            SchemaError: it is the fingerprint of other positions or another number of seats.
        """
        if known.suite != self.suite or known.values.shape != self.values.shape:
            raise SchemaError("the fingerprint is of other positions", where=known.suite)
        worst = float(np.max(np.abs(self.values - known.values)))
        for listed, chance, moves, chances in zip(self.moves, self.chances, known.moves, known.chances, strict=True):
            now = {int(move): float(one) for move, one in zip(listed, chance, strict=True)}
            for move, before in zip(moves.tolist(), chances.tolist(), strict=True):
                if move >= 0:
                    worst = max(worst, abs(now.get(move, np.inf) - before))
        finite = bool(np.isfinite(self.values).all()) and all(np.isfinite(chance).all() for chance in self.chances)
        return worst if finite and np.isfinite(worst) else float("inf")


def outputs_of(model: LoadedModel) -> Outputs:
    """Asks a network about the golden positions of its config, on the CPU with one thread.

    Raises:
        UnverifiedError: the rules give other positions than they should.
    """
    import torch

    from backend.players.neural import NetworkEvaluator
    from backend.rules import load

    name, states, rules = suite(model.config), golden_states(model.config.key), load(model.config)
    legal = tuple(rules.legal(state) for state in states)
    counts = np.array([len(listed) for listed in legal], dtype=np.int64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        logits, values = NetworkEvaluator(model)(np.ascontiguousarray(states), np.concatenate(legal), counts)
    finally:
        torch.set_num_threads(threads)
    ends = np.cumsum(counts)
    chances = tuple(_softmax(logits[end - count : end]) for end, count in zip(ends, counts, strict=True))
    return Outputs(name, legal, chances, values)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    scaled = np.exp(logits.astype(np.float64) - float(np.max(logits)))
    chances: NDArray[np.float64] = scaled / scaled.sum()
    return chances
