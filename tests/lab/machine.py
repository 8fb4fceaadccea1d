"""A host that can be switched off and booted again, and whose clock can be set (Linux, root).

Its processes live in namespaces of their own, pid 1 included, with a boot id that changes at every boot; disk and
network are this machine's. Its clock is that of ``clock.c``, in everything that is run there over SSH.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.lab.sshd import SSHD, Sshd, children

SOURCE = Path(__file__).with_name("clock.c")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BOOT = 'mount -t proc proc /proc && mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
UNSHARE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-c", BOOT)


@cache
def missing() -> str:
    """Why no machine can be played here; empty when it can."""
    for tool in ("unshare", str(SSHD)):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    done = subprocess.run([*UNSHARE, str(BOOT_ID), "true"], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


@cache
def _library(folder: Path) -> Path:
    made = folder / "clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(made), str(SOURCE)], check=True)
    return made


def shifted(clock: Path) -> dict[str, str]:
    """Environment of processes whose clock is ahead of ours by the seconds that stand in a file, e.g. ``+3600``."""
    return {"LD_PRELOAD": str(_library(clock.parent)), "RINGRIFT_LAB_CLOCK": str(clock)}


def set_clock(clock: Path, ahead_s: float) -> None:
    """Sets such a clock, also for what runs already."""
    new = clock.with_suffix(".new")
    new.write_text(f"{ahead_s:+.0f}\n")
    new.rename(clock)


class Machine(Sshd):
    """See :class:`Sshd`; ``clock`` gives it a clock that :meth:`set_clock` sets."""

    def __init__(
        self, folder: Path, name: str = "alpha", *, clock: bool = False, env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        self.boot, self.clock = folder / "boot_id", folder / "clock"
        folder.mkdir(parents=True)
        env = dict(env or {}) | (shifted(self.clock) if clock else {})
        self.set_clock(0.0)
        super().__init__(folder, name, within=(*UNSHARE, str(self.boot)), env=env, **options)

    def start(self) -> None:
        self.boot.write_text(f"{uuid.uuid4()}\n")
        super().start()

    @property
    def listener(self) -> int:
        """Pid 1 of the machine, as it is called here."""
        assert self.process is not None
        pid = self.process.pid  # of unshare, which has no other child
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def set_clock(self, ahead_s: float) -> None:
        """Sets the clock that many seconds ahead of this machine's, also for what runs there already."""
        set_clock(self.clock, ahead_s)

    def switch_off(self) -> int:
        """Ends everything at once, as a power cut does; returns how many processes."""
        pids = children(self.listener)
        self._end()
        self.process = None
        return len(pids) + 1

    def _end(self) -> None:
        assert self.process is not None
        inside = [self.listener, *children(self.listener)]
        os.kill(inside[0], signal.SIGKILL)  # with pid 1 the kernel ends all the others
        self.process.wait()
        end = time.monotonic() + 10.0
        while any(Path(f"/proc/{pid}").exists() for pid in inside) and time.monotonic() < end:
            time.sleep(0.01)
