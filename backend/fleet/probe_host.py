"""What a host says of itself; run there as ``python3 -I - facts|sample FOLDER``, so only the standard library, 3.8 on.

Prints one line: :data:`MAGIC` and a JSON object, so that the noise of a login shell before it does no harm.
"""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

MAGIC = "RINGRIFT-PROBE"
TOOLS = ("bash", "rsync", "git", "tar", "aria2c", "nvidia-smi", "systemd-run", "timedatectl", "pip3")
GPU_FIELDS = ("index", "name", "memory.total", "memory.used", "utilization.gpu", "temperature.gpu", "driver_version")
GPU_S = 10.0


def facts(folder: str) -> dict[str, Any]:
    """What changes rarely: versions, sizes, tools, GPUs."""
    libc, libc_version = platform.libc_ver()
    home = os.path.expanduser("~")
    return {
        "hostname": socket.gethostname(),
        "user": _user(),
        "home": home,
        "home_filesystem": filesystem_of(home),
        "folder": folder,
        "folder_filesystem": filesystem_of(folder),
        "folder_writable": os.access(_there(folder), os.W_OK | os.X_OK),
        "python_version": platform.python_version(),
        "python_executable": sys.executable,
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": libc or "unknown",
        "libc_version": libc_version,
        "cpus": cpus(),
        "cpu": cpu_model(),
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "uptime_s": _uptime(),
        "tools": {name: shutil.which(name) for name in TOOLS},
        "modules": {name: importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip", "pip")},
    }


def sample(folder: str) -> dict[str, Any]:
    """What changes all the time: load, memory, disk, GPUs."""
    total, used = memory()
    disk_total, disk_free = disk(folder)
    gpus, problem = gpu_list()
    found = {
        "load": _load(),
        "memory_total": total,
        "memory_used": used,
        "disk_total": disk_total,
        "disk_free": disk_free,
        "gpus": gpus,
    }
    return dict(found, gpu_problem=problem) if problem else found


def cpus() -> int | None:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def cpu_model() -> str:
    """The name of the processor, as the kernel tells it."""
    try:
        with open("/proc/cpuinfo") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def memory() -> tuple[int | None, int | None]:
    """Bytes in all and in use; what the kernel can take back at once counts as free."""
    try:
        with open("/proc/meminfo") as stream:
            parts = (line.split() for line in stream)
            values = {words[0].rstrip(":"): int(words[1]) * 1024 for words in parts if len(words) > 1}
        return values["MemTotal"], values["MemTotal"] - values["MemAvailable"]
    except (OSError, KeyError, ValueError):
        pass
    try:  # macOS and others, where somebody installed it
        import psutil

        found = psutil.virtual_memory()
        return int(found.total), int(found.total - found.available)
    except ImportError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None
    except (ValueError, OSError):
        return None, None


def disk(folder: str) -> tuple[int | None, int | None]:
    """Bytes in all and free to this user, on the disk that holds ``folder`` or will."""
    try:
        found = os.statvfs(_there(folder))
    except OSError:
        return None, None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def gpu_list() -> tuple[list[dict[str, Any]], str]:
    """NVIDIA GPUs, and why they cannot be told although there should be some."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [], ""
    argv = [tool, "--query-gpu=" + ",".join(GPU_FIELDS), "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=GPU_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi: {error}"
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        return [], "nvidia-smi: " + " ".join(text.split())[:200]
    return [gpu for gpu in map(parse_gpu, text.splitlines()) if gpu is not None], ""


def parse_gpu(line: str) -> dict[str, Any] | None:
    """One line of nvidia-smi; sizes come in MiB, what a GPU does not tell comes as ``[N/A]``."""
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(GPU_FIELDS) or not words[0].isdigit():
        return None

    def number(text: str, factor: int = 1) -> int | None:
        try:
            return int(float(text) * factor)
        except ValueError:
            return None

    return {
        "index": int(words[0]),
        "name": words[1],
        "memory_total": number(words[2], 2**20),
        "memory_used": number(words[3], 2**20),
        "busy": number(words[4]),
        "celsius": number(words[5]),
        "driver": words[6],
    }


def filesystem_of(path: str) -> str:
    """The type of the file system that holds ``path`` or will, ``unknown`` where it cannot be told."""
    target = os.path.realpath(_there(path))
    best, kind = "", "unknown"
    try:
        with open("/proc/self/mountinfo") as stream:
            for line in stream:
                before, _, after = line.partition(" - ")
                point = before.split()[4].replace("\\040", " ")
                inside = target == point or target.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, after.split()[0]
    except (OSError, IndexError):
        pass
    return kind


def _there(path: str) -> str:
    """The nearest folder above ``path`` that exists."""
    path = os.path.abspath(os.path.expanduser(path))
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _first_line(path: str) -> str | None:
    try:
        with open(path) as stream:
            return stream.readline().strip()
    except OSError:
        return None


def _uptime() -> float | None:
    line = _first_line("/proc/uptime")
    return float(line.split()[0]) if line else None


def main(argv: list[str]) -> int:
    """Prints facts, a sample, or both."""
    begun = time.time()
    what, folder = argv
    answer: dict[str, Any] = {"begun": begun, "folder": os.path.abspath(os.path.expanduser(folder))}
    if what == "facts":
        answer["facts"] = facts(folder)
    answer["sample"] = sample(folder)
    answer["ended"] = time.time()
    sys.stdout.write(f"\n{MAGIC} {json.dumps(answer)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
