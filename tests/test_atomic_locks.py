"""Atomic writes and locks: nothing half-written, and a refused holder learns who has it."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.atomic import atomic_file, write_json
from backend.errors import Exit, LockedError
from backend.fleet.known_hosts import HostKey, enrol_key, enrolled_keys
from backend.locks import FileLock, is_held


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    with pytest.raises(RuntimeError), atomic_file(path) as stream:
        stream.write(b"half")
        raise RuntimeError("stopped")
    assert path.read_text() == '{\n  "n": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_second_holder_is_refused_with_the_first_ones_name(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with FileLock(path, "self-play of hex8_2p"):
        assert is_held(path)
        with pytest.raises(LockedError, match="self-play of hex8_2p") as caught:
            FileLock(path, "another").acquire()
        assert caught.value.exit_code == Exit.LOCKED
    assert not is_held(path)
    with FileLock(path, "another"):
        pass


def test_one_who_only_looks_is_taken_for_no_holder(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.touch()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not is_held(path)
        with pytest.raises(LockedError):
            FileLock(path, "impatient").acquire()
        letting_go = threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN))
        letting_go.start()
        with FileLock(path, "patient", 60.0):
            assert is_held(path)
        letting_go.join()


def test_a_killed_holder_leaves_no_lock_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    code = (
        "import os, signal, sys; from pathlib import Path; from backend.locks import FileLock\n"
        f"FileLock(Path({str(path)!r}), 'doomed').acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -9
    assert path.exists() and not is_held(path)


def test_enrolments_at_once_wait_for_one_another(tmp_path: Path) -> None:
    key = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIBWKKKPsBHqxkvrhGsgCDYEbJ5nTSVpdMLCgc8xgpUSW")
    names = [f"host-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: enrol_key(tmp_path / "known_hosts", name, key), names))
    assert set(enrolled_keys(tmp_path / "known_hosts")) == set(names)
