"""Looking at another installation changes nothing of it: no byte, no time, no file more or less."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.errors import Exit
from backend.overview import read_snapshot
from backend.paths import Paths
from ringrift_console.cli import main
from tests.registry.reference_root import DIALECTS, Dialect, ReferenceRoot, possible

PATIENCE_S = 240.0
READS = (
    ("registry", "list"), ("registry", "list", "--json"), ("registry", "list", "--config", "square8_2p"),
    ("registry", "info", "canonical_square8_2p:v1"),
    ("registry", "compare", "canonical_square8_2p:v1", "candidate_square8_2p_v2:v1"),
    ("registry", "history", "--config", "square8_2p"), ("audit", "verify"),
    ("ratings", "list", "--config", "square8_2p"), ("ratings", "history", "--config", "square8_2p"),
    ("ratings", "verify"), ("doctor",), ("doctor", "--json"), ("status",), ("jobs", "list"), ("events",),
    ("registry", "criteria", "candidate_square8_2p_v2:v1"), ("registry", "lineage", "canonical_square8_2p:v1"),
    ("registry", "archive-policy"), ("policies", "list"), ("monitor", "status"), ("monitor", "list", "--all"),
    ("monitor", "check"), ("monitor", "check", "--config", "square8_2p"),
    ("monitor", "golden"), ("monitor", "golden", "canonical_square8_2p:v1"),
)  # fmt: skip


def picture(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder with its time and bytes."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (root, *root.rglob("*"))
    }


@contextmanager
def untouched(paths: Paths) -> Iterator[None]:
    before = picture(paths.root)
    yield
    assert picture(paths.root) == before


@pytest.fixture(params=[(d, wal) for d in DIALECTS for wal in (True, False)], ids=lambda p: f"{p[0]}-{p[1]}")
def root(request: pytest.FixtureRequest, paths: Paths) -> ReferenceRoot:
    dialect, wal = request.param
    made = ReferenceRoot(paths, dialect, wal=wal)
    made.healthy(games=10)
    for kind in possible(dialect):
        made.plant(kind)
    return made


def test_no_verb_that_reads_changes_anything(root: ReferenceRoot, capsys: pytest.CaptureFixture[str]) -> None:
    with untouched(root.paths):
        for argv in READS:
            main([*argv, "--root", str(root.paths.root)])
            assert "Traceback" not in capsys.readouterr().err
        asyncio.run(read_snapshot(root.paths))


@pytest.mark.parametrize(
    "argv",
    [
        ("check",), ("check", "--config", "square8_2p"), ("golden",), ("golden", "--config", "square8_2p"),
        ("golden", "canonical_square8_2p:v1"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_the_monitor_writes_nothing_about_models_that_were_not_adopted(
    paths: Paths, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    ReferenceRoot(paths).healthy(games=2)
    with untouched(paths):
        assert main(["monitor", *argv, "--root", str(paths.root)]) == Exit.REFUSED
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert "canonical_square8_2p:v1" in err and "ringrift adopt" in err


def page_of(app: Any) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def test_the_console_opens_it_read_only(paths: Paths) -> None:
    from ringrift_console.app import ConsoleApp
    from ringrift_console.glyphs import choose_glyphs
    from ringrift_console.settings import Settings

    root = ReferenceRoot(paths)
    root.healthy(games=10)
    root.plant("file.unregistered")
    with untouched(paths):
        app = ConsoleApp(paths, Settings(), theme="mono", glyphs=choose_glyphs(force_ascii=True))
        async with asyncio.timeout(PATIENCE_S), app.run_test(size=(160, 50)) as pilot:
            while "another installation" not in page_of(app):
                await pilot.pause(0.05)
            await pilot.press("4")
            while page_of(app).count("foreign,") != 3:
                await pilot.pause(0.05)
            assert page_of(app).count("read-only") >= 3 and "models/loose" in page_of(app)
            await pilot.press("g", "d")
            while "read-only: adopt" not in page_of(app):
                await pilot.pause(0.05)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_ratings_stand_beside_those_that_were_stored(
    paths: Paths, dialect: Dialect, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ReferenceRoot(paths, dialect)
    root.healthy(games=40)
    assert main(["ratings", "list", "--config", "square8_2p", "--json", "--root", str(paths.root)]) == Exit.DONE
    told = json.loads(capsys.readouterr().out)["reference"]
    rows = {name: row for row in told["players"] for name in row["names"]}
    one, two = rows["canonical_square8_2p"], rows["candidate_square8_2p_v2"]
    assert rows["none:heuristic:d5"]["pinned"] and rows["none:heuristic:d5"]["elo"] == 1500
    assert len(one["player"]) == 64, "a model is its file, not its name"
    assert one["low"] < 1570 < one["high"] and two["low"] < 1500 < two["high"], "60 % and 50 % against Heuristic"
    assert one["difference"] == pytest.approx(one["elo"] - (1490 + 300))
    assert (told["used"], told["left_out"]) == (160, {})


def test_names_of_one_file_are_one_player(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    root = ReferenceRoot(paths)
    sha256 = root.model("square8_2p", "canonical_square8_2p", 1)
    (paths.models / "ringrift_best_square8_2p.pth").symlink_to("canonical_square8_2p.pth")
    names = ["canonical_square8_2p", "ringrift_best_square8_2p", "canonical_square8_2p:p1", "noted_elsewhere"]
    root.insert(
        "participant_aliases", {"primary": "canonical_square8_2p", "alias": "noted_elsewhere", "content_sha256": sha256}
    )
    for n in range(40):
        root.match([names[n % 4], "none:heuristic:d5"], n // 4 % 2, "square8_2p")
        root.match(["canonical_square8_2p:gumbel_mcts:b200", "heuristic"], n % 2, "square8_2p")
    main(["ratings", "list", "--config", "square8_2p", "--json", "--root", str(paths.root)])
    told = json.loads(capsys.readouterr().out)["reference"]
    players = {row["player"]: row for row in told["players"]}
    assert set(players) == {"heuristic", sha256, f"{sha256}:gumbel_mcts:b200"}
    assert sorted(players[sha256]["names"]) == sorted(names) and players[sha256]["games"] == 40
