"""Asking a host what it is: the script, what is made of its answer, and what the facts mean."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backend.errors import RingRiftError, UnverifiedError
from backend.fleet import probe as probing
from backend.fleet import probe_host
from backend.fleet.doctor import findings, version
from backend.fleet.errors import NoPython
from backend.fleet.hosts import Host
from backend.fleet.probe import clock_of, probe, python_of, read_report
from backend.fleet.remote import Finished, ThisMachine
from backend.snapshot import HostSample

HOST = Host("alder-1", {"ssh_host": "alder-1"})
FACTS: dict[str, Any] = {
    "python_version": "3.11.9", "modules": {"venv": True, "ensurepip": True}, "machine": "x86_64", "system": "Linux",
    "libc": "glibc", "libc_version": "2.39", "folder": "/home/me/x", "folder_filesystem": "ext4", "user": "me",
    "folder_writable": True, "tools": {"rsync": "/usr/bin/rsync", "tar": "/bin/tar"}, "clock_offset_s": 0.0,
    "clock_error_s": 0.01,
}  # fmt: skip
SAMPLE = HostSample(datetime(2026, 3, 4, tzinfo=UTC), disk_free=10**12, disk_total=10**13)


async def test_a_host_answers_with_facts_and_a_sample(here: ThisMachine) -> None:
    report = await probe(here, HOST)
    assert report.facts is not None
    home = here.env["HOME"]
    assert report.facts["home"] == home
    assert report.facts["folder"] == f"{home}/.local/state/ringrift"
    assert report.facts["cpus"] >= 1
    assert report.facts["tools"]["tar"]
    assert report.sample.memory_total is not None and report.sample.memory_used is not None
    assert 0 < report.sample.memory_used < report.sample.memory_total
    assert report.sample.disk_free is not None
    assert abs(report.clock.offset) <= report.clock.error + 0.05


async def test_a_sample_alone_has_no_facts(here: ThisMachine) -> None:
    assert (await probe(here, HOST, "sample")).facts is None


def test_this_machine_is_described_without_asking_anybody() -> None:
    report = probing.here(Host("local"), "/")
    assert report.facts is not None and report.facts["hostname"]
    assert report.clock.offset == 0.0


async def test_noise_of_a_login_shell_does_no_harm(here: ThisMachine, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    noisy.write_text("#!/bin/sh\nprintf 'Welcome \\377\\033[31m RINGRIFT-PROBE'\nexec python3 \"$@\"\n")
    noisy.chmod(0o755)
    report = await probe(here, Host("alder-1", {"python_path": str(noisy)}))
    assert report.facts is not None and report.facts["machine"]


async def test_a_python_under_the_home_folder_is_found(here: ThisMachine) -> None:
    home = Path(here.env["HOME"])
    (home / "venv/bin").mkdir(parents=True)
    program = home / "venv/bin/python"
    program.write_text('#!/bin/sh\nexec python3 "$@"\n')
    program.chmod(0o755)
    host = Host("alder-1", {"venv_activate": "source ~/venv/bin/activate"})
    assert python_of(host) == "~/venv/bin/python"
    assert (await probe(here, host)).facts is not None


@pytest.mark.parametrize("python", ["/nowhere/python3", "~/nowhere/python3"])
async def test_a_host_without_python_is_told_in_one_line(here: ThisMachine, python: str) -> None:
    with pytest.raises(NoPython) as caught:
        await probe(here, Host("alder-1", {"python_path": python}))
    assert f"there is no {python}: alder-1" in caught.value.line()
    assert "\n" not in caught.value.line()


async def test_a_command_that_is_no_python_is_not_believed(here: ThisMachine) -> None:
    with pytest.raises(UnverifiedError, match="answered something else"):
        await probe(here, Host("alder-1", {"python_path": "/bin/true"}))


def test_the_script_runs_on_the_oldest_python_that_hosts_have() -> None:
    source = Path(probe_host.__file__).read_text()
    ast.parse(source, feature_version=(3, 8))
    old = shutil.which("python3.8")
    if old is not None and subprocess.run([old, "--version"], capture_output=True, check=False).returncode == 0:
        done = subprocess.run([old, "-I", "-", "facts", "~/x"], input=source.encode(), capture_output=True, check=True)
        assert json.loads(done.stdout.split(b" ", 1)[1])["facts"]["python_version"].startswith("3.8")


@pytest.mark.parametrize(
    "output", [b"", b"RINGRIFT-PROBE nonsense", b"RINGRIFT-PROBE []", b'RINGRIFT-PROBE {"begun": 1}', b"\xff\x00"]
)
def test_an_answer_that_is_none_is_refused(output: bytes) -> None:
    with pytest.raises(UnverifiedError) as caught:
        read_report("alder-1", output, 0.0, 1.0)
    assert "\n" not in caught.value.line()


def test_the_clock_of_a_host_is_compared_by_four_times() -> None:
    clock = clock_of(100.0, 3700.2, 3700.5, 100.7)
    assert clock.offset == pytest.approx(3600.0)
    assert clock.error == pytest.approx(0.2)
    slow_answer = clock_of(100.0, 100.0, 100.1, 102.1)
    assert abs(slow_answer.offset) <= slow_answer.error


@pytest.mark.parametrize(
    ("line", "name", "total", "busy"),
    [
        ("0, NVIDIA GH200 480GB, 97871, 1024, 87, 61, 550.54", "NVIDIA GH200 480GB", 97871 * 2**20, 87),
        (
            "3, NVIDIA H100 MIG 1g.10gb, 9728, [N/A], [N/A], [N/A], 550.54",
            "NVIDIA H100 MIG 1g.10gb",
            9728 * 2**20,
            None,
        ),
    ],
)
def test_a_line_of_nvidia_smi_is_understood(line: str, name: str, total: int, busy: int | None) -> None:
    gpu = probe_host.parse_gpu(line)
    assert gpu is not None
    assert (gpu["name"], gpu["memory_total"], gpu["busy"]) == (name, total, busy)


@pytest.mark.parametrize("line", ["", "No devices were found", "x, y, 1, 1, 1, 1, 1"])
def test_other_lines_of_nvidia_smi_are_no_gpus(line: str) -> None:
    assert probe_host.parse_gpu(line) is None


async def test_gpus_come_from_the_host_s_nvidia_smi(here: ThisMachine, tmp_path: Path) -> None:
    tool = tmp_path / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho '0, NVIDIA GH200, 97871, 1024, 87, 61, 550.54'\n")
    tool.chmod(0o755)
    here.env["PATH"] = f"{tool.parent}:{here.env['PATH']}"
    report = await probe(here, HOST)
    assert [gpu.name for gpu in report.sample.gpus] == ["NVIDIA GH200"]
    tool.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n")
    report = await probe(here, HOST)
    assert report.sample.gpus == ()
    assert report.facts is not None
    said = [finding for finding in findings(report.facts, report.sample) if "NVML" in finding.text]
    assert said[0].level == "warning"


def test_a_good_host_has_nothing_but_good_findings() -> None:
    assert {finding.level for finding in findings(FACTS, SAMPLE)} == {"ok"}


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"python_version": "3.8.10"}, "error", "too old for the agent"),
        ({"python_version": "3.9.2"}, "error", "too old for our code"),
        ({"modules": {"venv": True, "ensurepip": False}}, "warning", "cannot make environments"),
        ({"machine": "riscv64"}, "error", "riscv64"),
        ({"libc": "musl", "libc_version": ""}, "error", "musl"),
        ({"libc_version": "2.17"}, "error", "2.17"),
        ({"folder_filesystem": "nfs4"}, "error", "nfs4"),
        ({"folder_writable": False}, "error", "cannot be written"),
        ({"clock_offset_s": -3600.0}, "warning", "3600.0 s behind"),
        ({"tools": {}}, "warning", "rsync and tar"),
    ],
)
def test_what_is_wrong_is_named_with_what_mends_it(change: dict[str, Any], level: str, words: str) -> None:
    found = findings(FACTS | change, SAMPLE)
    assert found[0].level == level
    assert words in found[0].text
    assert found[0].mend


def test_a_full_disk_is_an_error() -> None:
    assert findings(FACTS, replace(SAMPLE, disk_free=10**6))[0].level == "error"


def test_versions_are_compared_as_numbers() -> None:
    assert version("3.9.18") < version("3.11.0rc1")
    assert version("unknown") == ()


async def test_a_command_that_takes_too_long_is_ended(here: ThisMachine) -> None:
    with pytest.raises(RingRiftError, match="took longer"):
        await here.exec(HOST, ["sleep", "600"], timeout_s=0.1)


async def test_how_a_command_ended_is_told(here: ThisMachine) -> None:
    assert await here.exec(HOST, ["sh", "-c", "echo a; exit 3"], timeout_s=30) == Finished(3, None, b"a\n", b"")
    assert (await here.exec(HOST, ["sh", "-c", "kill -9 $$"], timeout_s=30)).signal == "SIGKILL"
    assert (await here.exec(HOST, ["/nowhere/x"], timeout_s=30)).code == 127


def test_times_of_reports_are_of_our_clock() -> None:
    now = time.time()
    line = f"RINGRIFT-PROBE {json.dumps({'begun': 5, 'ended': 6, 'folder': '/', 'sample': {}})}".encode()
    assert read_report("a", line, now, now + 1).at == datetime.fromtimestamp(now + 1, UTC)
