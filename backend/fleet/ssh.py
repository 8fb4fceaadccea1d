"""Connections to the hosts; the only module that imports asyncssh.

One connection a host, shared by everything that talks to it. Nothing here retries and nothing here knows of jobs: a
command ends with a code or a signal, or an error of :mod:`backend.fleet.errors` says what is not known.

Closing a channel, or giving up on it, does not stop what runs on the host.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncssh

from backend.errors import RingRiftError
from backend.fleet import transfers
from backend.fleet.command_line import command_line
from backend.fleet.errors import (
    ChannelRefused,
    ExecTimeout,
    HostKeyChanged,
    HostKeyUnknown,
    HostUnreachable,
    LinkLost,
    LoginRefused,
    SshError,
)
from backend.fleet.hosts import Host, jumps, load_hosts
from backend.fleet.known_hosts import HostKey, enrol_key, enrolled_keys
from backend.paths import Paths

STDERR_BYTES = 8192
REFUSALS = 6  # of a session in a row, while nobody here has one that will end: about a second
TCP_INFO_RTT_OFFSET = 68  # tcpi_rtt of struct tcp_info, linux/tcp.h, in microseconds
_T = TypeVar("_T")

asyncssh.set_log_level(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard hosts are asked.

    The numbers stay below the defaults of OpenSSH's server: MaxSessions 10 a connection, and MaxStartups 10:30:100 of
    connections that have not logged in yet (sshd_config(5)). A silent link is given up after
    ``keepalive_s * (keepalive_count + 1)`` seconds, here 30: TCP bridges a gap of some seconds by itself, and a link
    given up too early costs one new login and no job.
    """

    connects: int = 8
    jump_connects: int = 4
    channels: int = 8
    connect_s: float = 10.0
    login_s: float = 20.0
    keepalive_s: float = 10.0
    keepalive_count: int = 2
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended: with ``code``, or by the signal of that name."""

    code: int | None
    signal: str | None
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class OfferedKey:
    """A key that a host has shown, to be compared by a person before it is trusted."""

    host: str
    key: HostKey
    enrolled: HostKey | None

    @property
    def fingerprint(self) -> str:
        return self.key.fingerprint


class SshStream:
    """A running command with its input and output as bytes; every loss is an :class:`OSError`."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._process = process
        self._stderr = b""
        self._draining = asyncio.create_task(self._drain_stderr())

    async def _drain_stderr(self) -> None:
        with suppress(asyncssh.Error, OSError):
            while block := await self._process.stderr.read(65536):
                self._stderr += block[: STDERR_BYTES - len(self._stderr)]

    async def read(self, limit: int = -1) -> bytes:
        """Up to ``limit`` bytes of standard output, all of it for -1; empty at its end."""
        return await _as_os_error(self._process.stdout.read(limit))

    async def readline(self) -> bytes:
        return await _as_os_error(self._process.stdout.readline())

    def write(self, data: bytes) -> None:
        try:
            self._process.stdin.write(data)
        except asyncssh.Error as error:
            raise ConnectionResetError(str(error)) from error

    async def drain(self) -> None:
        await _as_os_error(self._process.stdin.drain())

    def write_eof(self) -> None:
        with suppress(OSError, asyncssh.Error):
            self._process.stdin.write_eof()

    async def end(self) -> tuple[int | None, str | None, bytes]:
        """Waits for the end of the command: code, signal and the beginning of standard error.

        Raises:
            OSError: the connection broke before an end was told.
        """
        await self._draining
        await _as_os_error(self._process.wait_closed())
        status, by = self._process.exit_status, self._process.exit_signal
        if status is None and by is None:  # how a lost connection looks here: no exception, no status
            raise ConnectionResetError("the connection broke before the command's end was told")
        return (None, by[0], self._stderr) if by else (status, None, self._stderr)

    @property
    def stderr(self) -> bytes:
        return self._stderr

    def close(self) -> None:
        self._process.close()


async def _as_os_error(waiting: Awaitable[_T]) -> _T:
    try:
        return await waiting
    except asyncssh.Error as error:
        raise ConnectionResetError(str(error)) from error


class Forward:
    """A port of a host's loopback that leads to one of this machine's."""

    def __init__(self, listener: asyncssh.SSHListener) -> None:
        self._listener = listener
        self.port = listener.get_port()

    async def close(self) -> None:
        self._listener.close()
        with suppress(OSError, asyncssh.Error):
            await self._listener.wait_closed()


@dataclass(slots=True)
class _Link:
    """What is known of the way to one host."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    freed: asyncio.Condition = field(default_factory=asyncio.Condition)
    connection: asyncssh.SSHClientConnection | None = None
    ground: object = None  # what the connection and a refusal were made from
    refusal: SshError | None = None
    failures: int = 0
    not_before: float = 0.0
    busy: int = 0
    abandoned: int = 0  # channels given up here; their session lives on while the command does


class _Client(asyncssh.SSHClient):
    """Tells when its connection is gone, for whatever reason."""

    def __init__(self, gone: Callable[[asyncssh.SSHClientConnection], None]) -> None:
        self._gone = gone
        self._connection: asyncssh.SSHClientConnection | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._gone(self._connection)


class SshPool:
    """The connections of one process.

    A permanent refusal (:attr:`SshError.permanent`) is told again without asking the host, until the host's settings,
    its enrolled key or its key file change, or :meth:`forget` is called.

    Attributes:
        on_loss: hears the name of a host whose open connection broke.
    """

    def __init__(self, paths: Paths, limits: Limits | None = None, *, hosts_file: Path | None = None) -> None:
        self.paths = paths
        self.hosts_file = hosts_file or paths.hosts_yaml
        self.limits = limits or Limits()
        self.on_loss: Callable[[str], None] = lambda name: None
        self._links: dict[str, _Link] = {}
        self._connects = asyncio.Semaphore(self.limits.connects)
        self._jumps: dict[str, asyncio.Semaphore] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def known_hosts(self) -> Path:
        return self.paths.console / "known_hosts"

    async def exec(self, host: Host, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Runs a command to its end.

        What the host's login shell prints by itself stands in the output as well.

        Raises:
            SshError: see :mod:`backend.fleet.errors`; only :class:`HostUnreachable` and the permanent ones say that
                nothing was carried out.
        """
        ended = False
        async with self.channel(host) as link:
            try:
                async with asyncio.timeout(timeout_s):
                    stream = await self._open(host, link, argv, own=1)
                    try:
                        stdout, _ = await asyncio.gather(stream.read(), _feed(stream, stdin))
                        code, by, stderr = await stream.end()
                        ended = True
                    finally:
                        stream.close()
                        link.abandoned += not ended
            except TimeoutError:
                raise ExecTimeout(
                    f"{argv[0]} did not end within {timeout_s:g} s", where=host.name, hint="it may still be running"
                ) from None
            except OSError as error:
                raise LinkLost("the connection broke", where=host.name, hint=str(error)) from error
        return Completed(code, by, stdout, stderr)

    async def open_stream(self, host: Host, argv: Sequence[str], *, inside: bool = False) -> SshStream:
        """A command that is talked to, such as ``agent serve``; the caller closes it.

        Args:
            inside: the caller has one of the places of :meth:`channel`.
        """
        return await self._open(host, self._link(host), argv, own=int(inside))

    async def put(self, host: Host, local: Path, remote: str, *, sha256: str, timeout_s: float = 3600.0) -> None:
        """Copies a file to the host. See :func:`backend.fleet.transfers.put`."""
        async with self.channel(host):
            await transfers.put(self, host, local, remote, sha256=sha256, timeout_s=timeout_s)

    async def get(
        self, host: Host, remote: str, local: Path, *, sha256: str | None = None, timeout_s: float = 3600.0
    ) -> str:
        """Copies a file from the host; returns its SHA-256. See :func:`backend.fleet.transfers.get`."""
        async with self.channel(host):
            return await transfers.get(self, host, remote, local, sha256=sha256, timeout_s=timeout_s)

    def latency_ms(self, host: Host) -> float | None:
        """The kernel's smoothed round trip time of the open connection; None when there is none, or it is tunnelled."""
        about = self._socket(host)
        if about is None or not hasattr(socket, "TCP_INFO"):
            return None
        try:
            info = about.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_RTT_OFFSET + 4)
        except OSError:
            return None
        return int.from_bytes(info[TCP_INFO_RTT_OFFSET:], "little") / 1000 or None

    def own_address(self, host: Host) -> str | None:
        """This machine's address on the open connection; None when there is none, or it leads through another host."""
        about = self._socket(host)
        return None if about is None else str(about.getsockname()[0])

    def peer_address(self, host: Host) -> str | None:
        """The host's address on the open connection; None when there is none, or it leads through another host."""
        about = self._socket(host)
        with suppress(OSError):  # it broke this moment
            return None if about is None else str(about.getpeername()[0])
        return None

    def _socket(self, host: Host) -> Any:
        link = self._links.get(host.name)
        return link.connection.get_extra_info("socket") if link and link.connection else None

    async def forward_back(self, host: Host, port: int) -> Forward:
        """Lets the host reach ``port`` of this machine's loopback, by a port of its own loopback.

        It ends with the connection, or when it is closed.

        Raises:
            ChannelRefused: the host forwards no port.
            SshError: the host cannot be talked to.
        """
        connection = await self._connection(host)
        try:
            listener = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", port)
        except asyncssh.ChannelListenError as error:
            raise ChannelRefused(
                "the host forwards no port", where=host.name, hint="allow AllowTcpForwarding remote in sshd_config"
            ) from error
        except (OSError, asyncssh.Error) as error:
            raise LinkLost("the connection broke", where=host.name, hint=_reason(error)) from error
        return Forward(listener)

    # host keys

    async def enrol(self, host: Host) -> OfferedKey:
        """Fetches the key that the host shows now; nothing is trusted by it.

        Raises:
            HostUnreachable: it shows none.
        """
        jump = await self._jump(host)
        tunnel: dict[str, Any] = {"tunnel": await self._connection(jump)} if jump else {}
        try:
            async with self._connects, asyncio.timeout(self.limits.connect_s + self.limits.login_s):
                found = await asyncssh.get_server_host_key(_address(host), host.settings.get("ssh_port", ()), **tunnel)
        except (OSError, asyncssh.Error) as error:
            hint = f"{_reason(error)}; is it up, and are ssh_host and ssh_port right?"
            raise HostUnreachable("cannot fetch the host key", where=_where(host), hint=hint) from error
        if found is None:
            raise HostUnreachable("the host shows no key", where=_where(host))
        key = HostKey.parse(found.export_public_key().decode("ascii"), _where(host))
        return OfferedKey(host.name, key, enrolled_keys(self.known_hosts).get(host.name))

    def confirm_enrolment(self, offered: OfferedKey) -> None:
        """Trusts a key that somebody has compared, in place of any other of that host."""
        enrol_key(self.known_hosts, offered.host, offered.key)

    def forget(self, name: str) -> None:
        """Lets the host be asked again at once, whatever it said before."""
        link = self._links.get(name)
        if link is not None:
            link.refusal, link.failures, link.not_before = None, 0, 0.0

    # connections

    @asynccontextmanager
    async def channel(self, host: Host) -> AsyncIterator[_Link]:
        """One of the host's places for short commands; waits for it."""
        link = self._link(host)
        async with link.freed:
            await link.freed.wait_for(lambda: link.busy < self.limits.channels)
            link.busy += 1
        try:
            yield link
        finally:
            link.busy -= 1
            async with link.freed:
                link.freed.notify_all()

    async def _open(self, host: Host, link: _Link, argv: Sequence[str], *, own: int) -> SshStream:
        command = command_line(argv)
        refused = alone = 0
        while True:
            connection = await self._connection(host)
            try:
                process = await connection.create_process(command, encoding=None, request_pty=False)
            except asyncssh.ChannelOpenError as error:
                if link.connection is not connection or connection.is_closed():
                    raise LinkLost("the connection broke", where=host.name, hint=error.reason) from error
                refused += 1
                alone = alone + 1 if link.busy <= own else 0
                if alone > REFUSALS:
                    raise ChannelRefused(
                        "the host opens no further session", where=host.name, hint="raise MaxSessions in sshd_config"
                    ) from error
                if alone and link.abandoned:  # sessions of commands that nobody waits for any more
                    link.abandoned = 0
                    connection.abort()
                await asyncio.sleep(min(0.5, 0.01 * 2.0**refused))  # a session is freed a little after its end
            except (OSError, asyncssh.Error) as error:
                raise LinkLost("the connection broke", where=host.name, hint=_reason(error)) from error
            else:
                return SshStream(process)

    def _link(self, host: Host) -> _Link:
        return self._links.setdefault(host.name, _Link())

    async def _connection(self, host: Host) -> asyncssh.SSHClientConnection:
        link = self._link(host)
        async with link.lock:
            ground = await asyncio.to_thread(self._ground, host)
            if link.ground != ground:
                if link.connection is not None:
                    link.connection.abort()
                link.connection, link.ground = None, ground
                self.forget(host.name)
            if link.connection is not None and not link.connection.is_closed():
                return link.connection
            if link.refusal is not None:
                raise type(link.refusal)(link.refusal.what, where=link.refusal.where, hint=link.refusal.hint)
            left = link.not_before - time.monotonic()
            if left > 0:
                raise HostUnreachable("the host was not reached", where=_where(host), hint=f"again in {left:.0f} s")
            jump = await self._jump(host)
            tunnel = await self._connection(jump) if jump else None  # its troubles are not this host's
            try:
                link.connection = await self._connect(host, jump, tunnel)
            except SshError as error:
                if error.permanent:
                    link.refusal = error
                else:
                    link.failures += 1
                    longest = min(self.limits.backoff_max_s, self.limits.backoff_s * 2.0 ** min(link.failures, 16))
                    link.not_before = time.monotonic() + random.uniform(0, longest)
                raise
            link.failures, link.abandoned = 0, 0
            return link.connection

    def _gone(self, name: str, connection: asyncssh.SSHClientConnection) -> None:
        link = self._links.get(name)
        if link is not None and link.connection is connection:  # else it was given up here
            self.on_loss(name)

    def _ground(self, host: Host) -> object:
        """What a connection depends on; when it changes, the connection is made anew."""
        key = host.settings.get("ssh_key")
        stat = _stamp(Path(key).expanduser()) if key else None
        chosen = [(name, value) for name, value in sorted(host.settings.items()) if name.startswith(("ssh_", "proxy"))]
        return (chosen, _address(host), _user(host), stat, enrolled_keys(self.known_hosts).get(host.name))

    async def _connect(
        self, host: Host, jump: Host | None, tunnel: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        key = (await asyncio.to_thread(enrolled_keys, self.known_hosts)).get(host.name)
        if key is None:
            raise HostKeyUnknown(
                "its host key is not enrolled", where=host.name, hint=f"run: ringrift hosts enrol {host.name}"
            )
        options: dict[str, Any] = {"known_hosts": ([asyncssh.import_public_key(key.text)], [], [])}
        if user := _user(host):
            options["username"] = user
        if "ssh_key" in host.settings:
            path = str(await asyncio.to_thread(Path(host.settings["ssh_key"]).expanduser))
            if not await asyncio.to_thread(os.path.isfile, path):
                raise LoginRefused("there is no such key file", where=f"{host.name}: {path}", hint="mend ssh_key")
            options["client_keys"] = [path]
        gate = asyncio.Semaphore(1)
        if jump is not None:
            options["tunnel"] = tunnel
            gate = self._jumps.setdefault(jump.name, asyncio.Semaphore(self.limits.jump_connects))
        limits = self.limits
        try:
            async with self._connects, gate, asyncio.timeout(limits.connect_s + limits.login_s):
                return await asyncssh.connect(
                    _address(host),
                    host.settings.get("ssh_port", ()),
                    preferred_auth="publickey",
                    agent_forwarding=False,
                    gss_host=None,
                    connect_timeout=limits.connect_s,
                    login_timeout=limits.login_s,
                    keepalive_interval=limits.keepalive_s,
                    keepalive_count_max=limits.keepalive_count,
                    utf8_decode_errors="replace",
                    client_factory=lambda: _Client(partial(self._gone, host.name)),
                    **options,
                )
        except (OSError, ValueError, asyncssh.Error) as error:
            raise classify(error, host) from error

    async def _jump(self, host: Host) -> Host | None:
        """The host that the way leads through, by its name in hosts.yaml; its one connection serves all behind it."""
        if host.settings.get("proxy_jump") is None:
            return None
        return jumps(host, await asyncio.to_thread(load_hosts, self.hosts_file))[0]

    async def drop(self, name: str) -> None:
        """Ends the connection to a host, e.g. when it was taken out of hosts.yaml."""
        link = self._links.pop(name, None)
        if link is not None and link.connection is not None:
            link.connection.abort()
            with suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await link.connection.wait_closed()

    async def close(self) -> None:
        """Ends all connections; what runs on the hosts goes on."""
        await asyncio.gather(*(self.drop(name) for name in list(self._links)))


async def _feed(stream: SshStream, data: bytes) -> None:
    with suppress(BrokenPipeError):  # a command need not read its input
        stream.write(data)
        await stream.drain()
    stream.write_eof()


def classify(error: Exception, host: Host) -> RingRiftError:
    """Why no connection came about, as one of our errors."""
    where, reason = _where(host), _reason(error)
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return HostKeyChanged(
                "THE HOST KEY HAS CHANGED: this may be another machine",
                where=where,
                hint=f"compare the fingerprint, then: ringrift hosts enrol {host.name}",
            )
        case asyncssh.KeyExchangeFailed() if "host key" in reason:
            return HostKeyChanged(
                "the host does not show its enrolled key any more",
                where=where,
                hint=f"ringrift hosts enrol {host.name}",
            )
        case asyncssh.PermissionDenied() | asyncssh.IllegalUserName():
            user = _user(host) or "the one of ~/.ssh/config"
            key = host.settings.get("ssh_key") or "those of ~/.ssh/config and ssh-agent"
            hint = f"check ssh_user, now {user}, and ssh_key, now {key}"
            return LoginRefused("the host refuses the login", where=where, hint=hint)
        case asyncssh.KeyImportError() | asyncssh.KeyEncryptionError():
            return LoginRefused("the key file cannot be used", where=where, hint=f"{reason}; use ssh-agent")
        case asyncssh.ConfigParseError():
            return LoginRefused("~/.ssh/config cannot be understood", where=where, hint=reason)
        case TimeoutError():
            return HostUnreachable("no answer", where=where, hint="is it up, and is the port right?")
    return HostUnreachable(
        "cannot connect", where=where, hint=f"{reason}; is it up, and are ssh_host and ssh_port right?"
    )


def _address(host: Host) -> str:
    """The name or number to connect to."""
    return host.target.rpartition("@")[2]


def _user(host: Host) -> str | None:
    return host.target.rpartition("@")[0] or host.settings.get("ssh_user") or None


def _where(host: Host) -> str:
    port = host.settings.get("ssh_port")
    return f"{host.name} ({_address(host)}{f':{port}' if port else ''})"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size
