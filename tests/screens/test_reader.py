"""The reader: reads again when something was written, and every few seconds in any case."""

from __future__ import annotations

import pytest

from backend import overview
from backend.paths import Paths
from backend.state.store import StateStore
from ringrift_console.reader import READ_ANYWAY_S, Reader, trace


async def test_a_root_is_read_again_only_when_it_changed(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    times, now = [], [100.0]
    read = overview.read_snapshot

    async def counted(given: Paths) -> object:
        times.append(now[0])
        return await read(given)

    monkeypatch.setattr(overview, "read_snapshot", counted)
    reader = Reader(paths, lambda: now[0])
    first = await reader()
    assert await reader() is first
    async with await StateStore.open(paths) as store:
        await store.add_event("JOB_ENDED", "t12", {})
        second = await reader()
    assert [event.subject for event in second.events] == ["t12"]
    assert len(times) == 2
    await reader()  # closing the store moved its journal
    now[0] += READ_ANYWAY_S
    await reader()
    assert times[-1] == now[0]


def test_every_write_leaves_a_trace(paths: Paths) -> None:
    before = trace(paths)
    for path in (paths.state_db, paths.registry_db, paths.elo_db, paths.games / "canonical_hex8_2p.db"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        assert trace(paths) != before
        before = trace(paths)
