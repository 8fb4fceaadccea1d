"""A fixed piece of interpreter work, to tell how fast the machine was during a measurement."""

from __future__ import annotations

import time


def calibrate() -> tuple[float, float]:
    """Seconds that it takes by the clock and by the processor."""
    began, busy = time.perf_counter(), time.process_time()
    total = 0
    for n in range(1_600_000):
        total += n * n % 7
    return time.perf_counter() - began, time.process_time() - busy
