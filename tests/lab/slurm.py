"""A Slurm of one's own on this machine: munge with its own key and socket, a controller, two nodes with fake GPUs.

Everything lies in one folder and listens on ports of its own; there is no accounting database. Raised as root, because
a node's daemon has to become the user of a job. Nothing of it is left after :meth:`Slurm.stop`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.lab.sshd import PATH, free_port

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol", "srun")
PATIENCE_S = 90.0
NODES = ("n1", "n2")
GPUS = 2

CONF = """\
ClusterName=bed
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=3
MinJobAge={min_job_age}
MaxArraySize=2001
MaxJobCount=5000
EnforcePartLimits=ALL
SchedulerParameters=batch_sched_delay=0,sched_interval=2,default_queue_depth=200
SlurmdTimeout={slurmd_timeout}
SlurmctldTimeout=10
MessageTimeout=10
InactiveLimit=0
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
SlurmdParameters=config_overrides
{nodes}
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=1:00:00 State=UP OverSubscribe=NO
PartitionName=closed Nodes=n[1-2] MaxTime=1:00:00 State=INACTIVE
"""


def no_slurm() -> str:
    """Why a Slurm cannot be raised here; empty where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=f"{PATH}:{os.environ.get('PATH', '')}") is None]
    if missing:
        return f"there is no {' '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
    if os.getuid() != 0:
        return "a node's daemon has to run as root"
    try:
        pwd.getpwnam("munge")
    except KeyError:
        return "there is no user munge"
    return ""


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"still not: {what}"
        time.sleep(0.05)
    return found


class Slurm:
    """See the module.

    Args:
        folder: everything lies there; its path must be short, for a socket's name has at most 107 characters.
        cpus: of each node; so many jobs run there at a time.
        min_job_age: seconds that the controller remembers a job after its end.
        slurmd_timeout: seconds after which a node that does not answer is down. It is pinged three times in these, and
            every 20th time tells what it runs: until then, what the controller takes for running there is not missed.
    """

    def __init__(self, folder: Path, *, cpus: int = 2, min_job_age: int = 300, slurmd_timeout: int = 30) -> None:
        self.folder = folder
        self.cpus, self.min_job_age, self.slurmd_timeout = cpus, min_job_age, slurmd_timeout
        self.root = folder / "shared"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        """What a client of it has in its environment."""
        return {"PATH": PATH, "HOME": str(self.folder), "LC_ALL": "C", "SLURM_CONF": str(self.conf)}

    def settings(self, **more: Any) -> dict[str, Any]:
        """It as a pool of the hosts file."""
        return {
            "kind": "slurm", "shared_root": str(self.root), "partition": "main", "slurm_conf": str(self.conf),
        } | more  # fmt: skip

    def start(self) -> None:
        """Raises it; returns when both nodes are idle."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        for name in ("state", "spool", "shared"):
            (self.folder / name).mkdir(exist_ok=True)
        self._devices()
        host = socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs={self.cpus} "
            f"RealMemory=1000 Gres=gpu:{GPUS} State=UNKNOWN"
            for name in NODES
        )
        self.conf.write_text(
            CONF.format(
                host=host,
                folder=self.folder,
                controller_port=free_port(),
                nodes=nodes,
                min_job_age=self.min_job_age,
                slurmd_timeout=self.slurmd_timeout,
            )
        )
        self.start_munge()
        self.start_controller()
        for name in NODES:
            self.start_node(name)
        self._until(lambda: self.nodes_in("idle") == len(NODES), "the nodes are idle")

    def _devices(self) -> None:
        lines = []
        for node in NODES:
            for number in range(GPUS):
                device = self.folder / f"{node}-gpu{number}"
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            lines.append(f"NodeName={node} Name=gpu File={self.folder}/{node}-gpu[0-{GPUS - 1}]")
        (self.folder / "gres.conf").write_text("\n".join(lines) + "\n")

    def start_munge(self) -> None:
        who = pwd.getpwnam("munge")
        place = self.folder / "munge"
        if not place.exists():
            place.mkdir(mode=0o755)
            (place / "key").write_bytes(os.urandom(128))
            (place / "key").chmod(0o400)
            os.chown(place, who.pw_uid, who.pw_gid)
            os.chown(place / "key", who.pw_uid, who.pw_gid)
        argv = [
            "munged", "--foreground", "--force", f"--key-file={place}/key", f"--socket={place}/socket",
            f"--pid-file={place}/pid", f"--log-file={place}/log", f"--seed-file={place}/seed", "--num-threads=2",
        ]  # fmt: skip
        self._run("munged", argv, user=who.pw_uid, group=who.pw_gid)
        self._until(lambda: self._munge_works(), "munge works")

    def _until(self, condition: Callable[[], Any], what: str) -> None:
        try:
            until(condition, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None

    def _munge_works(self) -> bool:
        argv = ["munge", "-S", f"{self.folder}/munge/socket", "-n"]
        return subprocess.run(argv, env=self.env, capture_output=True).returncode == 0

    def start_controller(self) -> None:
        self._run("slurmctld", ["slurmctld", "-D", "-f", str(self.conf)])
        self._until(lambda: self.ask("scontrol", "ping").returncode == 0, "the controller answers")

    def start_node(self, name: str) -> None:
        self._run(f"slurmd {name}", ["slurmd", "-D", "-N", name, "-f", str(self.conf)])

    def _run(self, name: str, argv: Sequence[str], **as_whom: Any) -> None:
        with (self.folder / f"{name.replace(' ', '-')}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [shutil.which(argv[0], path=PATH) or argv[0], *argv[1:]], env=self.env, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, cwd="/", start_new_session=True, extra_groups=[] if as_whom else None,
                **as_whom,
            )  # fmt: skip

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends a daemon: ``munged``, ``slurmctld``, ``slurmd n1``."""
        daemon = self._daemons.pop(name)
        daemon.send_signal(number)
        daemon.wait(PATIENCE_S)

    def pids(self, program: str) -> list[int]:
        """Living processes of this Slurm by the name of their program, e.g. ``slurmstepd``."""
        return [pid for pid in self._ours() if _name(pid) == program]

    def ask(self, *argv: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a client program."""
        return subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=timeout)

    def nodes_in(self, state: str) -> int:
        done = self.ask("sinfo", "-h", "-N", "-o", "%N %t", "-p", "main")
        return sum(line.split()[1:] == [state] for line in done.stdout.splitlines())

    def jobs(self) -> list[str]:
        """Jobs that have not ended, ``<name>`` each; an array's elements one by one."""
        return self.ask("squeue", "-h", "-r", "-o", "%j").stdout.split()

    def said(self) -> str:
        """The ends of all logs, for a test that failed."""
        found = []
        for path in sorted({*self.folder.glob("*.log"), *self.folder.glob("*.out"), self.folder / "munge" / "log"}):
            if path.is_file() and path.stat().st_size:
                found.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:]))
        return "\n".join(found)

    def _ours(self) -> Iterable[int]:
        """Every living process that has this Slurm's configuration or folder among its words or variables."""
        mark = str(self.folder).encode()
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            with suppress(OSError):
                text = Path("/proc", entry, "cmdline").read_bytes() + b"\0"
                text += Path("/proc", entry, "environ").read_bytes()
                state = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[0]
                if mark in text and state not in "ZX":
                    yield int(entry)

    def stop(self) -> None:
        """Ends all jobs and daemons, and whatever else of it lives; returns when nothing does."""
        for name in [one for one in ("slurmctld", "slurmd n1", "slurmd n2") if one in self._daemons]:
            self._daemons[name].kill()
        end = time.monotonic() + PATIENCE_S
        while left := list(self._ours()):
            assert time.monotonic() < end, f"still alive: {left}"
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for daemon in self._daemons.values():
                daemon.poll()
            time.sleep(0.02)
        for daemon in self._daemons.values():
            daemon.wait(PATIENCE_S)
        self._daemons.clear()


def _name(pid: int) -> str:
    """The name of a process's program; a daemon writes ``slurmstepd: [2.batch]`` over its words."""
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().partition(b"\0")[0].decode().split()
    except OSError:
        return ""
    return os.path.basename(words[0]).rstrip(":") if words else ""
