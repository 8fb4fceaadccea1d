"""The rules of the game: played, recorded, replayed, measured."""

from __future__ import annotations

from ringrift_console.actions.action import Action, Param
from ringrift_console.actions.params import CONFIG, JSON, SEED

_RULES = "ringrift_console.verbs.rules"

RULES: tuple[Action, ...] = (
    Action(
        "rules.replay",
        "Replay recorded games and compare every position",
        verb=("rules", "replay"),
        params=(Param("files", "recordings, .jsonl or .jsonl.gz", type="path", repeat="+", metavar="FILE"),),
        run=f"{_RULES}:replay",
    ),
    Action(
        "rules.bench",
        "Measure the rules engine on one core",
        verb=("rules", "bench"),
        params=(
            Param("--config", "only this config; repeat for several", repeat="append", metavar="KEY"),
            Param("--seconds", "time per config", type="float", default=2.0, metavar="S"),
            JSON,
        ),
        run=f"{_RULES}:bench",
    ),
    Action(
        "rules.play",
        "Play and print one game",
        verb=("rules", "play"),
        params=(
            *CONFIG,
            Param("--players", "player per seat, or one for all", default="random", metavar="NAMES"),
            SEED,
        ),
        run=f"{_RULES}:play",
    ),
    Action(
        "rules.record",
        "Record games in the shared notation",
        verb=("rules", "record"),
        params=(
            *CONFIG,
            Param("--games", "how many", type="int", default=1, metavar="N"),
            Param("--output", "recording to write", type="path", required=True, metavar="F.jsonl.gz"),
            Param("--scattered", "start from made-up positions, rich in rare moves", type="flag"),
            SEED,
        ),
        run=f"{_RULES}:record",
    ),
)
