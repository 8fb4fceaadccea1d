"""Setting a host up: the same code everywhere, nothing half done, and one clear line when it cannot be."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.errors import RefusedError, ResourceError, RingRiftError
from backend.fleet import bootstrap as strapping
from backend.fleet import bootstrap_host
from backend.fleet import plans as planning
from backend.fleet.bootstrap import bootstrap
from backend.fleet.bundle import NEEDED, PACKAGES, make_bundle, pins
from backend.fleet.errors import LinkLost
from backend.fleet.hosts import Host
from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.plans import plan_bootstrap
from backend.fleet.remote import Finished, ThisMachine
from backend.fleet.store import host_rows, record_code
from backend.paths import Paths
from backend.state.store import StateStore

ROOT = Path(__file__).parents[2]
KEY = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIBWKKKPsBHqxkvrhGsgCDYEbJ5nTSVpdMLCgc8xgpUSW")
REAL_MODULES = strapping.MODULES
HOST = Host("alder-1", {"ssh_host": "alder-1", "python_path": sys.executable})


def copy_code(target: Path) -> Path:
    for name in PACKAGES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def files(folder: str, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in Path(folder).rglob(pattern))


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is sent: a copy that stays as it is, and light enough to be checked without importing torch."""
    copied = copy_code(tmp_path / "sent")
    monkeypatch.setattr(strapping, "make_bundle", lambda folder: make_bundle(folder, copied))
    monkeypatch.setattr(strapping, "MODULES", ("yaml",))
    return copied


def test_the_same_code_has_the_same_hash_wherever_it_lies(tmp_path: Path) -> None:
    source, copy = copy_code(tmp_path / "source"), tmp_path / "copy"
    shutil.copytree(source, copy)
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))
    (copy / "backend/__pycache__").mkdir()
    (copy / "backend/__pycache__/x.pyc").write_bytes(b"x")
    one, other = make_bundle(tmp_path / "a", source), make_bundle(tmp_path / "b", copy)
    assert one.sha256 == other.sha256
    assert one.path.name == f"{one.sha256}.tar.gz"
    (copy / "backend/errors.py").write_text("# another\n")
    assert make_bundle(tmp_path / "b", copy).sha256 != one.sha256


def test_a_bundle_holds_code_and_nothing_else(tmp_path: Path) -> None:
    with tarfile.open(make_bundle(tmp_path).path) as archive:
        names = archive.getnames()
    assert {"backend/jobs/agent.py", "ringrift_console/cli.py", "ringrift_console/styles/console.tcss"} <= set(names)
    assert {Path(name).parts[0] for name in names} == set(PACKAGES)
    assert not any("__pycache__" in name or name.startswith("tests") for name in names)


def test_pins_are_the_versions_that_run_here() -> None:
    assert [pin.split("==")[0] for pin in pins()] == list(NEEDED)
    assert all("+" not in pin for pin in pins())


async def test_a_host_is_set_up_once_and_found_again(
    here: ThisMachine, paths: Paths, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strapping, "MODULES", REAL_MODULES)
    setup, report = await bootstrap(here, HOST, paths, selftest=False)
    folder = f"{here.env['HOME']}/.local/state/ringrift"
    assert setup.made
    assert setup.root == folder
    assert setup.python.startswith(f"{folder}/bundles/{setup.bundle}/env-")
    assert setup.versions["torch"].startswith("2.")
    assert report.facts is not None
    assert files(f"{folder}/incoming") == []
    assert files(folder, ".new-*") == []

    again, _ = await bootstrap(here, HOST, paths, selftest=False)
    assert not again.made
    assert (again.python, again.bundle) == (setup.python, setup.bundle)

    ask = "import backend, ringrift_console.cli; print(backend.__file__)"
    done = await here.exec(HOST, [setup.python, "-c", ask], timeout_s=60)
    assert done.stdout.decode().strip() == f"{folder}/bundles/{setup.bundle}/code/backend/__init__.py"


async def test_other_code_is_set_up_beside_and_the_old_stays(here: ThisMachine, paths: Paths, code: Path) -> None:
    old, _ = await bootstrap(here, HOST, paths, selftest=False)
    (code / "backend/added.py").write_text("")
    new, _ = await bootstrap(here, HOST, paths, selftest=False)
    assert new.bundle != old.bundle
    for setup, there in ((old, b"False"), (new, b"True")):
        ask = "import importlib.util as u; print(u.find_spec('backend.added') is not None)"
        done = await here.exec(HOST, [setup.python, "-I", "-c", ask], timeout_s=60)
        assert done.stdout.strip() == there


class Cut(ThisMachine):
    """A way that breaks at one of its uses: before it, or after the host has done what was asked."""

    def __init__(self, env: dict[str, str], at: int, after: bool) -> None:
        super().__init__(env)
        self.left, self.after = at, after

    async def exec(self, host: Host, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Finished:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise LinkLost("the link broke", where=host.name)
        done = await super().exec(host, argv, stdin=stdin, timeout_s=timeout_s)
        if self.left == 0:
            raise LinkLost("the link broke", where=host.name)
        return done

    async def put(self, host: Host, local: Path, remote: str, *, sha256: str) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise LinkLost("the link broke", where=host.name)
        await super().put(host, local, remote, sha256=sha256)
        if self.left == 0:
            raise LinkLost("the link broke", where=host.name)


async def test_a_link_that_breaks_anywhere_is_mended_by_another_try(paths: Paths, tmp_path: Path, code: Path) -> None:
    bundles = set()
    for at in range(2, 7):
        home = tmp_path / f"home{at}"
        home.mkdir()
        env = {"HOME": str(home)}
        with pytest.raises(LinkLost):
            await bootstrap(Cut(env, at, after=at % 2 == 0), HOST, paths, selftest=False)
        setup, _ = await bootstrap(ThisMachine(env), HOST, paths, selftest=False)
        bundles.add(setup.bundle)
        left = set(os.listdir(home / ".local/state/ringrift/bundles" / setup.bundle))
        assert left == {"code", ".complete", Path(setup.python).parents[1].name}
    assert len(bundles) == 1


async def test_two_at_once_set_up_the_same(here: ThisMachine, paths: Paths, code: Path) -> None:
    one, other = await asyncio.gather(*(bootstrap(here, HOST, paths, selftest=False) for _ in range(2)))
    assert one[0].python == other[0].python


async def test_a_host_that_cannot_run_our_code_is_refused_before_anything_is_changed(
    here: ThisMachine, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = await strapping.probe(here, HOST)
    assert looked.facts is not None
    for change, words in (
        ({"folder_filesystem": "nfs4"}, "nfs4"),
        ({"machine": "riscv64"}, "riscv64"),
        ({"python_version": "3.9.2"}, "too old"),
    ):

        async def other(*_: Any, facts: dict[str, Any] = looked.facts | change) -> Any:
            return replace(looked, facts=facts)

        monkeypatch.setattr(strapping, "probe", other)
        with pytest.raises(RefusedError, match=words) as caught:
            await bootstrap(here, HOST, paths)
        assert "\n" not in caught.value.line()
    assert files(here.env["HOME"]) == []


async def test_code_that_was_changed_on_its_way_is_refused(here: ThisMachine, paths: Paths, code: Path) -> None:
    class Bent(ThisMachine):
        async def put(self, host: Host, local: Path, remote: str, *, sha256: str) -> None:
            await super().put(host, local, remote, sha256=sha256)
            os.truncate(remote, 1000)

    with pytest.raises(RingRiftError, match="not the code that was sent"):
        await bootstrap(Bent({"HOME": here.env["HOME"]}), HOST, paths, selftest=False)
    assert files(here.env["HOME"], ".complete") == []


async def test_a_full_disk_is_told_as_such(here: ThisMachine, paths: Paths, code: Path) -> None:
    class Full(ThisMachine):
        async def exec(self, host: Host, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Finished:
            if "unpack" in argv:
                stdin = stdin.replace(b"def unpack(", b"def unpack(request):\n    raise OSError(28, 'x')\ndef other(")
            return await super().exec(host, argv, stdin=stdin, timeout_s=timeout_s)

    with pytest.raises(ResourceError, match="the disk is full: alder-1"):
        await bootstrap(Full({"HOME": here.env["HOME"]}), HOST, paths, selftest=False)


async def test_an_interpreter_without_the_packages_is_named(
    here: ThisMachine, paths: Paths, tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    monkeypatch.setattr(strapping, "MODULES", ("numpy",))
    host = Host("alder-1", {"venv_activate": f"source {bare}/bin/activate"})
    with pytest.raises(RingRiftError, match="cannot import") as caught:
        await bootstrap(here, host, paths, selftest=False)
    assert "\n" not in caught.value.line()


async def test_the_self_test_plays_by_the_code_that_was_sent(here: ThisMachine, paths: Paths, code: Path) -> None:
    here.env["NUMBA_DISABLE_JIT"] = "1"  # the same functions, without a minute of compiling
    said: list[str] = []
    setup, _ = await bootstrap(here, HOST, paths, tell=said.append)
    assert said[-1] == "testing it"
    broken = Path(setup.python).parents[2] / "code/backend/rules/__init__.py"
    broken.write_text("raise SystemExit('not today')\n")
    with pytest.raises(RingRiftError, match=r"the self-test failed.*not today"):
        await bootstrap(here, HOST, paths)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x"])
def test_an_archive_with_strange_names_is_not_unpacked(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(bootstrap_host.StepError, match="strange file"):
        bootstrap_host.extract(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_environment_by_pip_is_made_once_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = {"folder": str(tmp_path), "given": False, "pins": ["x==1"]}
    runs: list[list[str]] = []
    real = bootstrap_host.run

    def run(argv: list[str], *words: str) -> str:
        if "pip" not in argv:
            return real(argv, *words)
        runs.append(argv)
        if len(runs) == 1:
            raise bootstrap_host.StepError("run", "pip cannot install: no network")
        return ""

    monkeypatch.setattr(bootstrap_host, "run", run)
    with pytest.raises(bootstrap_host.StepError, match="no network"):
        bootstrap_host.environment(request)
    made = bootstrap_host.environment(request)
    assert made["made"] and runs[-1][-1] == "x==1"
    assert not bootstrap_host.environment(request)["made"]
    assert len(runs) == 2
    assert made["sites"][0].startswith(str(tmp_path))


async def test_a_plan_names_what_is_missing_first(paths: Paths, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.console.mkdir(parents=True)
    paths.hosts_yaml.write_text(
        "hosts:\n  local: {}\n  alder-1: {ssh_host: a, python_path: /opt/py}\n  old: {runtime: ai-service}\n"
        "  odd: {runtime: other}\n"
    )
    wrong = (("local", "already"), ("old", "not enrolled"), ("odd", "its runtime other"), ("alder-1", "not enrolled"))
    for name, words in wrong:
        with pytest.raises(RefusedError, match=words):
            await plan_bootstrap(paths, host=name)
    enrol_key(paths.console / "known_hosts", "alder-1", KEY)
    async with await StateStore.open(paths) as store:
        monkeypatch.setattr(planning, "make_bundle", strapping.make_bundle)
        plan = await plan_bootstrap(paths, host="alder-1")
        sha256 = strapping.make_bundle(paths.console / "bundles").sha256
        assert plan.changes[0].after == sha256[:12]
        assert "/opt/py" in " ".join(plan.steps)
        await record_code(store, "alder-1", {"python": "/p", "bundle": sha256, "root": "/r"})
        row = (await host_rows(store))[1]
        assert row.ready and row.facts["python"] == "/p"
    assert "already" in (await plan_bootstrap(paths, host="alder-1")).warnings[0]
    json.dumps(plan.to_json())
