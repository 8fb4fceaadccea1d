"""Processes that train together on machines of their own: two network namespaces with a cable between them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.bed import ip, missing

REPO = Path(__file__).parents[2]
ADDRESS = "10.78.22.1"
CODE = """
import os, torch
from backend.training.group import join
with join("cpu") as group:
    total = float(group.add(torch.ones(1) * (group.rank + 1)))
    print(group.rank, os.environ["GLOO_SOCKET_IFNAME"], total)
"""


@pytest.fixture
def machines() -> Iterator[list[str]]:
    if why := missing():
        pytest.skip(why)
    mark = os.getpid()
    names, ends = [f"gang{mark}-{n}" for n in (1, 2)], [f"ga{mark}", f"gb{mark}"]
    try:
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for n, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            ip("netns", "add", name)
            ip("link", "set", end, "netns", name, "name", "cable0")
            ip("-n", name, "addr", "add", f"10.78.22.{n}/24", "dev", "cable0")
            for device in ("lo", "cable0"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name, check=False)


def test_processes_meet_over_the_cable_whatever_the_machines_call_themselves(machines: list[str]) -> None:
    """Left to itself, gloo would take the address of the machine's name, which nobody reaches from outside."""
    running = []
    for rank, machine in enumerate(machines):
        environment = os.environ | {
            "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": ADDRESS, "MASTER_PORT": "29500",
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO),
        }  # fmt: skip
        argv = ["ip", "netns", "exec", machine, sys.executable, "-c", CODE]
        running.append(
            subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=300) for process in running]
    assert [out.split() for out, _ in said] == [["0", "cable0", "3.0"], ["1", "cable0", "3.0"]], said
