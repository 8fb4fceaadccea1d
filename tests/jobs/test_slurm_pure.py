"""Slurm without a Slurm: batch scripts as golden files, answers of its programs, and what follows from both."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backend.errors import SettingsError
from backend.fleet.hosts import Host, parse_hosts
from backend.fleet.pool_look import job_counts, node_counts, pool_text
from backend.fleet.pools import Pool, pool_of, rule_text
from backend.fleet.remote import ThisMachine
from backend.jobs.launchers.slurm_answers import complaint, sacct_words, squeue_words, submitted
from backend.jobs.launchers.slurm_client import SlurmClient, SlurmError
from backend.jobs.launchers.slurm_script import Batch, Request, batches, script
from backend.jobs.launchers.slurm_state import judge
from backend.jobs.model import Observation, Phase
from backend.jobs.placement import Asks, Load, choose, choose_several, slots_of

GOLDEN = Path(__file__).parent / "slurm"
HOSTS = """\
hosts:
  local: {}
  cluster:
    kind: slurm
    shared_root: /nfs/ringrift
    partition: gpu
    account: lab
    qos: normal
    constraint: a100|h100
    gres: gpu:a100:1
    time_limit: 12:00:00
    cpus_per_task: 8
    mem_gb: 64
    max_parallel_jobs: 100
"""


def pool() -> Pool:
    host = parse_hosts(HOSTS, "hosts.yaml").get("cluster")
    assert host is not None
    return pool_of(host.name, host.settings, host.line)


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("one", Batch("owner", "one", ("01JOB.1",), Request("train", 1))),
        ("array", Batch("owner", "array", ("01A.1", "01B.1", "01C.2"), Request("gauntlet"), tries=2)),
        ("gang", Batch("owner", "gang", ("01A.1", "01B.1"), Request("train", 2, ("01A.1", "01B.1"), 20123))),
    ],
)
def test_batch_scripts_are_those_of_the_golden_files(name: str, batch: Batch) -> None:
    text = script(pool(), batch, "/opt/python/bin/python3", "/nfs/ringrift/agent/agent/ab/agent.py")
    assert text == (GOLDEN / f"{name}.sh").read_text()
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0


def test_what_asks_the_same_becomes_one_array_and_a_gang_one_job() -> None:
    gang = Request("train", 1, ("g.1", "h.1"), 20000)
    wanted = {f"a{n}.1": (Request("selfplay"), 0) for n in range(1500)}
    wanted |= {"b.1": (Request("gauntlet"), 0), "g.1": (gang, 0), "h.1": (gang, 1)}
    found = batches(wanted, "owner")
    assert [(one.shape, len(one.keys), one.tries) for one in found] == [
        ("gang", 2, 2), ("array", 1000, 1), ("array", 500, 1), ("one", 1, 1),
    ]  # fmt: skip
    assert len({one.name for one in found}) == len(found)


def test_no_key_and_no_setting_gets_words_of_its_own_into_a_script() -> None:
    with pytest.raises(ValueError, match="not attempt keys"):
        script(pool(), Batch("owner", "one", ("a.1; rm -rf /",)), "python3", "/a")
    wrong = (
        "partition: 'gpu --wrap=x'", 'account: "a\\nb"', "shared_root: /a b", "shared_root: relative", "gres: cpu:1",
        "time_limit: soon", "slurm_bin: /opt/$(id)", "cpus_per_task: 0", "kind: pbs",
    )  # fmt: skip
    for line in wrong:
        text = f"hosts:\n  c:\n    kind: slurm\n    shared_root: /nfs\n    {line}\n"
        if line.startswith(("shared_root", "kind")):
            text = f"hosts:\n  c:\n    qos: a\n    role: b\n    {line}\n"
        with pytest.raises(SettingsError, match="line 5"):
            parse_hosts(text, "hosts.yaml")


def test_a_pool_needs_a_shared_root_and_only_a_pool_has_its_settings() -> None:
    with pytest.raises(SettingsError, match=r"needs a shared_root.*\n?.*line 2|line 2.*needs a shared_root") as missing:
        parse_hosts("hosts:\n  c: {kind: slurm}\n", "hosts.yaml")
    assert "line 2" in missing.value.line()
    with pytest.raises(SettingsError, match="only a pool has"):
        parse_hosts("hosts:\n  c: {partition: gpu}\n", "hosts.yaml")
    made = parse_hosts(HOSTS, "hosts.yaml").get("cluster")
    assert made is not None and made.is_pool and made.is_here and not made.is_local
    assert made.settings["time_limit"] == "12:00:00"  # to YAML that is a number
    assert not parse_hosts(HOSTS + "    ssh_host: login\n", "x").hosts[1].is_here


VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def client(version: str, tmp_path: Path, **fails: str) -> SlurmClient:
    """Programs that answer as those of a version did."""
    for name in ("squeue", "sacct", "sbatch"):
        kept = GOLDEN / version / name
        text = f"#!/bin/sh\ncat {kept}\n" if kept.exists() else "#!/bin/sh\nexit 1\n"
        if name in fails:
            text = f"#!/bin/sh\necho '{fails[name]}' >&2\nexit 1\n"
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    settings = {"kind": "slurm", "shared_root": str(tmp_path), "slurm_bin": str(tmp_path)}
    return SlurmClient(ThisMachine(), Host("c", settings), pool_of("c", settings))


@pytest.mark.parametrize("version", VERSIONS)
async def test_answers_of_several_versions_are_read_alike(version: str, tmp_path: Path) -> None:
    # Written by hand: 22.05 after what was measured, the others from what is known of their formats.
    found = await client(version, tmp_path).queue()
    stages = {name: word.stage for name, word in found.items()}
    assert stages["ringrift-01A.1", None] == "running"
    assert [stages["ringrift-01B.1+9.ab", n] for n in range(10)] == ["ended"] * 2 + ["running"] + ["waiting"] * 7
    assert stages["ringrift-01C.1", None] == "ended"
    assert found["ringrift-01B.1+9.ab", 5].reason == "Priority"
    assert found["ringrift-01B.1+9.ab", 2].job == "12_2"
    assert not any("wrap" in name for name, _ in found)
    ended = await client(version, tmp_path).ended(["ringrift-01C.1"])
    assert ended["ringrift-01C.1", None].state == "TIMEOUT"
    assert (await client(version, tmp_path).submit("#!/bin/sh\n")) == "4711"


async def test_without_an_accounting_database_nothing_is_said_and_it_is_not_asked_again(tmp_path: Path) -> None:
    one = client("22.05", tmp_path, sacct="Slurm accounting storage is disabled")
    assert await one.ended(["ringrift-01C.1"]) == {}
    (tmp_path / "sacct").unlink()
    assert await one.ended(["ringrift-01C.1"]) == {}


COMPLAINTS = [  # as Slurm 22.05 says it
    ("sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition "
     "name specified", False, "no such partition"),
    ("sbatch: error: Batch job submission failed: Requested node configuration is not available", False, "no nodes"),
    ("sbatch: error: Invalid generic resource (gres) specification", False, "no node has the gres"),
    ("sbatch: error: Batch job submission failed: Invalid feature specification", False, "constraint"),
    ("sbatch: error: Batch job submission failed: Invalid job array specification", False, "over the size of an array"),
    ("sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
     False, "over the time limit"),
    ("sbatch: error: Batch job submission failed: Required partition not available (inactive or drain)", True,
     "the partition is closed"),
    ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
     "policy (job submit limit, user's size and/or time limits)", True, "over a limit of jobs"),
    ("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
     "accounting/QOS policy (job submit limit, user's size and/or time limits)", True, "over a limit of jobs"),
    ("sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates "
     "accounting/QOS policy (job submit limit, user's size and/or time limits)", False, "lets one job have"),
    ("sbatch: error: AssocMaxGRESPerJob\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
     "policy (job submit limit, user's size and/or time limits)", False, "lets one job have"),
    ("sbatch: error: If munged is up, restart with --num-threads=10\nsbatch: error: Munge encode failed: Failed to "
     "connect to \"/run/munge/munge.socket.2\": Connection refused\nsbatch: error: Batch job submission failed: "
     "Protocol authentication error", True, "munge does not answer"),
    ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", True,
     "the controller does not answer"),
    ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", True, "in time"),
    ("sbatch: error: something quite new", False, "something quite new"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "later", "meaning"), COMPLAINTS)
def test_a_complaint_is_one_line_and_says_whether_another_try_makes_sense(said: str, later: bool, meaning: str) -> None:
    found = complaint(said, 1)
    assert (found.later, "\n" in found.text) == (later, False)
    assert meaning in found.text and "If munged" not in found.text


async def test_a_program_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    one = client("22.05", tmp_path)
    (tmp_path / "squeue").unlink()
    with pytest.raises(SlurmError, match="programs are not there"):
        await one.queue()


def test_lines_that_are_cut_or_foreign_are_passed_over() -> None:
    assert squeue_words("slurm is fine\n12|ringrift-a.1\n|||\n", "ringrift-") == {}
    assert sacct_words("\n12|ringrift-a.1|RUNNING\n", "ringrift-") == {}
    assert list(squeue_words("9_[0-1,7|ringrift-a.1+2.x|PENDING|1|None", "ringrift-")) == []
    assert submitted("Welcome to the cluster!\n17;cluster\n") == "17"
    assert submitted("Submitted batch job 17\n") is None
    twins = "9|ringrift-a.1|RUNNING|1|None\n5|ringrift-a.1|CANCELLED|1|None\n"
    assert squeue_words(twins, "ringrift-")["ringrift-a.1", None].job == "9"


def word(state: str) -> dict[str, object]:
    return {"word": squeue_words(f"1|ringrift-a.1|{state}|1|None", "ringrift-")["ringrift-a.1", None]}


@pytest.mark.parametrize(
    ("phase", "given", "expected"),
    [
        (Phase.EXITED, {"asked": False, "word": None}, Phase.EXITED),
        (Phase.RUNNING, {"asked": True} | word("FAILED"), Phase.RUNNING),  # whoever holds the lock is alive
        (Phase.PREPARED, {"noted": False, "asked": False, "word": None}, Phase.PREPARED),
        (Phase.PREPARED, {"asked": False, "word": None}, None),  # silence says nothing
        (Phase.PREPARED, {"asked": True, "word": None}, Phase.PREPARED),
        (Phase.PREPARED, {"asked": True} | word("PENDING"), Phase.STARTING),
        (Phase.PREPARED, {"asked": True} | word("A_STATE_OF_2031"), Phase.STARTING),
        (Phase.LOST, {"asked": False, "word": None}, None),
        (Phase.LOST, {"asked": True} | word("RUNNING"), Phase.RUNNING),  # another node's boot is no reboot
        (Phase.LOST, {"asked": True, "word": None, "settled": False}, Phase.RUNNING),
        (Phase.LOST, {"asked": True, "word": None}, Phase.UNKNOWN),  # not there any more is not done
        (Phase.UNKNOWN, {"asked": True} | word("COMPLETED"), Phase.UNKNOWN),
        (Phase.UNKNOWN, {"asked": True} | word("PENDING"), Phase.UNKNOWN),  # requeued: it will not run again
    ],
)
def test_what_follows_from_the_folder_and_the_scheduler(
    phase: Phase, given: dict[str, object], expected: Phase | None
) -> None:
    arguments: dict[str, object] = {"noted": True, "settled": True} | given
    found = judge(Observation("a.1", phase), **arguments)  # type: ignore[arg-type]
    assert (found.phase if found else None) is expected


def test_training_goes_to_the_pool_gauntlets_to_hosts_and_a_preference_that_is_stated_wins() -> None:
    kinds = ("train", "gauntlet", "selfplay", "export")

    def names(text: str) -> list[str | None]:
        slots = [slots_of(host, kinds) for host in parse_hosts(text, "x").hosts]
        return [choose(kind, Asks(), slots, Load()).host for kind in kinds]

    assert names(HOSTS) == ["cluster", "local", "local", "local"]
    assert names(HOSTS + "    preferred_workloads: [gauntlet]\n") == ["cluster", "cluster", "local", "local"]
    assert names(HOSTS.replace("    gres: gpu:a100:1\n", ""))[0] == "local"
    assert rule_text(pool()) == "training first go here, gauntlet last"
    assert rule_text(Pool("c", "/nfs"), ["gauntlet"]) == "gauntlet first go here, training last"


def test_nodes_queue_and_our_share_are_counted() -> None:
    assert node_counts("3|idle\n1|mixed\n2|idle*\n1|idle\nnonsense\n") == {"idle": 4, "mixed": 1, "idle*": 2}
    queue = "RUNNING|7\nPENDING|7\nPENDING|8\n"
    assert (job_counts(queue), job_counts(queue, "8")) == ({"running": 1, "pending": 2}, {"pending": 1})
    assert pool_text({"error": "munge is down"}) == [("nodes", "not known: munge is down")]
    assert ("queue", "2 pending, 1 running") in pool_text({"queue": job_counts(queue)})


def test_all_members_of_a_gang_are_in_the_pool_or_none() -> None:
    slots = [slots_of(host, ("train",)) for host in parse_hosts(HOSTS, "x").hosts]
    found, missing = choose_several("train", Asks(), slots, Load(), 4)
    assert [choice.host for choice in found] == ["cluster"] * 4 and missing is None
    found, missing = choose_several("train", Asks(), slots, Load(), 101)
    assert missing is not None
    text = HOSTS.replace("kind: slurm", "kind: slurm\n    training_enabled: false") + "  b: {}\n"
    slots = [slots_of(host, ("train",)) for host in parse_hosts(text, "x").hosts]
    assert {choice.host for choice in choose_several("train", Asks(), slots, Load(), 2)[0]} == {"local", "b"}
