"""What every test gets: a place of its own, and nothing of the machine it runs on."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.jobs import agent
from backend.paths import Paths
from tests.lab.bed import missing
from tests.lab.slurm import Slurm, no_slurm
from tests.lab.sshd import Sshd, make_server, no_sshd


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says so when hosts were not what they are elsewhere; the skips above name what was left out for it."""
    if reason := no_sshd():
        terminalreporter.write_line(f"hosts were played by asyncssh's own server on loopback: {reason}")
    elif reason := missing():
        terminalreporter.write_line(f"hosts had no network of their own: {reason}")


LONGEST = (
    "chaos/test_supervisor_kill.py", "chaos/test_loud_log.py", "jobs/test_gang_run.py", "training/test_group.py",
    "registry/test_auto_promote_play.py", "jobs/test_shards.py", "screens/test_every_screen.py",
    "fleet/test_bootstrap.py", "jobs/test_slurm_pool.py", "cli/test_bad_input.py", "cli/test_bad_hosts.py",
    "jobs/test_ai_service.py", "jobs/test_staging.py", "evaluation/test_gauntlet.py", "training/test_train.py",
    "evaluation/test_blocks.py", "registry/test_promotion_crashes.py", "chaos/test_agreement.py",
    "evaluation/test_tournament.py", "monitoring/test_monitor_daemon.py", "distribution/torrent/test_swarm.py",
    "jobs/test_agent.py", "jobs/test_verbs_jobs.py", "chaos/test_ssh_supervisor.py", "distribution/test_runner.py",
    "cli/test_bad_models.py", "screens/test_terminal.py", "registry/test_archival.py", "jobs/test_launchers.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take a minute or more come first: with ``--dist loadfile`` one that comes last is waited for alone."""
    here = Path(__file__).parent
    place = {here / name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def end_jobs(agent_root: Path) -> None:
    """Leaves no runner and no command of an agent's root behind."""
    for folder in (agent_root / "jobs").glob("*.*"):
        runner = agent.read_json(str(folder / "runner.json"))
        if runner and agent.is_alive(runner):
            os.kill(runner["pid"], signal.SIGKILL)
        for pid in agent.holders(agent.cookie_of(str(agent_root), folder.name)):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the developer's shell, and no file of their home, reaches a test."""
    for name in (
        "RINGRIFT_ROOT", "RINGRIFT_HOSTS", "RINGRIFT_PROGRESS", "RINGRIFT_ATTEMPT", "NO_COLOR", "SSH_CONNECTION",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "xdg" / name.lower()))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An empty root."""
    return Paths(tmp_path / "root")


@pytest.fixture
def make_sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sshd]]:
    """Makes hosts that are reached by SSH, started; nobody's ``~/.ssh`` and no ssh-agent has a say."""
    home = tmp_path / "own-home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made: list[Sshd] = []

    def one(name: str = "alpha", **options: Any) -> Sshd:
        made.append(make_server(tmp_path / f"host-{name}", name, **options))
        made[-1].start()
        return made[-1]

    yield one
    for server in made:
        server.stop()
        end_jobs(server.folder / "agent")


@pytest.fixture
def make_slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Slurm]]:
    """Raises Slurms of the test's own; skips where that cannot be done."""
    if reason := no_slurm():
        pytest.skip(f"no Slurm can be raised here: {reason}")
    made: list[Slurm] = []

    def one(**options: Any) -> Slurm:
        made.append(Slurm(Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")), **options))
        made[-1].start()
        return made[-1]

    yield one
    for slurm in made:
        slurm.stop()
        end_jobs(slurm.root / "agent")
        shutil.rmtree(slurm.folder)
