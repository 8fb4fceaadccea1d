"""A checkout that is not what its host's settings claim is refused with one line, and the line says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backend.errors import RefusedError
from backend.fleet import plans as planning
from backend.fleet.checkout import (
    COMMANDS,
    check_checkout,
    closed_reason,
    judge,
    lacking,
    look_at_checkout,
    path_of,
)
from backend.fleet.doctor import findings
from backend.fleet.errors import NoPython
from backend.fleet.hosts import Host
from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.look import look_at
from backend.fleet.plans import apply_bootstrap, plan_bootstrap
from backend.fleet.remote import ThisMachine
from backend.fleet.store import host_rows
from backend.paths import Paths
from backend.state.store import StateStore
from tests.lab.checkout import make_checkout

KEY = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIBWKKKPsBHqxkvrhGsgCDYEbJ5nTSVpdMLCgc8xgpUSW")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("host") / "ai-service")


@pytest.fixture
def checkout(original: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "ai-service"
    shutil.copytree(original, folder)
    return folder


def host_of(folder: Path, python: str = sys.executable) -> Host:
    return Host(
        "old", {"ssh_host": "old", "runtime": "ai-service", "ringrift_path": str(folder), "python_path": python}
    )


def commit(folder: Path) -> None:
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(folder)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], check=True)


async def test_a_good_checkout_is_known_by_what_its_programs_say(here: ThisMachine, checkout: Path) -> None:
    commit(checkout)
    made, report = await check_checkout(here, host_of(checkout))
    assert made["commands"] == dict.fromkeys(COMMANDS, "")
    assert made["checkout_path"] == str(checkout) and made["python"] == sys.executable
    assert len(made["checkout_revision"]) == 12
    assert made["versions"]["torch"].startswith("2.")
    assert report.facts is not None
    facts = report.facts | made
    assert (closed_reason("old", facts), lacking("ai-service", facts)) == ("", {})
    said = {finding.text: finding for finding in findings(facts, report.sample)}
    assert all(finding.level != "error" for finding in said.values())
    assert f"the checkout {checkout} ({made['checkout_revision']}) runs export train gauntlet promote" in said
    changed = facts | {"checkout": facts["checkout"] | {"revision": "0123456789ab"}}
    assert any("has changed since it was checked" in one.text for one in findings(changed, report.sample))


@pytest.mark.parametrize(
    ("change", "what", "mend"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no checkout at", "ringrift_path"),
        (lambda folder: [shutil.rmtree(folder / name) for name in ("scripts", "app")], "has none of", "ringrift_path"),
        (
            lambda folder: (folder / "app/__init__.py").write_text("import nothing_of_that_name"),
            "its Python cannot import app: ModuleNotFoundError: No module named 'nothing_of_that_name'",
            "pip install -r requirements.txt",
        ),
    ],
)  # fmt: skip
async def test_what_nothing_can_run_in_is_refused(
    here: ThisMachine, checkout: Path, change: object, what: str, mend: str
) -> None:
    change(checkout)  # type: ignore[operator]
    with pytest.raises(RefusedError) as caught:
        await check_checkout(here, host_of(checkout))
    assert what in caught.value.what and mend in caught.value.hint
    assert "\n" not in caught.value.line()


async def test_a_program_that_is_another_than_documented_keeps_its_kind_away(here: ThisMachine, checkout: Path) -> None:
    for name, old, new in (
        ("scripts/baseline_gauntlet.py", '"model_path", type', '"--model", type'),
        ("scripts/auto_promote.py", '"--gauntlet", action', '"--gauntlets", action'),
        ("app/training/train.py", "import argparse", "import argparse, no_such_module"),
    ):
        text = (checkout / name).read_text()
        assert old in text
        (checkout / name).write_text(text.replace(old, new, 1))
    made, _ = await check_checkout(here, host_of(checkout))
    assert made["commands"] == {
        "export": "",
        "train": "app/training/train.py does not run: ModuleNotFoundError: No module named 'no_such_module'",
        "gauntlet": "scripts/baseline_gauntlet.py takes no model by its path",
        "promote": "scripts/auto_promote.py takes no --gauntlet",
    }
    assert set(lacking("ai-service", made)) == {"train", "gauntlet", "promote"}
    (checkout / "scripts/export_replay_dataset.py").unlink()
    facts = made | {"checkout": await look_at_checkout(here, host_of(checkout))}
    assert lacking("ai-service", facts)["export"] == "its checkout has no scripts/export_replay_dataset.py"


async def test_a_python_that_is_not_there_and_one_that_is_too_old(
    here: ThisMachine, checkout: Path, tmp_path: Path
) -> None:
    with pytest.raises(NoPython, match="there is no /nowhere/python"):
        await check_checkout(here, host_of(checkout, "/nowhere/python"))
    old = tmp_path / "python3.8"  # this Python, telling another version
    code = "import sys, platform; platform.python_version = lambda: '3.8.10'; sys.argv = sys.argv[2:]; "
    code += "exec(compile(sys.stdin.read(), '-', 'exec'), {'__name__': '__main__'})"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "{code}" "$@"\n')
    old.chmod(0o755)
    with pytest.raises(RefusedError) as caught:
        await check_checkout(here, host_of(checkout, str(old)))
    assert caught.value.what == "Python 3.8.10 is too old for the agent (3.9)"
    assert "python_path" in caught.value.hint


async def test_an_activate_script_is_never_run(here: ThisMachine, checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "venv/bin"
    folder.mkdir(parents=True)
    (folder / "activate").write_text(f"touch {tmp_path}/sourced\n")
    os.symlink(sys.executable, folder / "python")
    settings = {"runtime": "ai-service", "ringrift_path": str(checkout), "venv_activate": f"source {folder}/activate"}
    host = Host("old", settings)
    seen = await look_at_checkout(here, host)
    assert (seen["problem"], seen["python"]) == ("", str(folder / "python"))
    assert not (tmp_path / "sourced").exists()


async def test_bootstrap_checks_and_stores_what_came_of_it(
    here: ThisMachine, checkout: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Way:
        async def __aenter__(self) -> ThisMachine:
            return here

        async def __aexit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(planning, "way_to", lambda paths, hosts: Way())
    paths.console.mkdir(parents=True)
    paths.hosts_yaml.write_text(
        f"hosts:\n  local: {{}}\n  old: {{ssh_host: a, runtime: ai-service, ringrift_path: {checkout}, "
        f"python_path: {sys.executable}}}\n"
    )
    enrol_key(paths.console / "known_hosts", "old", KEY)
    async with await StateStore.open(paths) as store:
        plan = await plan_bootstrap(paths, host="old")
        assert plan.title == "Check the checkout of old" and plan.changes[0].before == "no"
        script = checkout / "app/__init__.py"
        good = script.read_text()
        script.write_text("import no_such_module")
        with pytest.raises(RefusedError, match="cannot import app"):
            await apply_bootstrap(paths, plan, store.bound(await store.submit(plan)))
        row = (await host_rows(store))[1]
        assert "cannot import app" in closed_reason("old", row.facts) and not row.ready
        script.write_text(good)
        plan = await plan_bootstrap(paths, host="old")  # what was refused before is looked at again
        done = await apply_bootstrap(paths, plan, store.bound(await store.submit(plan)))
        assert done["commands"] == dict.fromkeys(COMMANDS, "")
        row = (await host_rows(store))[1]
        assert closed_reason("old", row.facts) == "" and row.ready
        assert [event.type for event in await store.events()].count("HOST_BOOTSTRAPPED") == 1
        shutil.rmtree(checkout)
        await look_at(store, here, host_of(checkout))
        row = (await host_rows(store))[1]
        assert closed_reason("old", row.facts) == f"there is no checkout at {checkout}"
        worst = findings(row.facts, row.samples[-1])[0]
        assert (worst.level, worst.text) == ("error", f"there is no checkout at {checkout}")


def test_a_host_that_was_never_checked_is_closed_and_its_path_has_a_default() -> None:
    assert closed_reason("old", {}) == "its checkout was not checked (ringrift hosts bootstrap old)"
    assert closed_reason("old", {"python": "/p", "root": "/r", "bundle": "b" * 64}).startswith("its checkout was not")
    assert lacking("builtin", {"commands": {"train": "x"}}) == {}
    assert path_of(Host("old")) == "~/ringrift/ai-service"
    nothing = {"path": "/p", "python": "/q", "there": True, "missing": {kind: ["x"] for kind in COMMANDS}}
    assert judge(nothing).problem == "/p has none of the programs of an ai-service checkout"
