"""``ringrift hosts``: what each verb prints and how it ends, with a real sshd as the other host."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.errors import Exit
from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.plans import apply_enrol, plan_enrol
from backend.fleet.store import host_rows
from backend.paths import Paths
from backend.snapshot import HostRow
from backend.state.store import StateStore
from ringrift_console.cli import main
from ringrift_console.verbs.hosts import describe
from tests.lab.sshd import Sshd, free_port

Make = Callable[..., Sshd]


def write_hosts(paths: Paths, **hosts: Any) -> None:
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}))


def verb(paths: Paths, *words: str) -> int:
    return main(["hosts", *words, "--root", str(paths.root)])


def test_a_list_has_this_machine_without_any_file(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb(paths, "list", "--json") == Exit.DONE
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["state"], row["ready"]) == ("local", "up", True)
    assert row["sample"]["memory_total"] > 0
    assert row["facts"]["hostname"]


def test_a_cached_list_asks_nobody_and_makes_nothing(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    write_hosts(paths, local={}, cedar={"ssh_host": "127.0.0.1", "ssh_port": 1})
    assert verb(paths, "list", "--cached") == Exit.DONE
    assert "cedar  new" in capsys.readouterr().out
    assert not paths.state_db.exists()


def test_another_hosts_file_can_be_named(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGRIFT_HOSTS", "/nowhere")
    other = tmp_path / "lab.yaml"
    other.write_text("hosts:\n  elm-1: {status: retired}\n")
    assert verb(paths, "list", "--hosts", str(other), "--json") == Exit.DONE
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["off"]


@pytest.mark.parametrize("words", [("list",), ("show", "local"), ("probe",), ("drain", "local")])
def test_a_mistake_in_the_file_is_one_line_with_its_place(
    paths: Paths, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    paths.root.mkdir()
    paths.hosts_yaml.write_text("hosts:\n  a: {ssh_port: x}\n")
    assert verb(paths, *words) == Exit.SETTINGS
    said = capsys.readouterr().err
    assert "hosts.yaml line 2" in said and said.count("\n") == 1


@pytest.mark.parametrize("words", [("show",), ("probe",), ("enrol",), ("bootstrap",), ("drain",), ("shell",)])
def test_a_host_that_is_not_there_is_named(
    paths: Paths, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb(paths, *words, "elm-1") == Exit.NOT_FOUND
    assert "no such host: elm-1" in capsys.readouterr().err


def test_a_host_that_is_not_up_is_told_and_ends_the_probe_with_a_failure(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hosts(paths, local={}, cedar={"ssh_host": "127.0.0.1", "ssh_port": free_port()})
    key = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIBWKKKPsBHqxkvrhGsgCDYEbJ5nTSVpdMLCgc8xgpUSW")
    paths.console.mkdir(parents=True)
    enrol_key(paths.console / "known_hosts", "cedar", key)
    assert verb(paths, "probe", "cedar", "local") == Exit.FAILED
    out, err = capsys.readouterr()
    assert out.startswith("local: up")
    assert err.startswith("cedar: ") and err.count("\n") == 1
    assert verb(paths, "list", "--json") == Exit.DONE
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states == {"local": "up", "cedar": "down"}


def test_a_key_is_trusted_only_when_a_person_compared_it(
    paths: Paths, make_sshd: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    server = make_sshd()
    write_hosts(paths, alpha=server.settings())
    assert verb(paths, "enrol", "alpha") == Exit.REFUSED
    said = capsys.readouterr().err
    assert "SHA256:" in said and "--fingerprint" in said
    assert verb(paths, "enrol", "alpha", "--fingerprint", "SHA256:other") == Exit.REFUSED
    assert "nothing was trusted" in capsys.readouterr().err
    assert not (paths.console / "known_hosts").exists()


async def test_an_enrolled_host_is_up_and_a_changed_key_has_to_be_enrolled_anew(paths: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    write_hosts(paths, alpha=server.settings())
    plan = await plan_enrol(paths, host="alpha")
    assert not (paths.console / "known_hosts").exists()
    async with await StateStore.open(paths) as store:
        operation = store.bound(await store.submit(plan, "ann@head"))
        for _ in range(2):
            result = await apply_enrol(paths, plan, operation)
        assert result["trouble"] == ""
        (row,) = await host_rows(store)
        assert (row.state, row.fingerprint) == ("up", plan.params["fingerprint"])
        assert row.facts["folder"] == server.settings()["storage_paths"]["agent"]
        assert [event.type for event in await store.events()] == ["HOST_ENROLLED"]
    server.change_key()
    again = await plan_enrol(paths, host="alpha")
    assert again.changes[0].before == plan.params["fingerprint"]
    assert "ANOTHER key" in again.warnings[0]


def test_a_host_is_described_in_plain_lines() -> None:
    row = HostRow("alder-1", "down", why="no connection", drained="", changed=("ssh_port: 22 -> 2222",))
    lines = describe(row)
    assert "state     down (no connection)" in lines
    assert any("not used before ringrift hosts reload" in line for line in lines)
    assert all(line == line.rstrip() or line.endswith(": ") for line in lines)
