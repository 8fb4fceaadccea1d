"""Keeps jobs going: looks at the hosts, decides (:mod:`backend.jobs.reconcile`), and does what was decided."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from backend.errors import RingRiftError
from backend.fleet.checkout import closed_reason, lacking
from backend.fleet.hosts import THIS_MACHINE, Host, Hosts, load_hosts
from backend.fleet.reading import hosts_in_use
from backend.jobs import store as rows
from backend.jobs.check import Check, Checks
from backend.jobs.launchers.base import AttemptSpec, Launcher, RefusedStartError, UnreachableError
from backend.jobs.launchers.slurm import SlurmLauncher
from backend.jobs.model import EXECUTED, Attempt, Job, Observation, Phase, outcome
from backend.jobs.placement import HostSlots, pool_gpus, slots_of
from backend.jobs.porter import Porter
from backend.jobs.recipes import AI_SERVICE, RECIPES, RUNTIMES, environment, no_command, recipe_of
from backend.jobs.reconcile import (
    Abandon,
    Action,
    Cancel,
    CheckOutput,
    Collect,
    Place,
    PlaceGang,
    Push,
    Settle,
    Start,
    World,
    reconcile,
)
from backend.jobs.said import Said
from backend.jobs.staging import Site, reading_env, staged_argv
from backend.jobs.torchrun import Rendezvous, last_words, torchrun_argv
from backend.paths import Paths
from backend.state.store import StateStore

CANCEL_AGAIN_S = 3.0
TROUBLE_S = 5.0
BUSY_S = 2.0  # between two tries of a start that something there, a GPU in use for one, holds up
PATIENCE_S = 2.0  # with a host that takes its time, while others wait
SILENCE_S = 1.0
GATHER_S = 10.0  # what can start at a scheduler waits so long for others that are being made ready, to be one array
TAIL_BYTES = 4096
WHY_CHARACTERS = 200

PORTS = (20_000, 32_000)
"""Where gangs meet: below the ports that Linux gives to connections of its own."""
RANDOM = random.SystemRandom()  # so that no two gangs, of whichever root, keep meeting at one port

T = TypeVar("T")

log = logging.getLogger("ringrift.supervisor")


class SupersededError(RingRiftError):
    """A host has heard of a newer supervisor of this root; this one has to leave."""


class Keeper:
    """All jobs of one root.

    Args:
        launchers: by host name.
        owner: the root's name towards agents.
        epoch: of this supervisor.

    What it remembers between two ticks can be lost without harm.
    """

    def __init__(
        self, paths: Paths, store: StateStore, launchers: Mapping[str, Launcher], owner: str, epoch: int
    ) -> None:
        self.paths, self.store, self.launchers = paths, store, launchers
        self.owner, self.epoch = owner, epoch
        self.spawn: Callable[..., asyncio.Task[Any]] = asyncio.create_task
        self.wake: Callable[[], None] = lambda: None
        self.live = False
        self.waiting = False
        self._checks: dict[tuple[str, int], str | None] = {}
        self._checker = Checks(paths, self._checked)
        self._not_before: dict[str, float] = {}
        self._cancelled: dict[str, float] = {}
        self.porter = Porter(paths, store, owner)
        self._hosts: tuple[HostSlots, ...] = ()
        self._described: Hosts = THIS_MACHINE
        self._records: dict[str, rows.HostRecord] = {}
        self._hosts_read: tuple[int, int] | None = None
        self._greeted: set[str] = set()
        self._silent: set[str] = set()
        self._talking: set[str] = set()
        self._apart: set[str] = set()
        self._said = Said()
        self._preparing = False
        self._gathering: dict[str, float] = {}
        self._owed: dict[str, set[str]] = {}  # by host: ends that are stored and not acknowledged yet
        self._superseded: SupersededError | None = None

    async def tick(self) -> bool:
        """One look and what follows from it; True when it should be followed by another at once."""
        if self._superseded is not None:
            raise self._superseded
        self._apart = set(self._talking)  # what is being said to these may change what is read next
        work = await rows.load_work(self.store)
        for name, why in work.damaged.items():
            log.error("job %s: %s", name, why)
            await rows.mark_damaged(self.store, name, why)
        await self._describe()
        jobs = await self._observe(work.jobs)
        self.porter.spawn, self.porter.wake = self.spawn, self.wake
        self._mirror(jobs)
        world = World(jobs, work.ended, await self._slots(jobs), self._checks)
        decision = reconcile(world)
        again = await rows.show(self.store, replace(work, jobs=jobs), decision.views)
        by_key = {attempt.key: attempt for job in jobs for attempt in job.attempts}
        self._preparing = any(isinstance(action, CheckOutput | Place | PlaceGang | Push) for action in decision.actions)
        told: dict[str, list[Action]] = {}
        for action in decision.actions:
            if isinstance(action, Start | Cancel):
                told.setdefault(by_key[action.key].host, []).append(action)
            else:
                again = await self._guarded(action, work, by_key) or again
        answers = await self._with_hosts({name: self._tell(name, some, work, by_key) for name, some in told.items()})
        again = any(answers.values()) or again
        self.waiting = bool(jobs)
        self.live = bool(decision.actions or any(self._owed.values())) or any(
            job.last and outcome(job.last) in (None, "unknown") for job in jobs
        )
        return again

    # looking

    async def _with_hosts(self, talks: Mapping[str, Coroutine[Any, Any, T]]) -> dict[str, T]:
        """Talks to each host on its own; one that takes its time is left at it, and is heard in a later tick."""
        tasks: dict[str, asyncio.Task[T | None]] = {}
        for name, talk in talks.items():
            if name in self._apart:
                talk.close()
            else:
                self._talking.add(name)
                tasks[name] = self.spawn(self._talk(name, talk), name=f"work with {name}")
        late = (await asyncio.wait(tasks.values(), timeout=PATIENCE_S))[1] if tasks else set()
        self._apart |= {name for name, task in tasks.items() if task in late}
        for task in late:
            task.add_done_callback(lambda _: self.wake())
        if self._superseded is not None:
            raise self._superseded
        found = {name: task.result() for name, task in tasks.items() if task not in late}
        return {name: answer for name, answer in found.items() if answer is not None}

    async def _talk(self, name: str, talk: Coroutine[Any, Any, T]) -> T | None:
        try:
            return await talk
        except SupersededError as error:
            self._superseded = error
        except RingRiftError as error:
            if self._said.is_new(name, error.line(), asyncio.get_running_loop().time()):
                log.error("%s: %s", name, error.line())
        except Exception:  # what goes wrong with one host must not end the others
            log.exception("talk with %s", name)
        finally:
            self._talking.discard(name)
        return None

    async def _greet(self, name: str, launcher: Launcher) -> None:
        """When a host is first met: tells of attempts that it has of ours and that nobody here knows."""
        owned = await launcher.owned()
        known, unacknowledged = await rows.known_attempts(self.store)
        for key in sorted(set(owned) - known):
            await self.store.add_event("STRAY_ATTEMPT", key, {"host": name}, key=f"stray {name} {key}")
        await self._conclude(launcher, [key for key in unacknowledged if key in owned])
        self._greeted.add(name)

    async def _observe(self, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
        """Asks every host about the attempts that may have moved, and stores what it says."""
        by_host: dict[str, list[Attempt]] = {
            name: [] for name in self.launchers if name not in self._greeted or name in self._silent
        }
        for job in jobs:
            if job.last and outcome(job.last) in (None, "unknown") and not _unasked(job.last):
                by_host.setdefault(job.last.host, []).append(job.last)
        now = asyncio.get_running_loop().time()
        due = {name: attempts for name, attempts in by_host.items() if self._not_before.get(f"host {name}", 0.0) <= now}
        answers = await self._with_hosts({name: self._look(name, attempts) for name, attempts in due.items()})
        found = {attempt.key: attempt for attempts in answers.values() for attempt in attempts}
        return tuple(
            replace(job, attempts=(*job.attempts[:-1], found.get(job.last.key, job.last))) if job.last else job
            for job in jobs
        )

    async def _look(self, name: str, attempts: list[Attempt]) -> list[Attempt]:
        """What a host says of attempts; its silence is noted and changes nothing else."""
        launcher = self.launchers.get(name)
        try:
            if launcher is None:
                raise UnreachableError("no such host", where=name)
            if name not in self._greeted:
                await self._greet(name, launcher)
            asked = [attempt.key for attempt in attempts]
            seen = await launcher.observe(asked) if asked or name in self._silent else {}
        except (UnreachableError, RefusedStartError) as error:  # an answer that is an error tells nothing either
            if isinstance(error, RefusedStartError):
                self._leave_if_stale(error)
            if name not in self._silent:
                log.warning("%s", error.line())
            self._silent.add(name)
            self._not_before[f"host {name}"] = asyncio.get_running_loop().time() + SILENCE_S
            what = error.what
            return await rows.record_silence(self.store, attempts, lambda _: what)
        if name in self._silent:
            log.info("%s answers again", name)
            self._silent.discard(name)
        mute = [attempt for attempt in attempts if attempt.key not in seen]
        heard = [await self._record(launcher, one, seen[one.key]) for one in attempts if one.key in seen]
        return heard + await rows.record_silence(self.store, mute, launcher.why_mute)

    async def _record(self, launcher: Launcher, attempt: Attempt, seen: Observation) -> Attempt:
        why = ""
        if seen.phase is Phase.EXITED and attempt.phase is not Phase.EXITED:
            ended = outcome(replace(attempt, phase=seen.phase, exit=seen.exit))
            if ended == "failed" and seen.exit is not None and seen.exit.executed:
                why = await self._why(launcher, seen)
            if self._is_away(launcher.name):  # so that whoever hears of the end finds what was said last
                await self.porter.bring(launcher, seen.key)
        after = await rows.record(self.store, attempt, seen, why=why)
        if seen.phase is Phase.STARTING and seen.evidence.get("engine"):  # it waits in the queue of a scheduler
            queued = f"{seen.evidence['engine']} at {launcher.name}, job {seen.evidence.get('engine_job') or 'unknown'}"
            await rows.record_trouble(self.store, after, queued)
            after = replace(after, trouble=queued)
        if after.phase is Phase.EXITED:
            await self._conclude(launcher, [after.key])
        return after

    async def _why(self, launcher: Launcher, seen: Observation) -> str:
        """Why an attempt failed: its exit, and what a scheduler said of that or else the last line of its log."""
        assert seen.exit is not None
        if seen.evidence.get("engine_said"):
            return f"{seen.exit.text()}: {str(seen.evidence['engine_said'])[:WHY_CHARACTERS]}"
        try:
            tail = await launcher.read_log(seen.key, max(0, seen.log_size - TAIL_BYTES), TAIL_BYTES)
        except RingRiftError as error:
            log.warning("%s", error.line())
            return seen.exit.text()
        told = last_words(tail.data.decode("utf-8", "replace"))
        last = "".join(sign for sign in told if sign.isprintable())[:WHY_CHARACTERS]
        return f"{seen.exit.text()}: {last}" if last else seen.exit.text()

    async def _conclude(self, launcher: Launcher, keys: list[str]) -> None:
        """Tells the host that it need not keep these attempts, once their logs are here too."""
        if self._is_away(launcher.name):
            self._owed.setdefault(launcher.name, set()).update(keys)
        elif keys:
            try:
                await self._acknowledge(launcher, keys)
            except (UnreachableError, RefusedStartError) as error:
                log.warning("%s", error.line())  # done again at the next start

    async def _acknowledge(self, launcher: Launcher, keys: list[str]) -> None:
        await launcher.acknowledge(keys)
        await rows.mark_acknowledged(self.store, keys)
        self._owed.get(launcher.name, set()).difference_update(keys)

    async def _describe(self) -> None:
        """Reads the hosts file in use again when it has changed; one with mistakes changes nothing."""
        path = hosts_in_use(self.paths)
        try:
            about = await asyncio.to_thread(path.stat)
            version = (about.st_mtime_ns, about.st_size)
        except FileNotFoundError:
            version = (0, 0)
        if version != self._hosts_read:
            self._hosts_read = version
            try:
                self._described = await asyncio.to_thread(load_hosts, path)
            except RingRiftError as error:
                log.error("%s", error.line())
                await self.store.add_event("HOSTS_UNREADABLE", str(path), {"error": error.line()})

    async def _slots(self, jobs: tuple[Job, ...]) -> tuple[HostSlots, ...]:
        """Where jobs may run.

        While all jobs just run, nobody asks: what is known of many hosts is not read for that twice a second.
        """
        if self._hosts and all(job.last and job.last.phase in (Phase.RUNNING, Phase.ORPHANED) for job in jobs):
            return self._hosts
        self._records = await rows.host_records(self.store)
        kinds = {*RECIPES, *(job.kind for job in jobs)}
        self._hosts = tuple(self._slots_of(host, kinds) for host in self._described.hosts)
        return self._hosts

    def _slots_of(self, host: Host, kinds: Collection[str]) -> HostSlots:
        facts = self._records.get(host.name, rows.HostRecord()).facts
        cannot = no_command(host.runtime) | lacking(host.runtime, facts)
        return slots_of(host, kinds, closed=self._closed(host), facts=facts, cannot=cannot)

    def _closed(self, host: Host) -> str:
        """Why a host takes no new jobs now; empty when it does."""
        record = self._records.get(host.name, rows.HostRecord())
        if record.drained is not None:
            return f"drained ({record.drained})" if record.drained else "drained"
        if host.is_local:
            return ""
        if record.state in ("down", "refused", "new", "off"):
            return record.why or record.state
        if host.runtime not in RUNTIMES:
            return f"no jobs are sent to a host of runtime {host.runtime}"
        if host.runtime == AI_SERVICE and (why := closed_reason(host.name, record.facts)):
            return why
        if host.name in self._silent:
            return "not answering"
        if host.is_here and host.name not in self.launchers:
            return "not connected yet"
        if host.name not in self.launchers:
            return f"not connected (ringrift hosts enrol {host.name})"
        if self.porter.site(host, record.facts) is None:
            return f"not set up (ringrift hosts bootstrap {host.name})"
        return ""

    def _site(self, name: str) -> Site:
        """Where staged attempts run on a host.

        Raises:
            UnreachableError: it is not in the hosts file, or not set up any more.
        """
        host = self._described.get(name)
        record = self._records.get(name, rows.HostRecord())
        site = self.porter.site(host, record.facts) if host is not None else None
        if site is None:
            raise UnreachableError("the host is not there or not set up", where=name)
        return site

    def _mirror(self, jobs: tuple[Job, ...]) -> None:
        """Brings the logs of what runs on other machines, and the rest of those of what has ended there."""
        by_host: dict[str, list[str]] = {}
        still = set()
        for job in jobs:
            if job.last and job.last.phase in EXECUTED and not job.last.unreachable and self._is_away(job.last.host):
                by_host.setdefault(job.last.host, []).append(job.last.key)
                if job.last.phase in (Phase.UNKNOWN, Phase.LOST):
                    still.add(job.last.key)
        for name in by_host.keys() | self._owed.keys():
            launcher = self.launchers.get(name)
            if launcher is not None:
                self.porter.mirror(launcher, by_host.get(name, []), still)
                owed = sorted(self._owed.get(name, ()))
                self.porter.finish(launcher, owed, partial(self._acknowledge, launcher))

    # acting

    async def _tell(self, name: str, actions: list[Action], work: rows.Work, attempts: Mapping[str, Attempt]) -> bool:
        """Does what is to be done on one host, in order."""
        again = False
        launcher = self.launchers.get(name)
        if isinstance(launcher, SlurmLauncher):  # as few submissions as possible
            now = asyncio.get_running_loop().time()
            gangs = {job.id: job.gang for job in work.jobs if job.gang}
            wanted = [(one, gangs.get(attempts[one.key].job)) for one in actions if isinstance(one, Start)]
            ready = [self._not_before.get(one.key, 0.0) <= now for one, _ in wanted]
            # Members come due apart; each alone would be told for ever to wait for the others.
            called = {gang for (_, gang), due in zip(wanted, ready, strict=True) if gang and due}
            starts = [one for (one, gang), due in zip(wanted, ready, strict=True) if due or gang in called]
            if starts and (not self._preparing or now - self._gathering.setdefault(name, now) >= GATHER_S):
                self._gathering.pop(name, None)
                again = await self._start_many(launcher, [attempts[one.key] for one in starts])
            actions = [one for one in actions if not isinstance(one, Start)]
        for action in actions:
            again = await self._guarded(action, work, attempts) or again
        return again

    async def _start_many(self, launcher: SlurmLauncher, attempts: Sequence[Attempt]) -> bool:
        """Starts attempts in as few submissions as possible; what is said of each concerns it alone."""
        if not attempts:
            return False
        later = asyncio.get_running_loop().time() + TROUBLE_S
        try:
            specs = [await rows.spec_of(self.store, attempt.key) for attempt in attempts]
            answers = await launcher.start_many(specs)
        except UnreachableError as error:
            log.warning("%s", error.line())
            what = error.what
            await rows.record_silence(self.store, attempts, lambda _: what)
            for attempt in attempts:
                self._not_before[attempt.key] = later
            return False
        except RefusedStartError as error:
            self._leave_if_stale(error)
            answers = {attempt.key: error for attempt in attempts}
        again = False
        for attempt in attempts:
            answer = answers[attempt.key]
            if isinstance(answer, RefusedStartError):
                again = await self._refused(attempt, answer) or again
            else:
                await self._record(launcher, attempt, answer)
                again = True
        return again

    async def _guarded(self, action: Action, work: rows.Work, attempts: Mapping[str, Attempt]) -> bool:
        """Does one thing; whatever goes wrong with it leaves the other jobs alone."""
        subject = _subject(action)
        now = asyncio.get_running_loop().time()
        if self._not_before.get(subject, 0.0) > now:
            return False
        try:
            return await self._act(action, work, attempts)
        except SupersededError:
            raise
        except UnreachableError as error:
            log.warning("%s", error.line())
            if isinstance(action, Start | Cancel):
                what = error.what
                await rows.record_silence(self.store, [attempts[action.key]], lambda _: what)
        except RingRiftError as error:
            log.error("%s: %s", subject, error.line())
        except Exception:
            log.exception("%s: cannot %s", subject, type(action).__name__.lower())
        self._not_before[subject] = now + TROUBLE_S
        return False

    async def _act(self, action: Action, work: rows.Work, attempts: Mapping[str, Attempt]) -> bool:
        match action:
            case CheckOutput(job, n):
                kind = next(one.kind for one in work.jobs if one.id == job)
                self._checker.ask(Check(job, n, kind, *work.params[job]), self.spawn)
                return False
            case Settle(job, reason):
                await rows.settle(self.store, job, reason)
                return True
            case Place():
                return await self._place([action], work)
            case PlaceGang(places):
                return await self._place(places, work)
            case Push(key):
                attempt = attempts[key]
                kind = next(one.kind for one in work.jobs if one.id == attempt.job)
                self.porter.push(attempt, self._site(attempt.host), kind, *work.params[attempt.job])
                return False
            case Collect(key):
                attempt = attempts[key]
                kind = next(one.kind for one in work.jobs if one.id == attempt.job)
                site, launcher = self._site(attempt.host), self.launchers.get(attempt.host)
                self.porter.collect(attempt, site, kind, *work.params[attempt.job], launcher)
                return False
            case Abandon(key):
                await rows.abandon(self.store, key)
                return True
            case Start(key):
                return await self._start(attempts[key])
            case Cancel(key):
                return await self._cancel(attempts[key])

    def _checked(self, job: str, n: int, found: str | None) -> None:
        self._checks[(job, n)] = found
        self.wake()

    async def _place(self, places: Sequence[Place], work: rows.Work) -> bool:
        """Commits where attempts run; several are the members of a gang, which meet on the first one's host."""
        meet = None
        if len(places) > 1:
            slots = {one.name: one for one in self._hosts}
            first = places[0]
            port = RANDOM.randrange(*PORTS)
            at = slots[first.host]
            job = next(one for one in work.jobs if one.id == first.job)
            each = pool_gpus(at, job.kind, job.asks) if at.pool else len(first.gpus)
            keys = tuple(f"{one.job}.{one.n}" for one in places) if at.pool else ()
            address = "" if at.pool else at.address
            meet = Rendezvous(f"{first.job}.{first.n}", address, port, len(places), max(1, each), keys)
        decided = []
        for node, one in enumerate(places):
            try:
                decided.append(await self._decide(one, work, meet, node))
            except UnreachableError:
                raise
            except (KeyError, TypeError, ValueError, RingRiftError) as error:
                await rows.mark_damaged(self.store, one.job, f"no command can be made of it ({error})")
                return True
        await rows.place(self.store, self.epoch, *decided)
        if meet is not None and places[0].n > 1:
            await self.store.add_event("GANG_RESTARTED", places[0].job, {"attempt": meet.id}, key=f"gang {meet.id}")
        self._checks.pop((places[0].job, places[0].n), None)
        return True

    async def _decide(self, action: Place, work: rows.Work, meet: Rendezvous | None, node: int) -> rows.Placed:
        job = next(one for one in work.jobs if one.id == action.job)
        config, params = work.params[job.id]
        staged = self._is_away(action.host) or "shard" in params or meet is not None
        cwd, env = str(self.paths.root), environment()
        if staged:
            site = self._site(action.host)
            cwd = site.folder(self.owner, job.id)
            env = environment() if site.host.is_here else {}
            env |= reading_env(Path(cwd), job.kind, config, params, site.checkout)
            argv = await asyncio.to_thread(staged_argv, self.paths, job.kind, config, params, site.python, cwd)
        else:
            env |= reading_env(self.paths.root, job.kind, config, params)
            argv = recipe_of(job.kind, params).argv(self.paths, config, params)
        if meet is not None:
            argv = torchrun_argv(argv, meet, node=node)
        slots = next((one for one in self._hosts if one.name == action.host), None)
        engine: dict[str, Any] = {}
        if slots is not None and slots.pool:
            engine = {"kind": job.kind, "gpus": pool_gpus(slots, job.kind, job.asks)}
            if meet is not None:
                engine |= {"gang": list(meet.members), "port": meet.port}
            env = env | ({} if engine["gpus"] else {"CUDA_VISIBLE_DEVICES": ""})
        elif not action.gpus and (meet is not None or (slots is not None and slots.gpus)):
            env = env | {"CUDA_VISIBLE_DEVICES": ""}  # those that it did not ask for are other jobs'
        spec = AttemptSpec(f"{job.id}.{action.n}", self.owner, tuple(argv), cwd, env, gpus=action.gpus, engine=engine)
        return rows.Placed(job.id, action.n, action.host, spec, staged)

    def _is_away(self, name: str) -> bool:
        host = self._described.get(name)
        return host is not None and not host.is_local

    async def _start(self, attempt: Attempt) -> bool:
        launcher = self.launchers.get(attempt.host)
        if launcher is None:
            raise UnreachableError("no such host", where=attempt.host)
        spec = await rows.spec_of(self.store, attempt.key)
        try:
            seen = await launcher.start(spec)
        except RefusedStartError as error:
            return await self._refused(attempt, error)
        await self._record(launcher, attempt, seen)
        return True

    async def _refused(self, attempt: Attempt, error: RefusedStartError) -> bool:
        """What follows when a host would not start an attempt: another try, or its end."""
        self._leave_if_stale(error)
        if error.kind == "busy":
            await rows.record_trouble(self.store, attempt, error.what)
            launcher = self.launchers.get(attempt.host)  # each try costs a scheduler a submission
            pause = launcher.poll_s if isinstance(launcher, SlurmLauncher) else BUSY_S
            self._not_before[attempt.key] = asyncio.get_running_loop().time() + pause
            return False
        log.error("%s was not started: %s", attempt.key, error.line())
        await rows.record_refusal(self.store, attempt.key, error.what, never=error.kind == "conflict")
        return True

    async def _cancel(self, attempt: Attempt) -> bool:
        now = asyncio.get_running_loop().time()
        if self._cancelled.get(attempt.key, float("-inf")) > now - CANCEL_AGAIN_S:
            return False
        launcher = self.launchers.get(attempt.host)
        if launcher is None:
            raise UnreachableError("no such host", where=attempt.host)
        try:
            seen = await launcher.cancel(attempt.key, by=self.owner, reason=attempt.refusal or "cancelled")
        except RefusedStartError as error:
            self._leave_if_stale(error)
            if error.kind != "conflict":
                raise
            log.error("%s is not there to cancel: %s", attempt.key, error.line())
            await rows.record_refusal(self.store, attempt.key, error.what, never=True)
            return True
        self._cancelled[attempt.key] = now
        await self._record(launcher, attempt, seen)
        return True

    def _leave_if_stale(self, error: RefusedStartError) -> None:
        if error.kind == "stale":
            raise SupersededError("a newer supervisor has taken over", where=error.where, hint=error.what) from error


def _subject(action: Action) -> str:
    """The job or attempt that an action is about."""
    if isinstance(action, PlaceGang):
        return action.places[0].job
    return action.job if isinstance(action, CheckOutput | Settle | Place) else action.key


def _unasked(attempt: Attempt) -> bool:
    """Whether the host has nothing to say of an attempt: it was not asked to start it yet, or has told its end."""
    return attempt.collecting or (attempt.phase is Phase.PLACED and not attempt.refusal)
