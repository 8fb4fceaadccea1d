"""Six hosts, and what happens to hosts: all at once, by every transport; the one to which nothing happens waits for
nobody, and in the end all have the file (:meth:`tests.distribution.field.Field.holds`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.paths import Paths
from tests.distribution.field import TRANSPORTS, begin_with, field


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leaves no byte free on a file system."""
    ballast = disk / "ballast"
    room = os.statvfs(disk)
    with ballast.open("wb", buffering=0) as stream:
        with pytest.raises(OSError, match="No space"):
            for _ in range(2 + room.f_bavail * room.f_frsize // (1 << 20)):
                if stream.write(bytes(1 << 20)) < 1 << 20:
                    stream.write(b"x")
        yield
    ballast.unlink()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_bad_day(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """Of six hosts one loses its power and boots, one is cut off and comes back, the disk of one is full for a while,
    one loses a fifth of all packets, and one has hardly a link; the sixth waits for none of them."""
    begin_with(transport, monkeypatch)
    dies, cut, filled, lossy, slow, well = range(1, 7)
    async with field(tmp_path, paths, monkeypatch, 6, disks={filled: "88m"}) as site:
        site.lose(lossy, 20)
        site.cap(slow, "256kbit")  # a minute and a half alone: longer than the well one takes on a busy machine
        for n in (dies, cut, filled):
            site.cap(n, "8mbit")  # so that none has all of it before the others have begun
        name = await site.submit(site.file(3_000_000))
        await site.under_way(name, 400_000, dies, cut, filled)
        site.bed.kill(dies)
        site.bed.cut(cut)
        with full(site.base(filled)):
            row = await site.until(name, lambda row: site.of(row, well).live)
            assert not site.of(row, slow).live and not site.of(row, cut).live and not site.of(row, dies).live
            site.cap(slow, "20mbit")
            row = await site.until(name, lambda row: site.of(row, filled).state == "blocked")
            assert site.of(row, filled).reason == "disk full"
        await asyncio.to_thread(site.server(dies).start)
        site.bed.heal(cut)
        row = await site.until(name)
        assert row.state == "done"
        await site.holds(row)
