"""Inputs and outputs over real SSH, with the real supervisor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from backend.jobs.pipelines import add_job
from backend.jobs.rows import attempt_rows
from backend.paths import Paths
from backend.registry.hashing import sha256_file
from backend.supervisor import ensure_running
from tests.chaos.test_ssh_supervisor import opened, until
from tests.jobs.conftest import until as wait_for
from tests.lab.kept import describe, set_up
from tests.lab.sshd import Sshd


async def test_files_go_to_a_host_and_come_back_by_their_hash(paths: Paths, make_sshd: Callable[..., Sshd]) -> None:
    server = make_sshd()
    describe(paths, server)
    (paths.root / "in put.bin").write_bytes(bytes(range(256)) * 4000)
    code = "open('far/out', 'wb').write(open('in put.bin', 'rb').read()[::-1]); print('ok')"
    params = {"argv": [sys.executable, "-I", "-S", "-c", code], "inputs": ["in put.bin"], "outputs": ["far/out"]}
    async with opened(paths) as store:
        await set_up(store, server)
        async with store.database.write() as db:
            name = await add_job(db, "command", "hex8_2p", params, host=server.name)
        ensure_running(paths)
        row = await until(store, name, lambda row: row.state in ("done", "failed"))
        assert (row.state, row.host) == ("done", server.name), row.why
        assert (paths.root / "far" / "out").read_bytes() == (bytes(range(256)) * 4000)[::-1]
        assert row.result["collected"] == {"far/out": sha256_file(paths.root / "far" / "out")}
        assert (paths.jobs / f"{name}.1" / "log").read_text() == "ok\n"  # brought here with the outputs
        assert len(await attempt_rows(store, name)) == 1
        work = server.folder / "data" / "work" / await store.owner() / name
        await asyncio.to_thread(wait_for, lambda: not work.exists(), "the job's folder is removed from the host")
