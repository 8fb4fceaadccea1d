"""Setting a host up: the same code everywhere, nothing half done, and one clear line when it cannot be."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backend.distribution.transports.base import Means
from backend.distribution.transports.torrent import TorrentTransport
from backend.errors import RefusedError, ResourceError, RingRiftError, SettingsError, UnverifiedError
from backend.fleet import bootstrap as strapping
from backend.fleet import bootstrap_host
from backend.fleet import plans as planning
from backend.fleet.bootstrap import bootstrap
from backend.fleet.bundle import NEEDED, OPTIONAL, PACKAGES, make_bundle, pins
from backend.fleet.doctor import DISK_BYTES, findings, packages_for
from backend.fleet.errors import LinkLost
from backend.fleet.hosts import Host, parse_hosts
from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.plans import plan_bootstrap
from backend.fleet.remote import Finished, ThisMachine
from backend.fleet.store import host_rows, record_code
from backend.paths import Paths
from backend.plans import Plan
from backend.snapshot import GpuSample, HostSample
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
    assert [pin.split("==")[0] for pin in pins(OPTIONAL)] == ["libtorrent"]


async def test_a_host_is_set_up_once_and_found_again(
    here: ThisMachine, paths: Paths, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strapping, "MODULES", REAL_MODULES)
    setup, report = await bootstrap(here, HOST, paths, selftest=False)
    folder = f"{here.env['HOME']}/.local/state/ringrift"
    assert setup.made
    assert setup.root == folder
    assert setup.python.startswith(f"{folder}/bundles/{setup.bundle}/env-")
    assert setup.versions["torch"].startswith("2.") and setup.versions["libtorrent"].startswith("2.")
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
            await bootstrap(Cut(env, at, after=at % 2 == 0), HOST, paths, owner="head", selftest=False)
        setup, _ = await bootstrap(ThisMachine(env), HOST, paths, owner="head", selftest=False)
        bundles.add(setup.bundle)
        left = set(os.listdir(home / ".local/state/ringrift/bundles" / setup.bundle))
        assert left == {"code", ".complete", "used-by-head", Path(setup.python).parents[1].name}
    assert len(bundles) == 1


async def test_two_at_once_set_up_the_same(here: ThisMachine, paths: Paths, code: Path) -> None:
    one, other = await asyncio.gather(*(bootstrap(here, HOST, paths, selftest=False) for _ in range(2)))
    assert one[0].python == other[0].python


async def test_a_file_may_be_brought_twice_at_once_and_other_bytes_never(here: ThisMachine, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "there" / "target"
    source.write_bytes(os.urandom(3_000_000))
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    await asyncio.gather(*(here.put(HOST, source, str(target), sha256=sha256) for _ in range(8)))
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(UnverifiedError, match="not the bytes"):
        await here.put(HOST, source, str(target.with_name("other")), sha256="0" * 64)
    assert files(str(target.parent)) == ["target"]


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

    async def tell(line: str) -> None:
        said.append(line)

    setup, _ = await bootstrap(here, HOST, paths, tell=tell)
    assert len(said) == strapping.TOLD and said[-2] == "testing it"
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
        if "pip" not in argv[:3]:
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


def test_what_is_optional_is_installed_from_a_wheel_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = {"folder": str(tmp_path), "given": False, "pins": ["x==1"], "optional": ["libtorrent==2.1.1"]}
    asked: list[list[str]] = []
    real = bootstrap_host.run

    def run(argv: list[str], *words: str) -> str:
        if "pip" not in argv[:3]:
            return real(argv, *words)
        asked.append(argv[-3:])
        if "--only-binary" in argv:
            raise bootstrap_host.StepError("run", "no wheel for this machine")
        return ""

    monkeypatch.setattr(bootstrap_host, "run", run)
    assert bootstrap_host.environment(request)["made"]
    assert asked[-1] == ["--only-binary", ":all:", "libtorrent==2.1.1"] and len(asked) == 2
    assert not bootstrap_host.environment(request)["made"] and len(asked) == 3  # it is looked for each time


async def test_a_host_without_what_is_optional_is_set_up_and_says_so(
    here: ThisMachine, paths: Paths, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strapping, "OPTIONAL", ("no_such_package",))
    monkeypatch.setattr(strapping, "pins", lambda names=NEEDED: ())
    setup, _ = await bootstrap(here, HOST, paths, selftest=False)
    assert setup.versions["no_such_package"] is None


@pytest.mark.parametrize(
    ("versions", "fit"), [({"libtorrent": None}, False), ({"libtorrent": "2.1.1"}, True), ({}, True)]
)
def test_a_swarm_is_planned_where_the_bootstrap_found_libtorrent_or_never_looked(
    paths: Paths, versions: dict[str, str | None], fit: bool
) -> None:
    nobody: Any = None  # nobody is asked: the host's facts say it
    found = TorrentTransport().there(Means(paths, nobody, {}, "t", paths.console), HOST, {"versions": versions})
    assert (found is None) is fit


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


async def old(here: ThisMachine, paths: Paths, code: Path, number: int, owner: str = "ann", *keep: str) -> str:
    """Sets another version up and makes it look a day old; its SHA-256."""
    (code / "backend/added.py").write_text(f"NUMBER = {number}\n")
    setup, _ = await bootstrap(here, HOST, paths, owner=owner, keep=keep, selftest=False)
    marker = Path(setup.root, "bundles", setup.bundle, bootstrap_host.MARKER)
    then = time.time() - 86_400 + number
    os.utime(marker, (then, then))
    return setup.bundle


def bundles_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


async def test_code_that_nobody_uses_any_more_is_removed(here: ThisMachine, paths: Paths, code: Path) -> None:
    bundles = [await old(here, paths, code, number) for number in range(5)]
    folder = Path(here.env["HOME"], ".local/state/ringrift/bundles")
    assert bundles_in(folder) == set(bundles[-2:])
    (code / "backend/added.py").write_text("NUMBER = 3\n")
    setup, _ = await bootstrap(here, HOST, paths, owner="ann", selftest=False)
    assert (setup.bundle, setup.removed) == (bundles[3], ())  # back to the one before: the other of the two stays
    assert files(str(folder), ".old-*") == []


async def test_code_in_use_stays_however_old(here: ThisMachine, paths: Paths, code: Path) -> None:
    kept, running, unfinished, others, unused = [
        await old(here, paths, code, number, "bob" if number == 3 else "ann") for number in range(5)
    ][:5]
    folder = Path(here.env["HOME"], ".local/state/ringrift")
    # of the five only the last two are there: make the others again, all of them old
    made = {}
    for number, sha256 in enumerate((kept, running, unfinished)):
        (code / "backend/added.py").write_text(f"NUMBER = {number}\n")
        setup, _ = await bootstrap(
            here, HOST, paths, owner="ann", keep={kept, running, unfinished, unused}, selftest=False
        )
        assert setup.bundle == sha256
        made[sha256] = setup
    for path in (folder / "bundles").glob("*/" + bootstrap_host.MARKER):
        os.utime(path, (1, 1))
    process = await asyncio.create_subprocess_exec(
        made[running].python, "-c", "import time; print(flush=True); time.sleep(600)", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        job = folder / "jobs" / "s1.1"
        job.mkdir(parents=True)
        (job / "spec.json").write_text(json.dumps({"argv": [made[unfinished].python, "-m", "x"]}))
        newest = [await old(here, paths, code, number, "ann", kept) for number in (10, 11)]
        for path in (folder / "bundles").glob("*/" + bootstrap_host.MARKER):
            os.utime(path, (1, 1))
        (code / "backend/added.py").write_text("NUMBER = 12\n")
        setup, _ = await bootstrap(here, HOST, paths, owner="ann", keep={kept}, selftest=False)
        there = bundles_in(folder / "bundles")
        assert {kept, running, unfinished, others, setup.bundle} <= there
        assert unused not in there
        assert len(there & set(newest)) <= 1
        done = await here.exec(HOST, [made[running].python, "-c", "import backend.added"], timeout_s=60)
        assert done.code == 0
    finally:
        process.kill()
        await process.wait()
    (job / "exit.json").write_text("{}")
    setup, _ = await bootstrap(here, HOST, paths, owner="ann", selftest=False)
    there = bundles_in(folder / "bundles")
    assert len(there) <= 3 and {setup.bundle, others} <= there  # bob's, ours, and the one before it


def test_an_environment_goes_when_no_code_runs_in_it(tmp_path: Path) -> None:
    for key in ("used", "unused", "young"):
        (tmp_path / "venvs" / key).mkdir(parents=True)
        marker = tmp_path / "venvs" / key / bootstrap_host.MARKER
        marker.write_text("")
        if key != "young":
            os.utime(marker, (1, 1))
    bundle = tmp_path / "bundles" / ("a" * 64)
    (bundle / "env-used").mkdir(parents=True)
    (bundle / bootstrap_host.MARKER).write_text("")
    (tmp_path / "bundles" / ".old-1-x").mkdir()
    request = {"folder": str(tmp_path), "owner": "ann", "sha256": "a" * 64, "keep": []}
    assert bootstrap_host.prune(request) == {"removed": ["venvs/unused"]}
    assert sorted(os.listdir(tmp_path / "bundles")) == ["a" * 64]


def test_torch_alone_comes_from_the_index_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[list[str]] = []
    real = bootstrap_host.run

    def run(argv: list[str], *words: str) -> str:
        if "pip" not in argv[:3]:
            return real(argv, *words)
        runs.append(argv)
        return ""

    monkeypatch.setattr(bootstrap_host, "run", run)
    request = {"folder": str(tmp_path), "given": False, "pins": ["torch==2.0", "numpy==1.0"]}
    plain = bootstrap_host.environment(request)
    assert len(runs) == 1 and "--index-url" not in runs[0]
    other = bootstrap_host.environment(request | {"index": "https://example.org/cpu"})
    assert other["key"] != plain["key"]
    assert runs[1][-3:] == ["--index-url", "https://example.org/cpu", "torch==2.0"] and "--no-deps" in runs[1]
    assert "--index-url" not in runs[2] and runs[2][-2:] == ["torch==2.0", "numpy==1.0"]


@pytest.mark.parametrize(
    ("settings", "gpus", "kind"),
    [
        ({}, 0, "pypi"),
        ({"torch_cpu_index": "https://example.org/cpu"}, 0, "cpu"),
        ({"torch_cpu_index": "https://example.org/cpu"}, 1, "pypi"),
        ({"torch_cpu_index": "https://example.org/cpu", "python_path": "/opt/py"}, 0, "given"),
    ],
)
def test_how_much_room_is_needed_depends_on_where_the_packages_come_from(
    settings: dict[str, str], gpus: int, kind: str
) -> None:
    host = Host("alder-1", settings)
    gpu = GpuSample(0, "X", None, None, None, None)
    sample = HostSample(datetime.now(UTC), disk_free=DISK_BYTES[kind] - 1, gpus=(gpu,) * gpus)
    facts = {"packages": host.packages, "folder": "/f"}
    assert packages_for(facts, sample) == kind
    wanted = f"{DISK_BYTES[kind] / 1e9:.0f} GB are needed"
    assert any(wanted in finding.text and finding.level == "error" for finding in findings(facts, sample))
    assert not any(
        "needed" in one.text
        for one in findings(facts, replace(sample, disk_free=DISK_BYTES[kind]))
        if "free" in one.text
    )


def test_an_index_with_a_password_is_refused_where_it_stands() -> None:
    with pytest.raises(SettingsError, match="without a password"):
        parse_hosts("hosts:\n  h: {torch_cpu_index: 'https://me:secret@example.org/cpu'}\n", "h.yaml")


async def test_a_bootstrap_says_where_it_is(paths: Paths) -> None:
    async with await StateStore.open(paths) as store:
        name = await store.submit(Plan("hosts.bootstrap", "Bootstrap alder-1", {"host": "alder-1"}))
        await store.begin_operation(name)
        await store.bound(name).tell_progress(3, 5, "sending the code")
        row = await store.operation(name)
        assert row is not None and row.progress == "step 3 of 5: sending the code"
        await store.end_operation(name, "done", result={"host": "alder-1"})
        row = await store.operation(name)
        assert row is not None and (row.progress, row.result) == ("", {"host": "alder-1"})
