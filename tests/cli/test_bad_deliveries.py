"""Deliveries that cannot be, through the verbs as processes and a real SSH server: one clear line with the remedy, its
own exit code, and nothing sent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.distribution.ledger import Wanted, create
from backend.distribution.manifest import make_payload
from backend.distribution.plans import plan_distribute
from backend.errors import Exit
from backend.paths import Paths
from backend.state.store import StateStore
from backend.supervisor import ensure_running
from ringrift_console.verbs.operations import wait_for
from tests.cli.test_bad_hosts import describe, fleet, small_disk, trust, with_path
from tests.cli.test_bad_input import ringrift
from tests.lab.sshd import Sshd

__all__ = ["fleet"]
Make = Callable[..., Sshd]
PYTHON = f'#!/bin/sh\nexec {sys.executable} "$@"\n'


def some_file(paths: Paths, name: str = "file.bin") -> str:
    path = paths.root / name
    path.write_bytes(b"some bytes")
    return str(path)


def nothing_began(paths: Paths, server: Sshd) -> None:
    listed = ringrift(paths.root, "transfers", "list", "--json")
    assert json.loads(listed.out) == [], listed
    assert not (server.folder / "agent" / "files").exists()


def test_what_does_not_exist_is_refused_by_its_name(fleet: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    describe(fleet, server)
    trust(fleet, server)
    file = some_file(fleet)
    for words, code, said in (
        (
            ("nobody:v1",),
            Exit.NOT_FOUND,
            ("neither a registered model nor a file", "nobody:v1", "ringrift registry list"),
        ),
        (("./nothing.bin",), Exit.NOT_FOUND, ("no such file", "./nothing.bin")),
        ((file, "--hosts", "alpah"), Exit.NOT_FOUND, ("no such host", "alpah", "alpha")),
        ((file, "--hosts", "local"), Exit.REFUSED, ("it is this machine", "local", "it has the file")),
        ((file, "--transport", "pigeon"), Exit.USAGE, ("no such transport", "pigeon", "torrent aria2 rsync stream")),
        ((file, "--limit", "0"), Exit.USAGE, ("a limit is a number of Mbit/s above 0",)),
    ):
        ringrift(fleet.root, "distribute", *words).assert_refused(code, *said)
    ringrift(fleet.root, "transfers", "retry", "x9").assert_refused(Exit.NOT_FOUND, "no such transfer", "x9", "list")
    nothing_began(fleet, server)


def test_a_host_that_may_not_be_used_is_refused_with_the_way_to_mend_it(fleet: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    describe(fleet, server)
    file = some_file(fleet)
    refused = ringrift(fleet.root, "distribute", file, "--hosts", "alpha")
    refused.assert_refused(Exit.REFUSED, "its key is not enrolled", "alpha", "ringrift hosts enrol alpha")
    refused = ringrift(fleet.root, "distribute", file)
    refused.assert_refused(Exit.REFUSED, "no host can get it", "alpha is left out", "ringrift hosts enrol alpha")
    nothing_began(fleet, server)


def test_engines_that_are_missing_are_named_with_what_to_install(
    fleet: Paths, make_sshd: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = with_path(make_sshd, python3=PYTHON)
    describe(fleet, server)
    trust(fleet, server)
    file = some_file(fleet)
    monkeypatch.setenv("PATH", "/nowhere")
    here = ringrift(fleet.root, "distribute", file, "--transport", "rsync")
    here.assert_refused(Exit.REFUSED, "rsync: this machine has no rsync", "alpha", "install rsync")
    monkeypatch.undo()
    assert ringrift(fleet.root, "hosts", "probe", "alpha").out.startswith("alpha: up")
    for transport, name, hint in (
        ("aria2", "aria2c", "apt-get install aria2 there"),
        ("rsync",) * 2 + ("install rsync",),
    ):
        there = ringrift(fleet.root, "distribute", file, "--transport", transport)
        there.assert_refused(Exit.REFUSED, f"no {name}", "alpha", hint)
    planned = ringrift(fleet.root, "distribute", file, "--dry-run", "--json")
    assert json.loads(planned.out)["params"]["hosts"] == [["alpha", ["stream"], 1]]
    nothing_began(fleet, server)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small disk")
def test_a_host_without_room_is_refused(fleet: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    describe(fleet, server)
    trust(fleet, server)
    with small_disk(server.folder / "agent", "32m"):
        assert ringrift(fleet.root, "hosts", "probe", "alpha").out.startswith("alpha: up")
        refused = ringrift(fleet.root, "distribute", some_file(fleet))
        refused.assert_refused(Exit.RESOURCE, "no room for", "alpha", "free some space there, then plan again")
    nothing_began(fleet, server)


def test_a_file_that_changed_since_it_was_planned_is_not_sent(fleet: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    describe(fleet, server)
    trust(fleet, server)
    file = some_file(fleet)

    async def submitted() -> Any:
        plan = await plan_distribute(fleet, what=file)
        async with await StateStore.open(fleet) as store:
            name = await store.submit(plan)
            await asyncio.to_thread(Path(file).write_bytes, b"other bytes")
            await asyncio.to_thread(ensure_running, fleet)
            return await wait_for(store, name, 120.0)

    outcome = asyncio.run(submitted())
    error = outcome.operation.error
    assert (outcome.operation.state, outcome.exit) == ("refused", Exit.LOCKED)
    assert f"file {file} is 11 bytes" in error and "it was 10 bytes" in error and "plan it again" in error
    assert len(error.splitlines()) == 1
    nothing_began(fleet, server)


def test_a_dataset_that_lies_is_refused_here(fleet: Paths, make_sshd: Make) -> None:
    server = make_sshd()
    describe(fleet, server)
    trust(fleet, server)
    path = fleet.root / "hex8_2p.npz"
    np.savez(path, values=np.zeros(4))
    path.write_bytes(path.read_bytes().replace(b"'shape': (4,), ", b"'shape': (9,), "))
    refused = ringrift(fleet.root, "distribute", str(path))
    refused.assert_refused(Exit.UNVERIFIED, "the dataset does not load", "hex8_2p.npz", "export it again")
    nothing_began(fleet, server)


def test_who_waits_is_told_why_a_host_does_not_get_it(fleet: Paths, make_sshd: Make) -> None:
    """A name that leads out of the host's folder, which no plan has but a damaged state may."""
    server = make_sshd()
    describe(fleet, server)
    trust(fleet, server)
    file = some_file(fleet)

    async def made() -> None:
        payload = make_payload(Path(file))
        async with await StateStore.open(fleet) as store:
            wanted = Wanted(
                "t", "distribute", "../../evil", file, payload.sha256, payload.size, "other",
                (("alpha", ("stream",), 0),), None, {}, by="tester",
            )  # fmt: skip
            await create(store, wanted, "o0")

    asyncio.run(made())
    ensure_running(fleet)

    async def ended() -> None:
        async with await StateStore.open(fleet) as store, asyncio.timeout(120.0):
            while not (await store.events(type="TRANSFER_INCOMPLETE")):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    asyncio.run(ended())
    shown = ringrift(fleet.root, "transfers", "show", "x1")
    assert "unsafe path: not a name for a file: '../../evil'" in shown.out
    assert not list(fleet.root.parent.glob("**/evil"))
    Path(file).unlink()
    again = ringrift(fleet.root, "transfers", "retry", "x1", "--wait")
    assert again.code == Exit.FAILED
    assert any("source changed" in line and "bring the file back" in line for line in again.err.splitlines()), again.err
