"""The bed of real hosts: each on its own network, cut off and switched off one by one."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.fleet.errors import HostUnreachable, LinkLost
from backend.fleet.hosts import load_hosts
from backend.fleet.ssh import Limits, SshPool
from backend.jobs.launchers.base import AttemptSpec, UnreachableError
from backend.jobs.launchers.ssh import SshLauncher
from backend.jobs.model import Phase
from backend.paths import Paths
from tests.lab.bed import Bed, ip, missing

QUICK = Limits(connect_s=0.5, login_s=1.0, keepalive_s=0.3, keepalive_count=2, backoff_s=0.02, backoff_max_s=0.1)


@pytest.fixture
async def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    if reason := missing():
        pytest.skip(f"no bed of hosts: {reason}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = Bed(tmp_path / "lab", 100 + os.getpid() % 150)
    made.up(2)
    yield made
    made.down()
    left = ip("netns", "list") + ip("-br", "link")
    assert f"lab{made.number}-" not in left and made.bridge not in left


async def test_a_host_that_is_cut_off_or_loses_power_is_told_apart_from_one_that_ended(bed: Bed, paths: Paths) -> None:
    hosts = load_hosts(bed.folder / "hosts.yaml")
    first, second = hosts.hosts
    async with SshPool(paths, QUICK) as pool:
        for host in hosts.hosts:
            pool.confirm_enrolment(await pool.enrol(host))
        launchers = [SshLauncher(pool, host, "owner", 1) for host in hosts.hosts]
        code = "import time; time.sleep(600)"
        for launcher in launchers:
            await launcher.start(AttemptSpec("a1.1", "owner", (sys.executable, "-I", "-S", "-c", code), None, {}))

        bed.cut(1)
        with pytest.raises(LinkLost):
            await pool.exec(first, ["true"], timeout_s=30)
        with pytest.raises((HostUnreachable, LinkLost)):
            await pool.exec(first, ["true"], timeout_s=30)
        assert (await launchers[1].observe(["a1.1"]))["a1.1"].phase is Phase.RUNNING
        assert (await pool.exec(second, ["true"], timeout_s=30)).code == 0

        bed.heal(1)
        async with asyncio.timeout(60):
            while True:
                try:
                    assert (await launchers[0].observe(["a1.1"]))["a1.1"].phase is Phase.RUNNING
                    break
                except UnreachableError:
                    await asyncio.sleep(0.05)

        assert bed.kill(2) > 0
        with pytest.raises(UnreachableError):
            await launchers[1].observe(["a1.1"])
        bed.servers["lab-h2"].start()
        async with asyncio.timeout(60):
            while True:
                try:
                    seen = (await launchers[1].observe(["a1.1"]))["a1.1"]
                    break
                except UnreachableError:
                    await asyncio.sleep(0.05)
        assert seen.phase is Phase.UNKNOWN  # the same boot, and nobody saw how it ended
        for launcher in launchers:
            await launcher.close()
