"""Time in which this process was not there: stopped, suspended, or starved of the processor. Pure: told the time.

What hosts told meanwhile is not read when it comes back, so none of them has stalled for that.
"""

from __future__ import annotations


class Away:
    """Watches a loop that looks at things again and again.

    Args:
        now: seconds, of any clock that only goes on.
        most: a pause that is no absence.
    """

    def __init__(self, now: float, most: float) -> None:
        self._looked, self._most = now, most

    def look(self, now: float) -> float:
        """Seconds since the last look when these were too many, else 0."""
        paused, self._looked = now - self._looked, now
        return paused if paused > self._most else 0.0
