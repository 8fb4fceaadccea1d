"""What a host's facts mean for us: what is missing there, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from backend.snapshot import HostSample

AGENT_PYTHON = (3, 9)
CODE_PYTHON = (3, 11)
MACHINES = ("x86_64", "aarch64", "arm64")
GLIBC = (2, 28)
"""What the wheels of torch, numpy and numba ask for: manylinux_2_28 (PEP 600)."""
JOB_BYTES = 2_000_000_000
"""Room for what a job brings along and leaves, on a host that has its program already."""
DISK_BYTES = {"pypi": 8_000_000_000, "cpu": 4_000_000_000, "given": JOB_BYTES}
"""Room by where the packages come from: an environment with torch's CUDA build (5.0 GB measured), one with its CPU
build (1.4 GB), none; and some games."""
CLOCK_S = 5.0
NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "glusterfs", "lustre", "afs", "9p"})
"""Where locks of one machine are not seen, or not surely, by another."""

Level = Literal["error", "warning", "ok"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a host.

    Attributes:
        level: an ``error`` keeps our code from running there.
        mend: what to do about it, mostly a command.
    """

    level: Level
    text: str
    mend: str = ""


def findings(facts: dict[str, Any], sample: HostSample | None) -> tuple[Finding, ...]:
    """Everything worth saying of a host, errors first."""
    foreign = "checkout" in facts
    found = [
        *(_checkout(facts) if foreign else [*_python(facts), _machine(facts), _libc(facts)]),
        *_folder(facts, sample, JOB_BYTES if foreign else DISK_BYTES[packages_for(facts, sample)]),
        _clock(facts),
        *_tools(facts),
        *_gpus(facts, sample),
    ]
    order: dict[Level, int] = {"error": 0, "warning": 1, "ok": 2}
    return tuple(sorted(found, key=lambda finding: order[finding.level]))


def packages_for(facts: dict[str, Any], sample: HostSample | None) -> str:
    """``Host.packages`` as it comes out on this host: torch's CPU build is only for hosts without an NVIDIA GPU.

    A driver that does not answer counts as a GPU.
    """
    kind = str(facts.get("packages") or "pypi")
    gpu = bool(facts.get("gpu_problem")) or sample is None or bool(sample.gpus)
    return "pypi" if kind == "cpu" and gpu else kind


def version(text: Any) -> tuple[int, ...]:
    """The numbers of a version, e.g. ``(3, 11, 7)``."""
    numbers = []
    for part in str(text).split("."):
        digits = "".join(character for character in part if character.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _checkout(facts: dict[str, Any]) -> list[Finding]:
    """What a host of runtime ai-service says of its checkout; see :mod:`backend.fleet.checkout`."""
    seen = facts["checkout"]
    text, path, revision = str(seen["python_version"]), seen["path"], seen.get("revision") or "of no known commit"
    found = []
    if version(text) < AGENT_PYTHON:
        mend = "give python_path or venv_activate of a newer Python in hosts.yaml"
        found.append(Finding("error", f"Python {text} is too old for the agent (3.9)", mend))
    elif version(text) < CODE_PYTHON:
        found.append(Finding("warning", f"Python {text}, the checkout's documentation asks for 3.11"))
    else:
        found.append(Finding("ok", f"Python {text} at {seen['python']}"))
    if seen["problem"]:
        return [*found, Finding("error", str(seen["problem"]), str(seen["mend"]))]
    if facts.get("refused"):
        found.append(Finding("error", str(facts["refused"]), f"{facts.get('mend')}, then bootstrap it again"))
    commands = facts.get("commands")
    if not isinstance(commands, dict):
        text = f"the checkout {path} ({revision}) is there, its programs were not tried"
        return [*found, Finding("warning", text, "ringrift hosts bootstrap, with the name of the host")]
    lacking = {kind: seen["kinds"].get(kind) or why for kind, why in commands.items()}
    for kind, why in lacking.items():
        if why:
            found.append(Finding("warning", f"no {kind} jobs: {why}", f"update the checkout at {path}"))
    good = " ".join(kind for kind, why in lacking.items() if not why)
    found.append(Finding("ok", f"the checkout {path} ({revision}) runs {good or 'nothing'}"))
    if facts.get("checkout_revision") != seen.get("revision"):
        text = f"the checkout has changed since it was checked (it was {facts.get('checkout_revision') or 'unknown'})"
        found.append(Finding("warning", text, "bootstrap it again"))
    return found


def _python(facts: dict[str, Any]) -> list[Finding]:
    text = str(facts.get("python_version", "unknown"))
    number = version(text)
    install = "apt-get install python3.11 python3.11-venv, then python_path: /usr/bin/python3.11 in hosts.yaml"
    if number < AGENT_PYTHON:
        return [Finding("error", f"Python {text} is too old for the agent (3.9) and our code (3.11)", install)]
    if number < CODE_PYTHON:
        return [Finding("error", f"Python {text} is too old for our code (3.11)", install)]
    modules = facts.get("modules") or {}
    if not (modules.get("venv") and modules.get("ensurepip")):
        name = ".".join(map(str, number[:2]))
        mend = f"apt-get install python{name}-venv"
        return [Finding("warning", f"Python {text} cannot make environments with pip", mend)]
    return [Finding("ok", f"Python {text}")]


def _machine(facts: dict[str, Any]) -> Finding:
    machine = str(facts.get("machine", "unknown"))
    if machine not in MACHINES:
        return Finding("error", f"there are no builds of torch for {machine}", "use a host with x86_64 or aarch64")
    return Finding("ok", f"{facts.get('system')} {facts.get('kernel')} on {machine}, {facts.get('cpus')} CPUs")


def _libc(facts: dict[str, Any]) -> Finding:
    name, text = str(facts.get("libc", "unknown")), str(facts.get("libc_version", ""))
    if facts.get("system") != "Linux":
        return Finding("ok", "no glibc needed")
    if name != "glibc":
        return Finding("error", f"its C library is {name}, torch needs glibc", "use a distribution with glibc")
    if version(text) < GLIBC:
        return Finding("error", f"glibc {text} is older than 2.28", "use a newer release of the distribution")
    return Finding("ok", f"glibc {text}")


def _folder(facts: dict[str, Any], sample: HostSample | None, needed: int) -> list[Finding]:
    folder, kind = facts.get("folder", "~"), str(facts.get("folder_filesystem", "unknown"))
    found = []
    if kind in NETWORK_FILESYSTEMS:
        mend = f"storage_paths: {{agent: /var/tmp/ringrift-{facts.get('user', 'me')}}} in hosts.yaml, on a local disk"
        found.append(Finding("error", f"{folder} is on {kind}: the agent's locks do not hold there", mend))
    if not facts.get("folder_writable", True):
        found.append(Finding("error", f"{folder} cannot be written", f"chown {facts.get('user')} {folder}"))
    free = sample.disk_free if sample else None
    if free is None:
        found.append(Finding("warning", f"the free space at {folder} is unknown", f"df {folder}"))
    elif free < needed:
        text = f"{free / 1e9:.1f} GB free at {folder}, {needed / 1e9:.0f} GB are needed"
        found.append(Finding("error", text, "free some space, or point storage_paths.agent to a larger disk"))
    else:
        found.append(Finding("ok", f"{free / 1e9:.0f} GB free at {folder} ({kind})"))
    return found


def _clock(facts: dict[str, Any]) -> Finding:
    offset, error = facts.get("clock_offset_s"), facts.get("clock_error_s")
    if offset is None:
        return Finding("warning", "its clock was not compared", "probe it again")
    way = "ahead of" if offset > 0 else "behind"
    text = f"its clock is {abs(offset):.1f} s {way} ours (±{error or 0:.1f} s)"
    if abs(offset) > CLOCK_S:
        return Finding("warning", text + "; only displayed times are wrong", "timedatectl set-ntp true")
    return Finding("ok", text)


def _tools(facts: dict[str, Any]) -> list[Finding]:
    tools = facts.get("tools") or {}
    missing = [name for name in ("rsync", "tar") if not tools.get(name)]
    if missing:
        return [Finding("warning", f"{' and '.join(missing)} missing", f"apt-get install {' '.join(missing)}")]
    return [Finding("ok", "rsync, tar")]


def _gpus(facts: dict[str, Any], sample: HostSample | None) -> list[Finding]:
    if facts.get("gpu_problem"):
        return [Finding("warning", str(facts["gpu_problem"]), "nvidia-smi; dmesg | grep -i nvrm")]
    gpus = sample.gpus if sample else ()
    return [Finding("ok", f"GPU {gpu.index}: {gpu.name}, {(gpu.memory_total or 0) / 2**30:.0f} GiB") for gpu in gpus]
