"""The agent with real processes: at most one execution, whatever is killed, repeated or cancelled."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import backend.jobs.agent as agent_module

COUNT = "import os; open(os.environ['COUNT'], 'a').write('x')"
FOREVER = "import os, time; print('up', flush=True)\nwhile True: time.sleep(0.05)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def until(condition: Any, what: str) -> Any:
    end = time.monotonic() + 60.0
    while not (found := condition()):
        assert time.monotonic() < end, f"still not: {what}"
        time.sleep(0.02)
    return found


def executions(path: Path) -> int:
    return len(path.read_text()) if path.exists() else 0


def log_of(bed: Any, key: str) -> str:
    path = bed.folder(key) / "log"
    return path.read_text(errors="replace") if path.exists() else ""


def test_a_job_runs_and_leaves_its_exit_code_log_progress_and_result(bed: Any) -> None:
    code = (
        "import json, os, sys\n"
        "print('hello'); sys.stderr.write('trouble\\n')\n"
        "out = open(os.environ['RINGRIFT_PROGRESS'], 'a')\n"
        "for row in ({'seq': 1, 'done': 3, 'total': 4, 'unit': 'games'}, {'seq': 2, 'result': {'games': 4}}):\n"
        "    out.write(json.dumps(row) + '\\n')\n"
        'out.write(\'{"seq": 3, "done"\')\n'
        "out.close(); sys.exit(7)\n"
    )
    started = bed.python_job("a1.1", code)["ok"]
    assert started["started"]
    record = bed.ended("a1.1")
    assert (record["code"], record["signal"], record["cancelled"], record["executed"]) == (7, None, False, True)
    report = bed.report("a1.1")
    assert report["progress"]["done"] == 3
    assert report["result"] == {"games": 4}
    assert sorted(log_of(bed, "a1.1").split()) == ["hello", "trouble"]
    assert not (bed.folder("a1.1") / "reserve").exists()


def test_the_command_gets_plain_signals_its_own_session_and_the_starters_umask(bed: Any) -> None:
    code = (
        "import os, signal\n"
        "mask = os.umask(0)\n"
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, mask, os.getpgrp() == os.getpid(), "
        "os.environ['PYTHONUNBUFFERED'], os.environ['RINGRIFT_ATTEMPT'], os.environ['X'], os.read(0, 1))\n"
        "os.kill(os.getpid(), signal.SIGPIPE)\n"
    )
    mask = os.umask(0)
    os.umask(mask)
    bed.start("a1.1", [sys.executable, "-I", "-S", "-c", code], env={"X": "y"})
    assert bed.ended("a1.1")["code"] == 0  # Python ignores SIGPIPE itself
    assert log_of(bed, "a1.1").split() == ["True", str(mask), "True", "1", "a1.1", "y", "b''"]


def test_a_command_that_cannot_be_executed_ends_with_127_and_says_why(bed: Any) -> None:
    assert bed.start("a1.1", ["/nowhere/at/all"])["ok"]["started"]
    assert bed.ended("a1.1")["code"] == 127
    assert "/nowhere/at/all" in log_of(bed, "a1.1") or "No such file" in log_of(bed, "a1.1")


def test_a_signal_that_ends_the_command_is_recorded(bed: Any) -> None:
    bed.python_job("a1.1", "import os; os.kill(os.getpid(), 9)")
    record = bed.ended("a1.1")
    assert (record["code"], record["signal"]) == (None, 9)


def test_repeated_starts_run_the_command_once(bed: Any, tmp_path: Path) -> None:
    count = tmp_path / "count"
    for _ in range(4):
        assert "ok" in bed.python_job("a1.1", COUNT, env={"COUNT": str(count)})
    bed.ended("a1.1")
    again = bed.python_job("a1.1", COUNT, env={"COUNT": str(count)})["ok"]
    assert again["state"] == "exited"
    assert not again["started"]
    assert executions(count) == 1


def test_starts_at_the_same_moment_run_the_command_once(bed: Any, tmp_path: Path) -> None:
    count = tmp_path / "count"
    argv = [sys.executable, "-I", "-S", "-c", COUNT]
    request = json.dumps(bed.start_request("a1.1", argv, env={"COUNT": str(count)}))
    asked = [
        subprocess.Popen(bed.argv("start", request), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(8)
    ]
    replies = [json.loads(process.communicate()[0]) for process in asked]
    bed.ended("a1.1")
    assert executions(count) == 1
    assert sum(reply["ok"]["started"] for reply in replies) == 1


def test_another_spec_under_the_same_key_is_a_conflict(bed: Any) -> None:
    bed.python_job("a1.1", "pass")
    reply = bed.python_job("a1.1", "print('other')")
    assert reply["error"] == "conflict"
    bed.ended("a1.1")


def test_a_digest_that_does_not_belong_to_the_spec_is_refused(bed: Any) -> None:
    request = bed.start_request("a1.1", ["true"])
    request["spec"]["argv"] = ["false"]
    assert bed.ask("start", **request)["error"] == "request"
    assert bed.state("a1.1") == "absent"


@pytest.mark.parametrize("key", ["../x.1", "a/b.1", "a", "a.", ".1", "a.1\n", "", "a.1/../b.1"])
def test_a_key_that_is_no_key_never_becomes_a_path(bed: Any, key: str) -> None:
    assert bed.ask("status", keys=[key])["error"] == "request"
    assert bed.start(key, ["true"])["error"] == "request"


def test_a_controller_that_was_replaced_is_refused(bed: Any) -> None:
    bed.epoch = 5
    bed.start("a1.1", ["true"])
    bed.epoch = 4
    assert bed.start("a2.1", ["true"])["error"] == "stale"
    assert bed.cancel("a1.1")["error"] == "stale"
    assert bed.state("a2.1") == "absent"
    bed.owner = "another"  # epochs of one owner say nothing of another's
    assert "ok" in bed.start("a3.1", ["true"])
    bed.ended("a3.1")


def test_a_killed_runner_leaves_an_orphan_and_then_an_unknown_outcome(bed: Any, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    code = "import os, time, sys\nwhile not os.path.exists(os.environ['FLAG']): time.sleep(0.02)\nprint('end')"
    bed.python_job("a1.1", code, env={"FLAG": str(flag)})
    assert bed.state("a1.1") == "running"
    bed.kill_runner("a1.1")
    until(lambda: bed.state("a1.1") == "orphaned", "orphaned")
    assert not bed.python_job("a1.1", code, env={"FLAG": str(flag)})["ok"]["started"]
    flag.touch()
    until(lambda: bed.state("a1.1") == "unknown", "unknown")
    assert not bed.python_job("a1.1", code, env={"FLAG": str(flag)})["ok"]["started"]
    assert log_of(bed, "a1.1").count("end") == 1


def test_a_child_of_the_command_keeps_an_attempt_from_being_called_over(bed: Any) -> None:
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print('up', flush=True); time.sleep(600)"
    )
    bed.python_job("a1.1", code)
    until(lambda: "up" in log_of(bed, "a1.1"), "the command is up")
    bed.kill_runner("a1.1")
    child = json.loads((bed.folder("a1.1") / "executed").read_text())
    os.kill(child["pid"], signal.SIGKILL)
    until(lambda: not agent_module.is_alive(child), "the command is dead")
    assert bed.state("a1.1") == "orphaned"
    bed.cancel("a1.1")
    record = bed.ended("a1.1")
    assert record["cancelled"]
    assert record["unwitnessed"]
    assert not agent_module.holders(agent_module.cookie_of(str(bed.root), "a1.1"))


def test_a_boot_since_makes_an_attempt_lost_and_a_recycled_pid_is_not_the_command(bed: Any) -> None:
    bed.python_job("a1.1", FOREVER)
    bed.kill_runner("a1.1")
    child = json.loads((bed.folder("a1.1") / "executed").read_text())
    os.kill(child["pid"], signal.SIGKILL)
    until(lambda: bed.state("a1.1") == "unknown", "unknown")
    (bed.folder("a1.1") / "executed").write_text(json.dumps(child | {"pid": os.getpid()}))
    assert bed.state("a1.1") == "unknown"  # our own pid, but another start time
    (bed.folder("a1.1") / "executed").write_text(json.dumps(child | {"boot_id": "another boot"}))
    assert bed.state("a1.1") == "lost"


def test_cancel_before_the_start_means_it_never_runs(bed: Any, tmp_path: Path) -> None:
    count = tmp_path / "count"
    cancelled = bed.cancel("a1.1")["ok"]
    assert cancelled["state"] == "exited"
    assert cancelled["exit"]["executed"] is False
    reply = bed.python_job("a1.1", COUNT, env={"COUNT": str(count)})["ok"]
    assert not reply["started"]
    assert reply["exit"]["cancelled"]
    assert executions(count) == 0


def test_cancel_while_running_terminates_the_whole_tree(bed: Any) -> None:
    code = (
        "import subprocess, sys, time\n"
        "for new in (False, True):\n"
        "    argv = [sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)']\n"
        "    subprocess.Popen(argv, start_new_session=new)\n"
        "print('up', flush=True); time.sleep(600)"
    )
    bed.python_job("a1.1", code)
    until(lambda: "up" in log_of(bed, "a1.1"), "the command is up")
    bed.cancel("a1.1")
    bed.cancel("a1.1")
    record = bed.ended("a1.1")
    assert record["cancelled"]
    assert record["signal"] == signal.SIGTERM
    assert not agent_module.holders(agent_module.cookie_of(str(bed.root), "a1.1"))


def test_cancel_kills_what_ignores_terminate_and_what_is_stopped(bed: Any) -> None:
    bed.python_job("a1.1", STUBBORN)
    bed.python_job("a2.1", FOREVER)
    until(lambda: "up" in log_of(bed, "a1.1") and "up" in log_of(bed, "a2.1"), "both are up")
    os.kill(json.loads((bed.folder("a2.1") / "executed").read_text())["pid"], signal.SIGSTOP)
    bed.cancel("a1.1", grace_s=0.2)
    bed.cancel("a2.1", grace_s=30.0)
    assert bed.ended("a1.1")["signal"] == signal.SIGKILL
    assert bed.ended("a2.1")["signal"] == signal.SIGTERM


def test_cancel_after_the_end_changes_nothing(bed: Any) -> None:
    bed.python_job("a1.1", "pass")
    before = bed.ended("a1.1")
    assert bed.cancel("a1.1")["ok"]["exit"] == before
    assert before["cancelled"] is False


def test_cancel_of_an_unknown_outcome_closes_it(bed: Any) -> None:
    bed.python_job("a1.1", FOREVER)
    bed.kill_runner("a1.1")
    os.kill(json.loads((bed.folder("a1.1") / "executed").read_text())["pid"], signal.SIGKILL)
    until(lambda: bed.state("a1.1") == "unknown", "unknown")
    bed.cancel("a1.1")
    record = bed.ended("a1.1")
    assert record["cancelled"]
    assert record["unwitnessed"]


def test_a_time_limit_ends_the_command(bed: Any) -> None:
    bed.python_job("a1.1", FOREVER, wall_s=0.3, grace_s=5)
    record = bed.ended("a1.1")
    assert record["timed_out"]
    assert not record["cancelled"]


def test_children_left_behind_are_swept_when_the_command_ends(bed: Any) -> None:
    code = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    )
    bed.python_job("a1.1", code)
    record = bed.ended("a1.1")
    assert record["code"] == 0
    assert record["swept"] == 1


def test_the_log_is_read_by_byte_offset_without_gaps_while_it_grows(bed: Any) -> None:
    code = "import sys\nfor n in range(20000): print(n)\nsys.stdout.flush()\nsys.stdout.buffer.write(b'\\xff\\x00end')"
    bed.python_job("a1.1", code)
    data, offset, names = b"", 0, set()
    while True:
        ended = bed.state("a1.1") == "exited"
        piece = bed.ask("read", key="a1.1", offset=offset, limit=30000)["ok"]
        assert piece["offset"] == offset
        data += base64.b64decode(piece["data"])
        offset = piece["next"]
        names.add(piece["identity"])
        if ended and offset == piece["size"]:
            break
    assert data == b"".join(b"%d\n" % n for n in range(20000)) + b"\xff\x00end"
    assert len(names - {None}) == 1
    assert bed.ask("read", key="a1.1", name="spec.json")["error"] == "request"


def test_an_attempt_of_another_root_is_neither_cancelled_nor_acknowledged(bed: Any) -> None:
    bed.python_job("a1.1", FOREVER)
    until(lambda: "up" in log_of(bed, "a1.1"), "it runs")
    reply = bed.ask("cancel", key="a1.1", owner="other", epoch=1, by="other")
    assert (reply["error"], bed.state("a1.1")) == ("conflict", "running")
    assert not (bed.folder("a1.1") / "cancel").exists()
    bed.cancel("a1.1")
    bed.ended("a1.1")
    assert bed.ask("ack", owner="other", epoch=1, keys=["a1.1"])["ok"]["acked"] == []
    assert bed.ask("ack", owner="test", epoch=1, keys=["a1.1"])["ok"]["acked"] == ["a1.1"]


def test_a_folder_that_cannot_be_read_hides_no_other(bed: Any) -> None:
    for key in ("a1.1", "a2.1"):
        bed.python_job(key, "pass")
        bed.ended(key)
    spec = bed.folder("a1.1") / "spec.json"
    spec.unlink()
    spec.mkdir()  # which cannot be opened, as a file on a broken disk
    told = bed.ask("status", keys=["a1.1", "a2.1"])["ok"]
    assert list(told["reports"]) == ["a2.1"] and "spec.json" in told["refused"]["a1.1"]
    request = [bed.start_request(key, ["true"]) for key in ("a1.1", "a3.1")]
    told = bed.ask("hold", held=[[one["spec"], one["digest"]] for one in request], owner="test", epoch=1)["ok"]
    assert list(told["reports"]) == ["a3.1"] and "spec.json" in told["refused"]["a1.1"][1]
    assert list(bed.ask("list", owner="test")["ok"]["attempts"]) == ["a2.1", "a3.1"]


def test_what_cannot_be_looked_at_is_not_absent(bed: Any) -> None:
    bed.python_job("a1.1", "pass")
    bed.ended("a1.1")
    loop = bed.root / "loop"
    loop.symlink_to(loop)  # which no look gets through: ELOOP, as ESTALE where a server has forgotten a folder
    (bed.root / "jobs").rename(bed.root / "kept")
    (bed.root / "jobs").symlink_to(loop)
    told = bed.ask("status", keys=["a1.1"])["ok"]
    assert told["reports"] == {} and "symbolic links" in told["refused"]["a1.1"]
    (bed.root / "jobs").unlink()
    (bed.root / "kept").rename(bed.root / "jobs")
    assert bed.state("a1.1") == "exited"


def test_attempts_are_listed_by_owner_until_they_are_acknowledged(bed: Any) -> None:
    bed.start("a1.1", ["true"])
    bed.start("a2.1", ["true"])
    for key in ("a1.1", "a2.1"):
        bed.ended(key)
    assert bed.ask("list", owner="test")["ok"]["attempts"] == {"a1.1": "exited", "a2.1": "exited"}
    assert bed.ask("list", owner="nobody")["ok"]["attempts"] == {}
    assert bed.ask("ack", owner="test", epoch=1, keys=["a1.1"])["ok"]["acked"] == ["a1.1"]
    assert bed.ask("list", owner="test")["ok"]["attempts"] == {"a2.1": "exited"}


def test_serve_answers_line_by_line_and_outlives_nonsense(bed: Any) -> None:
    process = subprocess.Popen(bed.argv("serve"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    requests = [b"nonsense\n", b"[]\n", b'{"id": 3, "op": "explode"}\n', b'{"id": 4, "op": "hello"}\n']
    out, err = process.communicate(b"".join(requests))
    greeting, *lines = out.decode().splitlines()
    replies = [json.loads(line) for line in lines]
    assert greeting == f"{agent_module.MAGIC} {agent_module.PROTOCOL}"
    assert [reply.get("error") for reply in replies] == ["request", "request", "request", None]
    assert replies[3]["id"] == 4
    assert replies[3]["ok"]["boot_id"] == agent_module.boot_id()
    assert (err, process.returncode) == (b"", 0)


def test_a_job_outlives_the_serving_agent_that_started_it(bed: Any, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    code = "import os, time\nwhile not os.path.exists(os.environ['FLAG']): time.sleep(0.02)\nprint('end')"
    process = subprocess.Popen(bed.argv("serve"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdout.readline()
    request = bed.start_request("a1.1", [sys.executable, "-I", "-S", "-c", code], env={"FLAG": str(flag)})
    process.stdin.write(json.dumps({"id": 1, "op": "start"} | request).encode() + b"\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["ok"]["started"]
    process.kill()
    process.communicate()
    assert bed.state("a1.1") == "running"
    flag.touch()
    assert bed.ended("a1.1")["code"] == 0


@pytest.mark.parametrize("target", ["starter", "runner"])
def test_killing_at_random_moments_never_runs_a_command_twice_nor_loses_it(
    bed: Any, tmp_path: Path, target: str
) -> None:
    chance = random.Random(20261122)
    rounds = 15
    outcomes: dict[str, int] = {}
    for number in range(rounds):
        key, count = f"a{number}.1", tmp_path / f"count{number}"
        argv = [sys.executable, "-I", "-S", "-c", COUNT]
        request = json.dumps(bed.start_request(key, argv, env={"COUNT": str(count)}))
        process = subprocess.Popen(
            bed.argv("start", request), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(chance.uniform(0.0, 0.35))
        if target == "starter":
            process.kill()
        else:
            runner = agent_module.read_json(str(bed.folder(key) / "runner.json"))
            if runner and agent_module.is_alive(runner):
                os.kill(runner["pid"], signal.SIGKILL)
        process.wait()

        def settled(request: str = request) -> str | None:
            state = bed.ask("start", **json.loads(request)).get("ok", {}).get("state")
            return state if state in ("exited", "unknown") else None

        state = until(settled, f"{key} settles")
        outcomes[state] = outcomes.get(state, 0) + 1
        if state == "exited":
            assert executions(count) == 1
        assert executions(count) <= 1
    assert sum(outcomes.values()) == rounds


OLD_PYTHON = [
    path for path in map(Path, ("/root/.pyenv/versions/3.9.18/bin/python", "/usr/bin/python3.9")) if path.exists()
]


def test_the_agent_keeps_to_the_syntax_of_python_3_9() -> None:
    import ast

    ast.parse(Path(agent_module.__file__).read_text(), feature_version=(3, 9))


@pytest.mark.skipif(not OLD_PYTHON, reason="no Python 3.9 on this machine")
def test_the_agent_works_under_python_3_9(bed: Any) -> None:
    bed.python = str(OLD_PYTHON[0])
    bed.python_job("a1.1", FOREVER)
    assert bed.ask("hello")["ok"]["python"].startswith("3.9.")
    assert bed.state("a1.1") == "running"
    bed.cancel("a1.1")
    assert bed.ended("a1.1")["cancelled"]


@pytest.mark.skipif(os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="needs to mount a small disk")
def test_a_full_disk_refuses_a_start_and_keeps_the_exit_code_of_what_runs(bed: Any, tmp_path: Path) -> None:
    bed.root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(bed.root)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount")
    try:
        flag = tmp_path / "go"
        code = "import os, sys, time\nwhile not os.path.exists(os.environ['FLAG']): time.sleep(0.02)\nsys.exit(9)"
        assert bed.python_job("a1.1", code, env={"FLAG": str(flag)})["ok"]["started"]
        with pytest.raises(OSError), (bed.root / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"\0" * 4096)
        reply = bed.python_job("a2.1", "pass")
        assert reply["error"] == "resource"
        assert not list(bed.folder("a2.1").glob("*.tmp"))
        flag.touch()
        assert bed.ended("a1.1")["code"] == 9
        (bed.root / "filler").unlink()
        assert bed.python_job("a2.1", "pass")["ok"]["started"]
        assert bed.ended("a2.1")["code"] == 0
    finally:
        bed.clean()
        subprocess.run(["umount", "-l", str(bed.root)], check=True)


def test_a_process_that_computes_on_a_gpu_and_belongs_to_no_attempt_is_found(tmp_path: Path) -> None:
    driver, devices = tmp_path / "driver", tmp_path / "nvidia"
    (driver / "0000:17:00.0").mkdir(parents=True)
    (driver / "0000:17:00.0/information").write_text(
        "Model: \t\t NVIDIA H100\nIRQ:   \t\t 90\nGPU UUID: \t GPU-3fb8a1a2\nDevice Minor: \t 4\n"
    )
    assert agent_module.gpu_minor("GPU-3fb8a1a2", str(driver)) == "4"
    assert agent_module.gpu_minor("GPU-other", str(driver)) == ""
    for name in ("nvidia4", "nvidia5", "nvidia-uvm"):
        (tmp_path / name).touch()
    code = "import sys, time; held = [open(name) for name in sys.argv[1:]]; print('up', flush=True); time.sleep(600)"

    def holder(*names: str, **env: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-I", "-S", "-c", code, *(str(tmp_path / name) for name in names)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=os.environ | env)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        return process

    bystanders = [
        holder("nvidia4"),  # a monitor
        holder("nvidia5", "nvidia-uvm"),  # on another GPU
        holder("nvidia4", "nvidia-uvm", RINGRIFT_COOKIE="x"),  # an attempt's: its lease tells
    ]
    try:
        assert agent_module.device_holder("4", str(devices)) == 0
        bystanders.append(holder("nvidia4", "nvidia-uvm"))
        assert agent_module.device_holder("4", str(devices)) == bystanders[-1].pid
    finally:
        for process in bystanders:
            process.kill()
            process.communicate()
