"""What Slurm's programs answer, read without asking anybody: ``squeue``, ``sacct``, ``sbatch`` and their complaints.

Measured with 22.05; the tests also keep answers written by hand in the form of other versions, which nobody measured.
Fields are asked for with ``|`` between them and the one of free text last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

SQUEUE_FORMAT = "%i|%j|%T|%D|%r"
SACCT_FIELDS = "JobID,JobName,State,ExitCode"
_JOB = re.compile(r"(\d+)(?:_(\d+|\[[^\]]*\]))?(?:\+\d+)?")

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
RUNNING = frozenset({"CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT",
                     "RESIZING"})  # fmt: skip
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE",
                   "OUT_OF_MEMORY", "REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL"})  # fmt: skip

Stage = Literal["waiting", "running", "ended"]


@dataclass(frozen=True, slots=True)
class Word:
    """What the scheduler says of a job or an element.

    Attributes:
        state: in its own words.
        reason: why it waits, or how it ended.
        job: its number there, ``12`` or ``12_3``; used to cancel and to show, never to know it again.
    """

    stage: Stage
    state: str
    reason: str = ""
    job: str = ""

    @property
    def text(self) -> str:
        """For people: the state, and the reason where there is one."""
        return f"{self.state.lower()} ({self.reason})" if self.reason else self.state.lower()


Words = Mapping[tuple[str, int | None], Word]
"""By the name of the job and, in an array, the number of the element."""


def stage_of(state: str) -> Stage:
    """Where a job stands; a state that nobody knows yet counts as running, for that ends nothing."""
    state = state.split()[0].rstrip("+").upper() if state.split() else ""
    if state in WAITING:
        return "waiting"
    return "ended" if state in ENDED else "running"


def squeue_words(text: str, prefix: str) -> dict[tuple[str, int | None], Word]:
    """``squeue --format=SQUEUE_FORMAT``; jobs whose name does not begin with ``prefix`` are not ours."""
    found: dict[tuple[str, int | None], Word] = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 4)
        if len(fields) == 5 and fields[1].startswith(prefix):
            reason = fields[4].strip("()")
            _enter(found, fields[0], fields[1], fields[2], "" if reason in ("None", "null", "") else reason)
    return found


def sacct_words(text: str, prefix: str) -> dict[tuple[str, int | None], Word]:
    """``sacct --parsable2 --noheader -X --format=SACCT_FIELDS``."""
    found: dict[tuple[str, int | None], Word] = {}
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) == 4 and fields[1].startswith(prefix):
            _enter(found, fields[0], fields[1], fields[2], "" if fields[3] == "0:0" else f"exit {fields[3]}")
    return found


def _enter(found: dict[tuple[str, int | None], Word], job: str, name: str, state: str, reason: str) -> None:
    match = _JOB.fullmatch(job)
    if match is None or not state:
        return
    number, element = match[1], match[2]
    numbers: Iterable[int | None] = (None,) if element is None else _numbers(element)
    for one in numbers:
        word = Word(stage_of(state), state.split()[0], reason, number if one is None else f"{number}_{one}")
        known = found.get((name, one))
        # Of two under one name, the one that has not ended counts, else the later.
        if known is None or known.stage == "ended" or word.stage != "ended":
            found[name, one] = word


def _numbers(element: str) -> list[int]:
    """``7`` or ``[0-3,9%4]`` as numbers; what is cut short is left out."""
    found: list[int] = []
    for part in element.strip("[]").partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if match is not None:
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            found += range(first, last + 1, step)
    return found


def submitted(text: str) -> str | None:
    """The job's number from ``sbatch --parsable``: the last line that is one, a cluster's name behind it cut off."""
    for line in reversed(text.splitlines()):
        match = re.fullmatch(r"(\d+)(?:;\S+)?", line.strip())
        if match is not None:
            return match[1]
    return None


_ONE_JOB = ((r"(QOS|Assoc)(Max\w*PerJob|Min)", "over what the account or QOS lets one job have"),)
_SETTINGS = (  # what an operator has to mend in hosts.yaml, or an administrator in Slurm
    (r"[Ii]nvalid partition", "no such partition"),
    (r"Invalid account|account/partition combination", "no such account, or not for this partition"),
    (r"Invalid qos", "no such QOS"),
    (r"Invalid feature|Invalid --constraint", "no node has the constraint"),
    (r"Invalid generic resource|Unable to register gres|[Ii]nvalid gres", "no node has the gres"),
    (r"time limit is invalid|Requested time limit|exceeds partition time limit",
     "over the time limit of the partition"),
    (r"Requested node configuration is not available|More processors requested|Node count specification invalid|"
     r"Memory specification can not|CPU count per node|Requested partition configuration not available",
     "no nodes of the pool can do this"),
    (r"reservation", "the reservation cannot be used"),
    (r"Invalid job array specification", "over the size of an array that Slurm allows"),
    (r"Access/permission denied|User's group not permitted|not permitted to use this partition",
     "this user may not use it"),
    (r"Invalid --?time|Invalid numeric value|unrecognized option|invalid option|Invalid directive",
     "an option is not understood"),
)  # fmt: skip
_LATER = (
    (r"[Mm]unge|authentication credential|[Pp]rotocol authentication", "munge does not answer or is not trusted"),
    (r"Unable to contact slurm controller|[Cc]onnection refused|backup controller|Unable to establish",
     "the controller does not answer"),
    (r"Socket timed out|Zero Bytes|[Tt]imed out|Transport endpoint|Unexpected message|communications",
     "the controller does not answer in time"),
    (r"MaxSubmit|MaxJobs|job submit limit|accounting/QOS policy|Job violates", "over a limit of jobs"),
    (r"partition not available \(inactive or drain\)", "the partition is closed"),
    (r"temporarily unable|Resource temporarily|Slurm backup|in standby|try again", "it takes no jobs for the moment"),
    (r"Invalid user id|Invalid user", "the login is no user of Slurm"),
    (r"[Nn]o space left|Error writing|I/O error writing", "the controller's disk is full"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a program of Slurm did not do what was asked.

    Attributes:
        later: the same may work another time.
        text: what it means, with Slurm's own words.
        absent: there is no such program, so that Slurm was asked nothing.
    """

    later: bool
    text: str
    absent: bool = False


def complaint(errors: str, code: int | None) -> Complaint:
    """What a program's standard error means; what nobody knows is given up rather than tried for ever."""
    lines = [line.strip() for line in errors.splitlines() if line.strip() and "If munged is up" not in line]
    told = [re.sub(r"^\w+: (error: |fatal: )?", "", line) for line in lines]
    said = "; ".join(dict.fromkeys(line for line in told if not line.startswith("Batch job submission failed: Unsp")))
    said = said[:300] or f"exit code {code}"
    if code == 127 or re.search(r"command not found|No such file or directory.*s(batch|queue)", errors):
        return Complaint(False, f"Slurm's programs are not there: {said}", absent=True)
    for later, known in ((False, _ONE_JOB), (True, _LATER), (False, _SETTINGS)):
        for pattern, meaning in known:
            if re.search(pattern, errors):
                return Complaint(later, f"{meaning}: {said}")
    return Complaint(False, said)
