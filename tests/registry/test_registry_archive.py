"""Archiving a model: planned first, safe to repeat after a kill at any step."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from backend.configs import parse_config
from backend.errors import Exit, LockedError, NotFoundError, RefusedError, UnverifiedError
from backend.paths import Paths
from backend.registry import archive as archiving
from backend.registry import files
from backend.registry.archive import (
    apply_archive,
    apply_restore,
    archive,
    manifest_path,
    plan_archive,
    plan_restore,
    restore,
)
from backend.registry.changes import Author, Decision
from backend.registry.hashing import read_sidecar, sha256_file, sidecar_path
from backend.registry.store import Candidate, Registration, find, info, register
from backend.registry.switch import Planned, change_stage
from backend.state.store import StateStore
from tests.registry.conftest import Make
from tests.registry.test_promotion_crashes import carry_out

BY = Author("me", "by hand")


@pytest.fixture
def model(paths: Paths) -> Registration:
    paths.root.mkdir()
    file = paths.root / "m.pth"
    file.write_bytes(b"weights")
    return register(paths, Candidate(file=file, config=parse_config("hex8_2p")))


def set_stage(paths: Paths, stage: str) -> None:
    db = sqlite3.connect(paths.registry_db)
    db.execute("UPDATE versions SET stage = ?", (stage,))
    db.commit()
    db.close()


async def test_the_plan_says_what_changes_and_changes_nothing(paths: Paths, model: Registration) -> None:
    plan = await plan_archive(paths, model="hex8_2p:v1", reason="it's old")
    assert (plan.changes[0].before, plan.changes[0].after) == ("development", "archived")
    assert plan.changes[1].before == "models/hex8_2p/" + model.path.name
    assert plan.params["to"].startswith("models/archive/") and "/manual/" in plan.params["to"]
    assert shlex.split(plan.command)[-1] == "it's old"
    assert plan.guard == {"model hex8_2p:v1": "development"}
    assert find(paths, "hex8_2p:v1").stage == "development" and model.path.exists()


async def test_an_archived_model_lies_in_the_archive_with_a_manifest(paths: Paths, model: Registration) -> None:
    plan = await plan_archive(paths, model="hex8_2p:v1", reason="old")
    async with await StateStore.open(paths) as opened:
        state = opened.bound(await opened.submit(plan, "me"))
        done = await apply_archive(paths, plan, state)
        assert await apply_archive(paths, plan, state) == done
        events = await state.events(type="MODEL_ARCHIVED")
    assert [(event.subject, event.payload["reason"]) for event in events] == [("hex8_2p:v1", "old")]
    target = paths.root / done["path"]
    assert not model.path.exists() and sha256_file(target) == model.sha256 == read_sidecar(target)
    manifest = json.loads(manifest_path(target).read_text())
    assert manifest["sha256"] == model.sha256
    assert (manifest["stage"], manifest["reason"]) == ("development", "old")
    assert manifest["restore"] == "ringrift registry restore hex8_2p:v1"
    found = info(paths, "hex8_2p:v1")
    assert found.row.stage == "archived" and found.file == target
    assert [(step.before, step.after, step.reason) for step in found.transitions][-1] == (
        "development", "archived", "old",
    )  # fmt: skip


@pytest.mark.parametrize("stage", ["staging", "production"])
async def test_a_model_in_use_is_protected_when_planned_and_when_applied(
    paths: Paths, model: Registration, stage: str
) -> None:
    plan = await plan_archive(paths, model="hex8_2p:v1")
    set_stage(paths, stage)
    with pytest.raises(RefusedError, match="protected"):
        await plan_archive(paths, model="hex8_2p:v1")
    with pytest.raises(RefusedError, match="protected"):
        archive(paths, plan.params, BY)
    assert model.path.exists()


async def test_what_changed_since_the_plan_is_not_overruled(paths: Paths, model: Registration) -> None:
    plan = await plan_archive(paths, model="hex8_2p:v1")
    set_stage(paths, "rejected")
    with pytest.raises(LockedError):
        archive(paths, plan.params, BY)
    with pytest.raises(RefusedError, match="is rejected"):
        await plan_archive(paths, model="hex8_2p:v1")
    with pytest.raises(NotFoundError):
        await plan_archive(paths, model="hex8_2p:v2")


async def test_another_files_bytes_are_not_archived_under_the_models_name(paths: Paths, model: Registration) -> None:
    plan = await plan_archive(paths, model="hex8_2p:v1")
    model.path.unlink()
    model.path.write_bytes(b"something else")
    with pytest.raises(UnverifiedError):
        archive(paths, plan.params, BY)
    assert model.path.read_bytes() == b"something else"
    assert find(paths, "hex8_2p:v1").stage == "development"


STEPS = [(archiving, "write_json"), (archiving, "move"), (files, "fsync_dir"), (archiving, "write_sidecar")]


@pytest.mark.parametrize(("module", "step"), [*STEPS, (archiving, "change_stage")])
async def test_a_kill_at_any_step_is_carried_on_by_the_next_run(
    paths: Paths, model: Registration, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    plan = await plan_archive(paths, model="hex8_2p:v1", reason="old")

    def die(*args: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, die)
        with pytest.raises(KeyboardInterrupt):
            archive(paths, plan.params, BY)
    assert find(paths, "hex8_2p:v1").stage == "development"
    done = archive(paths, plan.params, BY)
    target = paths.root / done["path"]
    assert sha256_file(target) == model.sha256
    assert json.loads(manifest_path(target).read_text())["sha256"] == model.sha256
    found = info(paths, "hex8_2p:v1")
    assert found.row.present and found.row.stage == "archived"
    assert sum(step.after == "archived" for step in found.transitions) == 1


@pytest.mark.parametrize("killed", [False, True])
async def test_a_file_comes_back_when_the_model_changes_while_it_is_moved(
    paths: Paths, model: Registration, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    plan = await plan_archive(paths, model="hex8_2p:v1", reason="old")
    real = archiving.put_away

    def change_meanwhile(*args: Any, **named: Any) -> bool:
        moved = real(*args, **named)
        planned = Planned("hex8_2p:v1", model.sha256, "development")
        change_stage(paths, planned, "staging", Decision("promote", "t"), Author("you", "at the same time"))
        if killed:
            raise KeyboardInterrupt
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(archiving, "put_away", change_meanwhile)
        with pytest.raises(KeyboardInterrupt if killed else LockedError):
            archive(paths, plan.params, BY)
    if killed:
        assert not model.path.exists()
        with pytest.raises(RefusedError):
            archive(paths, plan.params, BY)
    found, target = find(paths, "hex8_2p:v1"), paths.root / plan.params["to"]
    assert (found.stage, found.present, found.path) == ("staging", True, plan.params["from"])
    assert sha256_file(model.path) == model.sha256 == read_sidecar(model.path)
    assert not target.exists() and not manifest_path(target).exists() and not sidecar_path(target).exists()


@pytest.mark.parametrize("killed", [False, True])
async def test_a_restored_file_goes_back_into_the_archive_when_the_model_changes_meanwhile(
    paths: Paths, model: Registration, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    away = archive(paths, (await plan_archive(paths, model="hex8_2p:v1")).params, BY)
    plan = await plan_restore(paths, model="hex8_2p:v1")
    real = archiving.move

    def change_meanwhile(*args: Any) -> None:
        real(*args)
        monkeypatch.setattr(archiving, "move", real)  # the way back is as it is
        with closing(sqlite3.connect(paths.registry_db)) as db, db:
            db.execute("UPDATE versions SET stage = 'production'")  # as a rollback does: the path stays
        if killed:
            raise KeyboardInterrupt

    again = Author("me", "restore")
    monkeypatch.setattr(archiving, "move", change_meanwhile)
    with pytest.raises(KeyboardInterrupt if killed else LockedError):
        restore(paths, plan.params, again)
    if killed:
        with pytest.raises(LockedError):
            restore(paths, plan.params, again)
    target = paths.root / away["path"]
    assert find(paths, "hex8_2p:v1").present and not model.path.exists()
    assert sha256_file(target) == model.sha256 == read_sidecar(target)


async def test_a_model_whose_file_is_gone_is_archived_in_the_registry_alone(paths: Paths, model: Registration) -> None:
    model.path.unlink()
    plan = await plan_archive(paths, model="hex8_2p:v1")
    assert "missing" in plan.warnings[0]
    assert archive(paths, plan.params, BY)["path"] == plan.params["from"]
    found = find(paths, "hex8_2p:v1")
    assert found.stage == "archived" and not found.present


def test_a_model_is_archived_to_another_file_system(paths: Paths, model: Registration) -> None:
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        if elsewhere.stat().st_dev == paths.root.stat().st_dev:
            pytest.skip("no second file system here")
        paths.archive.parent.mkdir(exist_ok=True)
        paths.archive.symlink_to(elsewhere)
        done = archive(paths, asyncio.run(plan_archive(paths, model="hex8_2p:v1")).params, BY)
        target = paths.root / done["path"]
        assert target.stat().st_dev == elsewhere.stat().st_dev
        assert not model.path.exists() and sha256_file(target) == model.sha256 == read_sidecar(target)
    finally:
        shutil.rmtree(elsewhere)


def test_of_a_link_the_content_is_archived(paths: Paths, model: Registration) -> None:
    real = paths.root / "real.pth"
    model.path.replace(real)
    model.path.symlink_to(os.path.relpath(real, model.path.parent))  # where it points depends on where it lies
    done = archive(paths, asyncio.run(plan_archive(paths, model="hex8_2p:v1")).params, BY)
    target = paths.root / done["path"]
    assert not target.is_symlink() and sha256_file(target) == model.sha256
    assert not model.path.is_symlink() and real.exists()


async def test_a_restored_model_is_back_in_its_place_and_in_development(paths: Paths, model: Registration) -> None:
    away = archive(paths, (await plan_archive(paths, model="hex8_2p:v1")).params, BY)
    plan = await plan_restore(paths, model="hex8_2p:v1", reason="wanted after all")
    assert (plan.changes[0].before, plan.changes[0].after) == ("archived", "development")
    async with await StateStore.open(paths) as opened:
        state = opened.bound(await opened.submit(plan, "me"))
        done = await apply_restore(paths, plan, state)
        assert await apply_restore(paths, plan, state) == done
        assert [event.payload["reason"] for event in await state.events(type="MODEL_RESTORED")] == ["wanted after all"]
    old = paths.root / away["path"]
    assert not old.exists() and not manifest_path(old).exists()
    assert sha256_file(model.path) == model.sha256 == read_sidecar(model.path)
    found = find(paths, "hex8_2p:v1")
    assert found.stage == "development" and found.present
    with pytest.raises(RefusedError, match="needs no restoring"):
        await plan_restore(paths, model="hex8_2p:v1")


async def test_an_archived_file_that_was_changed_is_not_restored(paths: Paths, model: Registration) -> None:
    away = paths.root / archive(paths, (await plan_archive(paths, model="hex8_2p:v1")).params, BY)["path"]
    plan = await plan_restore(paths, model="hex8_2p:v1")
    away.chmod(0o644)
    away.write_bytes(b"something else")
    async with await StateStore.open(paths) as opened:
        with pytest.raises(UnverifiedError):
            await apply_restore(paths, plan, opened.bound(await opened.submit(plan, "me")))
    assert away.read_bytes() == b"something else" and find(paths, "hex8_2p:v1").stage == "archived"
    away.unlink()
    with pytest.raises(NotFoundError):
        await plan_restore(paths, model="hex8_2p:v1")


def test_a_place_that_may_not_be_written_to_is_told_in_one_line(root: Paths, make_model: Make) -> None:
    """The way that no handler of ours has foreseen: the archive is mounted so that nobody can write to it."""
    row = make_model()
    plan = asyncio.run(plan_archive(root, model=row.label))
    archive_dir = root.models / "archive"
    archive_dir.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(archive_dir)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        done = carry_out(root, plan)
    finally:
        subprocess.run(["umount", "-l", str(archive_dir)], check=True)
    assert done.state == "failed" and done.error is not None and done.error.startswith("the file system is read-only")
    assert done.result == {"exit": int(Exit.RESOURCE)}
    found = find(root, row.label)
    assert (found.stage, found.path, found.present) == (row.stage, row.path, True)
