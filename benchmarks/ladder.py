"""Measures the rungs of the ladder and writes the table of ``docs/ratings.md``.

    python benchmarks/ladder.py [--root DIR] [--workers N] [--divide N] [--quick]

Each rung plays Heuristic and the rung below. The seed is fixed, so the same code gives the same table; with ``--root``
the games are kept, and a second call plays only what is missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from backend.configs import Config, parse_config
from backend.evaluation.gauntlet import Candidate, GauntletSettings, gauntlet
from backend.evaluation.rating_history import current
from backend.evaluation.rating_spec import ANCHOR_ELO
from backend.evaluation.ratings import Ratings, win_chance
from backend.paths import Paths
from backend.players import make_player
from backend.progress import Progress

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "ratings.md"
MARKS = ("<!-- ladder -->", "<!-- end of ladder -->")
CONFIGS = ("square8_2p", "hex8_2p")
# Rung, opponents, games against each.
PLAN: tuple[tuple[int, tuple[str, ...], int], ...] = (
    (2, ("random", "heuristic"), 200),
    (8, ("heuristic", "ladder:2"), 200),
    (32, ("heuristic", "ladder:8"), 200),
    (128, ("heuristic", "ladder:32"), 100),
    (512, ("ladder:32", "ladder:128"), 60),
)


def play(paths: Paths, config: Config, workers: int | None, divide: int) -> None:
    """Plays what is missing of the plan."""
    gauntlet_of = [("heuristic", ("random",), 200), *((f"ladder:{rung}", who, n) for rung, who, n in PLAN)]
    for name, opponents, games in gauntlet_of:
        settings = GauntletSettings(config, Candidate(name), opponents, seed=1)
        run_id, progress = f"{config.key}-{name}", Progress(None, "games", echo=False)
        result = gauntlet(paths, settings, max(2, games // divide), run_id=run_id, workers=workers, progress=progress)
        for row in result["opponents"]:
            line = f"{config.key} {name} against {row['opponent']}: {row['wins']} of {row['games']}"
            print(f"{line}, {row['unique']} unique", flush=True)


def rows_of(config: Config, ratings: Ratings) -> list[str]:
    """The table's rows of one config."""
    names = ["random", "heuristic", *(f"ladder:{rung}" for rung, _, _ in PLAN)]
    lines = []
    for name in names:
        at = ratings.index(make_player(name, config).identity)
        if at is None:
            continue
        low, high = ratings.band(at)
        band = "pinned" if ratings.pinned[at] else f"{low:.0f} to {high:.0f}"
        elo, games = float(ratings.elo[at]), int(ratings.games[at])
        rate = win_chance(elo - ANCHOR_ELO)
        lines.append(f"| {config.key} | `{ratings.players[at]}` | {games} | {elo:.0f} | {band} | {rate:.1%} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="where the games are kept")
    parser.add_argument("--workers", type=int, help="processes; default one a core")
    parser.add_argument("--divide", type=int, default=1, metavar="N", help="play an N-th of the games")
    parser.add_argument("--quick", action="store_true", help="a tenth of the games, and no table in the document")
    args = parser.parse_args()
    lines = ["| config | player | games | Elo | 95 % | implied rate against Heuristic |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        paths = Paths(args.root or Path(scratch))
        for key in CONFIGS:
            config = parse_config(key)
            play(paths, config, args.workers, 10 if args.quick else args.divide)
            lines += rows_of(config, current(paths, config.key))
    print("\n".join(lines))
    if not args.quick:
        head, _, rest = DOCUMENT.read_text().partition(MARKS[0])
        _, _, tail = rest.partition(MARKS[1])
        DOCUMENT.write_text(f"{head}{MARKS[0]}\n" + "\n".join(lines) + f"\n{MARKS[1]}{tail}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
