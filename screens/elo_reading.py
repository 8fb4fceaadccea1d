"""How the Elo screen comes to what it shows: threads read, the event loop never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from backend.configs import CONFIGS
from backend.databases import file_stamp
from backend.errors import RingRiftError
from backend.evaluation.rating_view import Meeting, RatingReader, head_to_head
from backend.snapshot import ModelRow, Snapshot
from screens.elo_data import EloData, read
from screens.model_actions import ModelActions


class EloReading(ModelActions):
    """What was read so far: per config its ratings, and the meetings of those in the matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.config = ""
        self.reader: RatingReader | None = None
        self.known: dict[str, EloData] = {}
        self.met: dict[tuple[str, str], Meeting] | None = None
        self.troubles: dict[str, str] = {}
        self._asked: Any = None
        self._asked_all: Any = None
        self._asked_met: Any = None

    @property
    def data(self) -> EloData | None:
        return self.known.get(self.config)

    @property
    def trouble(self) -> str:
        """Why the config in front could not be read when it was last tried; empty when it could."""
        return self.troubles.get(self.config, "")

    def read_what_changed(self, *, everything: bool) -> None:
        """Asks for the config in front, or for all of them, where the files have changed since; a thread reads."""
        if self.reader is None:
            self.reader = RatingReader(self.app.paths)
        now = (file_stamp(self.app.paths.elo_db), self.app.snapshot.revision, len(self.app.snapshot.models))
        if self._asked != (self.config, now):
            self._asked = (self.config, now)
            self.run_worker(partial(self._read, [self.config]), group="elo", exclusive=True)
        if everything and self._asked_all != now:
            self._asked_all = now
            self.run_worker(partial(self._read, [config.key for config in CONFIGS]), group="all", exclusive=True)

    async def _read(self, configs: list[str]) -> None:
        assert self.reader is not None
        for config in configs:
            try:
                self.known[config] = await asyncio.to_thread(read, self.reader, config)
                self.troubles.pop(config, None)
            except RingRiftError as error:
                self.troubles[config] = error.line()
            self.update()

    def read_meetings(self, players: list[str]) -> None:
        """Asks what some players scored against one another, unless that was asked."""
        asked = (id(self.data), players)
        if asked != self._asked_met:
            self._asked_met = asked
            self.run_worker(partial(self._meet, players), group="met", exclusive=True)

    async def _meet(self, players: list[str]) -> None:
        try:
            self.met = await asyncio.to_thread(head_to_head, self.app.paths, self.config, players)
        except RingRiftError as error:
            self.say(error.line(), "notice_bad")
        self.update()


def best_names(known: Mapping[str, EloData], models: Mapping[str, ModelRow]) -> dict[str, str]:
    """Per config the version of the model with the highest lower end now."""
    found = {}
    for key, data in known.items():
        best = data.view.newest.best() if data.view.newest else None
        model = models.get((best or "").partition(":")[0])
        found[key] = f"v{model.version}" if model else ""
    return found


def first_config(snapshot: Snapshot) -> str:
    """The config to begin with: one with a production model, else one with models, else the first."""
    order: list[Callable[[Any], bool]] = [lambda row: row.production is not None, lambda row: row.models > 0]
    for good in order:
        for row in snapshot.configs:
            if good(row):
                return str(row.config)
    return CONFIGS[0].key
