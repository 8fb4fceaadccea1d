"""Times as an operator reads them: on the local clock, in UTC, or as an age."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

TimeMode = Literal["local", "utc", "age"]
TIME_MODES: tuple[TimeMode, ...] = ("local", "utc", "age")


def utc_now() -> datetime:
    return datetime.now(UTC)


def duration(seconds: float | None) -> str:
    """A length of time in two units at most: ``41s``, ``12m``, ``1h05``, ``3d04h``; ``-`` when unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}" if whole < 600 else f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


@dataclass(slots=True)
class Clock:
    """The console's clock and how it shows times."""

    now: Callable[[], datetime] = utc_now
    mode: TimeMode = "local"

    def next_mode(self) -> None:
        self.mode = TIME_MODES[(TIME_MODES.index(self.mode) + 1) % len(TIME_MODES)]

    def zoned(self, at: datetime) -> datetime:
        """``at`` on the clock that is shown."""
        return at.astimezone(UTC) if self.mode == "utc" else at.astimezone()

    @property
    def label(self) -> str:
        """The clock of the header: minutes only, so that an idle screen stays idle."""
        now = self.zoned(self.now())
        zone = "UTC" if self.mode == "utc" else now.tzname() or now.strftime("%z")
        return f"{now:%H:%M} {zone}"

    def age(self, at: datetime | None) -> str:
        """How long ago, coarse enough not to change at every look: ``now``, ``20s``, ``7m``, ``3h``, ``12d``."""
        if at is None:
            return "-"
        seconds = (self.now() - at).total_seconds()
        if seconds < 10:
            return "now"
        if seconds < 60:
            return f"{int(seconds // 10) * 10}s"
        if seconds < 3600:
            return f"{int(seconds // 60)}m"
        if seconds < 86400 * 2:
            return f"{int(seconds // 3600)}h"
        return f"{int(seconds // 86400)}d"

    def ago(self, at: datetime) -> str:
        age = self.age(at)
        return "just now" if age == "now" else f"{age} ago"

    def short(self, at: datetime | None) -> str:
        """At most 6 cells: time of day today, else the date; or the age."""
        if at is None:
            return "-"
        if self.mode == "age":
            return self.age(at)
        local = self.zoned(at)
        return f"{local:%H:%M}" if local.date() == self.zoned(self.now()).date() else f"{local:%d %b}"

    def minute(self, at: datetime) -> str:
        """Date, time to the minute and zone; or the age."""
        if self.mode == "age":
            return self.ago(at)
        local = self.zoned(at)
        return f"{local:%Y-%m-%d %H:%M} {self._zone(local)}"

    def long(self, at: datetime | None) -> str:
        """Date, time to the second and zone; with the age."""
        if at is None:
            return "-"
        local = self.zoned(at)
        return f"{local:%Y-%m-%d %H:%M:%S} {self._zone(local)} ({self.ago(at)})"

    def _zone(self, local: datetime) -> str:
        return "UTC" if self.mode == "utc" else local.strftime("%Z")
