"""How soon a file is on all hosts, verified and published, and what of it goes over the head's uplink.

Raises hosts in network namespaces whose links are capped (Linux, root; see ``tests/lab/bed.py``), brings a file to all
of them through the swarm and the receivers, and then a file by as many parallel rsyncs, over the same links. Prints

- the bound: one copy over the slower of the head's uplink and a host's link;
- the time of the last host, from the moment at which the first host was told where to fetch until the last receipt,
  and its ratio to the bound; what came before that (torrent, peers brought up over SSH) stands apart;
- the bytes that left the head's interface, as copies of the file (all headers and the control connections included).

    python benchmarks/fanout.py --hosts 8 --size-mb 128 --head-mbit 100 --host-mbit 1000 [--plain] [--json]

rsync sends a copy to each host, so its file is smaller where it would take minutes: its ratio is to its own bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from backend.distribution.manifest import make_payload
from backend.distribution.receiving import Receivers
from backend.distribution.torrent.swarm import Swarm
from backend.distribution.transports.base import Group, Means, Payload, Target
from backend.distribution.transports.torrent import TorrentTransport
from backend.fleet.hosts import Host, Hosts
from backend.fleet.ssh import SshPool
from backend.paths import Paths
from tests.lab.bed import Bed, missing

NUMBER = 77
NAME = "models/fanout.bin"
OWNER = "fanout"
RSYNC_S = 30.0
"""What the rsyncs may take about, at best."""
PATIENCE_S = 600.0
NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default")
HEAD_NICE = -5
"""The head has a machine of its own in truth; here all hosts run on its processor, and it must hear them."""
RECEIPTS = 4
"""Hosts at once that verify: all of them are on this machine, which has only so many cores and one disk."""


@contextmanager
def many_neighbours() -> Iterator[None]:
    """Room for the addresses of all hosts: on one machine they share the kernel's table of 1024."""
    before = {name: (NEIGHBOURS / name).read_text() for name in ("gc_thresh3", "gc_thresh2", "gc_thresh1")}
    for name in before:
        (NEIGHBOURS / name).write_text("16384")
    try:
        yield
    finally:
        for name in reversed(before):
            (NEIGHBOURS / name).write_text(before[name])


def cap_head(bed: Bed, mbit: int) -> None:
    """Limits what this machine sends to the hosts; what they send to one another does not pass here."""
    shape = ["root", "tbf", "rate", f"{mbit}mbit", "burst", "128k", "latency", "20ms"]
    subprocess.run(["tc", "qdisc", "replace", "dev", bed.bridge, *shape], check=True)


def sent_by_head(bed: Bed) -> int:
    return int(Path(f"/sys/class/net/{bed.bridge}/statistics/tx_bytes").read_text())


def cpu_s() -> float:
    """CPU seconds of the whole machine so far, without idling."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:7])) / os.sysconf("SC_CLK_TCK")


async def targets_of(receivers: Receivers, hosts: list[Host], payload: Payload, mbit: float) -> list[Target]:
    async def one(position: int, host: Host) -> Target:
        there = await receivers.prepare(host, payload, NAME, 1)
        return Target(host, position, there.folder, there.lease, mbit=mbit)

    return list(await asyncio.gather(*(one(n, host) for n, host in enumerate(hosts, 1))))


async def all_published(swarm: Swarm, receivers: Receivers, payload: Payload, targets: list[Target]) -> list[float]:
    """When each host's receipt came, by the monotonic clock."""
    turns = asyncio.Semaphore(RECEIPTS)

    async def one(target: Target) -> float:
        while not swarm.observe()[target.name].complete:
            if failure := swarm.observe()[target.name].failure:
                raise SystemExit(f"{target.name}: {failure.line()}")
            await asyncio.sleep(0.01)
        async with turns:
            await receivers.finish(target.host, payload, NAME, 1, "t1", {})
        return time.monotonic()

    async with asyncio.timeout(PATIENCE_S):
        return sorted(await asyncio.gather(*(one(target) for target in targets)))


async def swarm_run(bed: Bed, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    source = folder / "fanout.bin"
    source.write_bytes(os.urandom(args.size_mb * 1_000_000))
    payload = make_payload(source, "other")
    bound = args.size_mb * 8 / min(args.head_mbit, args.host_mbit)
    paths = Paths(folder / "root")
    paths.console.mkdir(parents=True)
    (folder / "private").mkdir(mode=0o700)
    async with SshPool(paths) as pool:
        hosts = [server.host(python_path=sys.executable) for server in bed.servers.values()]
        for host in hosts:
            pool.confirm_enrolment(await pool.enrol(host))
        receivers = Receivers(pool, OWNER)
        targets = await targets_of(receivers, hosts, payload, args.host_mbit)
        means = Means(paths, pool, Hosts(tuple(hosts), "fanout"), OWNER, folder / "private")
        load = os.getloadavg()[0]
        egress, cpu, begun = sent_by_head(bed), cpu_s(), time.monotonic()
        swarm = await TorrentTransport(tls=not args.plain).start(means, Group("t1", payload, tuple(targets)))
        try:
            times = await all_published(swarm, receivers, payload, targets)
            egress, cpu = sent_by_head(bed) - egress, cpu_s() - cpu
            give = swarm.giving_since or begun
            seen = swarm.observe()
        finally:
            await swarm.close()
    took = times[-1] - give
    return {
        "hosts": args.hosts, "size_mb": args.size_mb, "head_mbit": args.head_mbit, "host_mbit": args.host_mbit,
        "tls": not args.plain, "bound_s": round(bound, 2), "first_s": round(times[0] - give, 2),
        "median_s": round(times[len(times) // 2] - give, 2), "last_s": round(took, 2), "ratio": round(took / bound, 3),
        "before_s": round(give - begun, 2), "with_all_ratio": round((times[-1] - begun) / bound, 3),
        "copies": round(egress / payload.size, 3), "twice": round(sum(one.received for one in seen.values())
        / payload.size / args.hosts - 1, 3), "cpu_s": round(cpu, 1), "load_before": round(load, 1),
    }  # fmt: skip


def rsync_run(bed: Bed, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """All hosts at once, each with an rsync of its own from the head."""
    slower = min(args.head_mbit, args.host_mbit)
    size_mb = max(1, min(args.size_mb, int(RSYNC_S * args.head_mbit / 8 / args.hosts)))
    source = folder / "rsync.bin"
    source.write_bytes(os.urandom(size_mb * 1_000_000))
    known = folder / "known_hosts"
    known.write_text("".join(
        f"{server.address} {' '.join(server.host_key.with_suffix('.pub').read_text().split()[:2])}\n"
        for server in bed.servers.values()
    ))  # fmt: skip
    egress, begun = sent_by_head(bed), time.monotonic()
    running = []
    for server in bed.servers.values():
        shell = f"ssh -F none -i {server.user_key} -o BatchMode=yes -o UserKnownHostsFile={known} -o Compression=no"
        target = f"{server.user}@{server.address}:{server.folder}/rsync.bin"
        running.append(subprocess.Popen(["rsync", "-t", "--checksum", "-W", "-e", shell, str(source), target]))
    for process in running:
        if process.wait() != 0:
            raise SystemExit(f"rsync ended with exit code {process.returncode}")
    took, egress = time.monotonic() - begun, sent_by_head(bed) - egress
    wanted = source.read_bytes()
    assert all((server.folder / "rsync.bin").read_bytes() == wanted for server in bed.servers.values())
    bound = size_mb * 8 / slower
    return {
        "rsync_size_mb": size_mb, "rsync_last_s": round(took, 2), "rsync_bound_s": round(bound, 2),
        "rsync_ratio": round(took / bound, 2), "rsync_copies": round(egress / source.stat().st_size, 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--size-mb", type=int, default=128, help="10^6 bytes each")
    parser.add_argument("--head-mbit", type=int, default=100, help="the head's uplink")
    parser.add_argument("--host-mbit", type=int, default=1000, help="each host's link, either way")
    parser.add_argument("--plain", action="store_true", help="no certificates and no encryption in the swarm")
    parser.add_argument("--no-rsync", action="store_true", help="leave the comparison out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    reason = missing() or ("" if args.no_rsync or shutil.which("rsync") else "needs rsync")
    if reason:
        print(f"left out: {reason}")
        return 0
    os.environ.pop("SSH_AUTH_SOCK", None)
    with tempfile.TemporaryDirectory() as name, many_neighbours():
        folder = Path(name)
        os.environ["HOME"] = name  # nobody's ~/.ssh has a say
        bed = Bed(folder / "bed", NUMBER)
        bed.up(args.hosts, f"{args.host_mbit}mbit")
        try:
            cap_head(bed, args.head_mbit)
            os.nice(HEAD_NICE)
            found = asyncio.run(swarm_run(bed, folder, args))
            if not args.no_rsync:
                found |= rsync_run(bed, folder, args)
        finally:
            bed.down()
    if args.json:
        print(json.dumps(found))
        return 0
    print(f"bound {found['bound_s']} s, took {found['last_s']} s, {found['ratio']}x, {found['copies']} copies")
    print("\n".join(f"  {key:16} {value}" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
