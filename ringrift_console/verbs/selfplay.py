"""``ringrift selfplay``."""

from __future__ import annotations

import argparse
import sys

from backend.paths import Paths
from backend.progress import Progress
from backend.text import plain
from backend.thresholds import thresholds
from ringrift_console.verbs.common import config_of, to_json


def selfplay(args: argparse.Namespace, paths: Paths) -> int:
    """Plays games into the config's database."""
    from backend.training.selfplay import DEFAULT_PLAYERS, SelfplaySettings, seats_for
    from backend.training.selfplay import selfplay as play

    config = config_of(args)
    assert config is not None
    settings = SelfplaySettings(config, seats_for(args.players or DEFAULT_PLAYERS, config), seed=args.seed or 0)
    until = args.until
    if args.games is None and until is None:
        until = thresholds(config).ready_games
    progress = Progress(until, "games", echo=not args.json)
    path = paths.games_db(config)
    result = play(
        path, settings, games=args.games, until=until, workers=args.workers, progress=progress, first=args.first
    )
    progress.result(result)
    if args.json:
        print(to_json(result))
    else:
        print(f"{config.key}: {result['games_added']} games added, {result['games_total']} in {plain(result['db'])}")
        if result["games_total"] < thresholds(config).ready_games:
            sys.stderr.write(f"Scaling: {thresholds(config).ready_games} games make the config Ready\n")
    return 0
