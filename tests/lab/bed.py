"""Real hosts on one machine: network namespaces on a bridge, an OpenSSH server in each (Linux, root).

    python -m tests.lab.bed up [--hosts 8] [--cap 100mbit] [--folder .lab] [--root DIR]
    python -m tests.lab.bed down [--folder .lab] [--root DIR]

``up`` writes ``FOLDER/hosts.yaml`` and enrols the hosts' keys under the root; ``down`` ends every process of the
namespaces and removes them, the links, the keys, what the root has noted of the hosts, and the folder. The hosts share
this machine's filesystem and its Python; each has a home and an agent root of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from backend.fleet.known_hosts import HostKey, enrol_key, enrolled_keys, forget_key
from backend.fleet.store import KNOWN_HOSTS
from backend.paths import Paths, resolve_root
from backend.state.store import StateStore
from tests.lab.sshd import LAB_VARIABLE, PLAIN, SSHD, Sshd, make_server

NETWORK = "10.77.{bed}.{host}"
PORT = 22


def ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def missing() -> str:
    """Why no bed can be raised here; empty when it can."""
    if os.environ.get(LAB_VARIABLE) == PLAIN:
        return f"{LAB_VARIABLE}={PLAIN}"
    if os.getuid() != 0:
        return "needs root"
    for tool in ("ip", "tc", str(SSHD)):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    try:
        ip("netns", "add", f"probe{os.getpid()}")
        ip("link", "add", f"pr{os.getpid()}", "type", "veth", "peer", "name", "eth0", "netns", f"probe{os.getpid()}")
    except RuntimeError as error:
        return str(error)
    finally:
        ip("netns", "del", f"probe{os.getpid()}", check=False)
    return ""


def write_hosts(path: Path, servers: Mapping[str, Sshd]) -> None:
    """Writes a hosts file. The hosts have this Python with its packages, so a bootstrap there needs no pip."""
    hosts = {name: server.settings() | {"python_path": sys.executable} for name, server in servers.items()}
    path.write_text(yaml.safe_dump({"hosts": hosts}, sort_keys=False))


class Bed:
    """Hosts ``lab-h1`` to ``lab-hN``.

    Args:
        number: tells beds on one machine apart, 0 to 255.
    """

    def __init__(self, folder: Path, number: int = 0) -> None:
        self.folder, self.number = folder, number
        self.bridge = f"labbr{number}"
        self.servers: dict[str, Sshd] = {}

    def namespace(self, n: int) -> str:
        return f"lab{self.number}-h{n}"

    def link(self, n: int) -> str:
        return f"lab{self.number}v{n}"

    def up(self, hosts: int, cap: str | None = None) -> None:
        """Raises the hosts, all or none; ``cap`` limits their links in both directions, as tc(8) writes rates."""
        self.down()
        try:
            self._up(hosts, cap)
        except BaseException:
            self.down()
            raise

    def _up(self, hosts: int, cap: str | None) -> None:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", NETWORK.format(bed=self.number, host=1) + "/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for n in range(1, hosts + 1):
            space, link, address = self.namespace(n), self.link(n), NETWORK.format(bed=self.number, host=10 + n)
            ip("netns", "add", space)
            ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", link, "master", self.bridge, "up")
            ip("-n", space, "addr", "add", address + "/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
            if cap is not None:
                shape = ["root", "tbf", "rate", cap, "burst", "128k", "latency", "20ms"]
                for end in (["-n", space, "qdisc", "replace", "dev", "eth0"], ["qdisc", "replace", "dev", link]):
                    subprocess.run(["tc", *end, *shape], check=True)
            server = Sshd(
                self.folder / f"h{n}", f"lab-h{n}", address=address, port=PORT, within=("ip", "netns", "exec", space)
            )
            self.servers[server.name] = server
            server.start()
        write_hosts(self.folder / "hosts.yaml", self.servers)

    def cut(self, n: int) -> None:
        """Takes a host off the network without a word to anybody."""
        ip("link", "set", self.link(n), "down")

    def heal(self, n: int) -> None:
        ip("link", "set", self.link(n), "up")

    def kill(self, n: int) -> int:
        """Ends everything that runs on a host, as a power cut would; returns how many processes."""
        pids = [int(pid) for pid in ip("netns", "pids", self.namespace(n), check=False).split()]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        server = self.servers.get(f"lab-h{n}")
        if server is not None and server.process is not None:
            server.process.wait()
        return len(pids)

    def down(self) -> None:
        """Leaves nothing of the bed, also of one that another process raised, but its folder."""
        spaces = [
            line.split()[0] for line in ip("netns", "list").splitlines() if line.startswith(f"lab{self.number}-h")
        ]
        for space in spaces:
            n = int(space.rpartition("h")[2])
            end = time.monotonic() + 10.0
            while self.kill(n) and time.monotonic() < end:
                time.sleep(0.02)
            ip("netns", "del", space)
        for server in self.servers.values():
            server.stop()
        self.servers.clear()
        for line in ip("-o", "link").splitlines():  # a namespace's own go with it, but only when the kernel gets to it
            name = line.split(":")[1].strip().partition("@")[0]
            if name.startswith(f"lab{self.number}v"):
                ip("link", "del", name, check=False)
        ip("link", "del", self.bridge, check=False)


@contextmanager
def some_hosts(folder: Path, number: int, hosts: int) -> Iterator[dict[str, Sshd]]:
    """``lab-h1`` and so on with ``folder/hosts.yaml``: on a bed, else as servers on loopback; all gone at the end."""
    if not missing():
        bed = Bed(folder, number)
        bed.up(hosts)
        try:
            yield bed.servers
        finally:
            bed.down()
        return
    servers: dict[str, Sshd] = {}
    try:
        for n in range(1, hosts + 1):
            servers[f"lab-h{n}"] = make_server(folder / f"h{n}", f"lab-h{n}")
            servers[f"lab-h{n}"].start()
        write_hosts(folder / "hosts.yaml", servers)
        yield servers
    finally:
        for server in servers.values():
            server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.bed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("up", "down"))
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--cap")
    parser.add_argument("--folder", type=Path, default=Path(".lab"))
    parser.add_argument("--root")
    parser.add_argument("--number", type=int, default=0, help="tells beds on one machine apart")
    args = parser.parse_args()
    bed, paths = Bed(args.folder.absolute(), args.number), resolve_root(args.root)
    if args.what == "up" and (reason := missing()):
        sys.stderr.write(f"no bed can be raised here: {reason}\n")
        return 1
    take_down(bed, paths)
    if args.what == "up":
        try:
            bed.up(args.hosts, args.cap)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            take_down(bed, paths)
            sys.stderr.write(f"no bed can be raised here: {error}\n")
            return 1
        for name, server in bed.servers.items():
            key = server.host_key.with_suffix(".pub").read_text()
            enrol_key(paths.console / KNOWN_HOSTS, name, HostKey.parse(key))
        sys.stdout.write(f"{args.hosts} hosts: {args.folder / 'hosts.yaml'}\n")
    return 0


def take_down(bed: Bed, paths: Paths) -> None:
    """Removes a bed, its folder, and what the root knows of its hosts."""
    if shutil.which("ip") is not None:
        bed.down()
    shutil.rmtree(bed.folder, ignore_errors=True)
    known_hosts = paths.console / KNOWN_HOSTS
    for name in enrolled_keys(known_hosts):
        if name.startswith("lab-h"):
            forget_key(known_hosts, name)
    if paths.state_db.exists():
        asyncio.run(_forget_hosts(paths))


async def _forget_hosts(paths: Paths) -> None:
    async with await StateStore.open(paths) as store, store.database.write(silent=True) as db:
        for table, column in (("host_samples", "host"), ("hosts", "name")):
            await db.run(f"DELETE FROM {table} WHERE {column} GLOB 'lab-h[0-9]*'", ())


if __name__ == "__main__":
    sys.exit(main())
