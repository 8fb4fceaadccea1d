"""How long it takes to look at many hosts over SSH, and what holding their connections costs this machine.

All of them are one OpenSSH server on loopback under many names, so connections, logins and the commands on the far side
are real, and run on this machine's cores too. Prints seconds of the first look (connecting included) and of the next,
and the share of one core that this process uses while all connections are open and nothing is asked.

    python benchmarks/hosts.py [--hosts 200] [--idle 20] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.look import look_at_all
from backend.fleet.ssh import SshPool
from backend.paths import Paths
from backend.state.store import StateStore
from tests.lab.sshd import SSHD, Sshd


async def measure(folder: Path, server: Sshd, count: int, idle_s: float) -> dict[str, float]:
    paths = Paths(folder / "root")
    paths.console.mkdir(parents=True)
    hosts = [Host(f"h{n}", server.settings()) for n in range(count)]
    key = HostKey.parse(server.host_key.with_suffix(".pub").read_text())
    for host in hosts:
        enrol_key(paths.console / "known_hosts", host.name, key)
    found: dict[str, float] = {"hosts": count}
    async with await StateStore.open(paths) as store, SshPool(paths) as pool:
        for name in ("first look", "next look"):
            began = time.perf_counter()
            answers = await look_at_all(store, pool, hosts, "sample", silent=True)
            found[f"{name}, s"] = round(time.perf_counter() - began, 2)
            wrong = [answer for answer in answers.values() if isinstance(answer, RingRiftError)]
            if wrong:
                raise wrong[0]
        busy, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(idle_s)
        share = (time.process_time() - busy) / (time.perf_counter() - began)
        found["idle, % of a core"] = round(100 * share, 2)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--idle", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if shutil.which(str(SSHD)) is None:
        print(f"left out: needs {SSHD}")
        return 0
    os.environ.pop("SSH_AUTH_SOCK", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder  # nobody's ~/.ssh has a say
        server = Sshd(Path(folder) / "host", MaxStartups="200")
        server.start()
        try:
            found = asyncio.run(measure(Path(folder), server, args.hosts, args.idle))
        finally:
            server.stop()
    print(json.dumps(found) if args.json else "\n".join(f"{name:20} {value:g}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
