"""Serves one file by HTTP; read from standard input by ``python3`` on every machine that gives the file to others.

Standard library only, Python 3.9 or newer. The first line is one JSON object (:data:`DEFAULTS` names its keys), each
later line an order: ``{"op": "admit", "token", "label"}``, ``{"op": "revoke", "label"}``, ``{"op": "listen",
"address"}``, ``{"op": "rate", "rate"}``, ``{"op": "stop"}``. Answers are JSON lines after :data:`MAGIC`.

There is one file, opened once and held by its descriptor, and one path for each token, ``/<token>/<sha256>``. A request
is compared with these paths and never taken apart, so nothing that a client writes reaches the file system. The file
was sealed by whoever named it: when its inode, size or time of modification is another one, nothing of it is given.

Byte ranges, conditions and answers follow RFC 9110 (sections 13 and 14), messages RFC 9112. What a client may use up
is bounded: connections in all and from one address, bytes and seconds for a request, seconds for a block it takes.

It ends at the order, when another one has claimed its place, and when its lease is over: the lease file is older than
``lease_s`` or gone, or, where there is none, nobody has been on the channel for so long.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import os
import secrets
import selectors
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from backend.distribution.http_ranges import BadRequest, Part, Span, answer_head, length_of, parse_head, respond
from backend.distribution.standing import Channel, Claim, Refusal, lease_over

MAGIC = "RINGRIFT-RANGES"
BLOCK = 128 * 1024
HEAD_BYTES = 8 * 1024
DEFAULTS: dict[str, Any] = {
    "path": "",  # absolute; no symlink
    "size": 0,
    "sha256": "",
    "seal": None,  # [inode, mtime_ns] of the file when it was checked; None takes what is there now
    "tokens": {},  # token -> label, under which its bytes are counted
    "listen": [],  # addresses; empty: the one by which SSH came here, else loopback
    "port": 0,  # 0: any
    "lease": "",  # path
    "lease_s": 600.0,
    "claim": "",  # path; the newest to write it is the one that serves
    "epoch": 0,
    "rate": 0.0,  # bytes a second in all, 0 for no limit
    "connections": 64,
    "per_address": 16,  # loopback is where tunnels end, so it counts for nobody
    "head_s": 10.0,  # for a request's head
    "idle_s": 20.0,  # between two requests
    "block_s": 30.0,  # for a client to take a block
}


class Sealed:
    """The one file, by its descriptor."""

    def __init__(self, path: str, size: int, seal: list[int] | None) -> None:
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Refusal("unsafe" if error.errno == errno.ELOOP else "missing", f"{path}: {error.strerror}") from None
        about = os.fstat(self.descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise Refusal("unsafe", f"{path}: not a regular file")
        self.size = about.st_size
        self.seal = [about.st_ino, about.st_mtime_ns]
        if self.size != size or (seal is not None and seal != self.seal):
            raise Refusal("changed", f"{path}: not the file that was checked")

    def unchanged(self) -> bool:
        about = os.fstat(self.descriptor)
        return about.st_size == self.size and [about.st_ino, about.st_mtime_ns] == self.seal

    def read(self, at: int, count: int) -> bytes:
        return os.pread(self.descriptor, count, at)


class Pace:
    """Bytes a second for all clients together."""

    def __init__(self, rate: float) -> None:
        self.rate, self._free, self._lock = rate, 0.0, threading.Lock()

    def block(self) -> int:
        """Bytes to send at once: little when slow, so that every client hears something all the time."""
        return BLOCK if self.rate <= 0 else max(4096, min(BLOCK, int(self.rate / 16)))

    def wait(self, count: int) -> float:
        """Seconds to wait before ``count`` bytes may be sent."""
        with self._lock:
            now = time.monotonic()
            if self.rate <= 0:
                self._free = now
                return 0.0
            self._free = max(self._free, now) + count / self.rate
            return self._free - now


class Server:
    """Answers on every address it was told, one thread a connection, so many and no more.

    Attributes:
        sent: bytes of the file by label.
    """

    def __init__(self, settings: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
        unknown = set(settings) - set(DEFAULTS)
        if unknown:
            raise ValueError(f"unknown settings: {sorted(unknown)}")
        self.settings = {**DEFAULTS, **settings}
        self.say = say
        self.file = Sealed(self.settings["path"], self.settings["size"], self.settings["seal"])
        self.pace = Pace(self.settings["rate"])
        self.paths: dict[bytes, str] = {}
        self.sent: dict[str, int] = {}
        self.addresses: dict[str, int] = {}
        self.open: dict[socket.socket, tuple[str, str]] = {}  # address, label
        self.lock = threading.Lock()
        self.selector = selectors.DefaultSelector()
        self.wake, self._waking = socket.socketpair()
        self.wake.setblocking(False)
        self.selector.register(self.wake, selectors.EVENT_READ)
        self.over = ""
        for token, label in self.settings["tokens"].items():
            self.admit(token, label)

    def admit(self, token: str, label: str) -> None:
        with self.lock:
            self.paths[f"/{token}/{self.settings['sha256']}".encode()] = label
            self.sent.setdefault(label, 0)

    def revoke(self, label: str) -> None:
        with self.lock:
            self.paths = {path: name for path, name in self.paths.items() if name != label}
            ending = [connection for connection, (_, name) in self.open.items() if name == label]
        for connection in ending:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def listen(self, address: str) -> int:
        """Listens there as well; returns the port."""
        if address in self.addresses:
            return self.addresses[address]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, self.settings["port"]))
            listener.listen(128)
        except OSError as error:
            listener.close()
            kind = "port" if error.errno == errno.EADDRINUSE else "address"
            raise Refusal(kind, f"{address} port {self.settings['port']}: {error.strerror or error}") from None
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ)
        self.addresses[address] = int(listener.getsockname()[1])
        return self.addresses[address]

    def end(self, why: str) -> None:
        """May be called from any thread."""
        self.over = self.over or why
        with contextlib.suppress(OSError):
            self._waking.send(b"x")

    def run(self, tick: Callable[[], None]) -> str:
        """Serves until :meth:`end`; ``tick`` is called about once a second. Returns why it ended."""
        due = 0.0
        while not self.over:
            for key, _ in self.selector.select(max(0.0, min(1.0, due - time.monotonic()))):
                if key.fileobj is self.wake:
                    with contextlib.suppress(BlockingIOError):
                        self.wake.recv(4096)
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._accept(key.fileobj)
            if time.monotonic() >= due:
                due = time.monotonic() + 1.0
                tick()
        for key in list(self.selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                self.selector.unregister(key.fileobj)
                key.fileobj.close()
        with self.lock:
            remaining = list(self.open)
        for connection in remaining:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        return self.over

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, peer = listener.accept()
        except OSError:  # it went away before, or there are no descriptors, of which one may soon be free
            time.sleep(0.05)
            return
        address = str(peer[0])
        with self.lock:
            here = sum(1 for other, _ in self.open.values() if other == address)
            crowded = len(self.open) >= self.settings["connections"]
            if not (address.startswith("127.") or address == "::1"):
                crowded = crowded or here >= self.settings["per_address"]
            if not crowded:
                self.open[connection] = (address, "")
        if crowded:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.send(answer_head("503 Service Unavailable", [("Retry-After", "2")], 0, lasting=False))
            connection.close()
            return
        threading.Thread(target=self._talk, args=(connection, address), daemon=True).start()

    def _talk(self, connection: socket.socket, address: str) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            rest = b""
            while not self.over:
                head, rest = self._read_head(connection, rest)
                if head is None or not self._answer(connection, address, head):
                    return
        except BadRequest as error:
            with contextlib.suppress(OSError):
                connection.sendall(answer_head(error.status, [], 0, lasting=False))
        except OSError:  # the client went away, or took too long
            pass
        finally:
            with self.lock:
                self.open.pop(connection, None)
            connection.close()

    def _read_head(self, connection: socket.socket, data: bytes) -> tuple[bytes | None, bytes]:
        """One request's head and what came after it; None when the client has closed."""
        until = time.monotonic() + (self.settings["head_s"] if data else self.settings["idle_s"])
        while b"\r\n\r\n" not in data:
            if len(data) > HEAD_BYTES:
                raise BadRequest("431 Request Header Fields Too Large")
            left = until - time.monotonic()
            if left <= 0:
                raise BadRequest("408 Request Timeout") if data else TimeoutError()
            connection.settimeout(left)
            try:
                block = connection.recv(4096)
            except socket.timeout:  # noqa: UP041  another class than TimeoutError before 3.10
                continue
            if not block:
                return None, b""
            if not data:  # from its first byte on a request has so long, however slowly it drips
                until = time.monotonic() + self.settings["head_s"]
            data += block
        head, _, rest = data.partition(b"\r\n\r\n")
        if len(head) > HEAD_BYTES:
            raise BadRequest("431 Request Header Fields Too Large")
        return head, rest

    def _label(self, target: bytes) -> str | None:
        """Whose path that is; every path is compared, each in a time that does not tell how much of it was right."""
        found = None
        with self.lock:
            for path, label in self.paths.items():
                if hmac.compare_digest(path, target):
                    found = label
        return found

    def _answer(self, connection: socket.socket, address: str, head: bytes) -> bool:
        request = parse_head(head)
        connection.settimeout(self.settings["block_s"])
        label = self._label(request.target)
        fields: list[tuple[str, str]] = []
        parts: list[Part] = []
        if label is None:
            status, fields = "401 Unauthorized", [("WWW-Authenticate", "Path")]
        elif not self._unchanged():
            status = "410 Gone"
        else:
            boundary = secrets.token_hex(16)
            status, fields, parts = respond(request, self.file.size, self.settings["sha256"], boundary)
        with self.lock:
            self.open[connection] = (address, label or "")
        lasting = request.lasting and label is not None and not self.over
        connection.sendall(answer_head(status, fields, length_of(parts), lasting=lasting))
        if request.method != "HEAD":
            for part in parts:
                if isinstance(part, bytes):
                    connection.sendall(part)
                elif not self._send(connection, label or "", part):
                    return False
        return lasting

    def _send(self, connection: socket.socket, label: str, span: Span) -> bool:
        at, left = span
        while left:
            block = self.file.read(at, min(self.pace.block(), left))
            if not block or not self._unchanged():  # looked at after it was read: what goes out is what was sealed
                return False
            until = time.monotonic() + self.pace.wait(len(block))
            while (pause := until - time.monotonic()) > 0:
                if self.over:
                    return False
                time.sleep(min(0.2, pause))
            connection.sendall(block)
            at, left = at + len(block), left - len(block)
            with self.lock:
                self.sent[label] = self.sent.get(label, 0) + len(block)
        return True

    def _unchanged(self) -> bool:
        if self.file.unchanged():
            return True
        self.say({"changed": f"{self.settings['path']}: it was changed while it was served"})
        return False


def obey(server: Server, order: dict[str, Any]) -> None:
    """Carries one order out."""
    kind = order["op"]
    if kind == "admit":
        server.admit(order["token"], order["label"])
        server.say({"admitted": order["label"]})
    elif kind == "revoke":
        server.revoke(order["label"])
    elif kind == "rate":
        server.pace.rate = float(order["rate"])
    elif kind == "listen":
        try:
            server.say({"listening": {order["address"]: server.listen(order["address"])}})
        except Refusal as error:
            server.say({"error": error.kind, "message": str(error), "address": order["address"]})
    elif kind == "stop":
        server.end("stopped")


def hear(server: Server, incoming: BinaryIO, channel: Channel) -> None:
    """Carries orders out until the channel is closed."""
    try:
        for line in incoming:
            obey(server, json.loads(line))
    finally:
        channel.hang_up()


def own_address() -> str:
    """The address by which SSH reached this machine."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    return words[2] if len(words) == 4 else "127.0.0.1"


def main() -> int:
    """Serves until its end; returns the exit code."""
    incoming, channel = sys.stdin.buffer, Channel(sys.stdout.buffer)
    settings = json.loads(incoming.readline().decode())
    sys.stdout.write(f"\n{MAGIC}\n")
    sys.stdout.flush()
    try:
        server = Server(settings, channel.say)
        claim = Claim(server.settings["claim"], server.settings["epoch"])
        for address in server.settings["listen"] or [own_address()]:
            server.listen(address)
    except Refusal as error:
        channel.say({"error": error.kind, "message": str(error)})
        return 1
    channel.say({"listening": server.addresses, "seal": server.file.seal})
    threading.Thread(target=hear, args=(server, incoming, channel), daemon=True).start()
    told: dict[str, int] = {}

    def tick() -> None:
        nonlocal told
        lease, lease_s = server.settings["lease"], server.settings["lease_s"]
        if lease and lease_over(lease, lease_s):
            server.end("the lease is over")
        elif not lease and channel.lost and time.monotonic() - channel.lost > lease_s:
            server.end("nobody is there any more")
        elif not claim.held():
            server.end("another one has taken over")
        with server.lock:
            now = dict(server.sent)
        if now != told:
            told = now
            channel.say({"sent": now})

    why = server.run(tick)
    channel.say({"sent": server.sent})
    channel.say({"end": why})
    return 0
