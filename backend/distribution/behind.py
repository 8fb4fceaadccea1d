"""Which hosts are far behind the others that fetch in the same way. Pure: told the time."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

BEHIND = 0.1
"""Below that share of the median rate a host is behind (research 8.3)."""
LEAST = 3
"""Hosts that must fetch before their median says anything."""


class Behind:
    """Follows the hosts of one delivery."""

    def __init__(self) -> None:
        self._median = 0.0
        self._since: dict[str, float] = {}

    def look(self, now: float, rates: Mapping[str, float], able: Mapping[str, float]) -> dict[str, float]:
        """Hosts that are behind, with the time since when.

        When most are done, the last median stands: whoever crawls at the end is behind what the others had.

        Args:
            rates: bytes a second of all hosts that fetch now.
            able: what a host's link, or a limit of its own, lets come in, where that is known; nobody is behind who
                uses it.
        """
        if len(rates) >= LEAST:
            self._median = median(rates.values())
        found = {}
        for host, rate in rates.items():
            if rate < BEHIND * min(self._median, able.get(host, self._median)):
                found[host] = self._since.get(host, now)
        self._since = found
        return dict(found)
