"""A console, and a supervisor under it, while a thousand elements of arrays wait in a Slurm.

    python benchmarks/slurm_console.py [--shards 1000] [--seconds 60]

Raises a Slurm on this machine (as root; Debian's slurmctld, slurmd, slurm-client, munge) whose nodes take nothing,
submits two pipelines with so many shards of self-play in all through the real supervisor, and opens real consoles in
pseudo-terminals: one on this root, and one on an empty root beside it in the same run. Prints the controller's own
count of what it was asked (``sdiag``), and per console what it costs of a core, what it writes, and how long keys take
to be drawn.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

import yaml  # noqa: E402

from backend.paths import Paths  # noqa: E402
from backend.supervisor import ensure_running, stop  # noqa: E402
from benchmarks.transfers_screen import Terminal  # noqa: E402
from tests.lab.slurm import Slurm, no_slurm  # noqa: E402

KEYS = (("3", b"STATE"), ("1", b"HEURIST")) * 8
"""Keys, each with a word of the page that it draws."""
PATIENCE_S = 600.0


def questions(slurm: Slurm) -> int:
    """How often the controller was asked for jobs since it is up."""
    return sum(int(count) for count in re.findall(r"REQUEST_JOB_INFO\S*\s.*?count:(\d+)", slurm.ask("sdiag").stdout))


async def costs(terminal: Terminal, seconds: float) -> tuple[float, float, float]:
    """Bytes a second, percent of a core, and the median of seconds until a key's page is drawn."""
    written, busy = await terminal.watch(seconds)
    took = []
    for key, word in KEYS:
        terminal.tail = b""
        at = time.perf_counter()
        os.write(terminal.master, key.encode())
        await terminal.until(word)
        took.append(time.perf_counter() - at)
        await asyncio.sleep(0.5)
    return written, busy, statistics.median(took)


async def measure(slurm: Slurm, root: Path, empty: Path, seconds: float, shards: int) -> None:
    consoles = {"a thousand": Terminal(root, (160, 50), ""), "none": Terminal(empty, (160, 50), "")}
    for one in consoles.values():
        await one.open()
    asked, began = questions(slurm), time.monotonic()
    rows = {}
    for name, one in consoles.items():
        rows[name] = await costs(one, seconds)
    asked, span = questions(slurm) - asked, time.monotonic() - began
    for one in consoles.values():
        await one.close()
    print(f"{shards} elements wait; in {span:.0f} s the controller was asked for jobs {asked} times")
    for name, (written, busy, key) in rows.items():
        print(f"console with {name}: {busy:.1f} % of a core, {written / 1000:.2f} KB/s, {key * 1000:.0f} ms a key")
    print(f"a key takes {rows['a thousand'][2] / rows['none'][2]:.2f} times as long")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    if reason := no_slurm():
        print(f"no Slurm can be raised here: {reason}")
        return 1
    slurm = Slurm(Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
    paths, empty = Paths(slurm.folder / "root"), Paths(slurm.folder / "empty")
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    try:
        slurm.start()
        slurm.ask("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=benchmark")
        nothing = dict.fromkeys(("selfplay_enabled", "training_enabled", "gauntlet_enabled"), False)
        hosts = {"local": nothing, "cluster": slurm.settings(max_parallel_jobs=args.shards)}
        for one in (paths, empty):
            one.root.mkdir(parents=True)
        paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}))
        for config, part in (("hex8_2p", args.shards // 2), ("square8_2p", args.shards - args.shards // 2)):
            words = ["pipeline", config, "--games", str(part), "--shards", str(part), "--gauntlet-shards", "1"]
            subprocess.run(
                [sys.executable, "-m", "ringrift_console.cli", *words, "--root", str(paths.root)], check=True
            )
        ensure_running(paths)
        end = time.monotonic() + PATIENCE_S
        while len(slurm.jobs()) < args.shards:
            if time.monotonic() > end:
                print(f"only {len(slurm.jobs())} elements were queued in {PATIENCE_S:.0f} s")
                return 1
            time.sleep(2)
        print(f"all queued after {PATIENCE_S - (end - time.monotonic()):.0f} s")
        asyncio.run(measure(slurm, paths.root, empty.root, args.seconds, args.shards))
    finally:
        stop(paths)
        slurm.stop()
        shutil.rmtree(slurm.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
