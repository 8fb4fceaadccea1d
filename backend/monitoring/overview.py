"""What is watched, for whoever asks: one row a config with a production model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.configs import CONFIGS
from backend.monitoring.check import read_watched
from backend.monitoring.mode import Mode, read_mode
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.alarms import read_alarms
from backend.registry.changes import row_of
from backend.registry.health import last_check
from backend.registry.schema import reading
from backend.snapshot import ModelRow


@dataclass(frozen=True, slots=True)
class WatchRow:
    """The watch over one config; what was never looked at is None."""

    config: str
    production: str
    looked_at: datetime | None
    golden: str | None
    drift: float | None
    chart: dict[str, Any] | None
    alarms: int

    def cells(self) -> tuple[str, ...]:
        """Config, model, last look, golden outcome, games, share won, chart."""
        chart = self.chart
        games = chart["games"] if chart else 0
        stands = "-" if not chart else "baseline" if chart["h"] is None else f"{chart['total']:.1f}/{chart['h']:.1f}"
        at = f"{self.looked_at:%Y-%m-%d %H:%M} UTC" if self.looked_at else "never"
        won = f"{chart['wins'] / games:.1%}" if chart and games else "-"
        return self.config, self.production, at, self.golden or "unknown", str(games), won, stands


def in_production(paths: Paths) -> dict[str, ModelRow]:
    """The production models by config, in the usual order."""
    with reading(paths.registry_db) as db:
        if db is None:
            return {}
        live = {config.key: pointers.current(db, config.key).label for config in CONFIGS}
        return {key: row_of(db, label) for key, label in live.items() if label is not None}


def watch_rows(paths: Paths) -> tuple[Mode, tuple[WatchRow, ...]]:
    """The mode, and a row for every config that has a production model."""
    with reading(paths.registry_db) as db:
        if db is None:
            return Mode(), ()
        known, found = read_watched(db), []
        open_now = [alarm.config for alarm in read_alarms(db) if alarm.state == "open"]
        for config in CONFIGS:
            pointer = pointers.current(db, config.key)
            if pointer.label is None or pointer.sha256 is None:
                continue
            watch = known.get(config.key)
            if watch is not None and (watch.sha256, watch.revision) != (pointer.sha256, pointer.revision):
                watch = None
            check = last_check(db, pointer.sha256)
            found.append(
                WatchRow(
                    config.key,
                    pointer.label,
                    None if watch is None else datetime.fromtimestamp(watch.at, UTC),
                    None if check is None else str(check["outcome"]),
                    None if check is None else check["drift"],
                    None if watch is None else watch.chart,
                    open_now.count(config.key),
                )
            )
        return read_mode(db), tuple(found)
