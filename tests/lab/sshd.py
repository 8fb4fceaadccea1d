"""A host of one's own: an unprivileged OpenSSH server on loopback, with its own keys, home and login shell."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.fleet.hosts import Host

SSHD = Path("/usr/sbin/sshd")
START_S = 20.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a server's commands are looked for, after ``bin`` in the login's home."""


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def children(pid: int) -> list[int]:
    """All descendants of a process, at this moment."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    todo = [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


class Sshd:
    """One server; ``host()`` is what hosts.yaml would say of it.

    Args:
        options: lines of sshd_config, e.g. ``{"MaxSessions": 2}``.
        shell: plays the login shell for every command.
        within: words before the server's command, e.g. ``ip netns exec NAME``.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "alpha",
        *,
        shell: str | None = None,
        address: str = "127.0.0.1",
        port: int | None = None,
        within: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.folder, self.name, self.address, self.within = folder, name, address, tuple(within)
        self.port = port or free_port()
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.host_key = make_key(folder / "host_key")
        self.user_key = make_key(folder / "user_key")
        (folder / "authorized").write_bytes((folder / "user_key.pub").read_bytes())
        lines = {
            "Port": self.port,
            "ListenAddress": address,
            "HostKey": self.host_key,
            "PidFile": folder / "pid",
            "AuthorizedKeysFile": folder / "authorized",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "SetEnv": f"HOME={self.home} PATH={self.home}/bin:{PATH}",
            "LogLevel": "VERBOSE",
        } | options
        if shell is not None:
            lines["ForceCommand"] = f'{shell} -c "$SSH_ORIGINAL_COMMAND"'
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def user(self) -> str:
        return pwd.getpwuid(os.getuid()).pw_name

    def host(self, **settings: Any) -> Host:
        return Host(self.name, self.settings() | settings)

    def settings(self) -> dict[str, Any]:
        return {
            "ssh_host": self.address,
            "ssh_port": self.port,
            "ssh_user": self.user,
            "ssh_key": str(self.user_key),
            "storage_paths": {"agent": str(self.folder / "agent")},
        }

    def start(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.within, SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        end = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, (self.folder / "sshd.log").read_text()
                time.sleep(0.02)

    def sessions(self) -> list[int]:
        """Processes of the server that belong to connections: the ones between the listener and the commands."""
        assert self.process is not None
        found = []
        for pid in children(self.process.pid):
            try:
                if Path("/proc", str(pid), "comm").read_text().strip().startswith("sshd"):
                    found.append(pid)
            except OSError:
                continue
        return found

    def cut(self) -> int:
        """Kills every connection, as a cut link would end it for both sides; returns how many processes went."""
        found = self.sessions()
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(found)

    def freeze(self, number: int = signal.SIGSTOP) -> None:
        """Stops the server and its connections without a word (``SIGCONT`` heals)."""
        assert self.process is not None
        for pid in [*self.sessions(), self.process.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def stop(self) -> None:
        if self.process is not None:
            self.freeze(signal.SIGCONT)
            self.cut()
            self.process.terminate()
            self.process.wait()
            self.process = None

    def change_key(self) -> None:
        """Gives the host another key, as a new installation would."""
        for path in (self.host_key, self.host_key.with_suffix(".pub")):
            path.unlink()
        make_key(self.host_key)
