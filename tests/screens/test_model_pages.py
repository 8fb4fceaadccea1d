"""From the Models screen by keys alone: pages about a model, and plans that change its stage."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from backend.errors import Exit
from backend.paths import Paths
from backend.snapshot import ModelRow, Snapshot
from backend.state.store import StateStore
from ringrift_console.cli import main
from screens.dialogs import PlanDialog
from screens.form import FormDialog
from tests.screens.conftest import press, until
from tests.screens.evidence import CONFIG, play, register


def with_file(paths: Paths, model: ModelRow, stage: str) -> ModelRow:
    """A model whose file is there and is what its SHA-256 says."""
    content = f"{model.label}".encode()
    file = paths.models / CONFIG / f"v{model.version}.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return replace(model, sha256=sha256, path=str(file), stage=stage, size=len(content))


@pytest.fixture
def root(paths: Paths, snapshot: Snapshot) -> Callable[[str], Snapshot]:
    """A root where v1 is in production and v2 at a given stage; returns what a reader sees of it."""

    def make(stage: str) -> Snapshot:
        second = with_file(paths, snapshot.models[0], stage)
        first = with_file(paths, snapshot.models[1], "production")
        register(paths, (first, second))
        play(paths, (first, second))
        return replace(snapshot, models=(second, first, snapshot.models[2]))

    return make


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    """No supervisor is started: what was written is what the tests look at."""
    monkeypatch.setattr("backend.supervisor.ensure_running", lambda paths: 4711)


def set_stage(paths: Paths, version: int, stage: str) -> None:
    with closing(sqlite3.connect(paths.registry_db)) as db, db:
        db.execute("UPDATE versions SET stage = ? WHERE version = ?", (stage, version))


async def test_a_promotion_that_the_evidence_does_not_carry_is_refused_in_one_line(
    root: Callable[..., Any], build: Callable[..., Any], text_of: Any
) -> None:
    app = build(source=root("development"))
    async with app.run_test(size=(160, 50)) as pilot:
        await press(pilot, "4", "P")
        assert isinstance(app.screen, FormDialog)
        assert "staging" in "\n".join(text_of(app))  # the next stage is filled in
        await press(pilot, "enter")
        await until(pilot, lambda: "not promoted to staging, CONTINUE" in text_of(app)[-2])


async def test_an_override_shows_criteria_hosts_undo_and_becomes_an_operation(
    root: Callable[..., Any], build: Callable[..., Any], text_of: Any, paths: Paths, supervised: None
) -> None:
    app = build(source=root("staging"), monotonic=iter(range(10**6)).__next__)
    async with app.run_test(size=(160, 50)) as pilot:
        await press(pilot, "4", "P", *"needed", "enter")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        page = "\n".join(text_of(app))
        for text in (
            "OVERRIDE: CONTINUE", "production of square8_2p", "square8_2p:v1", "criterion", "Heuristic", "80.0 %",
            "CONTINUE", "hosts", "alder-1", "cedar-1 (down)", "ringrift registry rollback --config square8_2p",
            "ringrift registry promote square8_2p:v2 --stage production --override needed",
        ):  # fmt: skip
            assert text in page
        await press(pilot, "y")
        assert isinstance(app.screen, PlanDialog)  # a key is not enough
        await press(pilot, "backspace", *"square8_2p:v2", "enter")
        await until(pilot, lambda: "asked for (operation o1)" in text_of(app)[-2])
    async with await StateStore.open(paths) as store:
        operation = await store.operation("o1")
    assert operation is not None and operation.action == "registry.promote" and operation.state == "pending"


async def test_a_plan_is_refused_when_the_registry_has_moved(
    root: Callable[..., Any], build: Callable[..., Any], text_of: Any, paths: Paths, supervised: None
) -> None:
    app = build(source=root("development"), monotonic=iter(range(10**6)).__next__)
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "4", "X", *"weak", "enter")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        assert "only the registry and files of this machine" in "\n".join(text_of(app))
        set_stage(paths, 2, "archived")
        await press(pilot, "y")
        await until(pilot, lambda: "cannot be rejected" in "\n".join(text_of(app)))
        await press(pilot, "y", "escape")
        assert "nothing was done" in text_of(app)[-2]
    assert not paths.state_db.exists()


async def test_rollback_takes_the_config_of_the_model_in_front(
    root: Callable[..., Any], build: Callable[..., Any], text_of: Any, paths: Paths
) -> None:
    source = root("archived")
    with closing(sqlite3.connect(paths.registry_db)) as db, db:
        db.execute("UPDATE pointers SET previous = 'square8_2p:v2'")
        db.execute("DROP TRIGGER pointer_moves_never_update")
        db.execute("UPDATE pointer_moves SET from_label = 'square8_2p:v2'")
    app = build(source=source, monotonic=iter(range(10**6)).__next__)
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "4", "j", "B")
        assert "square8_2p " in "\n".join(text_of(app))
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, PlanDialog))
        page = "\n".join(text_of(app))
        assert "Roll production of square8_2p back to square8_2p:v2" in page
        assert "type square8_2p and enter" in page
        assert "alder-1" in page


async def test_the_pages_follow_what_is_written_while_they_are_open(
    root: Callable[..., Any], build: Callable[..., Any], text_of: Any, paths: Paths
) -> None:
    app = build(source=root("development"))
    async with app.run_test(size=(160, 50)) as pilot:
        await press(pilot, "4", "c")
        await until(pilot, lambda: "To production" in "\n".join(text_of(app)))
        assert "80.0 %" in "\n".join(text_of(app))
        play(paths, [app.source.models[0]], "other:1", 40)
        app.screen.update()
        await until(pilot, lambda: "60.0 %" in "\n".join(text_of(app)))
        await press(pilot, "c")
        assert app.screen.KIND == "models"


async def test_without_a_marked_model_comparing_says_what_to_do(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "4", "equals_sign")
        assert "mark a model first" in text_of(app)[-2]
        await press(pilot, "m", "equals_sign")
        assert "this is the marked model" in text_of(app)[-2]


async def test_models_of_two_configs_are_not_compared_by_rating(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "4", "m", "G", "equals_sign")
        await until(pilot, lambda: "different configs" in "\n".join(text_of(app)))


def test_the_verbs_say_the_same(root: Callable[..., Any], paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    root("development")
    at = ["--root", str(paths.root)]
    assert main([*at, "registry", "criteria", "square8_2p:v2"]) == Exit.DONE
    assert "to staging: CONTINUE" in capsys.readouterr().out
    assert main([*at, "registry", "criteria", "square8_2p:v2", "--stage", "production", "--json"]) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["stage"] == "production" and {row["criterion"] for row in told["criteria"]} >= {"games at s32", "Elo"}
    assert main([*at, "registry", "criteria", "square8_2p:v2", "--stage", "moon"]) == Exit.USAGE
    assert main([*at, "registry", "lineage", "square8_2p:v1"]) == Exit.DONE
    told_lines = capsys.readouterr().out
    assert "run1: 60 games, heuristic:1" in told_lines and "promote: none -> square8_2p:v1" in told_lines
    assert main([*at, "registry", "lineage", "square8_2p:v9"]) == Exit.NOT_FOUND
