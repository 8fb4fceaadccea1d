"""Measures the rules engine on one core, per config, and writes ``benchmarks/rules.md``.

python benchmarks/rules.py [seconds per config]
"""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import numba

from backend.configs import CONFIGS
from backend.rules import ENGINE_VERSION
from backend.rules.measure import measure

# One core, square8_2p and hexagonal_2p, decisions a second of the reference engines.
REFERENCE = "The reference engines, one core: square8_2p TypeScript 1,763, Python 482; hexagonal_2p 173 and 50."
LEAST = {"square8": 50_000, "hex8": 50_000, "square19": 8_000, "hexagonal": 8_000}


def processor() -> str:
    """The processor's name, as far as the machine tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    rows = []
    for config in CONFIGS:
        best = max(
            (measure(config, seconds / 3, seed) for seed in (1, 2, 3)), key=lambda result: result.decisions_per_s
        )
        rows.append(
            f"| {config.key} | {best.decisions_per_s:,.0f} | {best.playouts_per_s:,.0f} | {best.plies_per_game:,.0f} "
            f"| {LEAST[config.board]:,} |"
        )
        print(rows[-1])
    text = [
        "# Speed of the rules engine",
        "",
        f"One core, random play, best of three runs of {seconds / 3:.1f} s; a decision is the legal list, a uniform "
        "choice and its application, forced no-ops included.",
        f"{REFERENCE}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, engine {ENGINE_VERSION}, Python {platform.python_version()}, "
        f"numba {numba.__version__}, {processor()}.",
        "",
        "| config | decisions/s | games/s | plies a game | asked for |",
        "|---|---:|---:|---:|---:|",
        *rows,
    ]
    (Path(__file__).parent / "rules.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
