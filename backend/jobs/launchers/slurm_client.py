"""Slurm's programs on the login host, with an environment that nobody's shell has a say in."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from backend.errors import RingRiftError
from backend.fleet.hosts import Host
from backend.fleet.pools import Pool, command
from backend.fleet.remote import Remote
from backend.jobs.launchers.slurm_answers import (
    SACCT_FIELDS,
    SQUEUE_FORMAT,
    Complaint,
    Word,
    complaint,
    sacct_words,
    squeue_words,
    submitted,
)
from backend.jobs.launchers.slurm_script import PREFIX

COMMAND_S = 60.0
AT_ONCE = 200
"""Numbers of jobs in one command."""


class SlurmError(RingRiftError):
    """A program of Slurm did not do what was asked."""

    def __init__(self, found: Complaint, where: str) -> None:
        super().__init__(found.text, where=where)
        self.later = found.later
        self.absent = found.absent


class SlurmClient:
    """The programs of one pool.

    Args:
        remote: the way to its login host.
    """

    def __init__(self, remote: Remote, host: Host, pool: Pool) -> None:
        self.remote, self.host, self.pool = remote, host, pool
        self._user = ""
        self._accounting = True
        self.asked = 0
        """How often the controller was asked for the state of jobs."""

    async def _run(self, program: str, *words: str, stdin: bytes = b"") -> str:
        argv = command(self.pool, program, *words)
        done = await self.remote.exec(self.host, argv, stdin=stdin, timeout_s=COMMAND_S)
        if done.code is None or done.code > 128:  # of a shell, for a signal
            raise RingRiftError(f"{program} was ended by a signal", where=self.pool.name)
        if done.code != 0:
            raise SlurmError(complaint(_text(done.stderr), done.code), self.pool.name)
        return _text(done.stdout)

    async def user(self) -> str:
        """The login's number, which all versions take for a user."""
        if not self._user:
            done = await self.remote.exec(self.host, ["id", "-u"], timeout_s=COMMAND_S)
            self._user = _text(done.stdout).strip().splitlines()[-1] if done.code == 0 and done.stdout.strip() else ""
            if not self._user.isdigit():
                raise RingRiftError("the login host runs no commands of ours", where=self.pool.name)
        return self._user

    async def put(self, local: Path, folder: str) -> str:
        """Brings a program of ours under its hash; returns its path."""
        digest = hashlib.sha256(await asyncio.to_thread(local.read_bytes)).hexdigest()
        place = f"{folder}/{digest}/{local.name}"
        await self.remote.put(self.host, local, place, sha256=digest)
        return place

    async def submit(self, text: str) -> str:
        """Submits a batch script; returns the number of the job.

        Raises:
            SlurmError: it was not taken, or that is what it looks like.
            RingRiftError: the answer was lost.
        """
        number = submitted(await self._run("sbatch", "--parsable", stdin=text.encode()))
        if number is None:
            raise RingRiftError("sbatch answered without a number", where=self.pool.name)
        return number

    async def queue(self) -> dict[tuple[str, int | None], Word]:
        """All jobs of ours that the controller remembers, in one question."""
        self.asked += 1
        words = ("--noheader", "--array", "--states=all", f"--user={await self.user()}", f"--format={SQUEUE_FORMAT}")
        return squeue_words(await self._run("squeue", *words), PREFIX)

    async def ended(self, names: Collection[str]) -> dict[tuple[str, int | None], Word]:
        """What the accounting database has of jobs that the controller has forgotten; nothing where there is none."""
        if not self._accounting or not names:
            return {}
        words = (
            "--noheader",
            "--parsable2",
            "--allocations",
            "--duplicates",
            "--starttime=now-30days",
            f"--user={await self.user()}",
        )
        try:
            text = await self._run("sacct", *words, f"--format={SACCT_FIELDS}", f"--name={','.join(sorted(names))}")
        except SlurmError as error:
            self._accounting = error.later
            return {}
        return sacct_words(text, PREFIX)

    async def cancel(self, doomed: Mapping[str, Collection[str]]) -> None:
        """Ends jobs: their numbers by the names that they must have, for a number may be another's by now.

        The names are looked up here. With ``scancel --name`` beside it, the number of one element that waits would end
        its whole array (22.05).
        """
        words = await self.queue()
        ours = {(name, word.job) for (name, _), word in words.items() if word.stage != "ended"}
        jobs = sorted(job for name, some in doomed.items() for job in some if (name, job) in ours)
        for first in range(0, len(jobs), AT_ONCE):
            await self._run("scancel", *jobs[first : first + AT_ONCE])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
