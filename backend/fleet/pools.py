"""Pools: hosts of ``kind: slurm``, where a scheduler places what it is given; their settings and what these ask for.

Every value becomes part of a line of a batch script or a word of a command, so each has a narrow form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SLURM = "slurm"
KINDS = (SLURM, "ssh")

_WORD = (r"[A-Za-z0-9][A-Za-z0-9_.@:,/+=-]*", "a word without spaces")
_PATH = (r"/[^\s'\"\\$`;%*?]*", "an absolute path without spaces or signs that a shell reads")
_FORMS = {
    "partition": _WORD,
    "account": _WORD,
    "qos": _WORD,
    "reservation": _WORD,
    "constraint": (r"[A-Za-z0-9_\[\]|&()*.,:-]+", "features of nodes joined by & | ,"),
    "gres": (r"gpu(:[A-Za-z][A-Za-z0-9_.-]*)?(:[0-9]+)?", "gpu, gpu:TYPE, gpu:NUMBER or gpu:TYPE:NUMBER"),
    "time_limit": (
        r"[0-9]+|[0-9]+:[0-9]{2}(:[0-9]{2})?|[0-9]+-[0-9]+(:[0-9]{2}){0,2}",
        "minutes, minutes:seconds, hours:minutes:seconds or days-hours[:minutes[:seconds]]",
    ),
    "shared_root": _PATH,
    "slurm_conf": _PATH,
    "slurm_bin": _PATH,
}
TEXT_KEYS = frozenset(_FORMS)
NUMBER_KEYS = frozenset({"cpus_per_task", "mem_gb"})
POOL_KEYS = TEXT_KEYS | NUMBER_KEYS
"""Settings that only a pool has."""


def wrong_form(key: str, value: Any) -> str | None:
    """What the value of a pool's setting has to be, or None when it is."""
    if key == "kind":
        return None if value in KINDS else " or ".join(KINDS)
    if key in NUMBER_KEYS:
        return None if value == int(value) and value >= 1 else "a whole number from 1"
    pattern, wanted = _FORMS.get(key, ("(?s:.*)", ""))
    return None if re.fullmatch(pattern, str(value)) else wanted


def amiss(settings: Mapping[str, Any]) -> str | None:
    """What is wrong with a host's settings as a whole, or None."""
    if settings.get("kind") == SLURM:
        return None if "shared_root" in settings else "needs a shared_root, a folder that all its nodes see"
    stray = next((key for key in settings if key in POOL_KEYS), None)
    return f"has '{stray}', which only a pool has (kind: slurm)" if stray else None


@dataclass(frozen=True, slots=True)
class Pool:
    """What hosts.yaml says of a pool.

    Attributes:
        options: of ``sbatch`` that every job gets, in the order of the batch script.
        gres: of each training job, e.g. ``gpu:a100:1``; empty where the pool gives no GPUs.
        conf, bin: ``SLURM_CONF``, and the folder of Slurm's programs; empty for those of the login host.
        line: of hosts.yaml, for messages.
    """

    name: str
    shared_root: str
    options: tuple[tuple[str, str], ...] = ()
    gres: str = ""
    conf: str = ""
    bin: str = ""
    line: int = 0

    @property
    def agent(self) -> str:
        """The agent's root."""
        return f"{self.shared_root}/agent"

    def gres_of(self, count: int) -> str:
        """What ``count`` GPUs are in the words of Slurm; empty for none."""
        kind = re.sub(r":[0-9]+$", "", self.gres or "gpu")
        return f"{kind}:{count}" if count else ""

    @property
    def gpus(self) -> int:
        """GPUs that a training job has where it asks for no number."""
        found = re.search(r":([0-9]+)$", self.gres)
        return int(found[1]) if found else int(bool(self.gres))


_OPTIONS = {
    "partition": "--partition",
    "account": "--account",
    "qos": "--qos",
    "reservation": "--reservation",
    "constraint": "--constraint",
    "time_limit": "--time",
    "cpus_per_task": "--cpus-per-task",
}


def pool_of(name: str, settings: Mapping[str, Any], line: int = 0) -> Pool:
    """A pool from the settings of its host, which were checked."""
    options = [(flag, str(settings[key])) for key, flag in _OPTIONS.items() if key in settings]
    if "mem_gb" in settings:
        options.append(("--mem", f"{int(settings['mem_gb'])}G"))
    return Pool(
        name, str(settings["shared_root"]).rstrip("/"), tuple(options), str(settings.get("gres", "")),
        str(settings.get("slurm_conf", "")), str(settings.get("slurm_bin", "")).rstrip("/"), line,
    )  # fmt: skip


def pool_rank(kind: str, is_pool: bool, gpus: int) -> float:
    """The rule of where a kind of job had better go, smaller is better.

    Training on GPUs is what a scheduler is for; the short shards of a gauntlet would only wait in its queue.
    """
    if kind == "train":
        return 1.0 if not is_pool else 0.0 if gpus else 2.0
    return float(kind == "gauntlet" and is_pool)


def rule_text(pool: Pool, preferred: Sequence[str] = ()) -> str:
    """The rule for a pool in words; ``preferred`` is what its host prefers by the hosts file."""
    first = list(preferred) + (["training"] if pool.gpus and "training" not in preferred else [])
    last = [kind for kind in ("gauntlet", *(() if pool.gpus else ("training",))) if kind not in preferred]
    words = [f"{' and '.join(first)} first go here" if first else "", f"{' and '.join(last)} last" if last else ""]
    return ", ".join(word for word in words if word)


_ENVIRONMENT = (
    'who=$(id -un) && exec env -i HOME="$HOME" USER="$who" LOGNAME="$who" SHELL=/bin/sh PATH="$PATH" LC_ALL=C '
    'SLURM_BITSTR_LEN=0 "$@"'
)
"""A job has the environment of its ``sbatch``: this one, so no secret of ours gets into it. ``SQUEUE_*`` and
``SBATCH_*`` of the login would change what is asked for; ``SLURM_BITSTR_LEN`` is where squeue cuts the numbers of an
array short."""


def command(pool: Pool, program: str, *words: str) -> list[str]:
    """One of Slurm's programs as an argument list for the login host."""
    conf = [f"SLURM_CONF={pool.conf}"] if pool.conf else []
    return ["/bin/sh", "-c", _ENVIRONMENT, "sh", *conf, f"{pool.bin}/{program}" if pool.bin else program, *words]
