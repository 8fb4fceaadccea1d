"""The rest of the engine's surface: settings, rankings, text that cannot be read, messages, measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.configs import CONFIGS, Config
from backend.errors import UsageError
from backend.rules import compiling, load
from backend.rules.geometry import ring_goal, territory_goal
from backend.rules.layout import (
    CELL,
    ELIMINATED,
    GONE,
    HAND,
    MARKERS,
    PHASE,
    RING_GOAL,
    TERRITORY,
    WINNER,
    encode,
    move_a,
    move_b,
    move_c,
    move_type,
)
from backend.rules.measure import measure
from ringrift_console.cli import main

GOALS = {
    "square8": (18, 24, 30, 33, 22, 17),
    "square19": (72, 96, 120, 181, 121, 91),
    "hex8": (18, 24, 30, 31, 21, 16),
    "hexagonal": (96, 128, 160, 235, 157, 118),
}


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_numbers_that_win_are_those_of_the_rules(config: Config) -> None:
    rules = load(config)
    goals = GOALS[config.board]
    assert rules.new()[RING_GOAL] == goals[config.players - 2]
    assert territory_goal(config) == goals[config.players + 1]
    assert rules.new()[HAND + 1 : HAND + 1 + config.players].tolist() == [rules.board.supply] * config.players
    assert load(config.key) is rules


def test_the_ring_goal_follows_the_supply() -> None:
    assert [ring_goal(2, supply) for supply in (2, 3, 4, 18)] == [2, 3, 4, 18]
    assert [ring_goal(3, supply) for supply in (2, 3, 4, 18)] == [3, 4, 5, 24]
    assert load("hex8_3p").new(ring_supply=4)[RING_GOAL] == 5


@pytest.mark.parametrize("settings", [{"ring_supply": 0}, {"lps_rounds": 0}, {"swap": True}])
def test_settings_that_make_no_game_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        load("hex8_3p").new(**settings)


def test_a_tiny_ring_supply_ends_games_in_several_ways() -> None:
    rules = load("hex8_3p")
    rng = np.random.Generator(np.random.PCG64(3))
    reasons = set()
    for _ in range(300):
        state = rules.new(ring_supply=3)
        while not rules.over(state):
            rules.apply(state, int(rng.choice(rules.legal(state))), checked=False)
        reasons.add(rules.reason(state))
    assert {"ring_elimination", "lps_early", "lps_rounds"} <= reasons


def test_ranks_follow_winner_territory_rings_markers_and_survival() -> None:
    rules = load("square8_4p")
    state = rules.new()
    assert rules.ranking(state).tolist() == [1, 1, 1, 1]
    state[WINNER] = 3
    assert rules.ranking(state).tolist() == [2, 2, 1, 2]
    state[GONE + 1], state[GONE + 2] = 9, 4
    assert rules.ranking(state).tolist() == [3, 4, 1, 2]
    state[MARKERS + 2] = 1
    assert rules.ranking(state).tolist() == [4, 2, 1, 3]
    state[ELIMINATED + 1] = 1
    assert rules.ranking(state).tolist() == [2, 3, 1, 4]
    state[TERRITORY + 4] = 1
    assert rules.ranking(state).tolist() == [3, 4, 1, 2]


def test_a_move_code_gives_its_parts_back() -> None:
    for parts in ((23, 468, 468, 468), (6, 0, 1, 2), (0, 511, 3, 0)):
        code = encode(*parts)
        assert 0 <= code < 2**32
        assert (move_type(code), move_a(code), move_b(code), move_c(code)) == parts


GOOD = "place|1|active|0|3,3|0,0|0,0|0,0:12|1,1:1|2,2:2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "place|1|active|0",
        GOOD.replace("place", "plaice"),
        GOOD.replace("|1|", "|3|", 1),
        GOOD.replace("|1|", "|0|", 1),
        GOOD.replace("|1|", "|x|", 1),
        GOOD.replace("3,3", "3,3,3"),
        GOOD.replace("3,3", "3,-1"),
        GOOD.replace("0,0:12", "0,8:12"),
        GOOD.replace("0,0:12", "0,0:13"),
        GOOD.replace("0,0:12", "0,0:"),
        GOOD.replace("0,0:12", "0,0"),
        GOOD.replace("0,0:12", "0,0:121212121"),
        GOOD.replace("1,1:1", "0,0:1"),
        GOOD.replace("1,1:1", "1,1:12"),
        GOOD.replace("2,2:2", "1,1:2"),
    ],
)
def test_a_text_that_is_no_position_is_refused(text: str) -> None:
    rules = load("square8_2p")
    assert rules.text(rules.parse_text(GOOD)) == GOOD
    with pytest.raises(UsageError):
        rules.parse_text(text)


def test_a_move_that_is_not_legal_cannot_be_read() -> None:
    rules = load("square8_2p")
    for text in ("", "P4 0,0", "M 0,0 1,0", "P1 8,0", "Q"):
        with pytest.raises(UsageError, match="illegal move"):
            rules.parse_move(rules.new(), text)


def test_forced_moves_are_played_on_and_choices_left_alone() -> None:
    rules = load("hex8_2p")
    state = rules.new()
    assert rules.advance_forced(state) == 0
    rules.apply(state, rules.parse_move(state, "P1 0,0"))
    rules.apply(state, rules.parse_move(state, "M 0,0 1,0"))
    assert rules.advance_forced(state) == 2
    assert (rules.player(state), int(state[PHASE])) == (2, 0)


def test_a_drawing_names_what_stands_on_the_board() -> None:
    rules = load("square8_2p")
    drawn = rules.draw(rules.parse_text("place|2|active|0|3,3|1,2|0,1|0,0:122 3,0:1|1,1:1|2,2:2")).splitlines()
    assert drawn[1] == " 0 B32 .   .   A11 .   .   .   ."
    assert drawn[2] == " 1 .   m1  .   .   .   .   .   ."
    assert drawn[3] == " 2 .   .   #2  .   .   .   .   ."
    assert drawn[-3:] == [
        "  A player 1: hand 3, eliminated 1, territory 0",
        "> B player 2: hand 3, eliminated 2, territory 1",
        "turn 1, player 2: place",
    ]


def test_a_cold_cache_is_announced_once_and_can_be_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    monkeypatch.setattr(compiling, "run_everything", lambda: calls.append(1))
    for number, (quiet, environment, said) in enumerate(((False, "0", 1), (True, "0", 0), (False, "1", 0))):
        monkeypatch.setenv("RINGRIFT_QUIET", environment)
        monkeypatch.setattr(compiling, "CACHE", tmp_path / str(number))
        for _ in range(2):
            monkeypatch.setattr(compiling, "_ready", False)
            compiling.compile_all(quiet=quiet)
        assert capsys.readouterr().err.count("compiling the rules, once") == said
    assert len(calls) == 3


def test_names_and_versions_are_read_without_compiling() -> None:
    script = "import sys, backend.rules; print(backend.rules.ENGINE_VERSION, 'numba' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split()[1] == "False"


def test_the_bench_verb_measures_what_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["rules", "bench", "--config", "hex8_2p", "--config", "square8_3p", "--seconds", "0.05", "--json"]
    assert main([*argv, "--root", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["config"] for row in rows] == ["hex8_2p", "square8_3p"]
    assert all(row["decisions_per_s"] > 0 and row["playouts_per_s"] > 0 for row in rows)
    assert main(["rules", "bench", "--config", "hex9_2p", "--root", str(tmp_path)]) == 2


def test_a_measured_game_has_a_plausible_length() -> None:
    assert 60 < measure(Config("square8", 2), 0.2).plies_per_game < 400


def test_the_play_verb_is_the_same_game_for_the_same_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outs = []
    for seed in ("4", "4", "5"):
        argv = ["rules", "play", "--config", "square8_2p", "--players", "random", "--seed", seed]
        assert main([*argv, "--root", str(tmp_path)]) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1] != outs[2]
    assert "over: player" in outs[0]
    assert "rank 1: player" in outs[0]
    assert main(["rules", "play", "--config", "square8_2p", "--players", "random,random,random"]) == 2


def test_the_sentinel_and_the_cells_fill_the_row() -> None:
    for config in CONFIGS:
        rules = load(config)
        assert rules.new().shape == (rules.size,) == (CELL + rules.cells + 1,)
