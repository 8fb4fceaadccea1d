"""Worker processes that carry out many small tasks in batches, and give results as they come.

Every worker keeps several tasks going at once (games of one batch). Workers start as fresh interpreters and talk to
the parent over a pipe each: no shared queue that a killed process could leave locked, and a worker whose parent died
sees its pipe end and leaves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Protocol, Self

from backend.errors import RingRiftError


class Runner(Protocol):
    """What runs inside a worker: takes tasks, and advances all of them together."""

    def add(self, task: Any) -> None:
        """Takes one more task."""
        ...

    def step(self) -> list[Any]:
        """Advances every task by a little and returns the results of those that ended."""
        ...

    @property
    def active(self) -> int:
        """Tasks in hand."""
        ...


class WorkerError(RingRiftError):
    """A worker ended by itself; results that came before are good."""


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    active: int = 0


def default_workers() -> int:
    """One process a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(pipe: Connection, make: Callable[..., Runner], settings: Any) -> None:
    # An interrupt from the keyboard reaches the whole group; the parent decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        runner = make(settings)
        while True:
            while runner.active == 0 or pipe.poll():
                runner.add(pipe.recv())
            for result in runner.step():
                pipe.send((True, result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except RingRiftError as error:
        pipe.send((False, error.line()))
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        pipe.send((False, traceback.format_exc().strip().splitlines()[-1]))
        sys.exit(1)


class Pool:
    """Runs tasks on worker processes; use it in a ``with``, which ends all workers.

    Args:
        make: module-level function that makes the :class:`Runner` of a worker from ``settings``.
        settings: anything that can be pickled.
        workers: how many processes.
        batch: tasks that a worker has in hand at once.
    """

    def __init__(self, make: Callable[..., Runner], settings: Any, *, workers: int, batch: int) -> None:
        self._make, self._settings = make, settings
        self._count, self._batch = workers, batch
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        for _ in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._make, self._settings), daemon=True)
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self._workers.clear()

    def run(self, next_task: Callable[[], Any | None]) -> Iterator[Any]:
        """Results in the order in which they come, until there are no tasks and none is in hand.

        Args:
            next_task: gives the next task, or None when there is none now; it is asked again after every result.

        Raises:
            WorkerError: a worker ended by itself; the caller has had every result that came before.
        """
        while True:
            self._fill(next_task)
            busy = [worker for worker in self._workers if worker.active]
            if not busy:
                return
            for ready in wait([worker.pipe for worker in busy]):
                worker = next(worker for worker in busy if worker.pipe is ready)
                yield self._receive(worker)

    def _fill(self, next_task: Callable[[], Any | None]) -> None:
        """Hands out tasks evenly until everybody has a batch or there are none."""
        while True:
            worker = min(self._workers, key=lambda worker: worker.active)
            if worker.active >= self._batch:
                return
            task = next_task()
            if task is None:
                return
            try:
                worker.pipe.send(task)
            except (BrokenPipeError, ConnectionResetError):
                raise self._ended(worker) from None
            worker.active += 1

    def _receive(self, worker: _Worker) -> Any:
        try:
            good, value = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._ended(worker) from None
        if not good:
            raise WorkerError("a worker failed", where=str(value), hint="what was finished before is kept")
        worker.active -= 1
        return value

    def _ended(self, worker: _Worker) -> WorkerError:
        worker.process.join(5)
        code = worker.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        return WorkerError(f"a worker {how}", hint="what was finished before is kept; start again to go on")
