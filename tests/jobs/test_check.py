"""Whether outputs are there: many at once by few processes, and none of them lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest

from backend.jobs import check as checking
from backend.jobs.check import AT_ONCE, Check, Checks, check_outputs
from backend.paths import Paths

Asked = Sequence[tuple[str, str, Mapping[str, Any]]]


class Bed:
    """Checks whose answers are written down, and how many processes there were at a time."""

    def __init__(
        self, paths: Paths, monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any] = check_outputs
    ) -> None:
        self.found: dict[str, str | None] = {}
        self.told: list[str] = []
        self.running = self.most = self.started = 0
        self.checks = Checks(paths, self._told)
        self.tasks: list[asyncio.Task[Any]] = []

        async def counted(paths: Paths, asked: Asked) -> AsyncIterator[tuple[int, str | None]]:
            self.started += 1
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                async for one in answer(paths, asked):
                    yield one
            finally:
                self.running -= 1

        monkeypatch.setattr(checking, "check_outputs", counted)

    def _told(self, job: str, n: int, found: str | None) -> None:
        self.told.append(job)
        self.found[job] = found

    def _spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]

    def ask(self, job: str, kind: str = "command", **params: Any) -> None:
        self.checks.ask(Check(job, 1, kind, "hex8_2p", params), self._spawn)

    async def all(self) -> None:
        while any(not task.done() for task in self.tasks):
            await asyncio.gather(*self.tasks)


async def test_a_thousand_jobs_at_once_are_checked_by_few_processes(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.root.mkdir()
    (paths.root / "there").write_text("")
    bed = Bed(paths, monkeypatch)
    for number in range(1000):
        bed.ask(f"c{number}", output="there" if number % 3 == 0 else "not there")
        bed.ask(f"c{number}", output="there" if number % 3 == 0 else "not there")  # the next tick asks again
    await bed.all()
    assert bed.most <= AT_ONCE
    assert sorted(bed.told) == sorted(f"c{number}" for number in range(1000))
    assert all((bed.found[f"c{number}"] is not None) == (number % 3 == 0) for number in range(1000))


async def test_a_check_that_breaks_its_process_spoils_no_other(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(paths: Paths, asked: Asked) -> AsyncIterator[tuple[int, str | None]]:
        for place, (_, _, params) in enumerate(asked):
            if params.get("bad"):
                raise OSError("the process was killed")
            yield place, "there"

    bed = Bed(paths, monkeypatch, breaks)
    for number in range(10):
        bed.ask(f"c{number}", bad=number in (0, 4, 9))
    await bed.all()
    assert sorted(bed.told) == [f"c{number}" for number in range(10)]
    assert [job for job, found in bed.found.items() if found is None] == ["c0", "c4", "c9"]
    bed.ask("c4")  # it may be asked for again
    await bed.all()
    assert bed.found["c4"] == "there"


async def test_what_cannot_be_checked_has_to_run(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.root.mkdir()
    (paths.root / "there").write_text("")
    bed = Bed(paths, monkeypatch)
    bed.ask("x1", "nobody knows this kind")
    bed.ask("s1", "selfplay")  # without the number of games that it needs
    bed.ask("c1", output="there")
    await bed.all()
    assert bed.found == {"x1": None, "s1": None, "c1": "there is there"}
