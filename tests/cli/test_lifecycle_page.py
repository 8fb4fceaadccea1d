"""docs/lifecycle.md is run as it stands: every command of the page, in order, from an empty root."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line[2:]) for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.serial
def test_every_command_of_the_page_works_in_order(tmp_path: Path) -> None:
    assert len(commands()) > 10
    folder = tmp_path / "here"
    folder.mkdir()
    environment = os.environ | {"RINGRIFT_ROOT": str(tmp_path / "root")}
    try:
        for command in commands():
            assert command[0] == "ringrift"
            done = subprocess.run(
                [sys.executable, "-m", "ringrift_console.cli", *command[1:]],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
    finally:
        subprocess.run(
            [sys.executable, "-m", "ringrift_console.cli", "supervise", "--stop"],
            cwd=folder,
            env=environment,
            capture_output=True,
            check=False,
        )
