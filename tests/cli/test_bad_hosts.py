"""Hosts that are not as they should be, through the verbs as processes and a real SSH server: one clear line that says
what, where and what to do, its own exit code, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.errors import Exit
from backend.fleet.ssh import SshPool
from backend.fleet.store import record_code
from backend.paths import Paths
from backend.state.store import StateStore
from backend.supervisor import stop
from tests.cli.test_bad_input import Outcome, ringrift
from tests.lab.sshd import Sshd, make_key

PATIENCE_S = 120.0
Make = Callable[..., Sshd]


@pytest.fixture
def fleet(paths: Paths) -> Iterator[Paths]:
    paths.root.mkdir()
    yield paths
    stop(paths)


def describe(paths: Paths, server: Sshd, **settings: Any) -> None:
    """Writes hosts.yaml with one host beside this machine."""
    hosts = {"local": {}, server.name: server.settings() | settings}
    paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}, sort_keys=False))


def trust(paths: Paths, server: Sshd) -> bytes:
    """Enrols the host's key; returns the file of enrolled keys."""

    async def confirm() -> None:
        async with SshPool(paths) as pool:
            pool.confirm_enrolment(await pool.enrol(server.host()))

    asyncio.run(confirm())
    return (paths.console / "known_hosts").read_bytes()


def set_up(paths: Paths, server: Sshd) -> None:
    """Enrols the host, and records this installation as its own."""
    trust(paths, server)

    async def record() -> None:
        code = {"python": sys.executable, "root": str(server.folder / "data"), "bundle": "0" * 64}
        async with await StateStore.open(paths) as store:
            await record_code(store, server.name, code)

    asyncio.run(record())


def only_line(outcome: Outcome) -> str:
    """The only line of a verb's complaint."""
    assert "Traceback" not in outcome.err
    (line,) = outcome.err.strip().splitlines()
    return line


def assert_says(line: str, *words: str) -> None:
    for word in words:
        assert word in line, f"{word!r} is not in {line!r}"


def state_of(paths: Paths, name: str) -> dict[str, Any]:
    found = ringrift(paths.root, "hosts", "show", name, "--json")
    assert found.code == 0, found.err
    return dict(json.loads(found.out))


def folder_with(server: Sshd, **programs: str) -> str:
    """A PATH for the host's sessions: what a shell needs, and programs of the test's own, by name and text."""
    folder = server.folder / "bin"
    folder.mkdir()
    for name in ("sh", "bash", "env", "cat", "test", "printf", "mkdir", "uname", "setarch", "timeout"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return str(folder)


def with_path(make_sshd: Make, **programs: str) -> Sshd:
    """A host whose sessions find these programs and no others."""
    server = make_sshd()
    path = folder_with(server, **programs)
    config = server.folder / "sshd_config"
    config.write_text(config.read_text().replace("SetEnv HOME=", f"SetEnv PATH={path} HOME="))
    server.stop()
    server.start()
    return server


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, too small for anything."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_host_that_cannot_be_reached(fleet: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    describe(fleet, server)
    keys = trust(fleet, server)
    assert ringrift(fleet.root, "hosts", "probe", "alpha").out.startswith("alpha: up")
    server.stop()
    probed = ringrift(fleet.root, "hosts", "probe", "alpha")
    assert probed.code == Exit.FAILED
    assert_says(only_line(probed), "alpha: cannot connect", f"127.0.0.1:{server.port}", "is it up")
    enrolled = ringrift(fleet.root, "hosts", "enrol", "alpha")
    enrolled.assert_refused(Exit.FAILED, "cannot fetch the host key", f"127.0.0.1:{server.port}", "is it up")
    found = state_of(fleet, "alpha")
    assert (found["state"], found["facts"]["system"]) == ("down", "Linux"), "what was known of it stays"
    assert (fleet.console / "known_hosts").read_bytes() == keys
    listed = json.loads(ringrift(fleet.root, "hosts", "list", "--cached", "--json").out)
    assert [(row["name"], row["state"]) for row in listed] == [("local", "up"), ("alpha", "down")]


def test_a_host_with_another_key(fleet: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    describe(fleet, server)
    keys = trust(fleet, server)
    server.change_key()
    probed = ringrift(fleet.root, "hosts", "probe", "alpha")
    assert probed.code == Exit.FAILED
    assert_says(only_line(probed), "THE HOST KEY HAS CHANGED", "alpha", "ringrift hosts enrol alpha")
    assert state_of(fleet, "alpha")["state"] == "refused"
    assert (fleet.console / "known_hosts").read_bytes() == keys, "the new key is not trusted by itself"


@pytest.mark.parametrize("what", ["user", "key", "no key file"])
def test_a_login_that_is_refused(what: str, fleet: Paths, make_sshd: Make, tmp_path: Path) -> None:
    server = make_sshd()
    other = make_key(tmp_path / "other_key")
    settings = {"user": {"ssh_user": "nobody-here"}, "key": {"ssh_key": str(other)}}
    describe(fleet, server, **settings.get(what, {"ssh_key": str(tmp_path / "nowhere")}))
    trust(fleet, server)
    probed = ringrift(fleet.root, "hosts", "probe", "alpha")
    assert probed.code == Exit.FAILED
    words = {
        "user": ("the host refuses the login", "check ssh_user, now nobody-here"),
        "key": ("the host refuses the login", f"ssh_key, now {other}"),
        "no key file": ("there is no such key file", str(tmp_path / "nowhere"), "mend ssh_key"),
    }
    assert_says(only_line(probed), "alpha", *words[what])
    assert state_of(fleet, "alpha")["state"] == "refused"
    describe(fleet, server)
    assert ringrift(fleet.root, "hosts", "probe", "alpha").out.startswith("alpha: up"), "mended, it is asked again"


def test_a_host_without_python3(fleet: Paths, make_sshd: Make) -> None:
    server = with_path(make_sshd)
    describe(fleet, server)
    trust(fleet, server)
    probed = ringrift(fleet.root, "hosts", "probe", "alpha")
    assert probed.code == Exit.FAILED
    assert_says(only_line(probed), "there is no python3", "alpha", "python_path in hosts.yaml")
    strapped = ringrift(fleet.root, "hosts", "bootstrap", "alpha", "--wait")
    assert strapped.code == Exit.FAILED
    assert_says(strapped.err.strip().splitlines()[-1], "there is no python3", "alpha", "python_path in hosts.yaml")
    assert not (server.folder / "agent").exists(), "nothing was changed there"


def test_a_host_of_another_architecture(fleet: Paths, make_sshd: Make) -> None:
    # setarch changes what uname says to this program: the host's own answer, through the kernel.
    server = with_path(make_sshd, python3=f'#!/bin/sh\nexec setarch i686 {sys.executable} "$@"\n')
    describe(fleet, server)
    trust(fleet, server)
    probed = ringrift(fleet.root, "hosts", "probe", "alpha")
    assert probed.code == Exit.FAILED
    assert_says(probed.out, "error   there are no builds of torch for i686", "-> use a host with x86_64 or aarch64")
    strapped = ringrift(fleet.root, "hosts", "bootstrap", "alpha", "--wait")
    strapped.assert_refused(Exit.REFUSED, "no builds of torch for i686", "alpha", "use a host with x86_64")
    assert not (server.folder / "agent").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small disk")
def test_a_host_with_a_full_disk(fleet: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    with small_disk(server.folder / "disk", "1m") as disk:
        describe(fleet, server, storage_paths={"agent": str(disk)})
        set_up(fleet, server)
        strapped = ringrift(fleet.root, "hosts", "bootstrap", "alpha", "--wait")
        assert strapped.code == Exit.REFUSED
        last = strapped.err.strip().splitlines()[-1]
        assert_says(last, f"GB free at {disk}", "alpha", "free some space")
        done = submit(fleet, "true", "--wait")
        assert done.code == Exit.DONE, done.err
        with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as stream:
            while stream.write(b"\0" * 4096):
                pass
        assert submit(fleet, "true").code == Exit.DONE
        row = until(fleet, "c2", lambda row: "is full" in row["why"])
        assert_says(row["why"], f"the disk of {disk} is full, free some space there")
        assert row["state"] == "placing" and row["host"] == "alpha"
        (disk / "filler").unlink()
        row = until(fleet, "c2", lambda row: row["state"] == "failed")
        assert_says(row["why"], f"the disk of {disk} is full")
        assert row["attempts"][0]["exit"]["executed"] is False, "it is certain that it never ran"
        again = ringrift(fleet.root, "jobs", "retry", "c2", "--wait")
        assert again.code == Exit.DONE, again.err
        stop(fleet)


def submit(paths: Paths, *words: str) -> Outcome:
    options = [word for word in words if word.startswith("--")]
    command = [word for word in words if not word.startswith("--")]
    return ringrift(paths.root, "jobs", "submit", "command", "hex8_2p", "--host", "alpha", *options, "--", *command)


def until(paths: Paths, name: str, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_S
    while True:
        row: dict[str, Any] = json.loads(ringrift(paths.root, "jobs", "show", name, "--json").out)
        if good(row):
            return row
        assert time.monotonic() < end, row


OTHER_MOUNTS = """\
#!{python} -IS
# Runs Python programs like python3, on a host whose mount table is another file.
import builtins, runpy, sys
opened = open
def open_other(path, *more, **options):
    return opened({table!r} if path == "/proc/self/mountinfo" else path, *more, **options)
builtins.open = open_other
words = [word for word in sys.argv[1:] if word not in ("-I", "-S")]
if words[0] == "-c":
    sys.argv = ["-c", *words[2:]]
    exec(compile(words[1], "-c", "exec"), {{"__name__": "__main__"}})
elif words[0] == "-":
    sys.argv = words
    exec(compile(sys.stdin.read(), "<stdin>", "exec"), {{"__name__": "__main__"}})
else:
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
"""


def test_a_host_whose_home_is_on_nfs(fleet: Paths, make_sshd: Make, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 0:1 / / rw - ext4 /dev/root rw\n2 1 0:2 / {tmp_path} rw - nfs4 filer:/home rw\n")
    server = with_path(make_sshd, python3=OTHER_MOUNTS.format(python=sys.executable, table=str(table)))
    describe(fleet, server)
    set_up(fleet, server)
    folder = server.folder / "agent"
    probed = ringrift(fleet.root, "hosts", "probe", "alpha")
    assert probed.code == Exit.FAILED
    assert_says(probed.out, f"{folder} is on nfs4: the agent's locks do not hold there", "-> storage_paths:")
    strapped = ringrift(fleet.root, "hosts", "bootstrap", "alpha", "--wait")
    strapped.assert_refused(Exit.REFUSED, f"{folder} is on nfs4", "alpha", "storage_paths", "on a local disk")
    # A host that was set up before its home moved: the agent itself refuses to start a job there.
    submitted = submit(fleet, "true", "--wait")
    assert submitted.code == Exit.FAILED
    row = until(fleet, "c1", lambda row: row["state"] == "failed")
    assert_says(row["why"], "locks cannot be trusted on nfs4", str(folder), "storage_paths.agent", "a local disk")
    assert row["attempts"][0]["exit"]["executed"] is False
    assert row["why"] in submitted.err


def test_a_host_that_stands_twice_in_the_file(fleet: Paths) -> None:
    fleet.hosts_yaml.write_text("hosts:\n  local: {}\n  alder-1: {ssh_host: a}\n  alder-1: {ssh_host: b}\n")
    for argv in (["hosts", "list"], ["hosts", "probe"], ["jobs", "submit", "selfplay", "hex8_2p"], ["supervise"]):
        outcome = ringrift(fleet.root, *argv)
        outcome.assert_refused(Exit.SETTINGS, "host 'alder-1' stands twice", "hosts.yaml line 4", "rename or remove")
        assert only_line(outcome)
    assert not fleet.state_db.exists()


def test_a_job_that_names_a_dataset_that_is_not_there(fleet: Paths) -> None:
    dataset = fleet.root / "data/training/hex8_2p.npz"
    outcome = ringrift(fleet.root, "jobs", "submit", "train", "hex8_2p")
    outcome.assert_refused(Exit.NOT_FOUND, "a file that is not there", str(dataset), "--after JOB")
    assert not fleet.state_db.exists()
    assert ringrift(fleet.root, "jobs", "submit", "command", "hex8_2p", "--", "true").code == Exit.DONE
    outcome = ringrift(fleet.root, "jobs", "submit", "train", "hex8_2p", "--after", "c1", "--wait", "--json")
    assert outcome.code == Exit.FAILED
    (row,) = json.loads(outcome.out)["jobs"]
    assert (row["state"], row["exit_code"]) == ("failed", int(Exit.NOT_FOUND))
    assert_says(row["why"], str(dataset))
    assert not list(fleet.models.rglob("*.pth"))


def test_a_job_on_a_host_whose_dataset_is_gone_when_it_is_sent(fleet: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    describe(fleet, server)
    set_up(fleet, server)
    assert submit(fleet, "true", "--wait").code == Exit.DONE
    train = ("jobs", "submit", "train", "hex8_2p", "--host", "alpha", "--after", "c1", "--wait", "--json")
    outcome = ringrift(fleet.root, *train)
    assert outcome.code == Exit.FAILED
    (row,) = json.loads(outcome.out)["jobs"]
    assert row["state"] == "failed"
    assert_says(row["why"], "an input is not there", "data/training/hex8_2p.npz", "jobs retry")
    assert until(fleet, row["id"], lambda row: True)["attempts"][0]["host"] == "alpha"
