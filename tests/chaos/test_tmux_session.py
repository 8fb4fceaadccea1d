"""An operator's evening in tmux at 80x24, by keys alone: start, follow, cancel, lose the console, come back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.paths import Paths

REPO = Path(__file__).parents[2]
PATIENCE_S = 120.0  # only so that a test that will never pass ends


class Terminal:
    """A tmux server of the test's own with one 80x24 window."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.socket = str(folder / "tmux.sock")
        self.root = root

    def tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-S", self.socket, *words], capture_output=True, text=True, check=False)
        return done.stdout

    def open_console(self) -> None:
        command = [sys.executable, "-m", "ringrift_console.start", "--root", str(self.root)]
        self.tmux("new-session", "-d", "-s", "t", "-x", "80", "-y", "24", "-c", str(REPO), *command)
        self.until("supervisor")

    def kill_console(self) -> None:
        pid = self.tmux("display-message", "-p", "-t", "t", "#{pane_pid}").strip()
        subprocess.run(["kill", "-9", pid], check=True)
        while self.tmux("list-sessions"):
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        for key in keys:
            time.sleep(0.3)  # an answer typed before a dialog can be read does not count
            self.tmux("send-keys", "-t", "t", key)
            time.sleep(0.2)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "t")

    def until(self, *words: str) -> str:
        """Waits for a screen with all the words and returns it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            shown = self.screen()
            if all(word in shown for word in words):
                return shown
            time.sleep(0.1)
        raise AssertionError(f"never saw {words}; last:\n{self.screen()}")


@pytest.fixture
def terminal(tmp_path: Path, paths: Paths) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.fail("this test needs tmux")
    made = Terminal(tmp_path, paths.root)
    try:
        yield made
    finally:
        made.tmux("kill-server")
        subprocess.run(
            [sys.executable, "-m", "ringrift_console.cli", "supervise", "--stop", "--root", str(paths.root)],
            cwd=REPO,
            check=False,
            capture_output=True,
        )


@pytest.mark.serial
def test_an_evening_by_keys_alone(terminal: Terminal) -> None:
    terminal.open_console()
    terminal.press("p")
    terminal.until("config", "square8_2p", "games", "epochs")
    terminal.press("Tab", "Tab")  # config, games, epochs
    terminal.press("5", "0", "0")  # long enough to be cancelled while it trains
    terminal.press("Enter")
    terminal.until("Cancel", "yes, do it", "square8_2p")
    terminal.press("y")
    terminal.press("3")
    terminal.until("selfplay", "square8_2p")
    terminal.until("train", "running")

    # the newest job that runs stands under the cursor or is found by its name
    terminal.press("/")
    terminal.press(*"train")
    terminal.press("Enter")
    terminal.press("l")
    terminal.until("samples", "epoch")
    terminal.press("Escape")
    terminal.until("train", "running")
    terminal.press("x")
    terminal.until("Cancel", "yes, do it")
    terminal.press("y")
    before = terminal.until("cancelled")

    terminal.kill_console()
    terminal.open_console()
    terminal.press("3")
    after = terminal.until("cancelled", "blocked")
    for line in before.splitlines():
        if line.lstrip("▌ ").startswith("t"):
            job = line.lstrip("▌ ").split()[0]
            assert job in after


@pytest.mark.serial
def test_enter_on_a_plan_cancels_it(terminal: Terminal, paths: Paths) -> None:
    terminal.open_console()
    terminal.press("p")
    terminal.until("games", "epochs")
    terminal.press("Enter")
    terminal.until("yes, do it")
    terminal.press("Enter")
    terminal.press("3")
    shown = terminal.until("Jobs")
    assert "selfplay" not in shown
    done = subprocess.run(
        [sys.executable, "-m", "ringrift_console.cli", "jobs", "list", "--json", "--root", str(paths.root)],
        cwd=REPO, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
