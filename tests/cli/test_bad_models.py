"""Models and registries that are not as they should be: one clear line, the documented exit code, nothing changed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from backend.configs import parse_config
from backend.errors import Exit
from backend.paths import Paths
from backend.registry import schema
from backend.registry.changes import Author, Decision
from backend.registry.store import Candidate, find, register
from backend.registry.switch import Ground, Planned, change_stage, switch
from backend.state.store import StateStore
from backend.supervisor import running_pid
from backend.training.checkpoint import Metadata, save_model
from backend.training.network import Architecture, Network
from ringrift_console.cli import main
from tests.lab.disks import read_only, small_disk
from tests.registry.reference_root import ReferenceRoot
from tests.registry.synthetic import play

UNKNOWN, FIRST, STAGED, ARCHIVED, PRODUCTION = "hex8_2p:v9", "hex8_2p:v1", "hex8_2p:v4", "hex8_2p:v5", "hex8_2p:v3"
OUT = "OUT"  # stands for a file outside the root


def fill(paths: Paths) -> None:
    """v1 in development, v2 put back from production, v3 in production, v4 in staging, v5 archived."""
    paths.root.mkdir(parents=True, exist_ok=True)
    config = parse_config("hex8_2p")
    for number in range(1, 6):
        file = paths.root / "candidate.pth"
        file.write_bytes(f"weights {number}".encode())
        register(paths, Candidate(file=file, config=config))
        file.unlink()
    for number, stages in ((2, ["staging"]), (3, ["staging"]), (4, ["staging"]), (5, ["archived"])):
        for stage in stages:
            row = find(paths, f"hex8_2p:v{number}")
            author = Author("tester", f"{number} {stage}")
            change_stage(paths, Planned(row.label, row.sha256, row.stage), stage, Decision("test", "a test"), author)
    ground: tuple[str | None, int] = (None, 0)
    for number in (2, 3):
        row = find(paths, f"hex8_2p:v{number}")
        model, author = Planned(row.label, row.sha256, row.stage), Author("tester", f"{number} up")
        switch(paths, Ground("hex8_2p", *ground), model, Decision("promote", "a test"), author, left="superseded")
        ground = (row.label, ground[1] + 1)
    play(paths, find(paths, FIRST).sha256, "heuristic:1", 4, wins=2)


@pytest.fixture
def root(paths: Paths) -> Paths:
    fill(paths)
    return paths


def content(root: Path) -> dict[str, bytes]:
    """Every file with its bytes, but for what SQLite keeps beside a database of ours that is read."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


@contextmanager
def unchanged(paths: Paths) -> Iterator[None]:
    before = content(paths.root)
    yield
    assert content(paths.root) == before
    assert running_pid(paths) is None, "no supervisor was started for it"


def refused(paths: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], code: Exit, *words: str) -> None:
    """Runs a verb that must say no in one line and change nothing."""
    out = str(paths.root.parent / "out.pth")
    with unchanged(paths):
        given = [out if word == OUT else word for word in argv]
        assert main([*given, "--root", str(paths.root)]) == code, capsys.readouterr()
    told = capsys.readouterr()
    assert told.err.startswith("ringrift: ") and told.err.count("\n") == 1, told.err
    assert told.out == ""
    for word in words:
        assert word in told.err, told.err
    assert not Path(out).exists()


def by_model(model: str, *, but: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every verb that takes a model, with one."""
    verbs = {
        "info": ("registry", "info", model),
        "compare": ("registry", "compare", FIRST, model),
        "promote": ("registry", "promote", model, "--stage", "staging", "--override", "a test", "--wait"),
        "archive": ("registry", "archive", model, "--wait"),
        "reject": ("registry", "reject", model, "--wait"),
        "restore": ("registry", "restore", model, "--wait"),
        "rollback": ("registry", "rollback", "--config", "hex8_2p", "--to", model, "--wait"),
        "export": ("registry", "export", model, "-o", OUT),
        "gauntlet": ("gauntlet", model, "--games", "2"),
        "tournament": ("tournament", "--config", "hex8_2p", "--models", model, "--games", "2"),
    }
    return [argv for name, argv in verbs.items() if name not in but]


CHANGES = (
    ("registry", "promote", FIRST, "--stage", "staging", "--override", "a test", "--wait"),
    ("registry", "archive", FIRST, "--wait"),
    ("registry", "reject", FIRST, "--wait"),
    ("registry", "restore", ARCHIVED, "--wait"),
    ("registry", "rollback", "--config", "hex8_2p", "--wait"),
)
READS = (
    ("registry", "list"), ("registry", "info", FIRST), ("registry", "compare", FIRST, STAGED),
    ("registry", "history", "--config", "hex8_2p"), ("registry", "export", FIRST, "-o", OUT),
)  # fmt: skip
RATINGS = (
    ("ratings", "list", "--config", "hex8_2p"), ("ratings", "history", "--config", "hex8_2p"), ("ratings", "verify"),
)  # fmt: skip


def name(argv: object) -> str | None:
    return " ".join(word for word in argv if not word.startswith("-")) if isinstance(argv, tuple) else None


@pytest.mark.parametrize("argv", by_model(UNKNOWN), ids=name)
def test_an_unknown_model(root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    refused(root, capsys, argv, Exit.NOT_FOUND, "no such model", UNKNOWN)


def test_a_version_that_no_integer_holds(root: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    model = f"hex8_2p:v{10**20}"
    refused(root, capsys, ("registry", "info", model), Exit.NOT_FOUND, "no such model", model)


@pytest.mark.parametrize("argv", by_model("hex8_2p"), ids=name)
def test_a_name_that_means_several(root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    refused(root, capsys, argv, Exit.USAGE, "several models match", "hex8_2p:v5", "give the label")


@pytest.mark.parametrize(
    "argv", [("registry", "history", "--config", "hex9_2p"), ("registry", "rollback", "--config", "hex9_2p"),
             ("ratings", "list", "--config", "hex9_2p"), ("registry", "list", "--config", "hex9_2p"),
             ("doctor", "--config", "hex9_2p"), ("gauntlet", "random", "--config", "hex9_2p")], ids=name,
)  # fmt: skip
def test_an_unknown_config(root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    refused(root, capsys, argv, Exit.USAGE, "unknown config", "hex9_2p", "hex8_2p")


@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        (
            ("registry", "promote", FIRST, "--stage", "production", "--override", "a test"),
            Exit.REFUSED,
            "(--stage staging comes first)",
        ),
        (("registry", "promote", ARCHIVED, "--stage", "staging"), Exit.REFUSED, "it is in archived"),
        (("registry", "promote", FIRST, "--stage", "best"), Exit.USAGE, "nobody promotes to that stage"),
        (("registry", "archive", PRODUCTION), Exit.REFUSED, "it is in production"),
        (("registry", "archive", STAGED), Exit.REFUSED, "it is in staging"),
        (("registry", "archive", "hex8_2p:v2"), Exit.REFUSED, "a rollback of hex8_2p goes to it"),
        (("registry", "archive", ARCHIVED), Exit.REFUSED, "cannot be archived"),
        (("registry", "reject", PRODUCTION), Exit.REFUSED, "it is the production model"),
        (("registry", "reject", ARCHIVED), Exit.REFUSED, "cannot be rejected"),
        (("registry", "restore", FIRST), Exit.REFUSED, "needs no restoring"),
        (("registry", "rollback", "--config", "hex8_2p", "--to", FIRST), Exit.REFUSED, "never in production"),
        (("registry", "rollback", "--config", "hex8_2p", "--to", PRODUCTION), Exit.REFUSED, "in production now"),
        (("registry", "rollback", "--config", "square8_2p"), Exit.NOT_FOUND, "nothing is in production"),
        (("registry", "promote", "hex8_2p:v1"), Exit.NO_EVIDENCE, "not promoted to staging"),
        (("registry", "promote", STAGED), Exit.NO_EVIDENCE, "not promoted to production"),
        (("adopt",), Exit.NOT_FOUND, "there is nothing to adopt"),
        (("adopt", "--undo"), Exit.NOT_FOUND, "nothing was adopted"),
    ],
    ids=name,
)
def test_the_wrong_stage(
    root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], code: Exit, word: str
) -> None:
    refused(root, capsys, argv, code, word)


FILES = (
    ("registry", "promote", FIRST, "--stage", "staging", "--override", "a test"), ("registry", "restore", ARCHIVED),
    ("registry", "rollback", "--config", "hex8_2p"), ("registry", "export", FIRST, "-o", OUT),
    ("gauntlet", FIRST, "--games", "2"),
)  # fmt: skip


@pytest.mark.parametrize("argv", FILES, ids=name)
def test_a_missing_file(root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    for path in root.models.rglob("*.pth"):
        path.unlink()
    refused(root, capsys, argv, Exit.NOT_FOUND, "sound; hex8_2p:v2" if "rollback" in argv else "models/hex8_2p/v")


@pytest.mark.parametrize("argv", [*FILES, ("registry", "archive", FIRST)], ids=name)
def test_a_file_with_other_bytes(root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    for path in root.models.rglob("*.pth"):
        path.chmod(0o644)
        path.write_bytes(b"other weights")
    if "rollback" in argv:  # it looks for another model, and finds none
        refused(root, capsys, argv, Exit.NOT_FOUND, "sound; hex8_2p:v2", "not the one that was registered")
    else:
        refused(root, capsys, argv, Exit.UNVERIFIED, "models/hex8_2p/v")


@pytest.mark.parametrize("argv", [*READS, *CHANGES, ("adopt",), ("doctor",)], ids=name)
def test_a_registry_that_another_program_holds(
    root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(root.registry_db, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        refused(root, capsys, argv, Exit.LOCKED, "locked by another program", str(root.registry_db))


@pytest.mark.parametrize("argv", [*READS, *CHANGES, ("adopt",), ("gauntlet", FIRST, "--games", "2")], ids=name)
@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_damaged_registry(
    root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], damage: str
) -> None:
    data = root.registry_db.read_bytes()
    root.registry_db.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"no database " * 500)
    refused(root, capsys, argv, Exit.UNVERIFIED, str(root.registry_db))


@pytest.mark.parametrize("argv", RATINGS, ids=name)
def test_damaged_match_records(root: Paths, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    data = root.elo_db.read_bytes()
    root.elo_db.write_bytes(data[: len(data) // 2])
    refused(root, capsys, argv, Exit.UNVERIFIED, str(root.elo_db))


def test_a_read_only_file_system(root: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    with read_only(root.root):
        for argv in CHANGES:
            refused(root, capsys, argv, Exit.RESOURCE, str(root.root), "read-only")
        refused(root, capsys, ("gauntlet", "random", "--config", "hex8_2p", "--games", "2"), Exit.RESOURCE, "read")
        for argv in (*READS, *RATINGS):
            given = [str(root.root.parent / "copy.pth") if word == OUT else word for word in argv]
            assert main([*given, "--root", str(root.root)]) == Exit.DONE, argv
        capsys.readouterr()


async def open_state(paths: Paths) -> None:
    async with await StateStore.open(paths):
        pass


def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "small", "600k") as disk:
        root = Paths(disk)
        fill(root)
        asyncio.run(open_state(root))
        with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as stream:
            while stream.write(bytes(4096)):
                pass
        for argv in CHANGES:
            refused(root, capsys, argv, Exit.RESOURCE, "full")
        target = ("registry", "export", FIRST, "-o", str(disk / "copy.pth"))
        refused(root, capsys, target, Exit.RESOURCE, "full", "copy.pth")
        assert main(["registry", "info", FIRST, "--root", str(disk)]) == Exit.DONE


@pytest.mark.parametrize("trouble", ["read-only", "full"])
def test_adopting_where_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trouble: str
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "1m"):
        made = ReferenceRoot(Paths(disk / "root"))
        made.healthy(games=4)
        if trouble == "full":
            asyncio.run(open_state(made.paths))
            with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as stream:
                while stream.write(bytes(4096)):
                    pass
            refused(made.paths, capsys, ("adopt", "--wait"), Exit.RESOURCE, "full")
        else:
            with read_only(made.paths.root):
                refused(made.paths, capsys, ("adopt", "--wait"), Exit.RESOURCE, "read-only")
                assert main(["doctor", "--root", str(made.paths.root)]) == Exit.DONE
        assert find(made.paths, "canonical_square8_2p:v1").foreign


def test_a_checkpoint_of_another_config(root: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    file = root.root / "square.pth"
    architecture = Architecture(1, 8, 4)
    metadata = Metadata("square8_2p", asdict(architecture), "2026-01-01T00:00:00+00:00")
    save_model(file, Network(architecture), metadata)
    argv = ("gauntlet", str(file), "--config", "hex8_2p", "--games", "2")
    refused(root, capsys, argv, Exit.SCHEMA, "the model is for square8_2p, not hex8_2p", "square.pth")
    argv = ("tournament", "--config", "hex8_2p", "--models", str(file), "--games", "2")
    refused(root, capsys, argv, Exit.SCHEMA, "the model is for square8_2p, not hex8_2p")
