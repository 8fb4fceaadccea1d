"""What is wrong with an installation is found, all of it and nothing else, and finding it changes nothing."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from backend.paths import Paths
from backend.reference.doctor import examine
from backend.reference.findings import KINDS, Report
from tests.registry.reference_root import DIALECTS, PLANTS, Dialect, ReferenceRoot, possible


def counts(report: Report) -> Counter[str]:
    return Counter({one.kind: one.count for one in report.findings})


@pytest.mark.parametrize("text_times", [False, True], ids=["numbers", "text"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_healthy_installation_is_clean(paths: Paths, dialect: Dialect, text_times: bool) -> None:
    root = ReferenceRoot(paths, dialect, text_times)
    root.healthy()
    root.healthy("hex8_3p", games=6)
    report = examine(paths)
    assert report.clean and counts(report) == Counter(root.planted)
    assert (report.models, report.adopted, report.matches) == (4, 0, 184)
    assert examine(paths, "hex8_3p").models == 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_all_that_was_planted_is_found_and_nothing_else(paths: Paths, dialect: Dialect) -> None:
    root = ReferenceRoot(paths, dialect)
    root.healthy(games=10)
    for kind in possible(dialect):
        root.plant(kind)
    report = examine(paths)
    assert counts(report) == Counter(root.planted)
    assert not report.clean
    assert all(one.examples and one.remedy for one in report.findings)


@pytest.mark.parametrize("kind", sorted(PLANTS))
def test_each_kind_is_found_alone(paths: Paths, kind: str) -> None:
    root = ReferenceRoot(paths)
    root.healthy(games=10)
    root.plant(kind)
    report = examine(paths)
    assert counts(report) == Counter(root.planted)
    assert report.clean == all(KINDS[one][0] == "note" for one in root.planted)


def test_every_kind_has_its_plant(paths: Paths) -> None:
    elsewhere = {"database.damaged", "database.other-tables", "schema.one-module"}
    assert set(PLANTS) | elsewhere == set(KINDS)


@pytest.mark.parametrize("which", ["registry", "records"])
def test_a_damaged_database_is_one_finding_beside_the_others(paths: Paths, which: str) -> None:
    root = ReferenceRoot(paths)
    root.healthy(games=10)
    path = paths.registry_db if which == "registry" else paths.elo_db
    path.write_bytes(path.read_bytes()[:6000])
    report = examine(paths)
    found = counts(report)
    assert found["database.damaged"] == 1 and not report.clean
    assert (report.matches > 0) == (which == "registry")
    assert set(found) <= {"database.damaged", "file.unregistered"}


def test_a_registry_with_other_tables_is_one_finding_beside_the_others(paths: Paths) -> None:
    root = ReferenceRoot(paths)
    root.healthy(games=10)
    with closing(sqlite3.connect(paths.registry_db)) as db:
        db.execute("ALTER TABLE versions RENAME COLUMN file_hash TO checksum")
    report = examine(paths)
    assert counts(report) == {"database.other-tables": 1, "file.unregistered": 2}
    assert not report.clean and report.matches == 40


def test_an_empty_root_is_clean(paths: Paths) -> None:
    report = examine(paths)
    assert report.clean and report == Report()
    assert not paths.root.exists()


def test_the_documentation_lists_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs/existing-installation.md").read_text()
    for kind, (severity, what, remedy) in KINDS.items():
        assert f"| `{kind}` | {severity} | {what} | {remedy} |" in page
