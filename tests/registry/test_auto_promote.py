"""Scripted players of known strength are promoted, held and rejected as the contract says, on the command line."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from backend.errors import Exit
from backend.paths import Paths
from backend.registry.store import find
from backend.snapshot import ModelRow
from backend.state.store import StateStore
from ringrift_console.cli import main
from tests.registry.conftest import Make
from tests.registry.synthetic import play
from tests.registry.test_promotion_crashes import promoted


@pytest.fixture
def auto(root: Paths, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(row: ModelRow, *options: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["auto-promote", "--model", row.label, "--json", *options, "--root", str(root.root)])
        out = capsys.readouterr().out
        return code, json.loads(out) if out else {}

    return run


CONFIGS = ["hex8_2p", "square8_3p", "hex8_4p"]
STRONG = {"hex8_2p": (0.86, 0.98), "square8_3p": (0.80, 0.97), "hex8_4p": (0.76, 0.97)}
"""Win rates against Heuristic and Random that are well above the contract's for so many players."""


@pytest.mark.parametrize("config", CONFIGS)
def test_a_strong_model_goes_all_the_way(root: Paths, make_model: Make, auto: Any, config: str) -> None:
    row, (heuristic, random) = make_model(config), STRONG[config]
    play(root, row.sha256, "heuristic:1", 240, wins=round(240 * heuristic), config=config)
    play(root, row.sha256, "random:1", 120, wins=round(120 * random), config=config)
    code, told = auto(row)
    assert code == Exit.DONE, told
    assert [(one["stage"], one["outcome"], one["state"]) for one in told["stages"]] == [
        ("staging", "PASS", "done"), ("production", "PASS", "done"),
    ]  # fmt: skip
    assert find(root, row.label).stage == told["stage"] == "production" and told["games"] == {}
    assert auto(row)[0] == Exit.REFUSED  # there is nothing above production


@pytest.mark.parametrize("config", CONFIGS)
def test_an_average_model_is_held(root: Paths, make_model: Make, auto: Any, config: str) -> None:
    row = make_model(config)
    players = int(config[-2])
    play(root, row.sha256, "heuristic:1", 240, wins=240 // players, config=config)
    code, told = auto(row)
    assert code == Exit.REFUSED and told["stages"][0]["outcome"] in ("FAIL", "CONTINUE")
    assert find(root, row.label).stage == "development"


def test_without_games_there_is_no_evidence(root: Paths, make_model: Make, auto: Any) -> None:
    row = make_model()
    code, told = auto(row)
    assert (code, told["stages"][0]["outcome"]) == (Exit.NO_EVIDENCE, "NO EVIDENCE")
    play(root, row.sha256, "heuristic:1", 0, wins=0, crashes=60)
    assert auto(row)[0] == Exit.NO_EVIDENCE
    assert find(root, row.label).stage == "development"


def test_49_games_are_not_50(root: Paths, make_model: Make, auto: Any) -> None:
    row = make_model()
    play(root, row.sha256, "heuristic:1", 48, wins=48)
    play(root, row.sha256, "random:1", 1, wins=1)
    code, told = auto(row)
    assert (code, told["stages"][0]["outcome"]) == (Exit.REFUSED, "CONTINUE")
    play(root, row.sha256, "random:1", 2, wins=2, seed=2)
    code, told = auto(row)
    assert (code, told["stage"]) == (Exit.DONE, "staging")  # and production is not there yet
    assert told["stages"][1]["outcome"] == "CONTINUE"


def test_games_that_repeat_and_games_that_crash_do_not_count(root: Paths, make_model: Make, auto: Any) -> None:
    repeats, crashes = make_model(), make_model()
    play(root, repeats.sha256, "heuristic:1", 200, wins=200, repeat=True)
    play(root, crashes.sha256, "heuristic:1", 100, wins=100, crashes=4)
    assert auto(repeats)[0] == Exit.REFUSED
    code, told = auto(crashes)
    assert (code, told["stages"][0]["outcome"]) == (Exit.REFUSED, "INVALID")


def test_a_candidate_has_to_beat_the_production_model(root: Paths, make_model: Make, auto: Any) -> None:
    champion, equal, better = make_model(), make_model(), make_model()
    promoted(root, champion)
    for row, wins in ((equal, 50), (better, 78)):
        play(root, row.sha256, "heuristic:1", 100, wins=95)
        play(root, row.sha256, f"neural:{champion.sha256[:16]}:s16", 100, wins=wins, opponent_sha256=champion.sha256)
    assert auto(equal)[0] == Exit.REFUSED
    code, told = auto(better)
    assert (code, told["stage"], told["stages"][0]["champion"]) == (Exit.DONE, "staging", champion.sha256)
    assert find(root, champion.label).stage == "production"


def test_a_dry_run_says_what_would_be_played_and_writes_nothing(root: Paths, make_model: Make, auto: Any) -> None:
    row = make_model()
    before = sorted(path for path in root.root.rglob("*") if path.is_file())
    code, told = auto(row, "--gauntlet", "--games", "40", "--dry-run")
    assert code == Exit.DONE and told["would_play"].startswith("up to 40 games each against heuristic, random")
    assert [one["outcome"] for one in told["stages"]] == ["NO EVIDENCE", "NO EVIDENCE"]
    assert sorted(path for path in root.root.rglob("*") if path.is_file()) == before
    assert not root.state_db.exists()


def test_bad_input_is_told_apart(root: Paths, make_model: Make, auto: Any) -> None:
    row = make_model()
    assert auto(row, "--board-type", "square8", "--num-players", "2")[0] == Exit.SCHEMA
    assert auto(row, "--games", "0")[0] == Exit.USAGE
    assert main(["auto-promote", "--model", "hex8_2p:v9", "--root", str(root.root)]) == Exit.NOT_FOUND


def test_the_operation_is_signed_by_who_asked(root: Paths, make_model: Make, auto: Any) -> None:
    row = make_model()
    play(root, row.sha256, "heuristic:1", 100, wins=85)
    code, told = auto(row)

    async def by() -> str:
        async with await StateStore.open(root) as store:
            operation = await store.operation(told["stages"][0]["operation"])
            assert operation is not None
            return operation.by

    assert code == Exit.DONE and "policy" not in asyncio.run(by())
