"""The supervisor: one process a root, started on demand, that carries out operations and sees jobs through.

It holds nothing that is not in ``state.db`` or on the hosts, so it may be killed at any moment: starting again is how
it recovers. It runs until it is stopped, or until its root is taken away; an idle one costs well under 1 % of a core.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from backend.distribution.daemons import Daemons
from backend.distribution.runner import Runner
from backend.errors import LockedError, NoEvidenceError, RefusedError, RingRiftError, resource_error
from backend.fleet import reading
from backend.fleet.hosts import load_hosts
from backend.fleet.watch import Watch
from backend.jobs.keeper import Keeper, SupersededError
from backend.jobs.launchers.roster import Roster
from backend.jobs.recipes import environment
from backend.locks import FileLock, is_held, read_owner
from backend.monitoring.daemon import Monitor
from backend.paths import Paths
from backend.plans import Plan
from backend.registry.policy_daemon import PolicyDaemon
from backend.state.store import StateStore

POLL_S = 0.25
OBSERVE_S = 0.3
WAITING_S = 5.0  # between looks at what jobs wait for, such as a host that comes back
BEAT_S = 5.0
LAG_WINDOW_S = 60.0
TROUBLE_PAUSE_S = 2.0
STOP_S = 20.0
LOOK_S = 1.0  # whoever looks whether there is a supervisor holds its lock for a moment
READY_VARIABLE = "RINGRIFT_READY"

HANDLERS: dict[str, str] = {
    "adopt": "backend.reference.adopt:apply_adopt",
    "pipeline.start": "backend.jobs.plans:apply_pipeline",
    "jobs.submit": "backend.jobs.submit:apply_submit",
    "jobs.cancel": "backend.jobs.plans:apply_cancel",
    "jobs.retry": "backend.jobs.plans:apply_retry",
    "hosts.bootstrap": "backend.fleet.plans:apply_bootstrap",
    "hosts.drain": "backend.fleet.plans:apply_drain",
    "hosts.enrol": "backend.fleet.plans:apply_enrol",
    "hosts.probe": "backend.fleet.plans:apply_probe",
    "hosts.reload": "backend.fleet.reload:apply_reload",
    "hosts.undrain": "backend.fleet.plans:apply_undrain",
    **{
        f"transfers.{name}": f"backend.distribution.plans:apply_{name}"
        for name in ("distribute", "pause", "resume", "cancel", "retry", "verify")
    },
    "transfers.limit": "backend.distribution.limits:apply_limit",
    "policies.set": "backend.registry.policies:apply_set",
    "monitor.ack": "backend.monitoring.plans:apply_ack",
    "monitor.set": "backend.monitoring.plans:apply_set",
    "registry.archive": "backend.registry.archive:apply_archive",
    "registry.archive-policy": "backend.registry.archival:apply_archival",
    "registry.promote": "backend.registry.promotion:apply_promote",
    "registry.reject": "backend.registry.reject:apply_reject",
    "registry.restore": "backend.registry.archive:apply_restore",
    "registry.rollback": "backend.registry.rollback:apply_rollback",
}
"""Who carries out an operation: async ``(paths, plan, store) -> result``, which may be called again after a crash."""

GUARDS: dict[str, str] = {
    "adoptions": "backend.reference.adopt:guard_adoptions",
    "file": "backend.distribution.plans:guard_file",
    "alarm": "backend.monitoring.plans:guard_alarm",
    "host": "backend.fleet.plans:guard_host",
    "hosts": "backend.fleet.reload:guard_hosts",
    "job": "backend.jobs.plans:guard_job",
    "limits": "backend.distribution.limits:guard_limits",
    "model": "backend.supervisor:guard_model",
    "policy": "backend.registry.policies:guard_policy",
    "production": "backend.registry.promotion:guard_production",
    "transfer": "backend.distribution.plans:guard_transfer",
}
"""Who tells the present state of a row that a plan depends on, by the first word of its name in ``Plan.guard``."""

log = logging.getLogger("ringrift.supervisor")


def _function(reference: str) -> Callable[..., Awaitable[Any]]:
    module, _, name = reference.partition(":")
    function: Callable[..., Awaitable[Any]] = getattr(import_module(module), name)
    return function


async def guard_model(paths: Paths, store: StateStore, name: str) -> str:
    """The stage of a registered model."""
    from backend.registry.store import Registry

    registry = await Registry.open(paths)
    return (await registry.find(name)).stage


class Supervisor:
    """The work of one supervisor's life, from the epoch to the end.

    Args:
        lock: the root's supervisor lock, held.
    """

    def __init__(self, paths: Paths, store: StateStore, keeper: Keeper, roster: Roster, lock: FileLock) -> None:
        self.paths, self.store, self.keeper, self.roster, self._lock = paths, store, keeper, roster, lock
        self.stop = asyncio.Event()
        self.wake = asyncio.Event()
        self._operating: set[str] = set()
        self._lags: deque[tuple[float, float]] = deque()
        self._version: int | None = None

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Works until :attr:`stop` is set."""
        async with asyncio.TaskGroup() as group:
            self.keeper.spawn = group.create_task
            self.keeper.wake = self.wake.set
            beating = group.create_task(self._beat())
            watch = Watch(self.paths, self.store, connect=lambda: self.roster.pool)
            self.roster.on_loss = watch.lost
            watching = group.create_task(watch.run())
            runner = Runner(self.paths, self.store, lambda: self.roster.pool, self.keeper.owner, self.keeper.epoch)
            distributing = group.create_task(runner.run())
            watching_files = group.create_task(Daemons(self.paths, self.store, self.wake.set).run())
            policing = group.create_task(PolicyDaemon(self.paths, self.store, wake=self.wake.set).run())
            monitoring = group.create_task(Monitor(self.paths, self.store, self.wake.set).run())
            ready()
            while not self.stop.is_set():
                pause = 0.0
                try:
                    await self._start_operations(group)
                    await self.roster.refresh()
                    again = await self.keeper.tick()
                except SupersededError as error:
                    log.error("%s", error.line())
                    break
                except RingRiftError as error:
                    again, pause = False, TROUBLE_PAUSE_S
                    log.error("%s", error.line())
                except Exception:  # whatever went wrong with one thing must not end all the others
                    again, pause = False, TROUBLE_PAUSE_S
                    log.exception("the reconcile loop stumbled")
                if not again:
                    await self._rest(pause)
            beating.cancel()
            watching.cancel()
            distributing.cancel()
            watching_files.cancel()
            policing.cancel()
            monitoring.cancel()
            for task in self._tasks:
                task.cancel()

    @property
    def _tasks(self) -> list[asyncio.Task[Any]]:
        own = asyncio.current_task()
        return [task for task in asyncio.all_tasks() if task is not own and task.get_name().startswith("work ")]

    async def _rest(self, pause: float) -> None:
        """Waits for something to do: a change by another process, a task of ours, or the next look at running jobs."""
        keeper = self.keeper
        usual = OBSERVE_S if keeper.live else WAITING_S if keeper.waiting else float("inf")
        end = asyncio.get_running_loop().time() + (pause or usual)
        while not self.stop.is_set():
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(POLL_S, left)):
                    await self.wake.wait()
            if self.wake.is_set() and not pause:
                self.wake.clear()
                return
            version = await self.store.database.data_version()
            if version != self._version and not pause:
                self._version = version
                return

    async def _beat(self) -> None:
        """Measures how late this loop wakes up, shows that we live, and notices when the root is gone."""
        loop = asyncio.get_running_loop()
        last = float("-inf")
        while True:
            due = loop.time() + POLL_S * 2
            await asyncio.sleep(POLL_S * 2)
            now = loop.time()
            if self.roster.outdated():
                self.wake.set()
            self._lags.append((now, max(0.0, now - due)))
            while self._lags[0][0] < now - LAG_WINDOW_S:
                self._lags.popleft()
            if now - last >= BEAT_S:
                last = now
                if not self._lock_is_ours():
                    log.error("the root is gone: %s", self.paths.root)
                    self.stop.set()
                    self.wake.set()
                    return
                try:
                    await self.store.beat(round(1000 * max(lag for _, lag in self._lags), 1))
                except RingRiftError as error:
                    log.error("%s", error.line())

    def _lock_is_ours(self) -> bool:
        owner = read_owner(self.paths.supervisor_lock)
        return owner is not None and owner.get("pid") == os.getpid() and self.paths.state_db.exists()

    # operations

    async def _start_operations(self, group: asyncio.TaskGroup) -> None:
        for name, _ in await self.store.open_operations():
            if name not in self._operating:
                self._operating.add(name)
                group.create_task(self._operate(name), name=f"work {name}")

    async def _operate(self, name: str) -> None:
        try:
            await self._carry_out(name)
        except Exception:  # its end could not be stored; it is still open and will be taken up again
            log.exception("operation %s could not be ended", name)
            await asyncio.sleep(TROUBLE_PAUSE_S)
        finally:
            self._operating.discard(name)
            self.wake.set()

    async def _carry_out(self, name: str) -> None:
        store = self.store.bound(name)
        try:
            plan = await store.plan_of(name)
            await store.begin_operation(name)
            if await store.step("guard") is None:
                await self._check_guard(plan, store)
                await store.record_step("guard")
            reference = HANDLERS.get(plan.action)
            if reference is None:
                raise RefusedError("nobody here carries that out", where=plan.action, hint="use the newer program")
            result = await _function(reference)(self.paths, plan, store)
        except (RefusedError, NoEvidenceError, LockedError) as error:
            await store.end_operation(name, "refused", error=error.line(), result={"exit": int(error.exit_code)})
        except RingRiftError as error:
            await store.end_operation(name, "failed", error=error.line(), result={"exit": int(error.exit_code)})
        except Exception as error:  # a bug in a handler, or a damaged row: this operation fails, the others go on
            full = resource_error(error, str(error.filename or self.paths.root)) if isinstance(error, OSError) else None
            if full is not None:
                await store.end_operation(name, "failed", error=full.line(), result={"exit": int(full.exit_code)})
                return
            log.exception("operation %s failed", name)
            await store.end_operation(name, "failed", error=f"{type(error).__name__}: {error}")
        else:
            await store.end_operation(name, "done", result=result)

    async def _check_guard(self, plan: Plan, store: StateStore) -> None:
        """Refuses a plan whose ground has moved since somebody confirmed it."""
        for subject, expected in plan.guard.items():
            kind, _, which = subject.partition(" ")
            if kind not in GUARDS:
                raise RefusedError("the plan depends on something unknown here", where=subject)
            now = await _function(GUARDS[kind])(self.paths, store, which)
            if now != expected:
                raise LockedError(f"{subject} is {now} now, it was {expected} in the plan", hint="plan it again")


async def _main(paths: Paths, lock: FileLock, ready: Callable[[], None]) -> None:
    async with await StateStore.open(paths) as store:
        await asyncio.to_thread(reading.begin, paths)
        epoch = await store.begin_supervision()
        log.info("supervisor of %s: pid %d, epoch %d", paths.root, os.getpid(), epoch)
        owner = await store.owner()
        roster = Roster(paths, owner, epoch)
        keeper = Keeper(paths, store, roster, owner, epoch)
        keeper.porter.ways = lambda host: roster.pool
        supervisor = Supervisor(paths, store, keeper, roster, lock)
        loop = asyncio.get_running_loop()

        def leave() -> None:
            supervisor.stop.set()
            supervisor.wake.set()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, leave)
        try:
            await supervisor.run(ready)
            if paths.console.exists():
                await asyncio.to_thread(reading.end, paths)
        finally:
            await roster.close()
            log.info("supervisor of %s: stopped, jobs go on", paths.root)


def supervise(paths: Paths) -> None:
    """Runs the supervisor in this process until it is told to stop.

    With ``RINGRIFT_READY`` set, as :func:`ensure_running` does it, it goes on in a child of its own, and the pipe of
    that descriptor gets one byte as soon as operations are carried out.

    Raises:
        LockedError: the root has a supervisor already; the message names it.
        SchemaError, UnverifiedError: ``state.db`` cannot be used.
        SettingsError: the hosts file cannot be understood.
    """
    load_hosts(paths.hosts_yaml)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    named = os.environ.pop(READY_VARIABLE, None)
    descriptor = int(named) if named else None
    if descriptor is not None:
        os.set_inheritable(descriptor, False)
        if os.fork() != 0:  # whoever started us need not wait for us, nor be there when we end
            os._exit(0)

    def ready() -> None:
        if descriptor is not None:
            with suppress(BrokenPipeError):
                os.write(descriptor, b"1")
            os.close(descriptor)

    with FileLock(paths.supervisor_lock, "supervisor", LOOK_S) as lock:
        asyncio.run(_main(paths, lock, ready))


def running_pid(paths: Paths) -> int | None:
    """Process id of the root's supervisor, or None when there is none."""
    if not is_held(paths.supervisor_lock):
        return None
    owner = read_owner(paths.supervisor_lock) or {}
    pid = owner.get("pid")
    return pid if isinstance(pid, int) else None


def ensure_running(paths: Paths) -> int:
    """Starts the root's supervisor, detached from this terminal, unless one runs; returns its process id.

    Blocks for about half a second when it has to start one.

    Raises:
        SettingsError: the hosts file cannot be understood.
        RingRiftError: it did not come up; the message has the last line of its log.
    """
    pid = running_pid(paths)
    if pid is not None:
        return pid
    load_hosts(paths.hosts_yaml)
    paths.console.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    try:
        with paths.supervisor_log.open("ab") as output:
            subprocess.run(
                [sys.executable, "-m", "ringrift_console.cli", "supervise", "--root", str(paths.root)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_clean_environment() | {READY_VARIABLE: str(writing)},
                cwd=paths.console,
                pass_fds=(writing,),
                start_new_session=True,
                check=False,
            )
    finally:
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            stream.read(1)  # until it works, or has given up
    pid = running_pid(paths)
    if pid is not None:  # it, or another one that was started at the same moment
        return pid
    raise RingRiftError(
        "the supervisor did not come up", where=_last_line(paths.supervisor_log), hint=f"see {paths.supervisor_log}"
    )


def _clean_environment() -> dict[str, str]:
    """This process's environment without what marks a job's processes: a supervisor belongs to no job."""
    marks = ("RINGRIFT_COOKIE", "RINGRIFT_ATTEMPT", "RINGRIFT_PROGRESS")
    return {name: value for name, value in os.environ.items() if name not in marks} | environment()


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else str(path)


def stop(paths: Paths) -> bool:
    """Stops the root's supervisor and waits until it is gone; False when there was none. Jobs go on.

    Raises:
        LockedError: it runs on another machine, or does not stop.
    """
    pid = running_pid(paths)
    if pid is None:
        return False
    owner = read_owner(paths.supervisor_lock) or {}
    if owner.get("host") != socket.gethostname():
        raise LockedError("the supervisor runs on another machine", where=str(owner.get("host")), hint="stop it there")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_S
    while is_held(paths.supervisor_lock) and running_pid(paths) == pid:
        if time.monotonic() > end:
            raise LockedError("the supervisor does not stop", where=f"pid {pid}", hint="kill it; nothing is lost")
        time.sleep(0.05)
    return True
