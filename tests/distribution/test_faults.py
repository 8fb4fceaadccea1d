"""What goes wrong on the way, on hosts with links of their own: nothing bad is ever published, and every host that is
well again has the file in the end (:meth:`tests.distribution.field.Field.holds`)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from backend.distribution import reconcile
from backend.distribution.plans import apply_retry, plan_distribute, plan_retry
from backend.distribution.rows import transfer_rows
from backend.distribution.torrent import watchdog
from backend.paths import Paths
from tests.distribution.conftest import some_bytes
from tests.distribution.field import PATIENCE_S, TRANSPORTS, begin_with, field
from tests.lab.sshd import children


@contextmanager
def supervisor(paths: Paths) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor in a process of its own, ended in order."""
    argv = [sys.executable, "-m", "ringrift_console.cli", "supervise", "--root", str(paths.root)]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("name", TRANSPORTS)
async def test_the_supervisor_and_what_it_has_started_here_are_killed(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With the head's seeder, range server or rsync; the next supervisor goes on with what the hosts have."""
    async with field(tmp_path, paths, monkeypatch, 3, cap="8mbit") as site:
        path = site.file(4_000_000)
        plan = await plan_distribute(paths, what=str(path), transport=name)
        site.follow(str(plan.params["name"]))
        await site.store.submit(plan)
        with supervisor(paths) as first:
            async with asyncio.timeout(PATIENCE_S):
                while not await transfer_rows(site.store):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await site.under_way("x1", 1_500_000, 1, work=False)
            for pid in [first.pid, *children(first.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        before = site.came_to(1)
        with supervisor(paths):
            row = await site.until("x1", work=False)
            assert (row.state, {host.transport for host in row.hosts}) == ("done", {name})
            again = site.came_to(1) - before
            assert again < 3_700_000, "what was there was not sent again"
        await site.holds(row)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_file_here_changes_while_it_is_given(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    begin_with(transport, monkeypatch)
    async with field(tmp_path, paths, monkeypatch, 3, cap="8mbit") as site:
        path = site.file(8_000_000)
        whole = path.read_bytes()
        name = await site.submit(path)
        await site.under_way(name, 400_000, 1)
        with path.open("r+b") as stream:
            stream.write(some_bytes(8_000_000, "other"))
        row = await site.until(name)
        assert row.state == "failed" and await site.store.events(type="TRANSFER_HALTED")
        assert all(host.live or host.reason == "source changed" for host in row.hosts)
        await site.runner.tick()  # which lets go of what has ended
        path.write_bytes(whole)
        plan = await plan_retry(paths, transfer=name)
        await apply_retry(paths, plan, site.store.bound(await site.store.submit(plan)))
        row = await site.until(name)
        assert row.state == "done"
        await site.holds(row)


ROGUE = """#!{python}
import sys
argv = sys.argv[1:]
if "-c" in argv:
    honest = "params.storage_mode = lt.storage_mode_t.storage_mode_allocate"
    lie = "params.have_pieces = [True] * params.ti.num_pieces()"
    at = argv.index("-c") + 1
    taken = "take(int(take(8)))"
    argv[at] = argv[at].replace(taken, f"{{taken}}.replace({{honest!r}}.encode(), {{lie!r}}.encode())")
import os
os.execv({python!r}, [{python!r}, *argv])
"""
"""An interpreter that changes our peer on its way: it says that it has everything, and gives what lies there."""


async def test_a_peer_gives_wrong_bytes(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_with("torrent", monkeypatch)
    async with field(tmp_path, paths, monkeypatch, 4) as site:
        python = tmp_path / "rogue-python"
        python.write_text(ROGUE.format(python=sys.executable))
        python.chmod(0o755)
        site.describe(h2={"python_path": str(python)})
        path = site.file(4_000_000)
        name = await site.submit(path)
        row = await site.until(name, lambda row: site.of(row, 2).state == "preflight")
        staged = site.base(2) / ".distribution" / await site.store.owner() / "stage" / row.sha256
        async with asyncio.timeout(PATIENCE_S):
            while not staged.is_dir():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        (staged / "data").write_bytes(bytes(0xFF ^ byte for byte in path.read_bytes()))
        (staged / "data").chmod(0o600)
        row = await site.until(name)
        assert [what for _, way, what in site.of(row, 2).history if way == "torrent" and what.startswith("corrupt")]
        assert site.of(row, 2).transport != "torrent", "the others brought it by another way, when it was let alone"
        assert {site.of(row, n).transport for n in (1, 3, 4)} == {"torrent"}
        await site.holds(row)


@pytest.mark.parametrize("engine", ["aria2c", "rsync"])
async def test_an_engine_there_leaves_wrong_bytes(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """As a broken disk or memory would: the engine ends well, and what lies there has another hash."""
    begin_with({"aria2c": "aria2", "rsync": "rsync"}[engine], monkeypatch)
    async with field(tmp_path, paths, monkeypatch, 2) as site:
        program = site.server(1).home / "bin" / engine
        program.parent.mkdir()
        stages = site.base(1) / ".distribution"
        program.write_text(
            f'#!/bin/sh\n{shutil.which(engine)} "$@"\ncode=$?\n'
            f"for data in {stages}/*/stage/*/data; do\n"
            "printf wrong | dd of=$data bs=1 seek=5000 conv=notrunc status=none\ndone\nexit $code\n"
        )
        program.chmod(0o755)
        name = await site.submit(site.file(1_000_000))
        row = await site.until(name)
        assert row.state == "done" and site.of(row, 1).transport != site.of(row, 2).transport
        assert [what for _, _, what in site.of(row, 1).history if what.startswith("corrupt")]
        await site.holds(row)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_writes_there_stands_still(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """The host gets the file by another try or another way, nobody waits for it, and what stood still is ended."""
    begin_with(transport, monkeypatch)
    for module in (reconcile, watchdog):
        monkeypatch.setattr(module, "STALL_S", 8)
    async with field(tmp_path, paths, monkeypatch, 3, cap="8mbit") as site:
        name = await site.submit(site.file(4_000_000))
        await site.under_way(name, 400_000, 1)
        ours = [pid for pid in site.running(1) if pid not in site.ssh(1)]  # a peer opens the file only to write
        stopped = ours if transport == "torrent" else site.writers(1)
        assert stopped
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        row = await site.until(name)
        assert row.state == "done", site.of(row, 1).history
        told = [what for _, way, what in site.of(row, 1).history if way == transport and what.startswith("stalled")]
        assert told, site.of(row, 1).history
        assert all(site.of(row, n).transport == transport for n in (2, 3))
        await site.holds(row)
