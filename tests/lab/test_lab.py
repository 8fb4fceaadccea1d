"""``make lab``: hosts that are up at once and gone without a trace, and what plays them where they cannot be."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.fleet.hosts import load_hosts
from backend.fleet.known_hosts import enrolled_keys
from backend.fleet.shell import shell_argv
from backend.paths import Paths
from tests.lab.bed import ip, missing
from tests.lab.sshd import LAB_VARIABLE, PLAIN

REPO = Path(__file__).parents[2]
NUMBER = 24  # 0 is the bed of whoever works here


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)} | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def bed(what: str, folder: Path, paths: Paths, *more: str) -> None:
    words = ("--folder", str(folder), "--root", str(paths.root), "--number", str(NUMBER))
    done = run(sys.executable, "-m", "tests.lab.bed", what, *words, *more)
    assert done.returncode == 0, done.stderr


def listed(paths: Paths, hosts: Path) -> list[dict[str, Any]]:
    words = ("hosts", "list", "--hosts", str(hosts), "--json", "--root", str(paths.root))
    done = run(sys.executable, "-m", "ringrift_console.cli", *words)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def processes_of(folder: Path) -> list[str]:
    found = []
    for about in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = about.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text:
            found.append(text)
    return found


def test_make_raises_as_many_hosts_as_it_is_told() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    assert "tests.lab.bed up --hosts 5 --cap 10mbit" in run("make", "-n", "lab", "N=5", "CAP=10mbit").stdout
    assert "tests.lab.bed up --hosts 8" in run("make", "-n", "lab").stdout
    assert "tests.lab.bed down" in run("make", "-n", "lab-down").stdout


@pytest.mark.serial
def test_the_lab_is_up_at_once_and_leaves_nothing(tmp_path: Path, paths: Paths) -> None:
    if reason := missing():
        pytest.skip(f"no bed of hosts: {reason}")
    folder = tmp_path / "lab"
    bed("up", folder, paths, "--hosts", "3", "--cap", "50mbit")
    try:
        hosts = folder / "hosts.yaml"
        assert [(one["name"], one["state"]) for one in listed(paths, hosts)] == [(f"lab-h{n}", "up") for n in (1, 2, 3)]
        keys = {path.read_text() for path in folder.glob("h*/*_key")}
        assert len(keys) == 2 * 3  # each its own, and its own for its user
        for where in (["-n", f"lab{NUMBER}-h1"], []):
            shape = run("tc", *where, "qdisc", "show", "dev", f"lab{NUMBER}v1" if not where else "eth0").stdout
            assert "tbf" in shape and "50Mbit" in shape
        first = load_hosts(hosts).hosts[0]
        script = f"setsid sh -c 'sleep 3141; : {folder}' </dev/null >/dev/null 2>&1 &"
        assert run(*shell_argv(first, paths), script).returncode == 0
        assert any("sleep 3141" in text for text in processes_of(folder))
        assert "lab-h1" in enrolled_keys(paths.console / "known_hosts")
    finally:
        bed("down", folder, paths)
    assert processes_of(folder) == []
    assert f"lab{NUMBER}-" not in ip("netns", "list")
    assert f"lab{NUMBER}" not in ip("-br", "link")
    assert not folder.exists()
    assert enrolled_keys(paths.console / "known_hosts") == {}
    with sqlite3.connect(paths.state_db) as reader:
        for table in ("hosts", "host_samples"):
            assert reader.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    bed("down", folder, paths)  # with nothing there it has nothing to do


def test_without_namespaces_and_sshd_the_tests_say_what_they_leave_out(tmp_path: Path) -> None:
    chosen = (
        "tests/fleet/test_ssh.py::test_a_command_ends_with_its_code_output_and_input_as_bytes",
        "tests/fleet/test_ssh.py::test_few_sessions_make_commands_wait_for_one_another",
        "tests/fleet/test_ssh.py::test_all_behind_a_bastion_share_one_connection_to_it",
        "tests/fleet/test_ssh_lab.py",
        "tests/jobs/test_staging_ssh.py",
        "tests/jobs/test_launchers.py::test_jobs_outlive_their_launcher[ssh]",
    )
    words = ("-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "there"), *chosen)
    done = run(sys.executable, "-m", "pytest", *words, **{LAB_VARIABLE: PLAIN})
    assert done.returncode == 0, done.stdout
    assert "4 passed, 2 skipped" in done.stdout
    assert "MaxSessions of OpenSSH's server" in done.stdout
    assert "no bed of hosts" in done.stdout
    assert "asyncssh's own server" in done.stdout
