"""A real agent on a root of its own, driven by one-shot commands."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import backend.jobs.agent as agent_module

AGENT = Path(agent_module.__file__)
PATIENCE_S = 60.0


def until(condition: Callable[[], Any], what: str) -> Any:
    """Waits for something that must happen, however slow the machine is; returns what ``condition`` found."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"still not: {what}"
        time.sleep(0.02)
    return found


class AgentBed:
    """An agent root, and the requests that a controller would send to it."""

    owner = "test"

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        self.root = root
        self.python = python
        self.epoch = 1

    def folder(self, key: str) -> Path:
        return self.root / "jobs" / key

    def argv(self, *words: str) -> list[str]:
        return [self.python, "-I", "-S", str(AGENT), "--root", str(self.root), *words]

    def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """One request; the agent's whole reply."""
        done = subprocess.run(self.argv(operation, "-"), input=json.dumps(request), capture_output=True, text=True)
        assert done.stderr == ""
        reply: dict[str, Any] = json.loads(done.stdout)
        return reply

    def spec(self, key: str, argv: list[str], **more: Any) -> dict[str, Any]:
        return {"key": key, "owner": self.owner, "argv": argv, "cwd": None, "env": {}} | more

    def start_request(self, key: str, argv: list[str], **more: Any) -> dict[str, Any]:
        spec = self.spec(key, argv, **more)
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        return {"spec": spec, "digest": digest, "epoch": self.epoch}

    def start(self, key: str, argv: list[str], **more: Any) -> dict[str, Any]:
        return self.ask("start", **self.start_request(key, argv, **more))

    def cancel(self, key: str, grace_s: float = 5.0) -> dict[str, Any]:
        return self.ask("cancel", key=key, owner=self.owner, epoch=self.epoch, by="test", grace_s=grace_s)

    def report(self, key: str) -> dict[str, Any]:
        reply: dict[str, Any] = self.ask("status", keys=[key])["ok"]["reports"][key]
        return reply

    def state(self, key: str) -> str:
        return str(self.report(key)["state"])

    def ended(self, key: str) -> dict[str, Any]:
        """Waits for the exit record."""
        record: dict[str, Any] = until(lambda: self.report(key).get("exit"), f"{key} has ended")
        return record

    def python_job(self, key: str, code: str, **more: Any) -> dict[str, Any]:
        return self.start(key, [sys.executable, "-I", "-S", "-c", code], **more)

    def kill_runner(self, key: str) -> None:
        runner = json.loads((self.folder(key) / "runner.json").read_text())
        os.kill(runner["pid"], signal.SIGKILL)

    def clean(self) -> None:
        for folder in (self.root / "jobs").glob("*.*"):
            cookie = agent_module.cookie_of(str(self.root), folder.name)
            runner = agent_module.read_json(str(folder / "runner.json"))
            if runner and agent_module.is_alive(runner):
                os.kill(runner["pid"], signal.SIGKILL)
            for pid in agent_module.holders(cookie):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[AgentBed]:
    made = AgentBed(tmp_path / "agent")
    yield made
    made.clean()
