"""A thousand queued elements of an array: how often Slurm is asked, and how long a look of the supervisor takes.

    python benchmarks/slurm.py [--elements 1000] [--seconds 60]

Raises a Slurm on this machine (as root; Debian's slurmctld, slurmd, slurm-client, munge) whose nodes take nothing, and
looks at the attempts as often as the keeper does. A look without a question to Slurm is measured beside the others.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from backend.fleet.hosts import Host
from backend.fleet.pools import pool_of
from backend.fleet.remote import ThisMachine
from backend.jobs.launchers.base import AttemptSpec
from backend.jobs.launchers.local import LocalLauncher
from backend.jobs.launchers.slurm import POLL_S, SlurmLauncher
from backend.jobs.launchers.slurm_client import SlurmClient
from backend.paths import Paths
from tests.lab.slurm import Slurm, no_slurm

LOOK_S = 0.3
"""Seconds between two looks of the keeper."""


async def measure(slurm: Slurm, folder: Path, elements: int, seconds: float) -> None:
    host = Host("cluster", slurm.settings())
    pool = pool_of(host.name, host.settings)
    client = SlurmClient(ThisMachine(), host, pool)
    serving = LocalLauncher(Paths(folder / "root"), "bench", 1, name="cluster", root=pool.agent)
    launcher = SlurmLauncher(serving, client, "bench", 1, sys.executable)
    keys = [f"b{n}.1" for n in range(elements)]
    begun = time.monotonic()
    await launcher.start_many([AttemptSpec(key, "bench", ("true",), None, {}) for key in keys])
    print(
        f"{elements} elements held and submitted in {time.monotonic() - begun:.1f} s, {len(slurm.jobs())} in the queue"
    )
    looks: list[float] = []
    asking: list[float] = []
    lag: list[float] = []
    ends = time.monotonic() + seconds
    first = client.asked
    while time.monotonic() < ends:
        before, at = client.asked, time.monotonic()
        beat = asyncio.create_task(_lag(lag))
        found = await launcher.observe(keys)
        assert len(found) == elements
        (asking if client.asked > before else looks).append(time.monotonic() - at)
        beat.cancel()
        await asyncio.sleep(LOOK_S)
    asked = client.asked - first
    number = len(looks) + len(asking)
    print(f"{number} looks in {seconds:.0f} s, {asked} questions to Slurm (at most one in {POLL_S:.0f} s)")
    medians = statistics.median(asking) * 1e3, statistics.median(looks) * 1e3
    print(f"a look with a question took {medians[0]:.0f} ms, one without {medians[1]:.1f} ms (medians)")
    print(f"the loop was held up {max(lag) * 1e3:.0f} ms at most")
    begun = time.monotonic()
    for key in keys:
        await launcher.cancel(key, by="bench", reason="over")
    await launcher.close()
    print(f"cancelled in {time.monotonic() - begun:.1f} s, {len(slurm.jobs())} in the queue")


async def _lag(found: list[float]) -> None:
    while True:
        at = time.monotonic()
        await asyncio.sleep(0.01)
        found.append(time.monotonic() - at - 0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    if reason := no_slurm():
        print(f"no Slurm can be raised here: {reason}")
        return 1
    slurm = Slurm(Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
    try:
        slurm.start()
        slurm.ask("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=benchmark")
        asyncio.run(measure(slurm, slurm.folder, args.elements, args.seconds))
    finally:
        slurm.stop()
        shutil.rmtree(slurm.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
