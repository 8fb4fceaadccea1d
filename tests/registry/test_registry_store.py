"""Registering models: one transaction, immutable files, the same bytes once."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from backend.configs import parse_config
from backend.errors import LockedError, NotFoundError, SchemaError, UnverifiedError, UsageError
from backend.paths import Paths
from backend.registry import schema, store
from backend.registry.files import place
from backend.registry.hashing import read_sidecar, sha256_file
from backend.registry.store import Candidate, Registry, info, model_rows, register

CONFIG = parse_config("hex8_2p")


def candidate(paths: Paths, content: bytes = b"weights", name: str = "m.pth") -> Candidate:
    file = paths.root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return Candidate(file=file, config=CONFIG, architecture="conv", metrics={"policy_accuracy": 0.5})


async def test_a_registered_model_is_a_development_version_with_its_transition(paths: Paths) -> None:
    registry = await Registry.open(paths)
    done = await registry.register(candidate(paths))
    assert (done.label, done.version, done.created) == ("hex8_2p:v1", 1, True)
    found = await registry.info("hex8_2p:v1")
    assert found.row.stage == "development"
    assert found.row.config == "hex8_2p"
    assert [(step.before, step.after) for step in found.transitions] == [(None, "development")]
    assert found.tags == ("hex8", "2p", "training")
    assert found.metrics == {"policy_accuracy": 0.5}
    assert found.file == done.path and sha256_file(done.path) == done.sha256 == found.row.sha256


def test_a_root_without_a_registry_reads_as_empty_and_stays_untouched(paths: Paths) -> None:
    assert model_rows(paths) == ()
    with pytest.raises(NotFoundError):
        store.find(paths, "hex8_2p:v1")
    assert not paths.root.exists()


def test_the_same_bytes_are_registered_once_whatever_their_name(paths: Paths) -> None:
    first = register(paths, candidate(paths, b"one"))
    again = register(paths, candidate(paths, b"one", name="copy.pth"))
    other = register(paths, candidate(paths, b"two"))
    assert (again.label, again.created) == (first.label, False)
    assert other.label == "hex8_2p:v2"
    assert [row.label for row in model_rows(paths)] == ["hex8_2p:v2", "hex8_2p:v1"]


def test_the_registered_file_is_read_only_with_its_checksum_and_survives_a_new_save(paths: Paths) -> None:
    given = candidate(paths, b"one")
    done = register(paths, given)
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o444
    assert read_sidecar(done.path) == done.sha256
    replacement = given.file.with_suffix(".new")
    replacement.write_bytes(b"two")
    os.replace(replacement, given.file)
    assert done.path.read_bytes() == b"one"


def test_a_file_system_without_links_gets_a_copy(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    done = register(paths, candidate(paths, b"one"))
    assert done.path.read_bytes() == b"one"
    assert done.path.stat().st_nlink == 1


def test_a_symbolic_link_is_registered_as_the_file_it_points_to(paths: Paths, tmp_path: Path) -> None:
    file = candidate(paths).file
    link = tmp_path / "latest.pth"
    link.symlink_to(file)
    done = register(paths, replace(candidate(paths), file=link))
    assert done.path.is_file() and not done.path.is_symlink()


def test_a_link_in_a_models_place_is_replaced_by_the_file(tmp_path: Path) -> None:
    source, target = tmp_path / "m.pth", tmp_path / "models" / "v1.pth"
    source.write_bytes(b"weights")
    target.parent.mkdir()
    target.symlink_to(source)
    place(source, target, sha256_file(source))
    assert not target.is_symlink() and target.read_bytes() == b"weights"


def test_a_registration_killed_between_file_and_row_is_taken_over_or_cleared(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_insert", die)
        with pytest.raises(KeyboardInterrupt):
            register(paths, candidate(paths, b"lost"))
    assert model_rows(paths) == ()
    left = [path.name for path in (paths.models / "hex8_2p").glob("v1_*.pth")]
    assert len(left) == 1
    same = register(paths, candidate(paths, b"lost"))
    assert same.path.name == left[0] and same.version == 1

    with monkeypatch.context() as patch:
        patch.setattr(store, "_insert", die)
        with pytest.raises(KeyboardInterrupt):
            register(paths, candidate(paths, b"lost too"))
    other = register(paths, candidate(paths, b"another"))
    assert other.version == 2
    assert sorted(path.name for path in (paths.models / "hex8_2p").glob("*.pth")) == sorted(
        [same.path.name, other.path.name]
    )


def test_a_missing_registered_file_comes_back_when_it_is_registered_again(paths: Paths) -> None:
    given = candidate(paths, b"one")
    done = register(paths, given)
    done.path.unlink()
    assert not model_rows(paths)[0].present
    assert not register(paths, given).created
    assert model_rows(paths)[0].present


def _register_many(root: Path, start: int) -> None:
    paths = Paths(root)
    for number in range(start, start + 5):
        register(paths, candidate(paths, f"model {number}".encode(), name=f"m{number}.pth"))


def test_processes_that_register_at_once_get_versions_of_their_own(paths: Paths) -> None:
    workers = [
        multiprocessing.get_context("spawn").Process(target=_register_many, args=(paths.root, start))
        for start in (0, 5, 10)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    rows = model_rows(paths)
    assert sorted(row.version for row in rows) == list(range(1, 16))
    assert all(row.present and sha256_file(paths.root / row.path) == row.sha256 for row in rows)


def test_models_are_found_by_label_digest_start_of_one_and_file(paths: Paths) -> None:
    given = candidate(paths, b"one")
    done = register(paths, given)
    for text in (done.label, "hex8_2p:1", done.sha256, done.sha256[:8], str(given.file), str(done.path), "hex8_2p"):
        assert store.find(paths, text).sha256 == done.sha256
    register(paths, candidate(paths, b"two"))
    with pytest.raises(UsageError, match="several models match"):
        store.find(paths, "hex8_2p")
    with pytest.raises(NotFoundError):
        store.find(paths, "hex8_2p:v9")


def test_a_registry_held_by_another_program_is_a_clear_error(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    register(paths, candidate(paths, b"one"))
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    holder = sqlite3.connect(paths.registry_db, isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LockedError):
            register(paths, candidate(paths, b"two"))
    finally:
        holder.close()
    assert len(model_rows(paths)) == 1


def test_a_file_that_is_no_database_is_refused_and_kept(paths: Paths) -> None:
    paths.registry_db.parent.mkdir(parents=True)
    paths.registry_db.write_bytes(b"not a database, but long enough to look at" * 10)
    before = paths.registry_db.read_bytes()
    with pytest.raises(UnverifiedError):
        model_rows(paths)
    with pytest.raises(UnverifiedError):
        register(paths, candidate(paths))
    assert paths.registry_db.read_bytes() == before


REFERENCE_DDL = """
CREATE TABLE models (model_id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT, model_type TEXT NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE versions (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, version INTEGER NOT NULL,
    stage TEXT NOT NULL, file_path TEXT NOT NULL, file_hash TEXT NOT NULL, file_size_bytes INTEGER NOT NULL,
    metrics_json TEXT, training_config_json TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE(model_id, version));
CREATE TABLE tags (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL, version INTEGER NOT NULL,
    tag TEXT NOT NULL, UNIQUE(model_id, version, tag));
CREATE TABLE stage_transitions (id INTEGER PRIMARY KEY AUTOINCREMENT, model_id TEXT NOT NULL,
    version INTEGER NOT NULL, from_stage TEXT, to_stage TEXT NOT NULL, reason TEXT, transitioned_by TEXT,
    transitioned_at TEXT NOT NULL);
INSERT INTO models VALUES ('best_net', 'Best net', NULL, 'policy_value', '2026-01-02T03:04:05', '2026-01-02T03:04:05');
INSERT INTO versions VALUES (7, 'best_net', 1, 'production', 'data/model_registry/models/best_net/v1.pt', 'ab12cd34',
    1234, '{"elo": 1600.0}', '{"extra_config": {"board_type": "square8", "num_players": 2}}',
    '2026-01-02T03:04:05', '2026-01-02T03:04:05');
"""


def test_a_registry_of_the_ai_service_opens_unchanged_and_takes_our_rows_beside_its_own(paths: Paths) -> None:
    paths.registry_db.parent.mkdir(parents=True)
    foreign = sqlite3.connect(paths.registry_db)
    foreign.executescript(REFERENCE_DDL)
    foreign.close()
    before = paths.registry_db.read_bytes()

    row = model_rows(paths)[0]
    assert (row.label, row.config, row.stage, row.present) == ("best_net:v1", "square8_2p", "production", False)
    assert row.created_at.tzinfo is not None
    assert info(paths, "best_net:v1").metrics == {"elo": 1600.0}
    assert paths.registry_db.read_bytes() == before

    assert register(paths, candidate(paths)).label == "hex8_2p:v1"
    assert [row.label for row in model_rows(paths)] == ["hex8_2p:v1", "best_net:v1"]
    reader = sqlite3.connect(paths.registry_db)
    try:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert reader.execute("SELECT stage FROM versions WHERE model_id = 'best_net'").fetchone() == ("production",)
    finally:
        reader.close()


def test_a_table_of_another_meaning_is_refused(paths: Paths) -> None:
    paths.registry_db.parent.mkdir(parents=True)
    foreign = sqlite3.connect(paths.registry_db)
    foreign.execute("CREATE TABLE versions (id INTEGER, text TEXT)")
    foreign.commit()
    foreign.close()
    with pytest.raises(SchemaError, match="versions has no column"):
        model_rows(paths)
    with pytest.raises(SchemaError):
        register(paths, candidate(paths))


def test_odd_rows_of_another_program_are_shown_with_what_is_known(paths: Paths) -> None:
    paths.registry_db.parent.mkdir(parents=True)
    foreign = sqlite3.connect(paths.registry_db)
    foreign.executescript(REFERENCE_DDL)
    foreign.execute(
        "UPDATE versions SET file_path = ?, stage = 'shadow', created_at = 'some day', metrics_json = '[1]', "
        "training_config_json = ?",
        ("x" * 5000, '{"extra_config": [], "parent_model_id": 7, "architecture": ["a"]}'),
    )
    foreign.commit()
    foreign.close()
    (row,) = model_rows(paths)
    assert (row.stage, row.present, row.config, row.parent, row.architecture) == ("shadow", False, None, None, None)
    assert info(paths, "best_net:v1").metrics == {}
