"""The agent: starts a job at most once on the machine it runs on, and keeps the evidence of how it ended.

One file, standard library only, Python 3.9 or newer, so that a host needs nothing but ``python3``. Three programs:

* ``serve``: answers JSON requests, one a line, over standard input and output; keeps no state of its own.
* ``start status cancel list read ack``: the same requests as one-shot commands.
* ``run``: the runner, the parent of one job's command. It survives whoever started it.

Everything known of an attempt lies in ``ROOT/jobs/KEY``::

    spec.json      what to run; immutable        start.lock  flock: one starter at a time
    lock           flock held by the runner      runner.json child.json  who they are
    executed       created O_EXCL by the child immediately before exec: the point of no return
    log            standard output and error     progress.jsonl  written by the job itself
    cancel         somebody wants it to end      reserve  disk space kept for exit.json
    exit.json      how it ended; the only proof of an end      acked  the controller has that durably
    engine.json    under which name a scheduler was asked to run it; written before it is asked

``ROOT/gpu/UUID.lock`` is the lease of a GPU: a flock that the runner holds, with the attempt's key as its content. The
kernel drops it with the runner; until the command is gone too, that key keeps the next runner out.

``ROOT/place`` has a word that a controller may name in its requests, to be sure that the root is still the same: where
a network file system is not mounted lies an empty folder, in which nothing would be found of attempts that run.

The state is derived from these every time (:func:`derive`) and stored nowhere, so no crash can leave it wrong. A
cancel that finds the command not yet executed claims ``executed`` itself; from then on nobody can run it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Dict, List, NoReturn, Optional, Set, Tuple

PROTOCOL = 1
MAGIC = "RINGRIFT-AGENT"
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.[0-9]{1,6}\Z")
READABLE = ("log", "progress.jsonl", "runner.log")
COOKIE = "RINGRIFT_COOKIE"
RESERVE_BYTES = 64 * 1024
READ_LIMIT = 256 * 1024
TAIL_BYTES = 64 * 1024
POLL_S = 0.5
ENGINE_ENDED = r"CANCELLED AT|DUE TO|[Oo]om.[Kk]ill|OOM Killed|memory limit"
SWEEP_GRACE_S = 2.0
START_WAIT_S = 20.0
LOCK_WAIT_S = 2.0  # a look at the lock holds it for a moment
NETWORK_FILESYSTEMS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.gcsfuse",
    "fuse.rclone",
)
SMI_S = 10.0
DEVICES = "/dev/nvidia"
DRIVER = "/proc/driver/nvidia/gpus"


class AgentError(Exception):
    """A request that was not carried out.

    ``kind`` is ``request`` (malformed), ``conflict`` (another spec under the same key), ``stale`` (an older epoch),
    ``resource`` (disk full), ``busy`` (another starter holds the key, or a GPU is in use: ask again later), ``gpu`` (no
    such GPU here), ``place`` (root unfit for locks, or not the one that was meant) or ``failed``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# --- files -----------------------------------------------------------------------------------------------------------


def fsync_dir(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str, value: Any) -> None:
    """Replaces ``path`` atomically and durably; a failed write leaves the old content and no temporary file."""
    temporary = "%s.%d.tmp" % (path, os.getpid())
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(value, stream, sort_keys=True)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    fsync_dir(os.path.dirname(path))


def read_json(path: str) -> Optional[Dict[str, Any]]:
    """The object in ``path``; missing or unreadable JSON counts as absent."""
    try:
        with open(path, "rb") as stream:
            value = json.loads(stream.read().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def take_lock(path: str, wait_s: float = 0.0) -> Optional[int]:
    """An exclusive flock on ``path`` as a descriptor, or None when somebody else keeps it longer than ``wait_s``."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(descriptor)
                return None
            time.sleep(0.02)
        except BaseException:
            os.close(descriptor)
            raise


def is_there(path: str) -> bool:
    """As ``os.path.exists``, but what cannot be looked at is an error, for that tells nothing."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def lock_held(path: str) -> bool:
    if not is_there(path):
        return False
    descriptor = take_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def filesystem_of(path: str) -> str:
    """Type of the filesystem that holds ``path``, e.g. ``ext4``; empty where the system does not tell."""
    best, kind = "", ""
    path = os.path.realpath(path)
    try:
        with open("/proc/self/mountinfo") as stream:
            for line in stream:
                left, _, right = line.partition(" - ")
                point = left.split()[4].replace("\\040", " ")
                inside = point == "/" or path == point or path.startswith(point + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, right.split()[0]
    except FileNotFoundError:
        return ""
    return kind


# --- processes -------------------------------------------------------------------------------------------------------


def boot_id() -> str:
    """Changes with every boot of this machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except FileNotFoundError:
        return _tool("sysctl", "-n", "kern.bootsessionuuid")


def start_time(pid: int) -> Optional[str]:
    """When ``pid`` was started, in the kernel's own words; None when there is no such process or it is a zombie."""
    if os.path.isdir("/proc/self"):
        try:
            with open("/proc/%d/stat" % pid, "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    state, _, began = _tool("ps", "-o", "stat=,lstart=", "-p", str(pid)).partition(" ")
    return began.strip() if began and not state.startswith("Z") else None


def _tool(*argv: str) -> str:
    environment = dict(os.environ, LC_ALL="C", TZ="UTC")
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    return done.stdout.decode("utf-8", "replace").strip()


def identity(pid: int) -> Dict[str, Any]:
    return {"pid": pid, "start_time": start_time(pid), "boot_id": boot_id(), "at": time.time()}


def is_alive(who: Optional[Dict[str, Any]]) -> bool:
    """Whether exactly the process of this identity lives; a recycled pid does not count."""
    if not who or not isinstance(who.get("pid"), int) or who["pid"] <= 1 or not who.get("start_time"):
        return False
    return who.get("boot_id") == boot_id() and start_time(who["pid"]) == who["start_time"]


def cookie_of(root: str, key: str) -> str:
    """Marks every process of an attempt through its environment; unique across roots on one machine."""
    return hashlib.sha256(("%s\0%s" % (os.path.realpath(root), key)).encode()).hexdigest()[:32]


def holders(cookie: str) -> Set[int]:
    """Living processes of ours that carry the cookie in their environment, this one excepted."""
    if os.path.isdir("/proc/self"):
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return {pid for pid in pids if pid != os.getpid() and _carries(pid, cookie)}
    found = set()
    mark = "%s=%s" % (COOKIE, cookie)
    for line in _tool("ps", "-A", "-E", "-ww", "-o", "pid=,command=").splitlines():
        number, _, command = line.strip().partition(" ")
        if number.isdigit() and int(number) != os.getpid() and mark in command.split():
            found.add(int(number))
    return found


def _carries(pid: int, cookie: str) -> bool:
    if not os.path.isdir("/proc/self"):
        return pid in holders(cookie)
    try:
        with open("/proc/%d/environ" % pid, "rb") as stream:
            found = ("%s=%s" % (COOKIE, cookie)).encode() in stream.read().split(b"\0")
    except OSError:  # ended meanwhile, or not ours to read
        return False
    return found and start_time(pid) is not None


def send(pid: int, number: int, cookie: str) -> None:
    """Signals ``pid`` if it still carries the cookie, through a pidfd where there is one."""
    if pid <= 1 or pid == os.getpid():
        return
    descriptor = None
    try:
        if hasattr(os, "pidfd_open"):
            descriptor = os.pidfd_open(pid)
        if _carries(pid, cookie):
            if descriptor is not None and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(descriptor, number)
            else:
                os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        if descriptor is not None:
            os.close(descriptor)


# --- GPUs ------------------------------------------------------------------------------------------------------------


def smi(query: str, fields: str) -> List[List[str]]:
    """Rows of ``nvidia-smi --query-QUERY=FIELDS``.

    Raises:
        AgentError: ``gpu`` where there is no such tool; ``busy`` where it fails, for it may work again.
    """
    argv = ["nvidia-smi", "--query-%s=%s" % (query, fields), "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SMI_S
        )
    except FileNotFoundError:
        raise AgentError("gpu", "GPUs were asked for and this host has no nvidia-smi") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AgentError("busy", "nvidia-smi: %s" % error) from error
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise AgentError("busy", "nvidia-smi: %s" % " ".join(text.split())[:200])
    wanted = fields.count(",")
    rows = [[word.strip() for word in line.split(",", wanted)] for line in text.splitlines()]
    return [row for row in rows if len(row) == wanted + 1]


def gpu_uuids(asked: List[str]) -> Dict[str, str]:
    """UUID -> index of the GPUs that are asked for by index or by UUID, in the order of the UUIDs.

    Raises:
        AgentError: ``gpu`` where one is not there, else as :func:`smi`.
    """
    there = {uuid: index for index, uuid in smi("gpu", "index,uuid")}
    found = {uuid: index for uuid, index in there.items() if index in asked or uuid in asked}
    missing = sorted(set(asked) - set(found) - set(found.values()))
    if missing:
        has = ", ".join(sorted(there.values())) or "none"
        raise AgentError("gpu", "no such GPU here: %s (there is %s)" % (" ".join(missing), has))
    return dict(sorted(found.items()))


def gpu_user(uuid: str, apps: List[List[str]]) -> str:
    """Who computes on a GPU, as far as the driver and our own processes tell; empty when nobody does."""
    for user, number, name in apps:
        if user == uuid:
            return "pid %s (%s)" % (number, os.path.basename(name))
    minor = gpu_minor(uuid)
    pid = device_holder(minor) if minor else 0
    return "pid %d" % pid if pid else ""


def gpu_minor(uuid: str, driver: str = DRIVER) -> str:
    """The number in the name of a GPU's device file; it need not be its index. Empty where the driver does not tell."""
    for name in sorted(os.listdir(driver)) if os.path.isdir(driver) else ():
        with contextlib.suppress(OSError):
            with open(os.path.join(driver, name, "information")) as stream:
                lines = [line.partition(":") for line in stream]
            told = {key.strip(): value.strip() for key, _, value in lines}
            if told.get("GPU UUID") == uuid:
                return told.get("Device Minor", "")
    return ""


def device_holder(minor: str, devices: str = DEVICES) -> int:
    """A process of this user that computes on a GPU and belongs to no attempt, or 0.

    Computing needs the device file and that of unified memory; a mere monitor has only the first. A process that
    carries a cookie is judged by the lease of its attempt: it may have opened the files of GPUs that it does not use.
    """
    wanted = {devices + minor, devices + "-uvm"}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        folder = "/proc/%s" % name
        try:
            if os.stat(folder).st_uid != os.getuid():
                continue
            held = {os.readlink("%s/fd/%s" % (folder, number)) for number in os.listdir(folder + "/fd")}
            if wanted <= held:
                with open(folder + "/environ", "rb") as stream:
                    if (COOKIE + "=").encode() not in stream.read():
                        return int(name)
        except OSError:  # ended meanwhile, or not ours to look at
            continue
    return 0


def lease_gpus(root: str, key: str, asked: List[str]) -> Dict[str, int]:
    """Takes the leases of GPUs for the life of this process: UUID -> descriptor of the lock.

    Raises:
        AgentError: ``busy`` with the reason while one is in use, ``gpu`` when one is not there. Nothing is held then.
    """
    folder = os.path.join(root, "gpu")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    held = {}  # type: Dict[str, int]
    try:
        uuids = gpu_uuids(asked)
        apps = smi("compute-apps", "gpu_uuid,pid,process_name")
        for uuid, index in uuids.items():
            path = os.path.join(folder, os.path.basename(uuid) + ".lock")
            lock = take_lock(path)
            before = _read_key(path)
            if lock is None:
                raise AgentError("busy", "GPU %s is leased (%s)" % (index, before or "its holder is not known"))
            held[uuid] = lock
            if before and before != key and lives(root, before):
                raise AgentError("busy", "GPU %s is leased (%s, whose runner was killed, goes on)" % (index, before))
            user = gpu_user(uuid, apps)
            if user:
                raise AgentError("busy", "GPU %s is in use by %s" % (index, user))
        for lock in held.values():
            os.ftruncate(lock, 0)
            os.pwrite(lock, key.encode(), 0)
            os.fsync(lock)
    except BaseException:
        for lock in held.values():
            os.close(lock)
        raise
    return held


def _read_key(path: str) -> str:
    with open(path, "rb") as stream:
        key = stream.read(200).decode("utf-8", "replace")
    return key if KEY.match(key) else ""


def lives(root: str, key: str) -> bool:
    """Whether a process of an attempt's command is alive, with or without its runner."""
    who = read_json(os.path.join(job_dir(root, key), "executed"))
    return is_alive(who) or bool(holders(cookie_of(root, key)))


# --- requests --------------------------------------------------------------------------------------------------------


def job_dir(root: str, key: Any) -> str:
    if not isinstance(key, str) or not KEY.match(key):
        raise AgentError("request", "not an attempt key: %r" % (key,))
    return os.path.join(root, "jobs", key)


def digest_of(spec: Dict[str, Any]) -> str:
    """SHA-256 of a spec as canonical JSON; what makes two starts of one key the same start."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def derive(root: str, key: str) -> str:
    """The state of an attempt, from its evidence alone.

    ``exited``: exit.json tells how. ``starting``, ``running``: a runner holds the lock, before or after the claim.
    ``orphaned``: the command runs without a runner. ``unknown``: it ran and nobody saw its end. ``lost``: it ran and
    the machine was booted since. ``void``: cancelled before it was executed, so it never will be. ``prepared``: never
    executed, may be started. ``absent``: nothing is known here.
    """
    return examine(root, key)[0]


def examine(root: str, key: str) -> Tuple[str, Dict[str, Any]]:
    """The state of an attempt with the evidence that it was derived from, as far as that had to be looked at.

    ``folder``, ``exit``, ``executed``: whether these are there. ``lock``: whether a runner holds it. ``command``: pid,
    start_time and boot_id as recorded at the claim. ``boot_id``: this machine's now. ``alive``: whether exactly that
    process lives. ``marked``: how many living processes carry the attempt's mark.
    """
    folder = job_dir(root, key)
    seen = {"folder": is_there(folder)}  # type: Dict[str, Any]
    if not seen["folder"]:
        return "absent", seen
    seen["exit"] = is_there(os.path.join(folder, "exit.json"))
    if seen["exit"]:
        return "exited", seen
    seen["lock"] = lock_held(os.path.join(folder, "lock"))
    seen["executed"] = is_there(os.path.join(folder, "executed"))
    if seen["lock"]:
        return "running" if seen["executed"] else "starting", seen
    # The runner may have written its record and gone between the two looks above.
    seen["exit"] = is_there(os.path.join(folder, "exit.json"))
    if seen["exit"]:
        return "exited", seen
    if not seen["executed"]:
        return "prepared", seen
    child = read_json(os.path.join(folder, "child.json"))
    if child is None:  # recorded before any child can claim: so a cancel has claimed
        return "void", seen
    who = read_json(os.path.join(folder, "executed")) or child
    seen["command"] = {name: who.get(name) for name in ("pid", "start_time", "boot_id")}
    seen["boot_id"] = boot_id()
    if who.get("boot_id") and who["boot_id"] != seen["boot_id"]:
        return "lost", seen
    seen["alive"] = is_alive(who)
    seen["marked"] = len(holders(cookie_of(root, key)))
    return "orphaned" if seen["alive"] or seen["marked"] else "unknown", seen


def report(root: str, key: str) -> Dict[str, Any]:
    """Everything a controller wants to know of one attempt."""
    folder = job_dir(root, key)
    state, evidence = examine(root, key)
    answer = {"key": key, "state": state, "evidence": evidence, "boot_id": boot_id()}  # type: Dict[str, Any]
    if state == "absent":
        return answer
    for name in ("runner", "child", "exit", "cancel"):
        answer[name] = read_json(os.path.join(folder, name if name == "cancel" else name + ".json"))
    spec = read_json(os.path.join(folder, "spec.json")) or {}
    answer["digest"], answer["owner"] = spec.get("digest"), spec.get("owner")
    answer["acked"] = os.path.exists(os.path.join(folder, "acked"))
    try:
        answer["log_size"] = os.stat(os.path.join(folder, "log")).st_size
    except FileNotFoundError:
        answer["log_size"] = 0
    answer["engine"] = read_json(os.path.join(folder, "engine.json"))
    if answer["engine"] is not None and state in ("prepared", "unknown", "lost"):
        answer["engine_said"] = _engine_said(root, answer["engine"])
    elif answer["engine"] is not None and _by_signal(answer.get("exit") or {}):
        answer["engine_said"] = _engine_said(root, answer["engine"], ENGINE_ENDED)
    answer["progress"], answer["result"] = _progress(os.path.join(folder, "progress.jsonl"))
    return answer


def _progress(path: str) -> Tuple[Optional[Dict[str, Any]], Optional[Dict[str, Any]]]:
    """The last progress row and the last result of a job; torn or foreign lines are passed over."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL_BYTES))
            data = stream.read()
    except FileNotFoundError:
        return None, None
    progress, result = None, None
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("result"), dict):
            result = row["result"]
        elif isinstance(row, dict) and "done" in row:
            progress = row
    return progress, result


def check_epoch(root: str, owner: Any, epoch: Any) -> None:
    """Refuses a controller that a newer one of the same owner has replaced."""
    if not isinstance(owner, str) or not owner or not isinstance(epoch, int):
        raise AgentError("request", "a change needs an owner and an epoch")
    os.makedirs(root, mode=0o700, exist_ok=True)
    descriptor = take_lock(os.path.join(root, "epoch.lock"), START_WAIT_S)
    if descriptor is None:
        raise AgentError("busy", "the epoch file is locked")
    try:
        epochs = read_json(os.path.join(root, "epoch.json")) or {}
        highest = epochs.get(owner, 0)
        if epoch < highest:
            raise AgentError("stale", "epoch %d was replaced by %d" % (epoch, highest))
        if epoch > highest:
            write_json(os.path.join(root, "epoch.json"), dict(epochs, **{owner: epoch}))
    finally:
        os.close(descriptor)


def start(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """Starts an attempt unless it was started before; asking again is harmless and gives the attempt's state.

    The spec is ``{key, owner, argv, cwd, env, wall_s, grace_s, gpus}``; ``digest`` must be its :func:`digest_of`.
    ``gpus`` names GPUs by index or UUID; the command starts when all of them are leased to it, and sees no others.
    """
    spec, digest = request.get("spec"), request.get("digest")
    key = _spec_key(spec, digest)
    assert isinstance(spec, dict)
    folder = job_dir(root, key)
    kind = filesystem_of(root if os.path.isdir(root) else os.path.dirname(os.path.abspath(root)))
    if kind in NETWORK_FILESYSTEMS:
        mend = "point storage_paths.agent in hosts.yaml to a local disk"
        raise AgentError("place", "locks cannot be trusted on %s: %s (%s)" % (kind, root, mend))
    check_epoch(root, spec.get("owner"), request.get("epoch"))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    held = take_lock(os.path.join(folder, "start.lock"), START_WAIT_S)
    if held is None:
        raise AgentError("busy", "another start of %s is under way" % key)
    try:
        if not _lay_down(root, folder, spec, digest):
            return dict(report(root, key), started=False)
        failure = _launch(root, key)
        answer = report(root, key)
        if failure is not None and answer["state"] == "prepared":
            raise AgentError(failure[0], failure[1])
        return dict(answer, started=failure is None)
    finally:
        os.close(held)


def _spec_key(spec: Any, digest: Any) -> str:
    """The key of a spec that is well formed."""
    if not isinstance(spec, dict) or not _argv(spec.get("argv")):
        raise AgentError("request", "a spec needs an argv of strings")
    if "gpus" in spec and not _argv(spec["gpus"]):
        raise AgentError("request", "gpus has to list indices or UUIDs as strings")
    if digest_of(spec) != digest:
        raise AgentError("request", "the digest does not belong to the spec")
    key = spec.get("key")
    job_dir("", key)
    return str(key)


def _lay_down(root: str, folder: str, spec: Dict[str, Any], digest: Any) -> bool:
    """Writes a spec unless it lies there; False when the attempt cannot be started (any more)."""
    present = read_json(os.path.join(folder, "spec.json"))
    if present is not None and present.get("digest") != digest:
        raise AgentError("conflict", "another spec lies under %s" % spec["key"])
    if derive(root, spec["key"]) != "prepared":
        return False
    if present is None:
        write_json(os.path.join(folder, "spec.json"), dict(spec, digest=digest))
    _reserve(os.path.join(folder, "reserve"))
    return True


def hold(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """Lays specs down for a scheduler, whose payload is ``run KEY``: ``{"held": [[spec, digest]], owner, epoch}``.

    Answers ``{"reports": {key: report}, "refused": {key: [kind, message]}}``. The root may lie on a network file
    system: besides the locks there is what the scheduler says, and the claim is by O_EXCL, which holds there too.
    """
    check_epoch(root, request.get("owner"), request.get("epoch"))
    reports, refused = {}, {}  # type: Dict[str, Any], Dict[str, Any]
    for spec, digest in request.get("held") or ():
        key = _spec_key(spec, digest)
        folder = job_dir(root, key)
        lock = None
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            lock = take_lock(os.path.join(folder, "start.lock"), START_WAIT_S)
            if lock is None:
                raise AgentError("busy", "another start of %s is under way" % key)
            _lay_down(root, folder, spec, digest)
            reports[key] = report(root, key)
        except AgentError as error:
            refused[key] = [error.kind, str(error)]
        except OSError as error:
            refused[key] = list(failure_of(error, root))
        finally:
            if lock is not None:
                os.close(lock)
    return {"reports": reports, "refused": refused}


def note(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """Writes down what a scheduler is asked, or has answered: ``{"notes": {key: engine.json}, owner, epoch}``."""
    check_epoch(root, request.get("owner"), request.get("epoch"))
    os.makedirs(os.path.join(root, "engine"), mode=0o700, exist_ok=True)
    for key, text in (request.get("notes") or {}).items():
        write_json(os.path.join(job_dir(root, key), "engine.json"), text)
    return {}


def mark(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """The word that this root is known by, ``{"place": word}``; the given one where there is none yet."""
    place = request.get("place_if_none")
    if not isinstance(place, str) or not place:
        raise AgentError("request", "a root is marked with a word")
    os.makedirs(root, mode=0o700, exist_ok=True)
    lock = take_lock(os.path.join(root, "epoch.lock"), START_WAIT_S)
    if lock is None:
        raise AgentError("busy", "the epoch file is locked")
    try:
        found = read_json(os.path.join(root, "place"))
        if found is None:
            found = {"place": place}
            write_json(os.path.join(root, "place"), found)
    finally:
        os.close(lock)
    return found


def _check_place(root: str, place: Any) -> None:
    """Refuses a request that was meant for another root than lies here now."""
    try:
        found = read_json(os.path.join(root, "place"))
    except OSError as error:
        raise AgentError("place", "%s cannot be read: %s" % (root, error)) from error
    if found is None or found.get("place") != place:
        raise AgentError("place", "%s is not there, or is another folder than before" % root)


def _by_signal(record: Dict[str, Any]) -> bool:
    """Whether somebody ended the command: by a signal, or by one to its own child that a shell or launcher tells."""
    return record.get("signal") is not None or record.get("code") in (128 + signal.SIGTERM, 128 + signal.SIGKILL)


def _engine_said(root: str, told: Optional[Dict[str, Any]], about: str = ".") -> str:
    """The last line about something in the scheduler's own output for an attempt: why it did not run, or was ended."""
    name = os.path.basename(str((told or {}).get("out") or ""))
    if not name:
        return ""
    try:
        with open(os.path.join(root, "engine", name), "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 2000))
            lines = stream.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip() and re.search(about, line)), "")


def _argv(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)


def _reserve(path: str) -> None:
    """Keeps disk space so that a full disk cannot lose the exit code."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        while written < RESERVE_BYTES:
            written += os.write(descriptor, b"\0" * (RESERVE_BYTES - written))
        os.fsync(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _launch(root: str, key: str, mode: str = "--detached") -> Optional[Tuple[str, str]]:
    """Leaves a runner behind in a session of its own; returns what it reported as (kind, message), None for success."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _become_runner(root, key, mode, writing)
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(middle, 0)
    with os.fdopen(reading, "rb") as stream:
        answer = stream.read()
    if answer == b"ok":
        return None
    if not answer:
        return ("failed", "the runner died before it started the command")
    try:
        kind, message = json.loads(answer.decode("utf-8"))
    except ValueError:
        return ("failed", answer.decode("utf-8", "replace"))
    return (str(kind), str(message))


def _become_runner(root: str, key: str, mode: str, writing: int) -> NoReturn:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            errors = os.open(os.path.join(job_dir(root, key), "runner.log"), flags, 0o600)
        except OSError:
            errors = null
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(errors, 2)
        os.set_inheritable(writing, True)
        here = os.path.abspath(__file__)
        argv = [sys.executable, "-I", "-S", here, "--root", root, "run", mode, "--ready", str(writing), key]
        os.execv(sys.executable, argv)
    except BaseException as error:
        os.write(writing, json.dumps(["failed", "the runner cannot be executed: %s" % error]).encode())
        os._exit(1)


def cancel(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """Asks an attempt to end. Before its start it will never run; a running one gets TERM, then KILL.

    Only a later report with state ``exited`` says that it has ended.
    """
    key = request.get("key")
    folder = job_dir(root, key)
    assert isinstance(key, str)
    check_epoch(root, request.get("owner"), request.get("epoch"))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    held = take_lock(os.path.join(folder, "start.lock"), START_WAIT_S)
    if held is None:
        raise AgentError("busy", "a start of %s is under way" % key)
    try:
        if _is_others(folder, request.get("owner")):
            raise AgentError("conflict", "%s is another root's here" % key)
        state = derive(root, key)
        if state == "exited":
            return report(root, key)
        if read_json(os.path.join(folder, "cancel")) is None:
            wish = {"by": request.get("by"), "reason": request.get("reason"), "at": time.time()}
            _write_cancel(folder, dict(wish, grace_s=request.get("grace_s")))
        if state in ("absent", "prepared", "void"):
            if claim(folder, {"tombstone": True, "boot_id": boot_id()}) or state == "void":
                _free_reserve(folder)
                write_json(
                    os.path.join(folder, "exit.json"),
                    {"code": None, "signal": None, "cancelled": True, "executed": False, "at": time.time()},
                )
                return report(root, key)
            state = derive(root, key)
        if state in ("orphaned", "unknown", "lost"):
            _launch(root, key, "--adopt")
        elif state == "running" or state == "starting":
            runner = read_json(os.path.join(folder, "runner.json"))
            if is_alive(runner) and lock_held(os.path.join(folder, "lock")):
                assert runner is not None
                with contextlib.suppress(ProcessLookupError):
                    os.kill(runner["pid"], signal.SIGTERM)  # it looks at the cancel file at once
        return report(root, key)
    finally:
        os.close(held)


def _is_others(folder: str, owner: Any) -> bool:
    """Whether an attempt was started for another root: keys are unique within one only."""
    spec = read_json(os.path.join(folder, "spec.json"))
    return spec is not None and spec.get("owner") != owner


def _write_cancel(folder: str, wish: Dict[str, Any]) -> None:
    try:
        write_json(os.path.join(folder, "cancel"), wish)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _free_reserve(folder)  # a full disk must not keep a job alive
        write_json(os.path.join(folder, "cancel"), wish)


def claim(folder: str, who: Dict[str, Any]) -> bool:
    """Creates ``executed``; False when somebody has it already. Whoever creates it decides whether the command runs."""
    try:
        descriptor = os.open(
            os.path.join(folder, "executed"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
    except FileExistsError:
        return False
    try:
        os.write(descriptor, json.dumps(who).encode())
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # the name alone is the claim; child.json has the identity
            raise
    finally:
        os.close(descriptor)
    fsync_dir(folder)
    return True


def _free_reserve(folder: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, "reserve"))


def status(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """Reports on the given keys: ``{"keys": [...]}`` -> ``{"reports": {key: report}, "refused": {key: message}}``."""
    keys = request.get("keys")
    if not isinstance(keys, list):
        raise AgentError("request", "status needs a list of keys")
    reports, refused = {}, {}  # type: Dict[str, Any], Dict[str, str]
    for key in keys:
        try:
            reports[key] = report(root, key)
        except OSError as error:  # one folder that cannot be read hides no other
            refused[key] = failure_of(error, root)[1]
    return {"reports": reports, "refused": refused}


def listing(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """Keys and states of the attempts that carry an owner's name; acknowledged ones only with ``all``."""
    found = {}
    jobs = os.path.join(root, "jobs")
    for key in sorted(os.listdir(jobs)) if os.path.isdir(jobs) else ():
        if not KEY.match(key) or (os.path.exists(os.path.join(jobs, key, "acked")) and not request.get("all")):
            continue
        with contextlib.suppress(OSError):  # whose it is cannot be read; whoever knows of it asks for its status
            spec = read_json(os.path.join(jobs, key, "spec.json")) or {}
            if spec.get("owner") == request.get("owner"):
                found[key] = derive(root, key)
    return {"attempts": found}


def read(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """A piece of a job's file from a byte offset; ``data`` is base64, ``identity`` changes when the file is another."""
    name = request.get("name", "log")
    offset, limit = request.get("offset", 0), request.get("limit", READ_LIMIT)
    if name not in READABLE or not isinstance(offset, int) or not isinstance(limit, int) or offset < 0 or limit < 0:
        raise AgentError("request", "cannot read %r from %r" % (name, offset))
    try:
        with open(os.path.join(job_dir(root, request.get("key")), name), "rb") as stream:
            about = os.fstat(stream.fileno())
            stream.seek(offset)
            data = stream.read(min(limit, READ_LIMIT))
    except FileNotFoundError:
        return {"data": "", "offset": offset, "next": offset, "size": 0, "identity": None}
    return {
        "data": base64.b64encode(data).decode(),
        "offset": offset,
        "next": offset + len(data),
        "size": max(about.st_size, offset + len(data)),
        "identity": "%d:%d" % (about.st_dev, about.st_ino),
    }


def acknowledge(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """Notes that the controller has the end of these attempts durably; the licence to collect their folders later."""
    check_epoch(root, request.get("owner"), request.get("epoch"))
    done = []
    for key in request.get("keys") or ():
        folder = job_dir(root, key)
        if os.path.exists(os.path.join(folder, "exit.json")) and not _is_others(folder, request.get("owner")):
            os.close(os.open(os.path.join(folder, "acked"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            done.append(key)
    return {"acked": done}


def hello(root: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """What this host is."""
    machine = ""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        if os.path.exists(path):
            with open(path) as stream:
                machine = stream.read().strip()
            break
    return {
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "python": platform.python_version(),
        "system": "%s %s" % (platform.system(), platform.machine()),
        "host": socket.gethostname(),
        "machine_id": machine,
        "boot_id": boot_id(),
        "filesystem": filesystem_of(root),
        "time": time.time(),
    }


OPERATIONS = {
    "hello": hello,
    "start": start,
    "hold": hold,
    "note": note,
    "mark": mark,
    "status": status,
    "cancel": cancel,
    "list": listing,
    "read": read,
    "ack": acknowledge,
}


def answer(root: str, request: Any) -> Dict[str, Any]:
    """Carries out one request; every failure becomes an answer of the form ``{"error": kind, "message": text}``."""
    number = request.get("id") if isinstance(request, dict) else None
    try:
        operation = OPERATIONS.get(str(request.get("op"))) if isinstance(request, dict) else None
        if operation is None:
            raise AgentError("request", "no such operation")
        if "place" in request:
            _check_place(root, request["place"])
        return {"id": number, "ok": operation(root, request)}
    except AgentError as error:
        return {"id": number, "error": error.kind, "message": str(error)}
    except OSError as error:
        kind, message = failure_of(error, root)
        return {"id": number, "error": kind, "message": message}


def failure_of(error: OSError, root: str) -> Tuple[str, str]:
    """The kind of an :class:`AgentError` and the message for it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "resource", "the disk of %s is full, free some space there: %s" % (root, error)
    return "failed", str(error)


def serve(root: str) -> int:
    """Answers requests until standard input ends. Everything before the greeting line is noise of the login shell."""
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        _say(out, "%s %d" % (MAGIC, PROTOCOL))
        for line in sys.stdin.buffer:
            try:
                request = json.loads(line.decode("utf-8"))
            except ValueError:
                reply = {"id": None, "error": "request", "message": "not a line of JSON"}  # type: Dict[str, Any]
            else:
                reply = answer(root, request)
            _say(out, json.dumps(reply))
    except BrokenPipeError:
        return 0  # the controller is gone; it will ask again what became of its request
    return 0


def _say(out: int, line: str) -> None:
    data = line.encode() + b"\n"
    while data:
        data = data[os.write(out, data) :]


# --- the runner ------------------------------------------------------------------------------------------------------


class Runner:
    """The parent of one job's command, from the claim to the exit record."""

    SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, root: str, key: str, ready: Optional[int]) -> None:
        self.root, self.key, self.folder = root, key, job_dir(root, key)
        self.ready = ready
        self.cookie = cookie_of(root, key)
        self.spec = read_json(self.path("spec.json")) or {}
        self.child = 0
        self.waited = None  # type: Optional[int]
        self.rusage = None  # type: Any
        self.wakeup = (-1, -1)
        self.containment = "group+cookie"
        self.umask = 0o022
        self.gpus = {}  # type: Dict[str, int]

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def tell(self, failure: Optional[Tuple[str, str]]) -> None:
        """Answers whoever started us, once."""
        if self.ready is not None:
            text = b"ok" if failure is None else json.dumps(list(failure)).encode()
            with contextlib.suppress(BrokenPipeError):
                os.write(self.ready, text)
            os.close(self.ready)
            self.ready = None

    def run(self) -> int:
        """Runs the command and returns its exit code (128 + number after a signal); 125 when it was executed before."""
        self.umask = os.umask(0o077)
        lock = take_lock(self.path("lock"), LOCK_WAIT_S)
        if lock is None:
            self.tell(("busy", "another runner has it"))
            return 125
        # Somebody may have run or cancelled it between our starter's look and our lock.
        if any(os.path.exists(self.path(name)) for name in ("executed", "exit.json", "cancel")) or not self.spec:
            self.tell(("conflict", "it was executed or cancelled before"))
            return 125
        try:
            if self.spec.get("gpus"):
                self.gpus = lease_gpus(self.root, self.key, self.spec["gpus"])
            self._signals()
            self._subreaper()
            about = dict(identity(os.getpid()), containment=self.containment, gpus=sorted(self.gpus))
            write_json(self.path("runner.json"), about)
            claimed = self._spawn()
        except AgentError as error:
            os.close(lock)  # first, so that whoever started us does not see it as being started
            self.tell((error.kind, str(error)))
            return 1
        except OSError as error:
            os.close(lock)
            self.tell(failure_of(error, self.root))
            return 1
        self.tell(None)
        if not claimed:
            return 125
        record = self._supervise()
        self._record(record)
        return int(record["code"]) if record["code"] is not None else 128 + int(record["signal"])

    def adopt(self) -> int:
        """Ends what a dead runner left behind; the command's own exit code stays unknown."""
        lock = take_lock(self.path("lock"), LOCK_WAIT_S)
        self.tell(None)
        if lock is None or os.path.exists(self.path("exit.json")):
            return 125
        wish = read_json(self.path("cancel")) or {}
        swept = self.sweep(_seconds(wish.get("grace_s"), 10.0))
        self._record({"code": None, "signal": None, "cancelled": True, "unwitnessed": True, "swept": swept})
        return 0

    def _signals(self) -> None:
        self.wakeup = os.pipe()
        for descriptor in self.wakeup:
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self.wakeup[1], warn_on_full_buffer=False)
        for number in self.SIGNALS:
            signal.signal(number, lambda *_: None)

    def _subreaper(self) -> None:
        """Makes orphans of the job our children, so that they can be found and reaped (Linux)."""
        if sys.platform.startswith("linux"):
            try:
                import ctypes

                if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) == 0:  # PR_SET_CHILD_SUBREAPER
                    self.containment = "subreaper+group+cookie"
            except (ImportError, OSError, AttributeError):
                return

    def _spawn(self) -> bool:
        """Forks the command behind a gate; True when it was executed by us, False when another claim was first."""
        gate_in, gate_out = os.pipe()
        lost_in, lost_out = os.pipe()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        log = os.open(self.path("log"), flags, 0o600)
        self.child = os.fork()
        if self.child == 0:
            os.close(gate_out)
            os.close(lost_in)
            self._child(gate_in, lost_out, log)
        os.close(gate_in)
        os.close(lost_out)
        os.close(log)
        try:
            write_json(self.path("child.json"), identity(self.child))
        except BaseException:
            os.close(gate_out)  # the child leaves without having run anything
            os.waitpid(self.child, 0)
            raise
        os.write(gate_out, b"g")
        os.close(gate_out)
        with os.fdopen(lost_in, "rb") as stream:
            told = stream.read()
        if told.startswith(b"claim:"):
            os.waitpid(self.child, 0)
            if told == b"claim:":
                return False
            raise OSError(int(told[6:]), os.strerror(int(told[6:])))
        return True

    def _child(self, gate: int, lost: int, log: int) -> NoReturn:
        code = 126
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (*self.SIGNALS, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            os.umask(self.umask)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            environment = dict(os.environ)
            environment.update(self.spec.get("env") or {})
            environment.update(
                {
                    "PYTHONUNBUFFERED": "1",
                    "RINGRIFT_PROGRESS": self.path("progress.jsonl"),
                    "RINGRIFT_ATTEMPT": self.key,
                    COOKIE: self.cookie,
                }
            )
            if self.gpus:
                environment["CUDA_VISIBLE_DEVICES"] = environment["RINGRIFT_GPUS"] = ",".join(self.gpus)
            if os.read(gate, 1) != b"g":
                os._exit(125)
            try:
                if not claim(self.folder, identity(os.getpid())):
                    os.write(lost, b"claim:")
                    os._exit(125)
            except OSError as error:
                os.write(lost, b"claim:%d" % (error.errno or errno.EIO))
                os._exit(125)
            argv = self.spec["argv"]
            code = 127
            os.chdir(self.spec.get("cwd") or self.folder)
            os.execvpe(argv[0], argv, environment)
        except BaseException as error:
            os.write(2, ("cannot run the command: %s\n" % error).encode("utf-8", "replace"))
        finally:
            os._exit(code)

    def _supervise(self) -> Dict[str, Any]:
        """Waits for the command, its time limit or a cancel; returns the exit record."""
        wall = self.spec.get("wall_s")
        deadline = time.monotonic() + wall if isinstance(wall, (int, float)) else None
        cancelled = timed_out = False
        while not self._reap():
            wish = read_json(self.path("cancel")) or {} if os.path.exists(self.path("cancel")) else None
            timed_out = deadline is not None and time.monotonic() >= deadline
            if wish is not None or timed_out:
                cancelled = wish is not None
                grace = _seconds((wish or {}).get("grace_s"), _seconds(self.spec.get("grace_s"), 10.0))
                self.sweep(grace, group=self.child)
                break
            self._nap(POLL_S)
        swept = self.sweep(SWEEP_GRACE_S)
        while not self._reap():
            self._nap(0.05)
        code = self.waited
        assert code is not None
        usage = self.rusage
        return {
            "code": os.WEXITSTATUS(code) if os.WIFEXITED(code) else None,
            "signal": os.WTERMSIG(code) if os.WIFSIGNALED(code) else None,
            "cancelled": cancelled,
            "timed_out": timed_out and not cancelled,
            "executed": True,
            "swept": swept,
            "rusage": None
            if usage is None
            else {"user_s": usage.ru_utime, "system_s": usage.ru_stime, "max_rss_kb": usage.ru_maxrss},
        }

    def _reap(self) -> bool:
        """Collects ended children, strays included; True once the command itself has ended."""
        while True:
            try:
                pid, code, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self.child:
                self.waited, self.rusage = code, usage
        return self.waited is not None

    def _nap(self, seconds: float) -> None:
        if self.wakeup[0] < 0:
            time.sleep(seconds)
        elif select.select([self.wakeup[0]], [], [], seconds)[0]:
            os.read(self.wakeup[0], 4096)

    def sweep(self, grace: float, group: int = 0) -> int:
        """TERM, then after ``grace`` seconds KILL, to all that carry our cookie, until two looks in a row find none.

        Returns how many processes were signalled.
        """
        touched = set()  # type: Set[int]
        end = time.monotonic() + grace
        empty = 0
        while empty < 2:
            kill = time.monotonic() >= end
            living = holders(self.cookie)
            if group > 1 and group != os.getpgrp() and (kill or not touched) and not self._reap():
                try:
                    os.killpg(group, signal.SIGKILL if kill else signal.SIGTERM)
                    os.killpg(group, signal.SIGCONT)  # a stopped process takes TERM only when it goes on
                    touched.add(group)
                except (ProcessLookupError, PermissionError):
                    group = 0
            for pid in living:
                if kill or pid not in touched:
                    send(pid, signal.SIGKILL if kill else signal.SIGTERM, self.cookie)
                    if not kill:
                        send(pid, signal.SIGCONT, self.cookie)
                    touched.add(pid)
            empty = 0 if living else empty + 1
            if empty < 2:
                self._reap()
                self._nap(0.5 if time.monotonic() > end + 5.0 else 0.05)  # beyond KILL only the kernel can help
        return len(touched)

    def _record(self, record: Dict[str, Any]) -> None:
        """Writes the exit record, as the last thing; the space kept for it is freed just before."""
        record = dict(record, at=time.time())
        end = time.monotonic() + 3600.0
        while True:
            _free_reserve(self.folder)
            try:
                write_json(self.path("exit.json"), record)
                return
            except OSError as error:
                # Others may have eaten the freed space: hold on, the lock says that we still watch.
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() >= end:
                    raise
                time.sleep(1.0)


def _seconds(value: Any, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else default


def run(root: str, key: str, ready: Optional[int], mode: str) -> int:
    """The runner's program: ``--adopt`` ends an orphan, everything else runs the command in this process's care."""
    if ready is not None:
        os.set_inheritable(ready, False)
    runner = Runner(root, key, ready)
    return runner.adopt() if mode == "adopt" else runner.run()


# --- command line ----------------------------------------------------------------------------------------------------


def main(argv: Optional[List[str]] = None) -> int:
    """``agent.py --root DIR serve | run KEY | (start|hold|note|status|cancel|list|read|ack|hello) REQUEST.json``.

    A request of ``-`` is read from standard input, so that secrets never stand in an argument list.
    """
    parser = argparse.ArgumentParser(prog="agent.py", description="Starts jobs at most once and keeps how they ended.")
    parser.add_argument("--root", required=True)
    programs = parser.add_subparsers(dest="program", required=True)
    programs.add_parser("serve")
    runner = programs.add_parser("run")
    runner.add_argument("key")
    runner.add_argument("--ready", type=int)
    runner.add_argument("--detached", dest="mode", action="store_const", const="detached", default="foreground")
    runner.add_argument("--adopt", dest="mode", action="store_const", const="adopt")
    for name in OPERATIONS:
        programs.add_parser(name).add_argument("request", nargs="?", default="{}")
    args = parser.parse_args(argv)
    root = os.path.abspath(args.root)
    if args.program == "serve":
        return serve(root)
    if args.program == "run":
        return run(root, args.key, args.ready, args.mode)
    text = sys.stdin.read() if args.request == "-" else args.request
    try:
        request = dict(json.loads(text), op=args.program)
    except (ValueError, TypeError):
        sys.stderr.write("agent.py: the request is no JSON object\n")
        return 2
    reply = answer(root, request)
    sys.stdout.write(json.dumps(reply) + "\n")
    return 0 if "ok" in reply else 1


if __name__ == "__main__":
    sys.exit(main())
