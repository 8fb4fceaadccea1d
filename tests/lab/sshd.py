"""A host of one's own: an unprivileged OpenSSH server on loopback, with its own keys, home and login shell.

Where there is none, :class:`OwnServer` plays the host with asyncssh's server: everything but sshd's own options.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from backend.fleet.hosts import Host

REPO = Path(__file__).parents[2]
SSHD = Path("/usr/sbin/sshd")
PLAIN = "asyncssh"
LAB_VARIABLE = "RINGRIFT_LAB"
"""Set to ``asyncssh``, the tests behave as on a machine that has neither namespaces nor sshd."""
START_S = 20.0


def free_port() -> int:
    """A port where nobody listens, below those that connections get: none of them takes it before it is bound."""
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


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
        env: of everything that is run there, besides its home.
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
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.folder, self.name, self.address, self.within = folder, name, address, tuple(within)
        self.port = port or free_port()
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.host_key = make_key(folder / "host_key")
        self.user_key = make_key(folder / "user_key")
        (folder / "authorized").write_bytes((folder / "user_key.pub").read_bytes())
        own = {"HOME": str(self.home), "PATH": f"{self.home}/bin:{PATH}"}
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
            "SetEnv": " ".join(f"{key}={value}" for key, value in (own | dict(env or {})).items()),
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
            self.process = self.launch(log)
        end = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, (self.folder / "sshd.log").read_text()
                time.sleep(0.02)

    @property
    def listener(self) -> int:
        """The process that takes connections."""
        assert self.process is not None
        return self.process.pid

    def launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        argv = [*self.within, str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def sessions(self) -> list[int]:
        """Processes of the server that belong to connections: the ones between the listener and the commands."""
        found = []
        for pid in children(self.listener):
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
        for pid in [*self.sessions(), self.listener]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def stop(self) -> None:
        if self.process is not None:
            self.freeze(signal.SIGCONT)
            self.cut()
            self._end()
            self.process = None

    def _end(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait()

    def change_key(self) -> None:
        """Gives the host another key, as a new installation would."""
        for path in (self.host_key, self.host_key.with_suffix(".pub")):
            path.unlink()
        make_key(self.host_key)


class Alias:
    """Another name of a server, with an agent root and a data root of its own: a host as far as the head can tell."""

    def __init__(self, server: Sshd, name: str) -> None:
        self.server, self.name, self.folder = server, name, server.folder / name

    def settings(self) -> dict[str, Any]:
        return self.server.settings() | {"storage_paths": {"agent": str(self.folder / "agent")}}

    def host(self, **settings: Any) -> Host:
        return Host(self.name, self.settings() | settings)


class OwnServer(Sshd):
    """The same host played by asyncssh's server in a process of its own (:mod:`tests.lab.own_server`)."""

    def __init__(self, folder: Path, name: str = "alpha", **options: Any) -> None:
        self.shell = str(options.get("shell") or pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh")
        super().__init__(folder, name, **options)

    def launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        words = [str(self.folder), self.address, str(self.port), self.shell]
        argv = [sys.executable, "-m", "tests.lab.own_server", *words]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=REPO)

    def sessions(self) -> list[int]:
        return []

    def change_key(self) -> None:
        running = self.process is not None
        self.stop()
        super().change_key()
        if running:
            self.start()

    def cut(self) -> int:
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"cut\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def stop(self) -> None:
        process = self.process
        super().stop()
        for stream in (process.stdin, process.stdout) if process is not None else ():
            assert stream is not None
            stream.close()


def no_sshd() -> str:
    """Why hosts cannot be real OpenSSH servers here; empty when they can."""
    if os.environ.get(LAB_VARIABLE) == PLAIN:
        return f"{LAB_VARIABLE}={PLAIN}"
    return "" if SSHD.exists() else f"needs {SSHD}"


def make_server(folder: Path, name: str, **options: Any) -> Sshd:
    """A real server, else one of our own.

    Skips the test, with the reason, when it asks for what only a real one has.
    """
    reason = no_sshd()
    if not reason:
        return Sshd(folder, name, **options)
    if beyond := set(options) - {"shell", "address", "port"}:
        pytest.skip(f"{' '.join(sorted(beyond))} of OpenSSH's server: {reason}")
    return OwnServer(folder, name, **options)
