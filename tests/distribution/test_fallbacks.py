"""From one transport to the next, on hosts with links of their own: each host gets the file by what works there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.distribution.torrent import watchdog
from backend.paths import Paths
from tests.distribution.field import Field, begin_with, field


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def only_ssh(site: Field, n: int) -> None:
    """Nothing but SSH reaches the host from outside."""
    site.rule(n, "iifname eth0 tcp dport != 22 drop")


def configure(site: Field, n: int, old: str, new: str) -> None:
    """Changes the configuration of a host's SSH server, and starts it anew."""
    server = site.server(n)
    config = server.folder / "sshd_config"
    config.write_text(config.read_text().replace(old, new))
    server.stop()
    server.start()


def ways(row: Any, n: int) -> dict[str, str]:
    """Transport -> why it was left, for a host."""
    troubles = [(way, what.partition(":")[0]) for _, way, what in row.hosts[n - 1].history]
    return {way: what for way, what in troubles if what not in ("fetching", "published")}


async def test_each_host_gets_it_by_what_works_there(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: hosts that lack an engine are no reason to ask anybody; see test_reconcile for those that fall back."""
    blocked, shut, no_torrent, bare = range(2, 6)  # the first one is well
    begin_with("torrent", monkeypatch)
    monkeypatch.setattr(watchdog, "ROUTE_S", 12.0)  # five engines may start at once on a loaded machine
    async with field(tmp_path, paths, monkeypatch, 5) as site:
        only_ssh(site, blocked)
        only_ssh(site, shut)
        configure(site, shut, "UsePAM no", "UsePAM no\nAllowTcpForwarding no")
        plain = program(tmp_path / "plain-python", f'exec {sys.executable} -S "$@"')
        folder = tmp_path / "bare"
        program(folder / "python3", f'PATH={folder} exec {sys.executable} -S "$@"')
        for name in ("sh", "bash", "env", "cat", "test", "printf", "mkdir", "uname"):
            (folder / name).symlink_to(str(shutil.which(name)))
        configure(site, bare, "SetEnv ", f"SetEnv PATH={folder} ")
        site.describe(h4={"python_path": str(plain)}, h5={"python_path": str(folder / "python3")})
        name = await site.submit(site.file(2_000_000))
        row = await site.until(name, lambda row: row.ended_at or row.paused)
        assert row.state == "done" and not row.paused, [(host.host, host.failure) for host in row.hosts]
        assert [host.transport for host in row.hosts] == ["torrent", "aria2", "rsync", "aria2", "stream"]
        assert ways(row, blocked) == {"torrent": "no route"}
        assert ways(row, shut) == {"torrent": "no route", "aria2": "no route"}
        assert ways(row, no_torrent) == {"torrent": "not there"}
        assert ways(row, bare) == {"torrent": "not there", "aria2": "not there", "rsync": "not there"}
        await site.holds(row)
