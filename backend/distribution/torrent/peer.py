"""One peer of a swarm, on a host or on the head: libtorrent, told what to do on standard input.

Runs where the bytes are, sent there as text over the connection that also carries its commands (see
:mod:`backend.distribution.torrent.channel`), so it needs nothing of ours on the host: Python 3.11, libtorrent 2.1 and
the standard library. Every line in and out is JSON; the ones out begin with ``RINGRIFT-PEER``, since a login shell may
print before them.

First line in: ``{"do": "start", "name", "folder", "leaf", "size", "torrent", "listen", "seed", "seats", "lease",
"lease_s", "tls": {"cert", "key", "dh"} or null, "up", "down"}``; ``listen`` are addresses. Then ``peers`` (who to dial:
a list of [address, port]), ``limits`` (``up``, ``down``, bytes a second, 0 for none; ``each``, ``up`` of every port of
a seed), ``listen`` (``addresses``, those before among them), ``probe`` (``ways`` to try: a list of [name, address,
port]), ``ban`` (``address``), ``beat`` (nothing but a sign of life) and ``stop``. Out: ``ready`` (the ports by
address), ``probed`` for each way (``way``, and ``why`` it does not get through, empty when it does), ``stats`` each
second (a seed twice), ``finished`` when everything is hashed and flushed, ``banned``, ``disk``, and ``failed`` with a
reason before it ends.
``{"do": "end", "folder"}`` as the first line ends a peer that another head has left in that folder, and does nothing
else.

It lives by a lease: the file ``lease`` must be there and no older than ``lease_s``; without such a file every command
renews the lease, which counts from the moment when standard input has ended. When it is over the peer stops listening
and ends. It writes one file, the leaf, in a folder that must be private to its user, and never through a link.

A seed with ``seats`` opens a port for each: seat *k* of *n* offers only the pieces *k, k + n, k + 2n ...*, and the last
port offers all of them. What each host can ask of the head is then decided by the port it is told.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import signal
import socket
import stat
import sys
import time
from contextlib import suppress
from typing import Any

MAGIC = "RINGRIFT-PEER"
LEAST = (2, 1)
BEAT_S = 1.0
SEED_BEAT_S = 0.5
PROBE_S = 3.5  # time for a lost packet to be sent a third time
BACKLOG_BYTES = 1 << 18  # of lines that nobody reads; more are dropped, the newest line tells it all
CELLS = 64
TAKE_OVER_S = 10.0
ANYWHERE = "0.0.0.0"
LOCK = "torrent.lock"

SETTINGS: dict[str, Any] = {
    # nothing is announced and nobody is looked for: the head says who talks to whom
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "dht_bootstrap_nodes": "", "webtorrent_stun_server": "",
    # TCP alone: uTP costs four to six times the processor time on a local network
    "enable_outgoing_utp": False, "enable_incoming_utp": False, "mixed_mode_algorithm": 0,
    # the port that was asked for, or an error; never another one that nobody knows of
    "listen_system_port_fallback": False, "max_retry_port_bind": 0,
    # when any interface changes it would listen anew, on other ports than the ones that were told
    "enable_ip_notifier": False,
    "connections_limit": 800, "connection_speed": 500, "torrent_connect_boost": 255, "smooth_connects": False,
    # a peer that did not listen yet is dialled again after (failures + 1) times this, by default a minute
    "min_reconnect_time": 1, "max_failcount": 50,
    "peer_connect_timeout": 5, "handshake_timeout": 10, "request_timeout": 10, "piece_timeout": 10, "peer_timeout": 30,
    # short queues, since a request that waits reserves a piece that nobody can pass on yet
    "request_queue_time": 1, "max_out_request_queue": 500, "max_allowed_in_request_queue": 4000,
    "send_buffer_watermark": 4 << 20, "send_buffer_low_watermark": 256 << 10, "send_buffer_watermark_factor": 150,
    # what the kernel holds unsent stands before requests and news of pieces on the same connection
    "send_not_sent_low_watermark": 64 << 10,
    # everybody is served; there is no tit for tat among our own hosts
    "unchoke_slots_limit": -1, "choking_algorithm": 0, "seed_choking_algorithm": 0, "peer_turnover": 0,
    "allow_multiple_connections_per_ip": True, "close_redundant_connections": False,
    "auto_sequential": False, "initial_picker_threshold": 0, "predictive_piece_announce": 0, "suggest_mode": 0,
    "in_enc_policy": 2, "out_enc_policy": 2,  # the handshake's own cipher authenticates nobody; TLS does
    "rate_limit_ip_overhead": True,
    "aio_threads": 4, "hashing_threads": 2, "max_queued_disk_bytes": 16 << 20, "file_pool_size": 40,
    # a busy machine accepts late; what finds no room is dialled again a second later, or is thought shut
    "listen_queue_size": 128,
    "alert_queue_size": 10000, "peer_fingerprint": "-RR1000-",
}  # fmt: skip
"""What differs from libtorrent's own: see docs/distribution-torrent.md for what each was measured to do."""


class Refused(Exception):
    """What ends a peer, by one word the head knows and one line for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def check_folder(folder: str, leaf: str, size: int) -> None:
    """The place is a folder of ours that nobody else can write to, and the leaf is no link to elsewhere.

    A file that is too long is cut, which the engine would not do.
    """
    about = os.lstat(folder)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise Refused("unsafe_path", f"{folder} is not a private folder of this user")
    if not leaf or "/" in leaf or leaf in (".", "..") or "\0" in leaf:
        raise Refused("unsafe_path", "the file's name is none")
    try:
        about = os.lstat(os.path.join(folder, leaf))
    except FileNotFoundError:
        return
    if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid():
        raise Refused("unsafe_path", f"{leaf} is there and is no file of this user")
    if about.st_size > size:
        descriptor = os.open(os.path.join(folder, leaf), os.O_WRONLY | os.O_NOFOLLOW)
        os.ftruncate(descriptor, size)
        os.close(descriptor)


def check_torrent(torrent: Any, size: int) -> None:
    """It is of one file of that size, private, and names nobody to talk to."""
    try:
        info = torrent[b"info"]
        ((leaf,),) = [[entry[b""]] for entry in info[b"file tree"].values()]
        good = leaf[b"length"] == size and info[b"private"] == 1 and info[b"meta version"] == 2
    except (KeyError, ValueError, TypeError):
        good = False
    if not good or set(torrent) - {b"info", b"piece layers"}:
        raise Refused("bad_torrent", "the torrent is not the one that was announced")


def take_over(folder: str) -> int:
    """Becomes the only peer that writes into a folder; one that an earlier head has left there is ended.

    Returns:
        A descriptor that holds the lock while it is open.
    """
    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    begun = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            waited = time.monotonic() - begun
            if waited > TAKE_OVER_S:
                raise Refused("busy", "another peer holds this folder and does not end") from None
            pid = os.pread(lock, 20, 0)
            if pid.strip().isdigit():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM if waited < TAKE_OVER_S / 2 else signal.SIGKILL)
            time.sleep(0.05)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def is_ours(address: str) -> bool:
    """Whether this machine has that address; behind NAT it has not the one by which others know it."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def is_connected(probe: socket.socket) -> bool:
    try:
        probe.getpeername()
    except OSError:
        return False
    return True


def cells(pieces: list[bool]) -> str:
    """How full each part of the file is, as at most 64 digits from 0 (nothing) to 9 (all of it)."""
    count = min(CELLS, len(pieces))
    found = []
    for k in range(count):
        part = pieces[k * len(pieces) // count : (k + 1) * len(pieces) // count]
        found.append("0123456789"[9 * sum(part) // len(part)])
    return "".join(found)


class Seat:
    """One session with the one torrent.

    Args:
        share: (k, n) for a seed that offers piece k, k + n and so on; None for all of them.
    """

    def __init__(self, lt: Any, order: dict[str, Any], share: tuple[int, int] | None) -> None:
        self.lt, self.order, self.share = lt, order, share
        self.tls = order.get("tls")
        mask = lt.alert_category.error | lt.alert_category.status | lt.alert_category.storage
        if not order["seed"]:
            mask |= lt.alert_category.peer  # who was banned for bad bytes
        where = self.interfaces(order["listen"])
        settings: dict[str, Any] = {"listen_interfaces": where, "alert_mask": mask, "user_agent": order["name"]}
        if order["seed"]:
            settings |= {"connection_speed": 0, "torrent_connect_boost": 0}  # it is dialled, and dials nobody
        elif order["listen"] != [ANYWHERE]:
            settings["outgoing_interfaces"] = order["listen"][0]
        self.session = lt.session(SETTINGS | settings)
        everyone = lt.ip_filter()  # limits do not apply to private addresses unless these are in the global class
        everyone.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)
        self.session.set_peer_class_filter(everyone)
        self.limit(order.get("up", 0), order.get("down", 0))
        self.wanted: set[tuple[str, int]] = set()
        self.handle: Any = None
        self.checked = False
        self.ports: dict[str, int] = {}  # each address has its own

    def interfaces(self, addresses: list[str]) -> str:
        return ",".join(f"{address}:0" + ("s" if self.tls else "") for address in addresses)

    def listen(self, addresses: list[str]) -> None:
        """Listens at these addresses; ports that are open already stay as they are."""
        self.session.apply_settings({"listen_interfaces": self.interfaces(addresses)})

    def limit(self, up: int, down: int) -> None:
        self.session.apply_settings({"upload_rate_limit": int(up), "download_rate_limit": int(down)})

    def add(self) -> None:
        lt, order = self.lt, self.order
        data = base64.b64decode(order["torrent"])
        check_torrent(lt.bdecode(data), order["size"])
        params = lt.load_torrent_buffer(data)
        params.save_path = order["folder"]
        params.renamed_files = {0: order["leaf"]}
        flags = lt.torrent_flags
        params.flags = flags.update_subscribe | flags.disable_dht | flags.disable_lsd | flags.disable_pex
        if not order["seed"]:
            params.storage_mode = lt.storage_mode_t.storage_mode_allocate
        elif self.share is None:
            params.flags |= flags.seed_mode
        else:
            k, n = self.share
            mine = [piece % n == k for piece in range(params.ti.num_pieces())]
            params.have_pieces = mine
            params.piece_priorities = [int(one) for one in mine]
        self.handle = self.session.add_torrent(params)
        if self.tls:
            self.handle.set_ssl_certificate_buffer(self.tls["cert"], self.tls["key"], self.tls["dh"])

    def port(self, address: str) -> int:
        """0 while it does not listen there."""
        if address == ANYWHERE:  # which one does not matter: nobody dials it
            return int(self.session.ssl_listen_port() if self.tls else self.session.listen_port())
        return self.ports.get(address, 0)

    def redial(self) -> list[tuple[str, int]]:
        """Dials who is wanted and not there; returns these."""
        if not self.checked or not self.wanted:
            return []
        there = {one.ip for one in self.handle.get_peer_info() if not one.flags & one.connecting}
        absent = sorted(self.wanted - there)
        if self.handle.status().is_seeding:
            return []
        for address in absent:
            self.handle.connect_peer(address)
        return absent

    def ban(self, address: str) -> None:
        rules = self.session.get_ip_filter()
        rules.add_rule(address, address, 1)
        self.session.set_ip_filter(rules)
        self.wanted = {one for one in self.wanted if one[0] != address}


class Peer:
    """A peer and its head at the other end of standard input and output."""

    def __init__(self, lt: Any, order: dict[str, Any]) -> None:
        self.lt, self.order = lt, order
        self.lease_s = float(order["lease_s"])
        self.alive_until = time.monotonic() + self.lease_s
        self.cut = False
        self.over = asyncio.Event()
        self.finished = False
        self.banned: set[str] = set()
        self.trouble = ""
        self.tasks: set[asyncio.Task[None]] = set()
        self.source = _identity(order) if order["seed"] else None
        seats = int(order.get("seats", 0)) if order["seed"] else 0
        shares: list[tuple[int, int] | None] = [(k, seats) for k in range(seats)]
        self.alone = not order["seed"] and not all(map(is_ours, order["listen"]))
        if self.alone:
            order["listen"] = [ANYWHERE]
        self.ready: list[str] = []  # addresses that the head was told of
        self.seats = [Seat(lt, order, share) for share in [*shares, None]]

    @property
    def main(self) -> Seat:
        return self.seats[-1]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for seat in self.seats:
            mine, theirs = socket.socketpair()
            mine.setblocking(False)
            theirs.setblocking(False)
            seat.session.set_alert_fd(theirs.fileno())
            seat.add()
            loop.add_reader(mine, self.on_alerts, seat, mine, theirs)
            self.on_alerts(seat, mine, theirs)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.over.set)
        loop.set_exception_handler(self.on_bug)
        tasks = [self.listen(), self.tell(), *([] if self.order["seed"] else [self.write_out()])]
        for each in tasks:
            self.work(each)
        await self.over.wait()

    def work(self, doing: Any) -> None:
        task = asyncio.get_running_loop().create_task(doing)
        self.tasks.add(task)
        task.add_done_callback(self.on_end)

    def on_end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail("bug", repr(error))

    def on_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.fail("bug", repr(context.get("exception") or context["message"]))

    async def listen(self) -> None:
        reader = asyncio.StreamReader(limit=1 << 24)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            if line.endswith(b"\n"):
                self.obey(json.loads(line))
        self.cut = True

    def obey(self, order: dict[str, Any]) -> None:
        self.alive_until = time.monotonic() + self.lease_s
        what = order["do"]
        if what == "peers":
            self.main.wanted = {(str(address), int(port)) for address, port in order["peers"]} - {
                one for one in self.main.wanted if one[0] in self.banned
            }
            self.main.redial()
        elif what == "limits":
            each = order.get("each") or [order.get("up", 0)] * len(self.seats)
            for seat, up in zip(self.seats, each, strict=False):
                seat.limit(up, order.get("down", 0))
        elif what == "listen":
            self.order["listen"] = order["addresses"]
            for seat in self.seats:
                seat.listen(order["addresses"])
        elif what == "probe":
            for name, address, port in order["ways"]:
                self.work(self.probe(str(name), str(address), int(port)))
        elif what == "ban":
            self.banned.add(order["address"])
            for seat in self.seats:
                seat.ban(order["address"])
        elif what == "stop":
            self.over.set()

    async def probe(self, name: str, address: str, port: int) -> None:
        """Whether a connection can be had there, from where the engine would dial."""
        why = ""
        with socket.socket() as probe:
            probe.setblocking(False)
            try:
                if not self.alone:
                    probe.bind((self.order["listen"][0], 0))
                async with asyncio.timeout(PROBE_S):
                    await asyncio.get_running_loop().sock_connect(probe, (address, port))
            except TimeoutError:
                why = "" if is_connected(probe) else "timed out"  # on a busy machine the answer may lie there unread
            except OSError as error:
                why = (os.strerror(error.errno) if error.errno else str(error)).lower()
        say({"ev": "probed", "way": name, "why": why})

    def on_alerts(self, seat: Seat, mine: socket.socket, theirs: socket.socket) -> None:
        """Empties the socket first and the alerts then; what they say is copied at once, as they die with the next."""
        try:
            while mine.recv(4096):
                pass
        except BlockingIOError:
            pass
        while alerts := seat.session.pop_alerts():
            for alert in alerts:
                self.on_alert(seat, type(alert).__name__, alert)

    def on_alert(self, seat: Seat, kind: str, alert: Any) -> None:
        if kind == "listen_failed_alert":
            self.fail("port_in_use", str(alert.message()))
        elif kind == "listen_succeeded_alert":
            if alert.socket_type in (self.lt.socket_type_t.tcp, self.lt.socket_type_t.tcp_ssl):
                seat.ports[str(alert.address)] = int(alert.port)
                self.tell_ports()
        elif kind == "torrent_checked_alert":
            seat.checked = True
            self.tell_ports()
            seat.redial()
        elif kind == "torrent_finished_alert" and not self.order["seed"]:
            seat.handle.flush_cache()
        elif kind == "cache_flushed_alert" and not self.order["seed"]:
            if seat.handle.status().is_seeding and not self.finished:
                self.finished = True
                self.stats()
                say({"ev": "finished"})
        elif kind == "peer_ban_alert":
            address = str(alert.endpoint[0])
            if address not in self.banned:
                self.banned.add(address)
                say({"ev": "banned", "address": address})
        elif kind in ("file_error_alert", "torrent_error_alert") and str(alert.message()) != self.trouble:
            self.trouble = str(alert.message())
            say({"ev": "disk", "message": self.trouble})

    def tell_ports(self) -> None:
        """Once everything is there; again when it listens at more addresses."""
        wanted = self.order["listen"]
        if wanted == self.ready or not all(seat.checked for seat in self.seats):
            return
        ports = {address: [seat.port(address) for seat in self.seats] for address in wanted}
        if all(all(found) for found in ports.values()):
            self.ready = wanted
            say({"ev": "ready", "ports": ports, "alone": self.alone, "pid": os.getpid()})

    def lease_is_over(self) -> bool:
        if not self.order.get("lease"):
            return self.cut and time.monotonic() > self.alive_until
        try:
            return time.time() - os.stat(self.order["lease"]).st_mtime > self.lease_s
        except FileNotFoundError:
            return True

    def fail(self, reason: str, detail: str) -> None:
        say({"ev": "failed", "reason": reason, "detail": detail})
        self.over.set()

    def stats(self) -> None:
        seat = self.main
        status = seat.handle.status(self.lt.torrent_handle.query_pieces)
        every = [status, *(one.handle.status() for one in self.seats[:-1])]
        peers = [
            [_text(one.client), one.ip[0], one.payload_down_speed, one.payload_up_speed, one.total_download,
             one.total_upload]
            for each in self.seats for one in each.handle.get_peer_info() if not one.flags & one.connecting
        ]  # fmt: skip
        say({
            "ev": "stats", "state": str(status.state), "done": status.total_wanted_done, "size": self.order["size"],
            "down": sum(one.download_payload_rate for one in every),
            "up": sum(one.upload_payload_rate for one in every),
            "received": sum(one.total_payload_download for one in every),
            "sent": sum(one.total_payload_upload for one in every),
            "seats": [one.total_payload_upload for one in every[1:]] if self.order["seed"] else [],
            "wasted": status.total_redundant_bytes, "corrupt": status.total_failed_bytes,
            "stuck": bool(status.flags & self.lt.torrent_flags.upload_mode) and not self.order["seed"],
            "peers": peers, "absent": seat.redial(), "cells": cells(list(status.pieces)),
        })  # fmt: skip

    async def write_out(self) -> None:
        """Has the disk take what came, all along: whoever proves the file waits for all that is not on it yet."""
        path = os.path.join(self.order["folder"], self.order["leaf"])
        while not self.finished:
            await asyncio.sleep(BEAT_S)
            with suppress(OSError):  # the engine tells of a file that is not there, or of a disk that is broken
                await asyncio.to_thread(_flush, path)

    async def tell(self) -> None:
        while True:
            await asyncio.sleep(SEED_BEAT_S if self.order["seed"] else BEAT_S)
            if self.lease_is_over():
                self.fail("lease", "the head is gone")
            if self.source is not None and _identity(self.order) != self.source:
                self.fail("source_changed", "the file is not what it was when its hashes were taken")
            self.stats()


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _identity(order: dict[str, Any]) -> tuple[int, int, int, int] | None:
    try:
        about = os.lstat(os.path.join(order["folder"], order["leaf"]))
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


_unsent = bytearray()


def say(value: dict[str, Any]) -> None:
    """Writes a line and never waits for its reader: what finds no room is told at the next time, or left out."""
    global _unsent
    line = f"{MAGIC} {json.dumps(value)}\n".encode()
    if value["ev"] != "stats" or len(_unsent) < BACKLOG_BYTES:
        _unsent += line
    try:
        while _unsent:
            del _unsent[: os.write(1, _unsent)]
    except BlockingIOError:
        pass
    except OSError:  # nobody reads any more; the lease decides how long to go on
        _unsent.clear()


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.umask(0o077)
    buffer = b""
    while not buffer.endswith(b"\n"):  # byte by byte: what follows the first line is for the loop to read
        block = os.read(0, 1)
        if not block:
            return 2
        buffer += block
    order = json.loads(buffer)
    lock = -1
    try:
        if order["do"] == "end":
            os.close(take_over(order["folder"]))
            return 0
        try:
            import libtorrent as lt
        except ImportError as error:
            raise Refused("no_libtorrent", str(error)) from None
        if tuple(int(part) for part in lt.__version__.split(".")[:2]) < LEAST:
            raise Refused("no_libtorrent", f"libtorrent {lt.__version__} is too old")
        if not order["seed"]:
            check_folder(order["folder"], order["leaf"], order["size"])
            lock = take_over(order["folder"])
        os.set_blocking(1, False)
        asyncio.run(serve(lt, order))
    except Refused as error:
        say({"ev": "failed", "reason": error.reason, "detail": error.detail})
        return 3
    except OSError as error:
        say({"ev": "failed", "reason": "unsafe_path", "detail": str(error)})
        return 3
    finally:
        if lock >= 0:
            os.close(lock)
    return 0


async def serve(lt: Any, order: dict[str, Any]) -> None:
    peer = Peer(lt, order)
    await peer.run()


if __name__ == "__main__":
    sys.exit(main())
