from __future__ import annotations

import math

import numpy as np
import pytest

from backend.evaluation.stats.cusum import Cusum, tuned


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


@pytest.mark.parametrize(
    ("p0", "p1", "size", "h", "false_alarm", "detection", "sudden"),
    [
        # As docs/monitoring.md has them; the last column is a fall by 25 points.
        (0.65, 0.55, 2, 5.07, 10_227, 207, 61),
        (0.90, 0.80, 2, 5.52, 10_159, 112, 35),
        (0.43, 0.33, 3, 5.02, 10_150, 211, 61),
        (0.33, 0.23, 4, 5.08, 10_121, 190, 53),
    ],
)
def test_a_chart_is_tuned_to_one_false_alarm_in_ten_thousand_games(
    p0: float, p1: float, size: int, h: float, false_alarm: float, detection: float, sudden: float
) -> None:
    chart = tuned(p0, p1, size, 10_000.0)
    assert chart == Cusum(p0, p1, h)
    found = (chart.run_length(p0, size), chart.run_length(p1, size), chart.run_length(p0 - 0.25, size))
    assert found == pytest.approx((false_alarm, detection, sudden), rel=0.01)
    assert Cusum(p0, p1, h - 0.02).run_length(p0, size) < 10_000 <= found[0]
    assert chart.run_length_whole(p0, size) < found[0]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_simulated_charts_that_are_read_after_whole_blocks_ring_after_as_many_games(size: int) -> None:
    chart, random = Cusum(0.45, 0.35, 3), np.random.Generator(np.random.PCG64(size))
    for whole in (False, True):
        lengths = []
        for _ in range(2000):
            total, games = 0.0, 0
            while not chart.alarm(total):
                won = size * int(random.random() < 0.4) if whole else int(random.binomial(size, 0.4))
                total = chart.after_block(total, won, size)
                games += size
            lengths.append(games)
        exact = chart.run_length_whole(0.4, size) if whole else chart.run_length(0.4, size)
        assert np.mean(lengths) == pytest.approx(exact, abs=4 * np.std(lengths) / math.sqrt(2000))


def test_a_block_is_read_as_its_games_together() -> None:
    chart = Cusum(0.65, 0.55)
    assert chart.after_block(1.0, 0, 2) == pytest.approx(chart.after(chart.after(1.0, False), False))
    assert chart.after_block(0.1, 2, 2) == 0 and chart.run_length(0.6, 1) == chart.run_length(0.6)
    with pytest.raises(ValueError):
        chart.after_block(0.0, 3, 2)
    with pytest.raises(ValueError):
        chart.run_length(0.5, 0)
    with pytest.raises(ValueError):
        chart.run_length_whole(1.0, 2)
