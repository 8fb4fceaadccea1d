"""Attempts on a cluster with Slurm. Where and when they run is Slurm's to decide; that each runs once is the agent's.

An attempt's folder lies under the pool's shared root. The agent on the login host lays its spec down and later tells
what is found in the folder; what a node executes is ``agent run KEY``. Slurm is asked for all jobs at once and not more
often than every :data:`POLL_S` seconds. A job is known by its name, which carries the attempt's key; its number is only
used to cancel it, after a look whether it has that name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from backend.errors import RingRiftError
from backend.fleet.shared_root import check_shared_root
from backend.jobs import agent
from backend.jobs.launchers.base import AttemptSpec, LogChunk, RefusedStartError, UnreachableError, observation
from backend.jobs.launchers.serving import ServingLauncher
from backend.jobs.launchers.slurm_answers import Word
from backend.jobs.launchers.slurm_client import SlurmClient, SlurmError
from backend.jobs.launchers.slurm_script import Batch, Request, batches, script
from backend.jobs.launchers.slurm_state import judge
from backend.jobs.model import Observation, Phase

POLL_S = 10.0
"""Seconds between two questions to the controller about the state of jobs."""
SETTLE_S = 20.0
"""Seconds for the record of an end to appear here once Slurm says that the job has ended."""
REPORT_S = 0.01
"""Seconds between two looks at a folder, times the number of folders that are looked at."""
CHUNK = 100
MAX_TRIES = 5
"""Submissions that Slurm took and that ran nothing, after which an attempt is given up."""
KILL_AFTER_S = 20.0
"""Seconds beyond the time between TERM and KILL after which Slurm is asked to end what does not end."""
GATHER_S = 0.2
AGAIN = frozenset({"NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "LAUNCH_FAILED", "REVOKED", "RECONFIG_FAIL"})
"""Ends that are no fault of the job."""

log = logging.getLogger("ringrift.supervisor")

Answer = Observation | RefusedStartError


class SlurmLauncher:
    """See :class:`backend.jobs.launchers.base.Launcher`.

    Args:
        serving: the agent on the login host, with the pool's root.
        python: the interpreter that the nodes have for the agent.
    """

    def __init__(
        self, serving: ServingLauncher, client: SlurmClient, owner: str, epoch: int, python: str, *,
        poll_s: float = POLL_S, settle_s: float = SETTLE_S,
    ) -> None:  # fmt: skip
        self.name = client.pool.name
        self.client, self.pool = client, client.pool
        self._serving, self._owner, self._epoch, self._python = serving, owner, epoch, python
        self.poll_s, self._settle_s = poll_s, settle_s
        self._agent = ""
        self._turn, self._readying = asyncio.Lock(), asyncio.Lock()
        self._words: dict[tuple[str, int | None], Word] = {}
        self._asked_at = float("-inf")
        self._tried_at = float("-inf")
        self._asked: set[str] = set()  # names that the last answer is later than their submission
        self._looked: dict[str, tuple[float, dict[str, Any]]] = {}
        self._vague_since: dict[str, float] = {}
        self._ended_since: dict[str, float] = {}
        self._wished: dict[str, float] = {}
        self._doomed: dict[str, set[str]] = {}
        self._ending: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._over: set[str] = set()
        self._tidying: asyncio.Task[None] | None = None
        self.trouble = ""
        """Why the controller could not be asked the last time; empty when it could."""

    # starting

    async def start(self, spec: AttemptSpec) -> Observation:
        found = (await self.start_many([spec]))[spec.key]
        if isinstance(found, RefusedStartError):
            raise found
        return found

    async def start_many(self, specs: Sequence[AttemptSpec]) -> dict[str, Answer]:
        """Starts several attempts with as few submissions as possible; for each what :meth:`start` would give or raise.

        Raises:
            UnreachableError: the login host cannot be asked; nothing is known of any of them.
        """
        await self._ready()
        async with self._turn:
            answers, reports = await self._hold(specs)
            asks = {spec.key: Request.from_json(spec.engine) for spec in specs}
            open_ = {key: report for key, report in reports.items() if report["state"] == "prepared"}
            for key in reports.keys() - open_.keys():
                answers[key] = self._judge(key, reports[key]) or observation(reports[key])
            if any(report.get("engine") for report in open_.values()):
                try:  # it may have been submitted before
                    await self._ask_about(_names(open_.values()))
                except RingRiftError as error:
                    return answers | {key: RefusedStartError("busy", error.what, where=self.name) for key in open_}
                # What has ended there may have run after the look at its folder.
                ended = [key for key, report in open_.items() if self._has_ended(report)]
                again = await self._status(ended)
                for key in ended:
                    report = open_[key] = again.get(key, open_[key])
                    if key not in again:
                        answers[key] = RefusedStartError("busy", self.why_mute(key), where=self.name)
                        del open_[key]
                    elif report["state"] != "prepared":
                        answers[key] = self._judge(key, report) or observation(report)
                        del open_[key]
            wanted: dict[str, tuple[Request, int]] = {}
            now = asyncio.get_running_loop().time()
            for key, report in open_.items():
                found = self._found(key, report, now)
                if isinstance(found, int):
                    wanted[key] = (asks[key], found)
                else:
                    answers[key] = found
            answers |= self._split_gangs(wanted, answers)
            for batch in batches(wanted, self._owner):
                answers |= await self._submit(batch)
            for key in answers:
                self._looked.pop(key, None)
            return answers

    async def _ready(self) -> None:
        """Sees to it that the shared folder is there and our program in it."""
        async with self._readying:
            if self._agent:
                return
            try:
                await check_shared_root(self.client.remote, self.client.host)
                place = await self.client.put(Path(agent.__file__), f"{self.pool.agent}/agent")
                await self._serving.stay()
                self._agent = place
            except RingRiftError as error:
                raise UnreachableError(error.what, where=self.name, hint=error.hint) from error

    async def _hold(self, specs: Sequence[AttemptSpec]) -> tuple[dict[str, Answer], dict[str, dict[str, Any]]]:
        answers: dict[str, Answer] = {}
        reports: dict[str, dict[str, Any]] = {}
        for first in range(0, len(specs), CHUNK):
            held = [[spec.to_json(), spec.digest] for spec in specs[first : first + CHUNK]]
            told = await self._serving.ask("hold", held=held, owner=self._owner, epoch=self._epoch)
            reports |= told["reports"]
            for key, (kind, message) in told["refused"].items():
                answers[key] = RefusedStartError(kind, message, where=self.name)
        return answers, reports

    def _found(self, key: str, report: Mapping[str, Any], now: float) -> Answer | int:
        """What became of the submissions of an attempt that was never executed, or after how many to try another."""
        note = report.get("engine")
        if not note:
            return 0
        tries = int(note.get("tries", 1)) - (0 if note.get("job") else 1)  # one that was not taken does not count
        word = self._words.get((str(note["name"]), note.get("number")))
        if word is not None and word.stage != "ended":
            return judge(observation(report), noted=True, asked=True, word=word, settled=True) or observation(report)
        said = str(report.get("engine_said") or "")
        if word is not None and word.state.rstrip("+") not in AGAIN:
            if now - self._ended_since.setdefault(key, now) < self._settle_s:  # of another node it is seen late here
                return RefusedStartError("busy", f"{word.text}; for its record to appear here", where=self.name)
            del self._ended_since[key]
            why = said or f"is {self.pool.shared_root} there on the nodes?"
            if word.state.startswith("CANCELLED"):
                why = "somebody cancelled it there"
            return RefusedStartError("failed", f"Slurm ended it before it ran: {word.text}: {why}", where=self.name)
        tries = max(tries, 1) if word is not None else tries
        if tries >= MAX_TRIES:
            why = f": {said}" if said else ""
            return RefusedStartError("failed", f"submitted {tries} times, and it never ran{why}", where=self.name)
        return tries

    def _has_ended(self, report: Mapping[str, Any]) -> bool:
        """Whether Slurm says that the last submission of an attempt has ended."""
        note = report.get("engine") or {}
        word = self._words.get((str(note.get("name")), note.get("number")))
        return word is not None and word.stage == "ended"

    def _split_gangs(self, wanted: dict[str, tuple[Request, int]], said: Mapping[str, Answer]) -> dict[str, Answer]:
        """Takes out of ``wanted`` what is not whole, with what is to be said of it, and ``said`` of others."""
        later = {key for key, one in said.items() if isinstance(one, RefusedStartError) and one.kind == "busy"}
        answers: dict[str, Answer] = {}
        for key, (request, tries) in wanted.items():
            if request.gang and not all(one in wanted for one in request.gang):
                if tries and not later.intersection(request.gang):  # its job is gone, and others of it ran
                    answers[key] = RefusedStartError("failed", "the job of its gang has ended", where=self.name)
                else:
                    answers[key] = RefusedStartError("busy", "for the other members", where=self.name)
        for key in answers:
            wanted.pop(key, None)
        return answers

    async def _submit(self, batch: Batch) -> dict[str, Answer]:
        """Writes down what is to be asked for, then asks. A lost answer is found by the name the next time."""
        text = script(self.pool, batch, self._python, self._agent)
        self._asked.discard(batch.name)  # the same is submitted again when it was not taken
        try:
            await self._note(batch.notes())
            number = await self.client.submit(text)
        except RefusedStartError as error:
            return dict.fromkeys(batch.keys, error)
        except SlurmError as error:
            where = "" if error.later or not self.pool.line else f" (hosts.yaml line {self.pool.line})"
            self.trouble = error.what if error.later else self.trouble
            kind = "busy" if error.later else "conflict" if error.absent else "failed"  # nobody was asked: it never ran
            refusal = RefusedStartError(kind, error.what + where, where=self.name)
            return dict.fromkeys(batch.keys, refusal)
        except RingRiftError as error:
            log.warning("%s: %s", self.name, error.line())
            lost = RefusedStartError("busy", f"the answer of sbatch was lost ({error.what})", where=self.name)
            return dict.fromkeys(batch.keys, lost)
        notes = batch.notes(number)
        for note in notes.values():
            job = number if note["number"] is None else f"{number}_{note['number']}"
            self._words[batch.name, note["number"]] = Word("waiting", "PENDING", "", job)
        try:
            await self._note(notes)
        except RingRiftError as error:  # it runs nevertheless, and is found by its name
            log.warning("%s: %s", self.name, error.line())
        evidence = {"engine": "pending", "engine_job": number}
        return {key: Observation(key, Phase.STARTING, evidence=evidence) for key in batch.keys}

    async def _note(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        await self._serving.ask("note", notes=notes, owner=self._owner, epoch=self._epoch)

    # looking

    async def _ask_slurm(self, *, max_age: float, names: Collection[str] = ()) -> None:
        """Asks the controller for all jobs unless its last answer is new enough.

        Raises:
            RingRiftError: it cannot be asked, or could not a moment ago: each try may take seconds.
        """
        loop = asyncio.get_running_loop()
        failed = self._asked_at != self._tried_at
        if loop.time() - self._tried_at < (self.poll_s if failed else max_age):
            if failed:
                raise RingRiftError(self.trouble or "the last question had no answer", where=self.name)
            return
        self._tried_at = loop.time()
        try:
            words = await self.client.queue()
            missing = {name for name in names if not any(known == name for known, _ in words)}
            words = await self.client.ended(missing) | words if missing else words
        except RingRiftError as error:
            if self.trouble != error.what:
                log.warning("%s: %s", self.name, error.line())
            self.trouble = error.what
            raise
        self.trouble = ""
        self._words, self._asked_at = words, self._tried_at
        self._asked.update(names, (name for name, _ in words))

    async def _ask_about(self, names: Collection[str]) -> None:
        """Sees to it that the last answer is later than the submissions of these names."""
        await self._ask_slurm(max_age=self.poll_s if self._asked.issuperset(names) else 0.0, names=names)

    async def observe(self, keys: Collection[str]) -> dict[str, Observation]:
        await self._ready()
        now = asyncio.get_running_loop().time()
        reports = await self._reports(keys, now)
        vague = {key: report for key, report in reports.items() if _is_vague(report)}
        self._vague_since = {key: self._vague_since.get(key, now) for key in vague if vague[key]["state"] != "prepared"}
        async with self._turn:
            if vague and now - self._tried_at >= self.poll_s:
                try:
                    await self._ask_slurm(max_age=self.poll_s, names=_names(vague.values()))
                except RingRiftError:
                    self._asked.clear()  # what is said of these must not be older than the silence
        found = {key: self._judge(key, report) for key, report in reports.items()}
        return {key: seen for key, seen in found.items() if seen is not None}

    async def _reports(self, keys: Collection[str], now: float) -> dict[str, dict[str, Any]]:
        """What is found in the folders; many are not looked at more often than their number allows."""
        age = REPORT_S * len(keys)
        due = [key for key in sorted(keys) if key not in self._looked or now - self._looked[key][0] >= age]
        found = await self._status(due)
        kept = {key: self._looked[key] for key in keys if key in self._looked and key not in due}
        self._looked = kept | {key: (now, report) for key, report in found.items()}
        return {key: report for key, (_, report) in self._looked.items()}

    async def _status(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for first in range(0, len(keys), CHUNK):
            found |= await self._serving.status(keys[first : first + CHUNK])
        return found

    def why_mute(self, key: str) -> str:
        return self._serving.why_mute(key) or self.trouble

    def _judge(self, key: str, report: Mapping[str, Any]) -> Observation | None:
        note = report.get("engine") or {}
        name = str(note.get("name") or "")
        since = self._vague_since.get(key)
        settled = since is not None and asyncio.get_running_loop().time() - since >= self._settle_s
        word = self._words.get((name, note.get("number")))
        asked = name in self._asked or (word is not None and not self.trouble)
        return judge(observation(report), noted=bool(name), asked=asked, word=word, settled=settled)

    # ending

    async def cancel(self, key: str, *, by: str, reason: str, grace_s: float = 10.0) -> Observation:
        await self._ready()
        report = (await self._status([key])).get(key)
        if report is None:
            raise UnreachableError(self.why_mute(key), where=self.name)
        self._looked.pop(key, None)
        word = await self._word_of(report)
        if _is_vague(report) and report["state"] != "prepared":
            seen = self._judge(key, report)
            if seen is None or (word is None and self.trouble):
                raise UnreachableError(self.trouble or "the controller was not asked yet", where=self.name)
            if word is not None and word.stage == "running":  # its runner may live on its node, unseen from here
                self._doom(report, word)
                return seen
        seen = await self._serving.cancel(key, by=by, reason=reason, grace_s=grace_s)
        if word is not None and word.stage != "ended":
            loop = asyncio.get_running_loop()
            first = self._wished.setdefault(key, loop.time())
            if seen.phase is Phase.EXITED or loop.time() - first >= grace_s + KILL_AFTER_S:
                self._doom(report, word)
        return seen

    async def _word_of(self, report: Mapping[str, Any]) -> Word | None:
        note = report.get("engine")
        if not note or report["state"] == "exited":
            return None
        async with self._turn:
            try:
                await self._ask_about({str(note["name"])})
            except RingRiftError as error:
                self.trouble = error.what
        return self._words.get((str(note["name"]), note.get("number")))

    def _doom(self, report: Mapping[str, Any], word: Word) -> None:
        """Has Slurm end a job, with others that are to end in the same moment."""
        self._doomed.setdefault(str(report["engine"]["name"]), set()).add(word.job)
        if self._ending is None or self._ending.done():
            self._ending = asyncio.create_task(self._end_doomed(), name=f"scancel at {self.name}")

    async def _end_doomed(self) -> None:
        while self._doomed:  # more may come while Slurm is asked
            await asyncio.sleep(GATHER_S)
            doomed, self._doomed = self._doomed, {}
            try:
                await self.client.cancel(doomed)
            except RingRiftError as error:
                log.warning("%s: %s", self.name, error.line())
                for name, jobs in doomed.items():
                    self._doomed.setdefault(name, set()).update(jobs)
                if self._closing.is_set():  # what waits will find that it must not run
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), self.poll_s)

    # the rest is the agent's

    async def read_log(self, key: str, offset: int, limit: int, *, name: str = "log") -> LogChunk:
        await self._ready()
        return await self._serving.read_log(key, offset, limit, name=name)

    async def owned(self) -> tuple[str, ...]:
        await self._ready()
        return await self._serving.owned()

    async def acknowledge(self, keys: Collection[str]) -> None:
        await self._ready()
        await self._serving.acknowledge(keys)
        for key in keys:
            self._wished.pop(key, None)
        self._over |= set(keys)
        if self._over and (self._tidying is None or self._tidying.done()):
            self._tidying = asyncio.create_task(self._tidy(), name=f"ended jobs at {self.name}")

    async def _tidy(self) -> None:
        """Has Slurm end what it still takes for running though the folder says that it has ended.

        So it is with a step whose keeper was killed (``slurmstepd``): the job would hold its node until its time limit.
        """
        while self._over:
            await asyncio.sleep(self.poll_s)
            over, self._over = sorted(self._over), set()
            try:
                reports = await self._status(over)
                async with self._turn:
                    await self._ask_slurm(max_age=self.poll_s)
            except RingRiftError as error:
                log.warning("%s: %s", self.name, error.line())
                self._over.update(over)
                continue
            self._over.update(key for key in over if key not in reports)
            for report in reports.values():
                note = report.get("engine") or {}
                word = self._words.get((str(note.get("name")), note.get("number")))
                # Other members of a gang may go on; its job ends with the last one.
                if word is not None and word.state == "RUNNING" and note.get("shape") != "gang":
                    self._doom(report, word)

    async def close(self) -> None:
        self._closing.set()
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)
        if self._ending is not None:
            await asyncio.gather(self._ending, return_exceptions=True)
        await self._serving.close()


def _is_vague(report: Mapping[str, Any]) -> bool:
    """Whether the scheduler has to say what a report means."""
    return report["state"] in ("unknown", "lost") or (report["state"] == "prepared" and bool(report.get("engine")))


def _names(reports: Iterable[Mapping[str, Any]]) -> set[str]:
    return {str(report["engine"]["name"]) for report in reports if report.get("engine")}
