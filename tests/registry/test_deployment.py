"""``models_essential/`` where a file of one config cannot be placed, or a kill came between a file and its checksum."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from backend.errors import Exit
from backend.paths import Paths
from backend.registry.deployment import MANIFEST, deploy, production_file
from backend.registry.hashing import read_sidecar, sha256_file, sidecar_path, write_sidecar
from backend.registry.promotion import plan_promote
from backend.registry.rollback import plan_rollback
from backend.state.store import StateStore
from tests.registry.conftest import Make
from tests.registry.test_promotion_crashes import carry_out, promoted


def damage(paths: Paths, stored: str) -> None:
    """Damages a file in place, and with it every hard link to it."""
    file = paths.root / stored
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.write(b"X")


async def events(paths: Paths, type: str) -> list[str]:
    async with await StateStore.open(paths) as store:
        return [event.subject for event in await store.events(type=type)]


def test_a_broken_production_model_keeps_no_other_config_from_its_files(root: Paths, make_model: Make) -> None:
    broken, old, new = make_model("hex8_2p"), make_model("square8_2p"), make_model("square8_2p")
    for row in (broken, old):
        promoted(root, row)
    damage(root, broken.path)
    promoted(root, new)
    file = root.essential / production_file("square8_2p")
    assert sha256_file(file) == new.sha256 == read_sidecar(file)
    back = carry_out(root, asyncio.run(plan_rollback(root, config="square8_2p")))
    assert back.state == "done" and back.result["missing"].keys() == {production_file("hex8_2p")}
    assert sha256_file(file) == old.sha256 == read_sidecar(file)
    manifest = json.loads((root.essential / MANIFEST).read_text())["configs"]
    assert manifest["square8_2p"]["production"]["sha256"] == old.sha256 and "production" not in manifest["hex8_2p"]
    assert asyncio.run(events(root, "MODEL_ROLLED_BACK")) == [old.label]
    told = asyncio.run(events(root, "DEPLOYMENT_FAILED"))
    assert told == [f"models_essential/{production_file('hex8_2p')}"] * 2  # of the promotion and of the rollback


def test_an_operation_whose_own_file_cannot_be_placed_fails_and_its_event_is_published(
    root: Paths, make_model: Make
) -> None:
    row = make_model()
    plan = asyncio.run(plan_promote(root, model=row.label, stage="staging", override="a test"))
    assert carry_out(root, plan).state == "done"
    (root.essential / production_file("hex8_2p") / "in the way").mkdir(parents=True)
    plan = asyncio.run(plan_promote(root, model=row.label, override="a test"))
    failed = carry_out(root, plan)
    assert failed.state == "failed" and production_file("hex8_2p") in failed.error
    assert failed.result["exit"] == Exit.NOT_FOUND
    assert asyncio.run(events(root, "MODEL_PROMOTED")) == [row.label]
    shutil.rmtree(root.essential / production_file("hex8_2p"))
    assert deploy(root) == {}


@pytest.mark.parametrize("stated", ["0" * 64, None, "nothing of the kind"])
def test_a_checksum_that_is_not_the_files_is_written_anew(root: Paths, make_model: Make, stated: str | None) -> None:
    row = make_model()
    promoted(root, row)
    file = root.essential / production_file("hex8_2p")
    if stated is None:
        sidecar_path(file).unlink()
    else:
        write_sidecar(file, stated)
    assert deploy(root) == {}
    assert read_sidecar(file) == row.sha256 == sha256_file(file)
