"""Loads one file with aria2c from several sources; read from standard input by ``python3`` on the host that wants it.

Standard library only, Python 3.9 or newer. The first line is one JSON object (:data:`DEFAULTS` names its keys), each
later line an order: ``{"op": "sources", "sources": [{"name", "urls"}]}``, ``{"op": "drop", "name"}``, ``{"op":
"limit", "limit"}``, ``{"op": "stop"}``. A source is asked at each of its addresses whether it has the file; the first
that says yes is used. Loading begins with the first source and ends with ``complete`` or ``failed``.

A source that sent a wrong piece is asked for that piece once more, by us: aria2 may have put the piece together from
two sources. When it is wrong again, the source is named and left out.

The bytes go to ``<folder>/data`` and nowhere else; what was there before and has the right hashes is kept. Whoever
starts this for the same folder ends the one before: two never write.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from backend.distribution.aria2_engine import Engine, RpcError
from backend.distribution.http_source import ask_source, piece_of
from backend.distribution.metalink import metalink
from backend.distribution.standing import Channel, Claim, Refusal, check_place, file_sha256, lease_over, take_lock

MAGIC = "RINGRIFT-ARIA2"
DATA = "data"
NAMES = (DATA, f"{DATA}.aria2", "aria2.lock", "aria2.claim", "aria2.conf")
CELLS = 128
LOCK_S = 30.0
POLL_S = 0.25
AGAIN = 3
"""How often a download is begun anew, with the sources that are left, when aria2 has given them all up."""
HOPELESS = frozenset({9, 13, 14, 15, 16, 17, 18, 28})
"""Exit codes of aria2c(1) that speak of this host and not of the sources: disk, files, options."""
REPORT_S = 0.5
DEFAULTS: dict[str, Any] = {
    "op": "fetch",  # or "end": only makes sure that nothing writes there any more
    "folder": "",  # absolute, private, ours
    "size": 0,
    "sha256": "",
    "piece_size": 0,
    "pieces": "",  # SHA-256 of all pieces in a row, hexadecimal
    "aria2c": "",  # path; empty: looked for
    "lease": "",
    "lease_s": 600.0,
    "epoch": 0,
    "limit": 0.0,  # bytes a second, 0 for none
    "timeout_s": 20.0,  # of a source that sends nothing
    "stall_s": 60.0,  # without any byte from anybody
    "rpc_port": 0,
}


def cells(bitfield: str, pieces: int) -> str:
    """A picture of which pieces are there: at most :data:`CELLS` digits, 0 nothing to 9 all."""
    if not bitfield or not pieces:
        return ""
    bits = bin(int("1" + bitfield, 16))[3 : 3 + pieces]
    count = min(CELLS, pieces)
    edges = [pieces * at // count for at in range(count + 1)]
    parts = [bits[first:last] for first, last in zip(edges, edges[1:])]  # noqa: B905, RUF007  3.9 has neither
    return "".join(str(part.count("1") * 9 // len(part)) for part in parts)


class Fetch:
    """One download, from the first source to its end."""

    def __init__(self, settings: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
        self.settings, self.say = settings, say
        self.orders: queue.Queue[dict[str, Any]] = queue.Queue()
        self.data = os.path.join(settings["folder"], DATA)
        self.sources: dict[str, str] = {}  # address -> name
        self.blamed: set[str] = set()
        self.cleared: dict[str, int] = {}  # address -> suspicions that came to nothing
        self.engine: Engine | None = None
        self.asked = 0  # sources that have not answered yet
        self.again = AGAIN
        self.moved = time.monotonic()
        self.have = -1

    def program(self) -> str:
        given = self.settings["aria2c"]
        found = given if given and os.access(given, os.X_OK) else shutil.which("aria2c")
        if not found:
            raise Refusal("missing", "there is no aria2c on this host")
        return str(found)

    def prepare(self) -> bool:
        """Makes the file fit to be continued; returns whether it is whole already."""
        with_links = 0
        try:
            about = os.lstat(self.data)
            with_links = about.st_nlink
            if about.st_nlink == 1 and about.st_size > self.settings["size"]:
                os.truncate(self.data, self.settings["size"])
        except FileNotFoundError:
            pass
        if with_links > 1:  # published, and so not to be written: it is right, or nothing of ours
            if file_sha256(self.data) != self.settings["sha256"]:
                raise Refusal("unsafe", f"{self.data}: it has a second name, so it is not written to")
            return True
        return False

    def obey(self, order: dict[str, Any]) -> None:
        kind = order["op"]
        if kind == "sources":
            self.asked += len(order["sources"])
            for source in order["sources"]:
                threading.Thread(target=self._probe, args=(source["name"], source["urls"]), daemon=True).start()
        elif kind == "probed":
            self._admit(order["name"], order["url"], order["said"])
        elif kind == "cleared":
            self._judge(order["url"], order["piece"], order["wrong"])
        elif kind == "drop":
            self._drop([url for url, name in self.sources.items() if name == order["name"]])
        elif kind == "limit":
            self.settings["limit"] = order["limit"]
            if self.engine:
                self.engine.limit(order["limit"])

    def _probe(self, name: str, urls: list[str]) -> None:
        said, chosen = "unreachable", ""
        for url in urls:
            said = ask_source(url, self.settings["sha256"], self.settings["size"])
            if said == "ok":
                chosen = url
                break
        self.orders.put({"op": "probed", "name": name, "url": chosen, "said": said})

    def _admit(self, name: str, url: str, said: str) -> None:
        self.say({"source": name, "said": said})
        self.asked -= 1
        if url and name not in self.blamed and url not in self.sources:
            self.sources[url] = name
            if self.engine is not None:
                self.engine.change([], [url])
        if self.engine is None and self.sources and not self.asked:  # all at once, since aria2 deals out the work now
            self._begin()

    def _begin(self) -> None:
        hosts = [str(urlsplit(url).hostname) for url in self.sources]
        busiest = max(hosts.count(host) for host in hosts)  # aria2 counts by host; at loopback all tunnels end
        self.engine = Engine(
            self.program(),
            self.settings["folder"],
            limit=self.settings["limit"],
            timeout_s=self.settings["timeout_s"],
            per_server=min(16, 2 * busiest),
            port=self.settings["rpc_port"],
        )
        self._fetch(self.engine)

    def _fetch(self, engine: Engine) -> None:
        text, size, step = self.settings["pieces"], self.settings["size"], self.settings["piece_size"]
        pieces = [bytes.fromhex(text[at : at + 64]) for at in range(0, len(text), 64)]
        engine.fetch(metalink(DATA, size, self.settings["sha256"], step, pieces, list(self.sources)))
        self.moved = time.monotonic()

    def _drop(self, urls: list[str]) -> None:
        for url in urls:
            self.sources.pop(url, None)
        if self.engine and urls:
            self.engine.change(urls, [])

    def suspect(self) -> None:
        """Has every source that is under suspicion asked again."""
        assert self.engine is not None
        while self.engine.suspects:
            url, piece = self.engine.suspects.pop(0)
            if url in self.sources and self.cleared.get(url, 0) < 4:
                self.cleared[url] = self.cleared.get(url, 0) + 1
                threading.Thread(target=self._ask_again, args=(url, piece), daemon=True).start()

    def _ask_again(self, url: str, piece: int) -> None:
        step, size = self.settings["piece_size"], self.settings["size"]
        right = self.settings["pieces"][64 * piece : 64 * piece + 64]
        try:
            data = piece_of(url, piece * step, min(step, size - piece * step))
            wrong = hashlib.sha256(data).hexdigest() != right
        except (OSError, http.client.HTTPException):
            return
        self.orders.put({"op": "cleared", "url": url, "piece": piece, "wrong": wrong})

    def _judge(self, url: str, piece: int, wrong: bool) -> None:
        name = self.sources.get(url)
        if wrong and name is not None:
            self.blamed.add(name)
            self.say({"blamed": name, "piece": piece})
            self._drop([url])

    def look(self) -> dict[str, Any] | None:
        """Tells how far it is; returns the last word when it is over."""
        assert self.engine is not None
        try:
            status = self.engine.status()
            speeds = self.engine.speeds() if status["status"] == "active" else {}
        except RpcError as error:
            return {"kind": "engine", "code": 1, "message": f"aria2c: {_without_urls(str(error))}"}
        except (OSError, http.client.HTTPException, ValueError):
            if self.engine.running():
                return None  # it is busy; asked again
            return {"kind": "engine", "code": 1, "message": "aria2c is gone"}
        have = int(status["completedLength"])
        now = time.monotonic()
        checks = "verifiedLength" in status or status.get("verifyIntegrityPending") == "true"
        if have != self.have or checks:
            self.have, self.moved = have, now
        by: dict[str, float] = {}
        for url, speed in speeds.items():
            if url in self.sources:
                by[self.sources[url]] = by.get(self.sources[url], 0.0) + speed
        self.say(
            {
                "have": have,
                "rate": float(status["downloadSpeed"]),
                "by": by,
                "checks": checks,
                "pieces": cells(status.get("bitfield", ""), int(status["numPieces"])),
            }
        )
        if status["status"] == "complete":
            return {}
        if status["status"] in ("error", "removed"):
            code = int(status.get("errorCode") or 1)
            if code not in HOPELESS and self.again and "ok" in self.last_words().values():
                self.again -= 1
                self._fetch(self.engine)
                return None
            return {"kind": "code", "code": code, "message": _without_urls(status.get("errorMessage") or "")}
        if now - self.moved > self.settings["stall_s"]:
            return {"kind": "stalled", "code": 2, "message": f"no byte for {self.settings['stall_s']:g} s"}
        return None

    def finish(self) -> dict[str, Any] | None:
        """Closes the file and makes it last; returns a failure when it is not what it should be."""
        if self.engine:
            self.engine.end()
        with open(self.data, "rb") as stream:
            os.fsync(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
        if size != self.settings["size"]:
            return {"kind": "code", "code": 32, "message": f"{size} bytes instead of {self.settings['size']}"}
        return None

    def last_words(self) -> dict[str, str]:
        """What each source says at the end, so that somebody can tell why."""
        said: dict[str, str] = {}
        for url, name in list(self.sources.items()):
            said[name] = ask_source(url, self.settings["sha256"], self.settings["size"])
        return said

    def close(self) -> None:
        """Leaves nothing but the data."""
        if self.engine:
            self.engine.end()
        for name in (f"{DATA}.aria2", "aria2.conf"):
            path = os.path.join(self.settings["folder"], name)
            if os.path.lexists(path):
                os.unlink(path)


def _without_urls(text: str) -> str:
    return " ".join("<source>" if "://" in word else word for word in text.split())[:200]


def fetch(settings: dict[str, Any], channel: Channel, hear: Callable[[Fetch], None]) -> int:
    """Carries the download out; returns the exit code."""
    check_place(settings["folder"], NAMES)
    claim = Claim(os.path.join(settings["folder"], "aria2.claim"), settings["epoch"])
    lock = take_lock(os.path.join(settings["folder"], "aria2.lock"), LOCK_S)
    work = Fetch(settings, channel.say)
    try:
        if settings["op"] == "end":
            channel.say({"ended": True})
            return 0
        work.program()
        whole = work.prepare()
        channel.say({"ready": True, "whole": whole})
        hear(work)
        last: dict[str, Any] | None = {} if whole else None
        reported = 0.0
        while last is None:
            try:
                order = work.orders.get(timeout=POLL_S)
                if order["op"] == "stop":
                    channel.say({"stopped": True})
                    return 0
                work.obey(order)
                continue
            except queue.Empty:
                pass
            except (OSError, http.client.HTTPException, ValueError, RpcError) as error:
                if work.engine is None or not work.engine.running():
                    last = {"kind": "engine", "code": 1, "message": f"aria2c is gone: {_without_urls(str(error))}"}
                    break
            forgotten = channel.lost and work.engine is None  # with sources it goes on, and may end well
            if (
                forgotten
                or not claim.held()
                or (settings["lease"] and lease_over(settings["lease"], settings["lease_s"]))
            ):
                channel.say({"stopped": True})
                return 0
            if work.engine is not None:
                work.suspect()
                if time.monotonic() - reported >= REPORT_S:
                    reported = time.monotonic()
                    last = work.look()
        if not last:
            last = work.finish() or {}
        if not last:
            channel.say({"complete": True})
            return 0
        channel.say({"failed": last, "sources": work.last_words(), "blamed": sorted(work.blamed)})
        return 1
    finally:
        work.close()
        os.close(lock)


def main() -> int:
    """Loads the file; returns the exit code."""
    incoming, channel = sys.stdin.buffer, Channel(sys.stdout.buffer)
    given = json.loads(incoming.readline().decode())
    settings = {**DEFAULTS, **given}
    sys.stdout.write(f"\n{MAGIC}\n")
    sys.stdout.flush()

    def hear(work: Fetch) -> None:
        def listen() -> None:
            for line in incoming:
                work.orders.put(json.loads(line))
            channel.hang_up()

        threading.Thread(target=listen, daemon=True).start()

    try:
        return fetch(settings, channel, hear)
    except Refusal as error:
        channel.say({"failed": {"kind": error.kind, "code": 1, "message": str(error)}})
        return 1
