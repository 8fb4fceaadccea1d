from __future__ import annotations

import math

import numpy as np
import pytest

from backend.evaluation.stats.cusum import Cusum


@pytest.mark.parametrize(
    ("chart", "false_alarm", "detection", "sudden"),
    [
        # The last column is a fall by 25 points.
        (Cusum(0.65, 0.55, 5), 8388, 197.8, 58.7),
        (Cusum(0.65, 0.55, 4), 2928, 150.8, 46.7),
        (Cusum(0.90, 0.80, 5), 5295, 97.3, 30.35),
    ],
)
def test_run_lengths_for_the_record(chart: Cusum, false_alarm: float, detection: float, sudden: float) -> None:
    found = (chart.run_length(chart.p0), chart.run_length(chart.p1), chart.run_length(chart.p0 - 0.25))
    assert found == pytest.approx((false_alarm, detection, sudden), rel=1e-3)


@pytest.mark.parametrize("chart", [Cusum(0.65, 0.55, 4), Cusum(0.90, 0.80, 5), Cusum(0.5, 0.4, 2)])
def test_run_lengths_agree_with_the_linear_system_of_the_chart(chart: Cusum) -> None:
    """L(s) = 1 + p L(max(0, s + win)) + (1 - p) L(s + loss) on a grid, L = 0 from h on."""
    size = 1000
    grid = np.arange(size) * chart.h / size
    for p in (chart.p0, chart.p1):
        system = np.eye(size)
        for step, share in (
            (math.log(chart.p1 / chart.p0), p),
            (math.log((1 - chart.p1) / (1 - chart.p0)), 1 - p),
        ):
            place = np.maximum(0.0, grid + step) * size / chart.h
            low = np.floor(place).astype(int)
            for at, part in ((low, 1 - (place - low)), (low + 1, place - low)):
                rows = np.flatnonzero(at < size)
                np.subtract.at(system, (rows, at[rows]), share * part[rows])
        assert chart.run_length(p) == pytest.approx(np.linalg.solve(system, np.ones(size))[0], rel=0.03)


def test_simulated_charts_ring_after_as_many_games() -> None:
    chart, random = Cusum(0.65, 0.55, 4), np.random.Generator(np.random.PCG64(5))
    lengths = []
    for _ in range(2000):
        total, games = 0.0, 0
        while not chart.alarm(total):
            total = chart.after(total, bool(random.random() < chart.p1))
            games += 1
        lengths.append(games)
    assert np.mean(lengths) == pytest.approx(chart.run_length(chart.p1), abs=4 * np.std(lengths) / math.sqrt(2000))


def test_the_sum_falls_with_wins_rises_with_losses_and_never_goes_below_nought() -> None:
    chart = Cusum(0.65, 0.55)
    assert chart.after(0, True) == 0 and chart.after(1, True) < 1 < chart.after(1, False)
    assert chart.alarm(5) and not chart.alarm(4.999)
    assert chart.run_length(0.5) < chart.run_length(0.55) < chart.run_length(0.65) < chart.run_length(0.7)
    assert Cusum(0.65, 0.55, 0.1).run_length(0.0) == 1


@pytest.mark.parametrize("arguments", [(0.5, 0.6), (0.5, 0.5), (1.0, 0.5), (0.5, 0.0), (0.6, 0.5, 0)])
def test_impossible_charts_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError):
        Cusum(*arguments)
    with pytest.raises(ValueError):
        Cusum(0.6, 0.5).run_length(1.0)
