"""The Slurm that tests raise behaves as one of several machines, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.lab.slurm import PATIENCE_S, Slurm


def done(slurm: Slurm) -> None:
    end = time.monotonic() + PATIENCE_S
    while slurm.jobs():
        assert time.monotonic() < end, slurm.said()
        time.sleep(0.1)


def submit(slurm: Slurm, text: str, *options: str) -> Path:
    out = slurm.folder / f"out-{time.monotonic_ns()}"
    argv = ["sbatch", "--parsable", "--output", str(out), *options, "--wrap", text]
    answer = slurm.ask(*argv)
    assert answer.returncode == 0, answer.stderr
    return out


def test_a_job_sees_the_gpus_that_it_asked_for_and_several_tasks_run_on_both_nodes(
    make_slurm: Callable[..., Slurm],
) -> None:
    slurm = make_slurm()
    one = submit(slurm, "echo $CUDA_VISIBLE_DEVICES", "--gres=gpu:2")
    two = submit(slurm, "srun sh -c 'echo $SLURM_PROCID $SLURMD_NODENAME $SLURM_LAUNCH_NODE_IPADDR'", "-N2")
    done(slurm)
    assert one.read_text() == "0,1\n"
    assert sorted(two.read_text().splitlines()) == ["0 n1 127.0.0.1", "1 n2 127.0.0.1"]


def test_nothing_is_left_of_it_though_jobs_run(make_slurm: Callable[..., Slurm]) -> None:
    slurm = make_slurm()
    submit(slurm, "setsid sleep 600 & sleep 600")
    end = time.monotonic() + PATIENCE_S
    while not slurm.pids("sleep"):
        assert time.monotonic() < end, slurm.said()
        time.sleep(0.1)
    slurm.stop()
    assert list(slurm._ours()) == []
