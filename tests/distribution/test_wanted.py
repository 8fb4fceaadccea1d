"""What hosts should hold, where a newer file did not come to all of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.distribution import ledger
from backend.distribution.drift import holdings
from backend.distribution.ledger import Wanted
from backend.distribution.reasons import Failure, Reason
from backend.distribution.states import State
from backend.paths import Paths
from backend.snapshot import HoldingRow, Snapshot
from backend.state.store import StateStore

HOSTS = ("n1", "n2", "n3", "n4")
NAME = "models/a.pth"
OLD, NEW = "aa" * 32, "bb" * 32


async def send(store: StateStore, sha256: str, failure: Failure | None = None, fails: tuple[str, ...] = ()) -> str:
    """A transfer that has ended: published on all hosts but those where it failed."""
    hosts = tuple((host, ("rsync",), 0) for host in HOSTS)
    made = await ledger.create(store, Wanted("t", "promotion", NAME, "/a", sha256, 9, "other", hosts), sha256)
    for row in (await ledger.find(store, made)).rows:
        transfer, before = await ledger.find(store, made), row.delivery
        if row.host in fails:
            await ledger.save(store, transfer, before, replace(before, state=State.FAILED, failure=failure))
        else:
            after = replace(before, state=State.PUBLISHED, receipt=sha256)
            await ledger.save(store, transfer, before, after, {"verify": {"sha256": sha256}})
            await ledger.save(store, transfer, after, replace(after, state=State.DONE))
    return made


def live(rows: tuple[HoldingRow, ...], sha256: str) -> tuple[int, int]:
    """Without any transfer that is still shown."""
    return Snapshot("/r", 1, datetime.now(UTC), holdings=rows).live_hosts(sha256)


async def test_hosts_that_never_got_the_newer_file_have_drifted_until_they_have_it(tmp_path: Path) -> None:
    async with await StateStore.open(Paths(tmp_path)) as store:
        await send(store, OLD)
        made = await send(store, NEW, Failure(Reason.NO_ROUTE, "a shut port"), ("n3", "n4"))
        for _ in range(2):  # as it was recorded, and after they were asked
            rows = await holdings(store)
            assert [row.host for row in rows if row.drifted] == ["n3", "n4"]
            assert all(row.transfer == made and "a shut port" in row.why for row in rows if row.drifted)
            assert (live(rows, NEW), live(rows, OLD)) == ((2, 4), (2, 0))
            for host in HOSTS:
                told = {"held": NEW if host in ("n1", "n2") else OLD, "why": ""}
                await ledger.record_audit(store, host, {NAME: told})
        await ledger.record_audit(store, "n3", {NAME: {"held": "", "why": "nothing is there"}})
        (gone,) = [row for row in await holdings(store) if row.host == "n3"]
        assert (gone.drifted, gone.why) == (True, "nothing is there")
        transfer = await ledger.find(store, made)
        failed = transfer.rows[2].delivery
        there = replace(failed, state=State.PUBLISHED, failure=None, receipt=NEW)
        await ledger.save(store, transfer, failed, there, {"verify": {"sha256": NEW}})
        assert live(await holdings(store), NEW) == (3, 4)


async def test_a_host_that_got_nothing_yet_is_counted(tmp_path: Path) -> None:
    async with await StateStore.open(Paths(tmp_path)) as store:
        await send(store, OLD, Failure(Reason.TRUST, "no"), ("n4",))
        rows = await holdings(store)
        assert live(rows, OLD) == (3, 4)
        assert [(row.host, row.held) for row in rows if row.drifted] == [("n4", "")]


@pytest.mark.parametrize("reason", [Reason.NOT_LOADABLE, Reason.SOURCE_CHANGED])
async def test_a_bad_file_is_wanted_nowhere(tmp_path: Path, reason: Reason) -> None:
    async with await StateStore.open(Paths(tmp_path)) as store:
        await send(store, OLD)
        await send(store, NEW, Failure(reason, "x"), HOSTS)
        rows = await holdings(store)
        assert not [row for row in rows if row.drifted] and live(rows, OLD) == (4, 4)
