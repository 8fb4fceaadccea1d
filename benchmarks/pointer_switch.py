"""Measures how long the switch of a production pointer takes, the one transaction that a rollback waits for.

    python benchmarks/pointer_switch.py [--moves N]

Two models of a config take turns in production: pointer, stages, decision, audit entry and event in one IMMEDIATE
transaction. The yardstick is a plain transaction of one row in a database of its own, with the same journal mode, on
the same disk in the same run: it tells what the disk's own flush costs here. The goal is a median under 100 ms.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from backend.configs import parse_config
from backend.paths import Paths
from backend.registry.changes import Author, Decision
from backend.registry.promotion import ground_of
from backend.registry.store import Candidate, find, register
from backend.registry.switch import Planned, switch

CONFIG = "hex8_2p"
GOAL_MS = 100.0


def labels(paths: Paths) -> tuple[str, ...]:
    """Two registered models; nothing is played with them."""
    made = []
    for number in range(2):
        file = paths.root / f"m{number}.pth"
        file.write_bytes(f"weights {number}".encode())
        made.append(register(paths, Candidate(file=file, config=parse_config(CONFIG))).label)
    return tuple(made)


def switches(paths: Paths, count: int) -> list[float]:
    """Seconds of each of ``count`` moves of the pointer; the first one, into an empty place, is left out."""
    both, found = labels(paths), []
    for number in range(count + 1):
        row = find(paths, both[number % 2])
        ground, model = ground_of(paths, CONFIG), Planned(row.label, row.sha256, row.stage)
        author = Author("benchmark", f"o{number}")
        decision = Decision("rollback" if number else "promote", "a benchmark")
        began = time.perf_counter()
        switch(paths, ground, model, decision, author, left="regressed")
        found.append(time.perf_counter() - began)
    return found[1:]


def plain(path: Path, count: int) -> list[float]:
    """Seconds of each of ``count`` transactions of one row, opened and closed as the registry does it."""
    found = []
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE pointers (config TEXT PRIMARY KEY, label TEXT, revision INTEGER)")
    for number in range(count):
        began = time.perf_counter()
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT OR REPLACE INTO pointers VALUES (?, ?, ?)", (CONFIG, f"v{number}", number))
            db.execute("COMMIT")
        found.append(time.perf_counter() - began)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=200, help="moves of the pointer")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder))
        moved, yard = switches(paths, args.moves), plain(Path(folder) / "plain.db", args.moves)
    rows = {"pointer switch": moved, "plain transaction": yard}
    for name, times in rows.items():
        print(f"{name:<18} median {1000 * statistics.median(times):6.2f} ms, worst {1000 * max(times):6.2f} ms")
    ratio, median = statistics.median(moved) / statistics.median(yard), 1000 * statistics.median(moved)
    verdict = "met" if median < GOAL_MS else "missed"
    print(f"a switch costs {ratio:.1f} plain transactions; goal {GOAL_MS:.0f} ms: {verdict}")
    return 0 if median < GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
