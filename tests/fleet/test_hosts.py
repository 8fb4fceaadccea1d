"""hosts.yaml: what is understood, what is only mentioned, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import Exit, SettingsError
from backend.fleet.hosts import load_hosts, parse_hosts


def test_a_missing_file_means_this_machine_alone(tmp_path: Path) -> None:
    hosts = load_hosts(tmp_path / "hosts.yaml")
    assert [host.name for host in hosts.hosts] == ["local"]
    assert hosts.hosts[0].is_local


def test_the_committed_file_is_this_machine_alone() -> None:
    hosts = load_hosts(Path(__file__).parents[2] / "hosts.yaml")
    assert [host.name for host in hosts.hosts] == ["local"]
    assert hosts.notes == ()


def test_keys_of_the_reference_are_understood_and_unknown_ones_kept() -> None:
    hosts = parse_hosts(
        """
hosts:
  alder-1:
    ssh_host: 198.51.100.7
    ssh_port: 2222
    role: gpu_training_primary
    gpu: "GH200 (96 GB)"
    training_enabled: false
    nat_blocked: true
    vast_instance_id: 77
sync_routing: {target: 1}
""",
        "h.yaml",
    )
    host = hosts.get("alder-1")
    assert host is not None and not host.is_local
    assert host.settings["ssh_port"] == 2222
    assert not host.enabled("train") and host.enabled("selfplay")
    assert host.extra == {"vast_instance_id": 77}
    assert any("line 10" in note and "vast_instance_id" in note for note in hosts.notes)
    assert any("sync_routing" in note for note in hosts.notes)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("hosts:\n  a: {ssh_port: twenty}\n", 2, "number"),
        ("hosts:\n  a:\n    ssh_port: 99999\n", 3, "65535"),
        ("hosts:\n  a: {}\n  a: {}\n", 3, "twice"),
        ("hosts:\n  - name: a\n", 2, "names to hosts"),
        ("hosts:\n  a: 3\n", 2, "mapping"),
        ("hosts:\n  a:\n    role: [\n", 4, ""),
        ("hosts:\n  'a b; rm': {}\n", 2, "host name"),
        ("- 1\n", 1, "mapping"),
        ("other: 1\n", 1, "hosts"),
        ("hosts: {}\n", 1, "empty"),
        ("hosts:\n  a: {nat_blocked: perhaps}\n", 2, "true or false"),
        ("hosts:\n  a: {max_parallel_jobs: 0}\n", 2, "whole number"),
        ("hosts:\n\ta: 1\n", 2, ""),
        ("hosts:\n  a: {group: gpu}\n", 2, "not there"),
        ("groups: [gpu]\nhosts:\n  a: {}\n", 1, "names to settings"),
        ("groups:\n  gpu: {}\n  gpu: {}\nhosts:\n  a: {}\n", 3, "twice"),
        ("groups:\n  gpu: {ssh_port: x}\nhosts:\n  a: {}\n", 2, "'ssh_port' of group 'gpu' must be a number"),
        ("defaults: {ssh_host: x}\nhosts:\n  a: {}\n", 1, "belongs to one host"),
        ("defaults: 3\nhosts:\n  a: {}\n", 1, "the defaults must be a mapping"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(text: str, line: int, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_hosts(text, "h.yaml")
    message = caught.value.line()
    assert f"h.yaml line {line}" in message
    assert words in message
    assert "\n" not in message
    assert caught.value.exit_code == Exit.SETTINGS


def test_a_file_with_a_python_object_is_refused() -> None:
    with pytest.raises(SettingsError):
        parse_hosts("hosts:\n  a:\n    role: !!python/object/apply:os.system ['true']\n", "h.yaml")


def test_what_stands_nearer_to_the_host_wins() -> None:
    hosts = parse_hosts(
        """\
defaults: {ssh_user: ubuntu, max_parallel_jobs: 1, ssh_port: 22}
groups:
  gpu: {max_parallel_jobs: 2, role: gpu_selfplay}
  big: {max_parallel_jobs: 8}
  empty:
hosts:
  local:
  alder-1: {group: gpu, groups: [big], ssh_host: a}
  birch-1: {groups: [big, gpu], ssh_host: b, ssh_user: me}
  cedar-1: {group: empty, ssh_host: c, max_parallel_jobs: 3}
""",
        "h.yaml",
    )
    local, alder, birch, cedar = hosts.hosts
    assert local.is_local and local.settings["ssh_user"] == "ubuntu"
    assert (alder.groups, alder.max_parallel_jobs, alder.settings["role"]) == (("gpu", "big"), 8, "gpu_selfplay")
    assert (birch.groups, birch.max_parallel_jobs, birch.settings["ssh_user"]) == (("big", "gpu"), 2, "me")
    assert (cedar.max_parallel_jobs, cedar.settings["ssh_port"]) == (3, 22)


def test_an_unknown_key_of_a_group_is_mentioned() -> None:
    hosts = parse_hosts("groups:\n  gpu: {colour: red}\nhosts:\n  a: {group: gpu}\n", "h.yaml")
    assert hosts.notes == ("line 2: 'colour' of group 'gpu' is not known here",)
