"""The maximum of the likelihood of choices: Newton's method with the full Hessian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.evaluation.ratings_choices import Choices, Floats, Ints

_STEPS = 200
_DECREMENT = 1e-13
_COARSE = 1e-8


@dataclass(frozen=True, slots=True)
class Maximum:
    """Where the likelihood is largest.

    Attributes:
        strengths: float64[P], log-strengths.
        seats: float64[n], log-strength that a seat adds; their sum is 0.
        covariance: float64[P, P] of the strengths; rows of fixed players are 0.
        seat_covariance: float64[n, n].
        steps: Newton steps taken.
    """

    strengths: Floats
    seats: Floats
    covariance: Floats
    seat_covariance: Floats
    steps: int


def contrasts(seats: int) -> Floats:
    """float64[n, n - 1]: orthonormal columns that sum to 0 (Helmert), so that no seat is singled out."""
    columns = np.zeros((seats, seats - 1))
    for column in range(1, seats):
        columns[:column, column - 1] = 1.0
        columns[column, column - 1] = -column
    normed: Floats = columns / np.linalg.norm(columns, axis=0)
    return normed


def maximise(choices: Choices, start: Floats, free: Ints, seat_sd: float) -> Maximum:
    """Fits the strengths of the free players and what the seats add.

    Args:
        choices: real and virtual games; every free player must be tied to a fixed one by them.
        start: float64[P], log-strengths; those of players that are not free stay.
        free: int64[F], indices of the players to fit.
        seat_sd: standard deviation, in log-strength, of the normal prior of a seat's part.

    Raises:
        ArithmeticError: no maximum was found, or it is not unique.
    """
    problem = _Problem(choices, start, free, seat_sd)
    point = problem.at(np.zeros(problem.size))
    for steps in range(_STEPS):
        gradient, hessian = problem.derivatives(point)
        try:
            step = -np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError as error:
            raise ArithmeticError("the ratings are not determined") from error
        decrement = float(-gradient @ step)
        if not np.isfinite(decrement):
            raise ArithmeticError("the ratings are not determined")
        if decrement <= _DECREMENT:  # convergence is quadratic: what this step leaves is rounding
            return problem.result(point.x + step, hessian, steps)
        # Far from the maximum a full step may overshoot; close to it the value is too coarse to compare.
        length = 1.0
        tried = problem.at(point.x + step)
        while decrement > _COARSE and not tried.value <= point.value - 1e-4 * length * decrement:
            length /= 2
            tried = problem.at(point.x + length * step)
        point = tried
    raise ArithmeticError(f"no maximum of the likelihood after {_STEPS} steps")


@dataclass(frozen=True, slots=True)
class _Point:
    """Parameters, minus their log-likelihood, and float64[n, M] chances of the alternatives."""

    x: Floats
    value: float
    chances: Floats


class _Problem:
    """Minus the log-likelihood; alternatives come first in its arrays, so that each operation runs over long rows."""

    def __init__(self, choices: Choices, start: Floats, free: Ints, seat_sd: float) -> None:
        self.start, self.free = start, free
        self.width = choices.players.shape[1]
        self.columns = np.vstack([contrasts(self.width), np.zeros(self.width - 1)])
        self.size = len(free) + self.width - 1
        self.ridge = 1.0 / seat_sd**2
        self.players = np.ascontiguousarray(choices.players.T)
        self.seats = np.ascontiguousarray(choices.seats.T)
        self.counts = np.ascontiguousarray(choices.counts.T)
        self.inside = np.ascontiguousarray(choices.inside.T)
        self.totals = self.counts.sum(0)
        slot = np.full(len(start), len(free), dtype=np.int64)  # everybody who is fixed shares one slot, cut off later
        slot[free] = np.arange(len(free))
        self.slots = slot[self.players]
        self.whole = bool(self.inside.all())

    def _split(self, x: Floats) -> tuple[Floats, Floats]:
        strengths = self.start.copy()
        strengths[self.free] += x[: len(self.free)]
        return strengths, x[len(self.free) :]

    def at(self, x: Floats) -> _Point:
        strengths, parts = self._split(x)
        scores = strengths[self.players] + (self.columns @ parts)[self.seats]
        if not self.whole:
            scores[~self.inside] = -np.inf
        scores -= scores.max(0)
        chances = np.exp(scores)
        mass = chances.sum(0)
        if not self.whole:
            scores[~self.inside] = 0.0
        value = float(self.totals @ np.log(mass)) - float(np.vdot(self.counts, scores))
        return _Point(x, value + 0.5 * self.ridge * float(parts @ parts), chances / mass)

    def derivatives(self, point: _Point) -> tuple[Floats, Floats]:
        """Gradient float64[K] and Hessian float64[K, K]; strengths first, then the seats."""
        count, slots, width = len(self.free), self.slots, self.width
        parts = point.x[count:]
        expected = point.chances * self.totals
        surplus = expected - self.counts
        gradient, hessian = np.empty(self.size), np.zeros((self.size, self.size))
        gradient[:count] = np.bincount(slots.ravel(), surplus.ravel(), minlength=count + 1)[:count]
        by_seat = np.bincount(self.seats.ravel(), surplus.ravel(), minlength=width + 1)
        gradient[count:] = self.columns.T @ by_seat + self.ridge * parts
        block = np.zeros((count + 1) ** 2)
        diagonal = np.zeros(count + 1)
        crossed = np.zeros((count + 1) * (width + 1))  # player against seat
        seated = np.zeros((width + 1) ** 2)
        for a in range(width):
            own = expected[a] * (1.0 - point.chances[a])
            diagonal += np.bincount(slots[a], own, minlength=count + 1)
            crossed += np.bincount(slots[a] * (width + 1) + self.seats[a], own, minlength=crossed.size)
            seated += np.bincount(self.seats[a] * (width + 2), own, minlength=seated.size)
            for b in range(a):
                both = -expected[a] * point.chances[b]
                block += np.bincount(slots[a] * (count + 1) + slots[b], both, minlength=block.size)
                for one, other in ((a, b), (b, a)):
                    crossed += np.bincount(slots[one] * (width + 1) + self.seats[other], both, minlength=crossed.size)
                    seated += np.bincount(
                        self.seats[one] * (width + 1) + self.seats[other], both, minlength=seated.size
                    )
        pairs = block.reshape(count + 1, count + 1)[:count, :count]
        hessian[:count, :count] = pairs + pairs.T
        hessian[np.arange(count), np.arange(count)] += diagonal[:count]
        hessian[:count, count:] = crossed.reshape(count + 1, width + 1)[:count] @ self.columns
        hessian[count:, :count] = hessian[:count, count:].T
        hessian[count:, count:] = self.columns.T @ seated.reshape(width + 1, width + 1) @ self.columns
        hessian[count:, count:] += self.ridge * np.eye(width - 1)
        return gradient, hessian

    def result(self, x: Floats, hessian: Floats, steps: int) -> Maximum:
        strengths, parts = self._split(x)
        inverse = np.linalg.inv(hessian)
        inverse = (inverse + inverse.T) / 2
        count, columns = len(self.free), self.columns[:-1]
        covariance = np.zeros((len(strengths), len(strengths)))
        covariance[np.ix_(self.free, self.free)] = inverse[:count, :count]
        return Maximum(strengths, columns @ parts, covariance, columns @ inverse[count:, count:] @ columns.T, steps)
