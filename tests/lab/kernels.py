"""Compiles every kernel before the tests begin: ``python -m tests.lab.kernels``.

A test that comes to a cold kernel compiles it while others do the same or wait for it, each with its own patience. The
rules come first, since all others call them; then the players, and beside them whatever training and search use.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from backend.configs import Config, parse_config
from backend.paths import Paths


def rules(config: Config) -> None:
    from backend.rules import warm

    warm()


def players(config: Config) -> None:
    from backend.players import make_player

    for name in ("heuristic", "ladder:1"):
        make_player(name, config)


def training(config: Config) -> None:
    from backend.players.neural import load_player
    from backend.training.export import export
    from backend.training.settings import Settings
    from backend.training.train import train
    from tests.training.conftest import play_randomly, store_games

    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder))
        games = [play_randomly(config, index, soft=bool(index % 2)) for index in range(12)]
        store_games(paths.games_db(config), config, games)
        export(paths, config)
        settings = Settings(epochs=1, batch_size=32, blocks=1, channels=8)
        made = train(paths.dataset(config), paths.root / "a.pth", config, settings, candidates=paths.root, device="cpu")
        load_player(made.path)


STEPS: dict[str, Callable[[Config], None]] = {"rules": rules, "players": players, "training": training}


def main() -> int:
    config = parse_config("square8_2p")
    if len(sys.argv) > 1:
        STEPS[sys.argv[1]](config)
        return 0
    rules(config)
    running = [subprocess.Popen([sys.executable, "-m", "tests.lab.kernels", name]) for name in ("players", "training")]
    return max(process.wait() for process in running)


if __name__ == "__main__":
    sys.exit(main())
