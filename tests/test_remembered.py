"""What a reader keeps from its last look: the same objects while nothing changed, and never anything that is over."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.databases import Memory
from backend.distribution import ledger
from backend.distribution.ledger import Wanted
from backend.distribution.rows import transfer_rows
from backend.distribution.states import State
from backend.distribution.transports.base import Observation
from backend.fleet.hosts import Host, Hosts
from backend.fleet.probe import Clock, Report
from backend.fleet.store import host_rows, record_report
from backend.paths import Paths
from backend.snapshot import HostSample
from backend.state.store import StateStore


def test_a_database_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path, reads = tmp_path / "some.db", []

    def read(file: Path) -> int:
        reads.append(file)
        with closing(sqlite3.connect(file)) as db:
            return int(db.execute("SELECT sum(n) FROM t").fetchone()[0])

    memory = Memory(read)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (n)")
        for n in (1, 2):
            db.execute("INSERT INTO t VALUES (?)", (n,))
            db.commit()
            assert memory.get(path) == memory.get(path) == (1 if n == 1 else 3)
    assert len(reads) == 2


def test_what_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    found = [ValueError("no"), 7]

    def read(_: Path) -> int:
        value = found.pop(0)
        if isinstance(value, ValueError):
            raise value
        return value

    memory = Memory(read)
    with pytest.raises(ValueError, match="no"):
        memory.get(tmp_path / "none.db")
    assert memory.get(tmp_path / "none.db") == 7


async def test_a_transfer_is_the_same_object_until_something_of_it_is_stored(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        hosts = (("a", ("rsync",), 0), ("b", ("rsync",), 1))
        for name in ("one", "two"):
            wanted = Wanted(name, "distribute", name, f"/{name}", "ab", 100, "other", hosts)
            await ledger.create(store, wanted, name)
        first, second = await transfer_rows(store)
        assert [host.host for host in second.hosts] == ["a", "b"]
        found = await ledger.find(store, "x2")
        going = replace(found.rows[1].delivery, state=State.FETCHING)
        await ledger.save(store, found, found.rows[1].delivery, going)
        await ledger.record_progress(store, "x2", {"b": Observation("b", 40, 5.0)}, {})
        same, other = await transfer_rows(store)
        assert same is first
        assert other is not second and (other.hosts[1].have, other.hosts[1].rate) == (40, 5.0)
        assert (await transfer_rows(store, only="x2"))[0] == other
        assert (await transfer_rows(store))[0] is first, "a look at one alone forgets nothing"


async def test_of_two_transfers_of_the_same_bytes_one_tells_that_it_waits(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        for name in ("one", "two"):
            hosts = (("a", ("rsync",), 0), ("b", ("rsync",), 1))
            made = await ledger.create(store, Wanted(name, "distribute", name, "/m", "ab", 100, "other", hosts), name)
            found = await ledger.find(store, made)
            for row in found.rows[: 1 if name == "one" else 2]:
                await ledger.save(store, found, row.delivery, replace(row.delivery, state=State.QUEUED))
        first, second = await transfer_rows(store)
        assert [host.fault for host in first.hosts] == ["", ""]
        assert [host.fault for host in second.hosts] == ["waits for x1, which brings the same bytes", ""]
        found = await ledger.find(store, "x1")
        done = replace(found.rows[0].delivery, state=State.CANCELLED)
        await ledger.save(store, found, found.rows[0].delivery, done)
        assert [host.fault for host in (await transfer_rows(store))[1].hosts] == ["", ""]


async def test_samples_of_a_host_are_read_again_when_it_has_answered(paths: Paths) -> None:
    hosts = Hosts((Host("a"), Host("b")), "here")

    def report(second: int) -> Report:
        at = datetime(2026, 3, 4, 5, 6, second, tzinfo=UTC)
        return Report(at, {}, HostSample(at, load=float(second)), Clock(0.0, 0.0), 1.0)

    async with await StateStore.open(paths) as store:
        for name in ("a", "b"):
            await record_report(store, name, report(1))
        a, b = await host_rows(store, hosts)
        await record_report(store, "b", report(2))
        again, moved = await host_rows(store, hosts)
        assert again.samples is a.samples
        assert [sample.load for sample in moved.samples] == [1.0, 2.0] and len(b.samples) == 1
