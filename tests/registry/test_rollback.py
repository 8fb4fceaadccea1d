"""A rollback can be taken back, and the undo that a plan prints is one that works."""

from __future__ import annotations

import asyncio
import shlex

import pytest

from backend.errors import Exit
from backend.paths import Paths
from backend.plans import Plan
from backend.registry.changes import Author, Decision
from backend.registry.deployment import production_file
from backend.registry.hashing import sha256_file
from backend.registry.promotion import plan_promote
from backend.registry.rollback import plan_rollback
from backend.registry.store import find
from backend.registry.switch import Planned, change_stage
from backend.snapshot import ModelRow
from ringrift_console.cli import main
from tests.registry.conftest import Make
from tests.registry.test_archival import job
from tests.registry.test_promotion_crashes import CONFIG, carry_out, promoted


def planned(paths: Paths, to: str | None = None) -> Plan:
    return asyncio.run(plan_rollback(paths, config=CONFIG, to=to))


@pytest.fixture
def two(root: Paths, make_model: Make) -> tuple[ModelRow, ModelRow]:
    """The first and the second production model."""
    first, second = make_model(), make_model()
    promoted(root, first)
    promoted(root, second)
    return first, second


def run(paths: Paths, commands: str) -> None:
    """Executes what an undo says, as an operator would, command by command."""
    for command in commands.split(", then "):
        program, *words = shlex.split(command)
        assert program == "ringrift" and main([*words, "--wait", "--root", str(paths.root)]) == Exit.DONE


def test_the_undo_of_a_rollback_brings_the_model_back_and_harms_nobody(
    root: Paths, two: tuple[ModelRow, ModelRow]
) -> None:
    first, second = two
    back = planned(root)
    assert carry_out(root, back).state == "done"
    assert (find(root, second.label).path, back.params["returns"]) != (second.path, True)  # in the archive
    undo = planned(root, second.label)
    assert undo.command == back.undo and undo.params["returns"] and undo.title.startswith("Return production")
    run(root, back.undo)
    there, left = find(root, second.label), find(root, first.label)
    assert there.stage == "production" and left.stage == "archived"
    assert left.path == first.path and sha256_file(root.root / left.path) == first.sha256
    assert sha256_file(root.essential / production_file(CONFIG)) == second.sha256
    again = planned(root)
    assert again.params["model"] == first.label and not again.warnings
    assert carry_out(root, again).state == "done"
    assert find(root, first.label).stage == "production"


def test_the_undo_of_a_promotion_to_staging_works(root: Paths, make_model: Make) -> None:
    row = make_model()
    plan = asyncio.run(plan_promote(root, model=row.label, stage="staging", override="a test"))
    assert carry_out(root, plan).state == "done" and find(root, row.label).stage == "staging"
    run(root, plan.undo)
    found = find(root, row.label)
    assert (found.stage, found.present) == ("development", True)


def test_a_file_that_a_job_uses_stays_where_it_is(root: Paths, two: tuple[ModelRow, ModelRow]) -> None:
    job(root, {"model": two[1].label})
    plan = planned(root)
    assert plan.warnings == (f"the file of {two[1].label} stays where it is: job g1 (gauntlet) uses it",)
    assert not any(change.subject.startswith("file of") for change in plan.changes)
    assert carry_out(root, plan).state == "done"
    found = find(root, two[1].label)
    assert (found.stage, found.present, found.path) == ("archived", True, two[1].path)


def test_going_back_to_a_model_that_is_not_sound_is_warned_of(root: Paths, two: tuple[ModelRow, ModelRow]) -> None:
    first = find(root, two[0].label)
    one, other = Author("me", "one"), Author("me", "two")
    restored = Planned(first.label, first.sha256, first.stage)
    change_stage(root, restored, "development", Decision("restore", "t"), one)
    change_stage(root, Planned(first.label, first.sha256, "development"), "rejected", Decision("reject", "t"), other)
    assert planned(root, first.label).warnings == (f"{first.label} is not sound: it was rejected",)
