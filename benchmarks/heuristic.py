"""Measures Heuristic against Random in every config and writes the table of ``docs/heuristic.md``.

    python benchmarks/heuristic.py [--games N]

The games go into a fresh root and are forgotten; the seed is fixed, so the same code gives the same table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from backend.configs import CONFIGS
from backend.evaluation.gauntlet import Candidate, GauntletSettings, gauntlet
from backend.paths import Paths
from backend.players.features import FEATURES
from backend.progress import Progress

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "heuristic.md"
MARKS = {name: (f"<!-- {name} -->", f"<!-- end of {name} -->") for name in ("features", "results")}


def feature_table() -> str:
    """The features with their weights, as the player uses them."""
    lines = ["| feature | weight | formula |", "|---|---|---|"]
    lines += [f"| {f.name} | {f.weight:g} | {f.formula.replace('|', '/')} |" for f in FEATURES]
    return "\n".join(lines)


def result_table(games: int) -> str:
    """Plays every config and tabulates the results."""
    lines = ["| config | games | won | rate | 95 % (Wilson) | chance |", "|---|---|---|---|---|---|"]
    for config in CONFIGS:
        wanted = games if config.board in ("square8", "hex8") else max(config.players, games // 5)
        with tempfile.TemporaryDirectory() as root:
            settings = GauntletSettings(config, Candidate("heuristic"), ("random",), seed=1)
            progress = Progress(None, "games", echo=False)
            result = gauntlet(Paths(Path(root)), settings, wanted, run_id="benchmark", progress=progress)
        row = result["opponents"][0]
        lines.append(
            f"| {config.key} | {row['games']} | {row['wins']} | {row['rate']:.1%} | "
            f"{row['low']:.1%} to {row['high']:.1%} | {result['chance']:.0%} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)


def replace_part(text: str, name: str, content: str) -> str:
    """The document with the part between the marks of ``name`` replaced."""
    begin, end = MARKS[name]
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{content}\n{end}{tail}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", type=int, default=1000, help="games a config; a fifth of it on the large boards")
    games: int = parser.parse_args().games
    text = replace_part(DOCUMENT.read_text(), "features", feature_table())
    DOCUMENT.write_text(replace_part(text, "results", result_table(games)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
