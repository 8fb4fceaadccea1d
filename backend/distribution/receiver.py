"""Takes a file in on a host, proves it, and puts it in its place; every step may be repeated after a crash.

Standard library only, Python 3.9 or newer. Run as ``receiver.py`` with a request on standard input, its length on a
line and then JSON that names an ``op``; the answer is one line of JSON after the line ``RINGRIFT-RECEIVER``. What is
kept lies under ``<base>/.distribution/<owner>`` (0700)::

    lease                 its mtime is renewed by the head; what runs here by itself ends when it grows old
    stage/<sha256>/data   the file while it comes; engines keep what else they need beside it
    store/<sha256>        files that were proved, read-only: the last two of every name
    names.json            per name: hash, number of the transfer that put it there, and the hashes that are kept
    proofs.json           per hash: inode, mtime and size when it was hashed, and how it was loaded
    receipts.jsonl        every receipt, each with the hash of the one before

No symlink is followed below ``base``; a name from outside is a path only after every part of it was looked at; a file
is put into place by a hard link and a rename, so readers see the old one or the new one, whole.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

MAGIC = "RINGRIFT-RECEIVER"
SCHEMA = 1
BLOCK = 1 << 20
KEPT = 2
LOCK_S = 20.0
IDLE_S = 600.0
TELL_S = 0.2
LOAD_S = 60.0
LOAD_BYTES_S = 20 << 20
SPARE = 64 << 20
"""Bytes that stay free on a host's disk beside the file."""
STAGE_S = 24 * 3600.0
_SHA = re.compile(r"[0-9a-f]{64}\Z")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,199}\Z")
Answer = dict[str, Any]


class Refused(Exception):
    """Answered as ``{"error": reason, "message": .., "hint": ..}``; reasons are those of the head's list."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason, self.hint = reason, hint


# Folders: each is opened from the one above it, and none may be a symlink or somebody else's


def open_base(path: str) -> int:
    """The folder that everything lies under; made when it is not there. The operator chose it, links in it count."""
    path = os.path.realpath(os.path.expanduser(path))
    os.makedirs(path, mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _check_folder(descriptor, path)
    return descriptor


def open_below(parent: int, name: str, mode: int = 0o755, private: bool = False) -> int:
    """A folder below another one, made when it is not there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Refused(
                "unsafe path", f"{name} is a symlink or no folder", "look at who put it there, then remove it"
            ) from error
        raise
    _check_folder(descriptor, name, private)
    return descriptor


def _check_folder(descriptor: int, name: str, private: bool = False) -> None:
    about = os.fstat(descriptor)
    mine = about.st_uid == os.geteuid()
    if private:
        if not mine:
            raise Refused("unsafe path", f"the folder {name} is somebody else's", "remove it")
        if about.st_mode & 0o077:
            raise Refused("unsafe path", f"others may use the folder {name}", f"chmod 700 {name}")
        return
    if not mine and about.st_uid != 0:
        raise Refused("unsafe path", f"the folder {name} is somebody else's", "choose another place")
    others = about.st_mode & 0o002 or (about.st_mode & 0o020 and about.st_gid != os.getegid())
    if others and not about.st_mode & stat.S_ISVTX:
        raise Refused("unsafe path", f"others may write to the folder {name}", f"chmod go-w {name}")


class Place:
    """The folders of one owner under a base, open."""

    def __init__(self, request: dict[str, Any]) -> None:
        owner = str(request["owner"])
        if not _PART.match(owner):
            raise Refused("unsafe path", f"not an owner's name: {owner!r}")
        self.base = open_base(request["base"])
        self.path = os.path.join(os.path.realpath(os.path.expanduser(request["base"])), ".distribution", owner)
        self.own = open_below(open_below(self.base, ".distribution", 0o700, True), owner, 0o700, True)
        self.stages = open_below(self.own, "stage", 0o700, True)
        self.store = open_below(self.own, "store", 0o700, True)
        self._lock = -1

    def stage(self, sha256: str) -> int:
        return open_below(self.stages, sha256, 0o700, True)

    def lock(self) -> None:
        """One at a time changes names and store."""
        self._lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.own)
        _acquire(self._lock, "another receiver is at work here")

    def read(self, name: str) -> dict[str, Any]:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.own)
        except FileNotFoundError:
            return {}
        with os.fdopen(descriptor, "rb") as stream:
            try:
                return dict(json.loads(stream.read()))
            except ValueError:
                return {}  # what it says can be found out again

    def write(self, name: str, value: dict[str, Any]) -> None:
        temporary = f".{name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self.own)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(json.dumps(value, sort_keys=True).encode())
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, name, src_dir_fd=self.own, dst_dir_fd=self.own)
        except BaseException:
            _unlink(temporary, self.own)
            raise
        os.fsync(self.own)

    def renew(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open("lease", flags, 0o600, dir_fd=self.own)
        os.utime(descriptor)
        os.close(descriptor)

    def parent(self, name: str) -> tuple[int, str]:
        """The folder of a published name, and its leaf."""
        parts = name.split("/")
        if not all(_PART.match(part) for part in parts) or parts[0] in ("stage", "store"):
            raise Refused("unsafe path", f"not a name for a file: {name[:120]!r}", "use letters, digits and . _ - +")
        folder = self.base
        for part in parts[:-1]:
            folder = open_below(folder, part)
        return folder, parts[-1]


def _acquire(descriptor: int, busy: str) -> None:
    end = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES) or time.monotonic() > end:
                raise Refused("busy", busy) from error
            time.sleep(0.05)


def _unlink(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _SHA.match(value):
        raise Refused("unsafe path", "not a SHA-256")
    return value


# Proofs


def open_file(name: str, folder: int) -> int:
    """A regular file of ours, for reading."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused("unsafe path", f"{name} is a symlink", "look at who put it there, then remove it") from error
        raise
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
        os.close(descriptor)
        raise Refused("unsafe path", f"{name} is no file of ours", "remove it")
    return descriptor


def has_writer(descriptor: int) -> bool:
    """Whether any process has the file open for writing: the kernel knows, else /proc is looked through."""
    if hasattr(fcntl, "F_SETLEASE"):
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            return False
        except OSError as error:
            if error.errno == errno.EAGAIN and not on_nfs(os.fstat(descriptor).st_dev):
                return True
            if error.errno not in (errno.EAGAIN, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES):
                raise
    return any(True for _ in _writers(os.fstat(descriptor)))


def on_nfs(device: int, mounts: str = "/proc/self/mountinfo") -> bool:
    """Whether a device is NFS: of version 4, it refuses a lease with EAGAIN also when nobody has the file open.

    (Linux, fs/nfs/nfs4proc.c: without a delegation of the server there is no lease.)
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(mounts, errors="replace") as stream:
            lines = [line.split() for line in stream]
    except OSError:
        return False
    return any(words[2] == number and words[words.index("-") + 1].startswith("nfs") for words in lines)


def _writers(about: os.stat_result) -> Iterator[str]:
    for pid in os.listdir("/proc") if os.path.isdir("/proc/self/fd") else ():
        if not pid.isdigit():
            continue
        try:
            for number in os.listdir(f"/proc/{pid}/fd"):
                seen = os.stat(f"/proc/{pid}/fd/{number}")
                if (seen.st_dev, seen.st_ino) == (about.st_dev, about.st_ino):
                    with open(f"/proc/{pid}/fdinfo/{number}") as stream:
                        flags = next(line.split()[1] for line in stream if line.startswith("flags:"))
                    if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                        yield pid
        except (OSError, StopIteration):
            continue


def end_stopped(descriptor: int) -> None:
    """Ends what was stopped while it wrote the file: it never ends by itself, nor lets others finish."""
    end = time.monotonic() + LOCK_S
    while time.monotonic() < end:
        stopped = [pid for pid in set(_writers(os.fstat(descriptor))) if _state(pid) == "T"]
        if not stopped:
            return
        for pid in stopped:
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.05)


def _state(pid: str) -> str:
    """One letter (proc(5), field 3 of ``stat``); empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def hash_of(descriptor: int) -> str:
    digest = hashlib.sha256()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while block := os.read(descriptor, BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _mark(about: os.stat_result) -> list[int]:
    return [about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size]


def known_hash(place: Place, descriptor: int, proofs: dict[str, Any], hint: str = "") -> str:
    """The SHA-256 of an open file; not computed again while inode, mtime and size are those of the last time."""
    mark = _mark(os.fstat(descriptor))
    for sha256 in [hint] if hint in proofs else proofs:
        if proofs[sha256].get("mark") == mark:
            return sha256
    return hash_of(descriptor)


CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)
"""Signals that a bad file may cause in who reads it. Others, for memory, time, a shutdown or an old processor, say
nothing of the file."""


def load(descriptor: int, request: dict[str, Any], size: int) -> dict[str, Any]:
    """Lets a process of its own read the file as what it says it is."""
    kind, program = str(request["kind"]), request.get("loadable")
    if kind == "other" or not program:
        return {"result": "not checked", "method": "none", "version": "", "message": "", "seconds": 0.0}
    python = request.get("python") or sys.executable
    begun = time.monotonic()
    os.lseek(descriptor, 0, os.SEEK_SET)
    limit = LOAD_S + size / LOAD_BYTES_S
    words = [os.path.expanduser(python), "-I", os.path.expanduser(program), kind]
    try:
        done = subprocess.run(
            words, stdin=descriptor, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Refused("engine failed", f"the file was not read within {limit:.0f} s", "is the host busy?") from error
    if done.returncode < 0 and -done.returncode not in CRASHES:
        what = f"whoever read the file was ended by signal {-done.returncode}"
        raise Refused("engine failed", what, "has the host enough memory?")
    try:
        answer = dict(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        if done.returncode > 0:
            raise Refused("engine failed", f"the check of the file ended with code {done.returncode}") from None
        answer = {"result": "does not load", "method": "crash", "version": "", "message": f"signal {-done.returncode}"}
    answer["seconds"] = round(time.monotonic() - begun, 3)
    return answer


# Operations


def prepare(request: dict[str, Any], source: BinaryIO) -> Answer:
    """Makes the stage, renews the lease, and tells what the host has and has room for."""
    place = Place(request)
    sha256, size = _digest(request["sha256"]), int(request["size"])
    place.parent(request["name"])
    place.renew()
    stage = place.stage(sha256)
    have = 0
    try:
        descriptor = open_file("data", stage)
        have = os.fstat(descriptor).st_size
        blocks = os.fstat(descriptor).st_blocks * 512
        end_stopped(descriptor)
        os.close(descriptor)
    except FileNotFoundError:
        blocks = 0
    room = os.fstatvfs(stage)
    free = room.f_bavail * room.f_frsize
    names = place.read("names.json")
    stored = _stored(place, sha256, size)
    if not stored and free + blocks < size + SPARE:
        raise Refused(
            "disk full", f"{free >> 20} MiB are free, the file needs {(size + SPARE - blocks) >> 20}", "free some space"
        )
    if room.f_files and room.f_favail < 8:
        raise Refused("disk full", "no inodes are free", "remove some files")
    entry = names.get(request["name"], {})
    _refuse_older(entry, request, sha256)
    return {
        "folder": os.path.join(place.path, "stage", sha256),
        "lease": os.path.join(place.path, "lease"),
        "store": os.path.join(place.path, "store", sha256),
        "have": have, "stored": stored, "free": free, "live": entry.get("sha256", ""), "clock": time.time(),
    }  # fmt: skip


def _refuse_older(entry: dict[str, Any], request: dict[str, Any], sha256: str) -> None:
    if int(entry.get("number", 0)) > int(request["number"]) and entry.get("sha256") != sha256:
        raise Refused("superseded", f"transfer {entry['number']} has put a newer file there")


def _stored(place: Place, sha256: str, size: int) -> bool:
    """Whether the host keeps the file, unchanged since it was proved."""
    try:
        descriptor = open_file(sha256, place.store)
    except FileNotFoundError:
        return False
    try:
        return (
            os.fstat(descriptor).st_size == size
            and known_hash(place, descriptor, place.read("proofs.json"), sha256) == sha256
        )
    finally:
        os.close(descriptor)


def pieces(request: dict[str, Any], source: BinaryIO) -> Answer:
    """Which pieces of the staged file are right."""
    place = Place(request)
    size = int(request["piece_size"])
    wanted = base64.b64decode(request["pieces"])
    good = bytearray()
    try:
        descriptor = open_file("data", place.stage(_digest(request["sha256"])))
    except FileNotFoundError:
        return {"good": ""}
    with os.fdopen(descriptor, "rb") as stream:
        for start in range(0, len(wanted), 32):
            block = stream.read(size)
            good.append(hashlib.sha256(block).digest() == wanted[start : start + 32])
    return {"good": base64.b64encode(bytes(good)).decode()}


def write(request: dict[str, Any], source: BinaryIO) -> Answer:
    """Takes ranges of the file from standard input; what has come stays when the input ends early."""
    place = Place(request)
    stage = place.stage(_digest(request["sha256"]))
    lock = os.open("stream.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=stage)
    _acquire(lock, "another stream is still being written")
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open("data", flags, 0o600, dir_fd=stage)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused("unsafe path", "data is a symlink", "look at who put it there, then remove it") from error
        if error.errno == errno.EACCES:
            raise Refused("busy", "the file is being verified") from error
        raise
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
        raise Refused("unsafe path", "data is no file of ours", "remove it")
    if about.st_nlink > 1:  # it is in place already; whoever wants it anew gets a file of its own
        os.close(descriptor)
        os.unlink("data", dir_fd=stage)
        descriptor = os.open("data", flags | os.O_EXCL, 0o600, dir_fd=stage)
    say({"ready": True})
    got = 0
    told = time.monotonic()
    with os.fdopen(descriptor, "wb") as target:
        for start, end in request["ranges"]:
            target.seek(start)
            left = end - start
            while left:
                if not select.select([source], [], [], IDLE_S)[0]:
                    raise Refused("stalled", f"no byte for {IDLE_S:.0f} s")
                block = os.read(source.fileno(), min(BLOCK, left))
                if not block:
                    target.flush()
                    os.fsync(target.fileno())
                    return {"got": got, "cut": True}
                target.write(block)
                got += len(block)
                left -= len(block)
                if time.monotonic() - told > TELL_S:
                    told = time.monotonic()
                    say({"got": got})
        target.truncate(int(request["size"]))
        target.flush()
        os.fsync(target.fileno())
    return {"got": got, "cut": False}


def finish(request: dict[str, Any], source: BinaryIO) -> Answer:
    """Proves the file, staged or kept, and publishes it; answers the receipt."""
    place = Place(request)
    sha256, size, name = _digest(request["sha256"]), int(request["size"]), str(request["name"])
    folder, leaf = place.parent(name)
    place.renew()
    place.lock()
    names, proofs = place.read("names.json"), place.read("proofs.json")
    entry = dict(names.get(name, {}))
    _refuse_older(entry, request, sha256)
    begun = time.monotonic()
    proof = proofs.get(sha256) if _stored(place, sha256, size) else None
    kept = proof is not None
    if proof is None:
        proof = _prove(place, sha256, size, request)
        proofs[sha256] = proof
        place.write("proofs.json", proofs)
    inode = _put(place, sha256, folder, leaf)
    before = entry.get("sha256", "")
    if entry.get("number") == request["number"] and before == sha256 and entry.get("receipt"):
        return {"receipt": entry["receipt"]}  # done before, the answer was lost
    receipt = {
        "schema": SCHEMA, "transfer": request["transfer"], "number": request["number"],
        "file": {"name": name, "sha256": sha256, "size": size, "kind": request["kind"]},
        "host": {"hostname": socket.gethostname(), "user": os.geteuid()},
        "destination": os.path.join(os.path.dirname(os.path.dirname(place.path)), name),
        "inode": inode, "from": "kept copy" if kept else "transfer",
        "verify": {"sha256": sha256, "seconds": round(time.monotonic() - begun, 3)},
        "load": proof["load"], "previous": before if before != sha256 else entry.get("previous", ""),
        "published_at": time.time(), "before": _last_receipt(place),
    }  # fmt: skip
    _append(place, receipt)
    hashes = [sha256, *(one for one in entry.get("kept", []) if one != sha256)][:KEPT]
    number = max(
        int(request["number"]), int(entry.get("number", 0))
    )  # a newer transfer may have brought the same bytes
    names[name] = {"sha256": sha256, "number": number, "kept": hashes, "receipt": receipt,
                   "previous": receipt["previous"]}  # fmt: skip
    place.write("names.json", names)
    _prune(place, names, proofs)
    return {"receipt": receipt}


def _prove(place: Place, sha256: str, size: int, request: dict[str, Any]) -> dict[str, Any]:
    stage = place.stage(sha256)
    try:
        descriptor = open_file("data", stage)
    except FileNotFoundError as error:
        raise Refused("truncated", "nothing has arrived") from error
    good = False
    try:
        os.fchmod(descriptor, 0o444)
        if has_writer(descriptor):
            raise Refused("busy", "somebody still writes the file")
        os.fsync(descriptor)
        mark = _mark(os.fstat(descriptor))
        if mark[3] != size:
            raise Refused("truncated", f"{mark[3]} bytes arrived, the file has {size}")
        found = hash_of(descriptor)
        if found != sha256:
            raise Refused("corrupt", f"SHA-256 {found[:12]} arrived, wanted {sha256[:12]}")
        loaded = load(descriptor, request, size)
        if loaded["result"] == "does not load":
            raise Refused("not loadable", str(loaded["message"]), "the file itself is bad; nothing was published")
        if has_writer(descriptor) or _mark(os.fstat(descriptor)) != mark:
            raise Refused("busy", "somebody wrote the file while it was verified")
        _link("data", stage, sha256, place.store)
        good = True
        stored = open_file(sha256, place.store)
        mark = _mark(os.fstat(stored))
        os.close(stored)
        return {"mark": mark, "load": loaded}
    finally:
        if not good:
            os.fchmod(descriptor, 0o600)  # an engine may mend it
        os.close(descriptor)


def _link(name: str, folder: int, target: str, into: int) -> None:
    """Makes the file appear at ``target``, by a hard link where the file system has them."""
    temporary = f".{target}.{os.getpid()}"
    _unlink(temporary, into)
    try:
        try:
            os.link(name, temporary, src_dir_fd=folder, dst_dir_fd=into, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            _copy(name, folder, temporary, into)
        os.rename(temporary, target, src_dir_fd=into, dst_dir_fd=into)
        _unlink(temporary, into)  # a rename between two links of one file does nothing and leaves both
    except BaseException:
        _unlink(temporary, into)
        raise
    os.fsync(into)


def _copy(name: str, folder: int, target: str, into: int) -> None:
    reading = open_file(name, folder)
    wanted = hash_of(reading)
    os.lseek(reading, 0, os.SEEK_SET)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600, dir_fd=into), "w+b") as stream:
        while block := os.read(reading, BLOCK):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
        if hash_of(stream.fileno()) != wanted:
            raise Refused("corrupt", "the copy differs from the original", "is the disk sound?")
        os.fchmod(stream.fileno(), 0o444)
    os.close(reading)


def _put(place: Place, sha256: str, folder: int, leaf: str) -> int:
    """Publishes a stored file under a name; returns its inode."""
    wanted = os.stat(sha256, dir_fd=place.store, follow_symlinks=False)
    try:
        there = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(there.st_mode):
            raise Refused("unsafe path", f"{leaf} is a folder", "move it away")
    except FileNotFoundError:
        there = None
    if there is None or there.st_ino != wanted.st_ino or there.st_dev != wanted.st_dev:
        _link(sha256, place.store, leaf, folder)
    return os.stat(leaf, dir_fd=folder, follow_symlinks=False).st_ino


def _last_receipt(place: Place) -> str:
    """SHA-256 of the last line of the receipts; empty before the first."""
    try:
        descriptor = os.open("receipts.jsonl", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.own)
    except FileNotFoundError:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        stream.seek(max(0, os.fstat(descriptor).st_size - 65536))
        lines = stream.read().splitlines()
    return hashlib.sha256(lines[-1]).hexdigest() if lines else ""


def _append(place: Place, receipt: dict[str, Any]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open("receipts.jsonl", flags, 0o600, dir_fd=place.own)
    with os.fdopen(descriptor, "ab") as stream:
        stream.write(json.dumps(receipt, sort_keys=True).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _prune(place: Place, names: dict[str, Any], proofs: dict[str, Any]) -> list[str]:
    """Removes stored files that no name keeps."""
    wanted = {sha256 for entry in names.values() for sha256 in entry["kept"]}
    gone = [one for one in os.listdir(place.store) if one not in wanted]
    for one in gone:
        _unlink(one, place.store)
    if set(proofs) - wanted:
        place.write("proofs.json", {sha256: proofs[sha256] for sha256 in proofs if sha256 in wanted})
    return [one for one in gone if _SHA.match(one)]


def drop(request: dict[str, Any], source: BinaryIO) -> Answer:
    """Removes stages: the named ones, and those that nobody has touched for a day but the ones to keep."""
    place = Place(request)
    place.lock()
    named, keep = set(request.get("stages", ())), set(request.get("keep", ()))
    removed = []
    for one in os.listdir(place.stages):
        if not _SHA.match(one) or one in keep:
            continue
        try:
            folder = open_below(place.stages, one, 0o700, True)
        except (Refused, OSError):
            continue
        ages = [os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime for name in os.listdir(folder)]
        if one not in named and max([*ages, os.fstat(folder).st_mtime]) > time.time() - STAGE_S:
            continue
        _empty(folder)
        os.rmdir(one, dir_fd=place.stages)
        removed.append(one)
    return {"removed": removed, "pruned": _prune(place, place.read("names.json"), place.read("proofs.json"))}


def _empty(folder: int) -> None:
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            _empty(below)
            os.close(below)
            os.rmdir(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


def audit(request: dict[str, Any], source: BinaryIO) -> Answer:
    """What the host holds: per published name what should lie there and what does, and the kept files."""
    place = Place(request)
    place.renew()
    names, proofs = place.read("names.json"), place.read("proofs.json")
    if request.get("deep"):
        proofs = {}
    found = {}
    for name, entry in names.items():
        held, why = "", ""
        try:
            folder, leaf = place.parent(name)
            descriptor = open_file(leaf, folder)
            held = known_hash(place, descriptor, proofs)
            os.close(descriptor)
        except (Refused, OSError) as error:
            why = "it is not there" if isinstance(error, FileNotFoundError) else str(error)
        found[name] = {"wanted": entry["sha256"], "held": held, "why": why, "kept": entry["kept"],
                       "number": entry["number"]}  # fmt: skip
    kept = {}
    for one in os.listdir(place.store):
        if _SHA.match(one):
            descriptor = open_file(one, place.store)
            kept[one] = known_hash(place, descriptor, proofs, one) == one
            os.close(descriptor)
    return {"names": found, "kept": kept, "stages": sorted(os.listdir(place.stages))}


def renew(request: dict[str, Any], source: BinaryIO) -> Answer:
    Place(request).renew()
    return {"renewed": True}


OPERATIONS: dict[str, Callable[[dict[str, Any], BinaryIO], Answer]] = {
    "prepare": prepare, "pieces": pieces, "write": write, "finish": finish, "drop": drop, "audit": audit,
    "renew": renew,
}  # fmt: skip


def say(value: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


def _line(source: BinaryIO) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        one = source.read(1)
        if not one or len(line) > 20:
            sys.exit("no request")
        line += one
    return line


def _exactly(source: BinaryIO, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        block = source.read(count - len(found))
        if not block:
            sys.exit("the request ends early")
        found += block
    return bytes(found)


def main() -> int:
    source = os.fdopen(0, "rb", buffering=0)  # what follows the request is read from the descriptor itself
    request = json.loads(_exactly(source, int(_line(source))).decode())
    sys.stdout.write("\n" + MAGIC + "\n")
    sys.stdout.flush()
    os.umask(0o022)
    try:
        say(OPERATIONS[request["op"]](request, source))
    except Refused as error:
        say({"error": error.reason, "message": str(error), "hint": error.hint})
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "disk full" if full else "engine failed"
        say({"error": reason, "message": str(error), "hint": "free some space there" if full else ""})
    return 0


if __name__ == "__main__":
    sys.exit(main())
