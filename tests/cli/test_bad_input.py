"""Bad input end to end: one clear line, its own exit code, nothing lost and nothing half-written."""

from __future__ import annotations

import io
import os
import pickle
import resource
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from backend.configs import parse_config
from backend.errors import Exit
from backend.paths import Paths

REPO = Path(__file__).parents[2]
CONFIG = parse_config("square8_2p")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def assert_refused(self, code: Exit, *words: str) -> None:
        assert self.code == code, f"{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        message = self.err.strip().splitlines()[-1]
        assert message.startswith("ringrift: ")
        for word in words:
            assert word in message


def ringrift(root: Path, *argv: str, limit: int | None = None) -> Outcome:
    """Runs a verb in a process of its own; ``limit`` is the largest file it may write, in bytes."""

    def cap() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    own = argv.index("--") if "--" in argv else len(argv)  # what follows are words of a job's command
    done = subprocess.run(
        [sys.executable, "-m", "ringrift_console.cli", *argv[:own], "--root", str(root), *argv[own:]],
        cwd=REPO,
        capture_output=True,
        text=True,
        preexec_fn=cap,
        check=False,
        timeout=300,  # only so that a verb that waits for ever fails this test instead of the whole run
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A root with a few games and a dataset; tests copy from it and leave it as it is."""
    paths = Paths(tmp_path_factory.mktemp("played"))
    done = ringrift(paths.root, "selfplay", "--config", CONFIG.key, "--until", "6", "--seed", "1")
    assert done.code == 0, done.err
    done = ringrift(paths.root, "export", "--use-discovery", "--config", CONFIG.key)
    assert done.code == 0, done.err
    return paths


@pytest.fixture
def root(played: Paths, tmp_path: Path) -> Paths:
    """A root of the test's own with the same games and dataset."""
    import shutil

    shutil.copytree(played.root, tmp_path / "copy")
    return Paths(tmp_path / "copy")


def games(paths: Paths) -> int:
    with sqlite3.connect(paths.games_db(CONFIG)) as connection:
        count: int = connection.execute("SELECT count(*) FROM games").fetchone()[0]
    connection.close()
    return count


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def rewrite(path: Path, name: str, data: bytes) -> None:
    """Replaces one member of a zip file."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members[name] = data
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("values.npy")
    data = bytearray(path.read_bytes())
    middle = info.header_offset + 60 + info.compress_size // 2
    data[middle] ^= 0x40
    path.write_bytes(bytes(data))


def other_content(path: Path) -> None:
    with zipfile.ZipFile(path) as archive, archive.open("values.npy") as stream:
        values = np.load(io.BytesIO(stream.read()), allow_pickle=False)
    stream = io.BytesIO()
    np.save(stream, -values)
    rewrite(path, "values.npy", stream.getvalue())


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("damage", [truncate, flip, other_content])
def test_a_damaged_dataset_is_refused_by_training(damage: Callable[[Path], None], root: Paths) -> None:
    damage(root.dataset(CONFIG))
    before = files(root.root)
    outcome = ringrift(
        root.root, "train", "--config", CONFIG.key, "--epochs", "1", "--save-path", str(root.root / "m.pth")
    )
    outcome.assert_refused(Exit.UNVERIFIED, root.dataset(CONFIG).name)
    assert {name for name in files(root.root) - before if name.endswith((".pth", ".tmp"))} == set()


def test_a_pickled_dataset_is_refused_and_nothing_of_it_runs(root: Paths, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    stream = io.BytesIO()
    np.save(stream, np.array([Marker(marker)], dtype=object), allow_pickle=True)
    rewrite(root.dataset(CONFIG), "values.npy", stream.getvalue())
    outcome = ringrift(root.root, "train", "--config", CONFIG.key, "--epochs", "1")
    outcome.assert_refused(Exit.UNTRUSTED, root.dataset(CONFIG).name)
    assert not marker.exists()


def test_a_dataset_of_another_config_is_refused(root: Paths) -> None:
    outcome = ringrift(root.root, "train", "--config", "hex8_2p", "--data-path", str(root.dataset(CONFIG)))
    outcome.assert_refused(Exit.SCHEMA, "square8_2p")


def test_a_checkpoint_that_carries_code_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Marker(marker), protocol=2))
        archive.writestr("model/version", "3\n")
        archive.writestr("model/byteorder", "little")
    outcome = ringrift(tmp_path / "root", "gauntlet", str(path), "--games", "2")
    outcome.assert_refused(Exit.UNTRUSTED, "evil.pth")
    (tmp_path / "legacy.pth").write_bytes(pickle.dumps(Marker(marker), protocol=2))
    outcome = ringrift(tmp_path / "root", "gauntlet", str(tmp_path / "legacy.pth"), "--games", "2")
    outcome.assert_refused(Exit.UNTRUSTED, "legacy.pth")
    assert not marker.exists()


def test_a_games_database_that_somebody_writes_is_refused_with_the_owners_name(root: Paths) -> None:
    from backend.training.games_db import GamesDb

    with GamesDb.write(root.games_db(CONFIG), CONFIG, "a test"):
        outcome = ringrift(root.root, "selfplay", "--config", CONFIG.key, "--games", "1")
    outcome.assert_refused(Exit.LOCKED, str(os.getpid()))


def test_a_truncated_games_database_is_refused(root: Paths) -> None:
    path = root.games_db(CONFIG)
    truncate(path)
    size = path.stat().st_size
    ringrift(root.root, "selfplay", "--config", CONFIG.key, "--games", "1").assert_refused(Exit.UNVERIFIED, path.name)
    ringrift(root.root, "export", "--db", str(path), "--config", CONFIG.key).assert_refused(Exit.UNVERIFIED, path.name)
    assert path.stat().st_size == size
    status = ringrift(root.root, "status")
    assert status.code == 0 and "square8_2p: games: the database is truncated" in status.out


def test_a_games_database_of_another_schema_is_refused_and_left_alone(root: Paths) -> None:
    path = root.games_db(CONFIG)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE games (title TEXT, price REAL)")
    connection.commit()
    connection.close()
    content = path.read_bytes()
    ringrift(root.root, "selfplay", "--config", CONFIG.key, "--games", "1").assert_refused(Exit.SCHEMA, path.name)
    ringrift(root.root, "export", "--db", str(path), "--config", CONFIG.key).assert_refused(Exit.SCHEMA, path.name)
    assert path.read_bytes() == content


def test_a_full_disk_during_self_play_keeps_the_finished_games(root: Paths) -> None:
    before = games(root)
    limit = root.games_db(CONFIG).stat().st_size + 8192
    outcome = ringrift(root.root, "selfplay", "--config", CONFIG.key, "--games", "200", "--workers", "1", limit=limit)
    outcome.assert_refused(Exit.RESOURCE)
    assert games(root) >= before
    assert ringrift(root.root, "selfplay", "--config", CONFIG.key, "--games", "1").code == 0


def test_a_full_disk_during_export_keeps_the_old_dataset(root: Paths) -> None:
    old = root.dataset(CONFIG).read_bytes()
    assert ringrift(root.root, "selfplay", "--config", CONFIG.key, "--games", "1").code == 0
    outcome = ringrift(root.root, "export", "--use-discovery", "--config", CONFIG.key, limit=20_000)
    outcome.assert_refused(Exit.RESOURCE)
    assert root.dataset(CONFIG).read_bytes() == old
    assert not [name for name in files(root.training) if name.endswith(".tmp")]


def test_a_full_disk_during_training_leaves_no_checkpoint_and_no_model(root: Paths) -> None:
    outcome = ringrift(
        root.root, "train", "--config", CONFIG.key, "--epochs", "1", "--blocks", "1", "--channels", "16",
        "--save-path", str(root.root / "m.pth"), limit=20_000,
    )  # fmt: skip
    outcome.assert_refused(Exit.RESOURCE)
    assert not (root.root / "m.pth").exists()
    assert not [name for name in files(root.root) if name.endswith(".tmp")]
    assert ringrift(root.root, "registry", "list", "--json").out.strip() == "[]"


def test_a_malformed_hosts_file_is_reported_with_its_line(root: Paths) -> None:
    root.hosts_yaml.write_text("hosts:\n  local:\n    max_parallel_jobs: many\n")
    for argv in (["status"], ["supervise"], ["pipeline", CONFIG.key]):
        ringrift(root.root, *argv).assert_refused(Exit.SETTINGS, "hosts.yaml line 3", "max_parallel_jobs")


def test_a_malformed_state_database_is_refused(root: Paths) -> None:
    root.state_db.parent.mkdir(parents=True, exist_ok=True)
    root.state_db.write_bytes(b"this is no database" * 100)
    for argv in (["jobs", "list"], ["hosts", "list", "--cached"], ["hosts", "show", "local"], ["hosts", "probe"]):
        ringrift(root.root, *argv).assert_refused(Exit.UNVERIFIED, "state.db")
    ringrift(root.root, "pipeline", CONFIG.key).assert_refused(Exit.UNVERIFIED, "state.db")
