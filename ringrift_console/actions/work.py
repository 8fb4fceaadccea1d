"""The work itself, on this machine, as a recipe runs it on another."""

from __future__ import annotations

from ringrift_console.actions.action import Action, Param
from ringrift_console.actions.params import CONFIG, JSON, SEED

_TRAINING = "ringrift_console.verbs.training"

WORK: tuple[Action, ...] = (
    Action(
        "selfplay",
        "Play games into the config's database",
        verb=("selfplay",),
        params=(
            *CONFIG,
            Param("--games", "games to add", type="int", metavar="N"),
            Param("--until", "play until the database holds N games", type="int", metavar="N"),
            Param("--players", "player per seat, or one for all", default="heuristic:e0.05", metavar="NAMES"),
            Param("--first", "lowest game of the seed to play", type="int", default=0, metavar="N"),
            Param("--workers", "processes; default one a core", type="int", metavar="N"),
            SEED,
            JSON,
        ),
        run="ringrift_console.verbs.selfplay:selfplay",
    ),
    Action(
        "export",
        "Turn recorded games into a training dataset",
        verb=("export",),
        params=(
            *CONFIG,
            Param("--db", "games database; repeat for several", type="path", repeat="append", metavar="F.db"),
            Param("--use-discovery", "find the databases under the root", type="flag"),
            Param("--output", "dataset to write", type="path", metavar="F.npz"),
            Param("--validation", "fraction of games held out", type="float", default=0.1, metavar="X"),
            Param("--max-games", "use at most N games, newest first", type="int", metavar="N"),
            JSON,
        ),
        run=f"{_TRAINING}:export",
    ),
    Action(
        "train",
        "Train a network and register it",
        verb=("train",),
        params=(
            *CONFIG,
            Param("--data-path", "dataset", type="path", metavar="F.npz"),
            Param("--save-path", "checkpoint to write", type="path", metavar="M.pth"),
            Param("--epochs", "passes over the data", type="int", metavar="N"),
            Param("--batch-size", "samples a step", type="int", metavar="N"),
            Param("--lr", "peak learning rate", type="float", aliases=("--learning-rate",), metavar="X"),
            Param("--blocks", "residual blocks", type="int", metavar="N"),
            Param("--channels", "channels of the trunk", type="int", metavar="N"),
            Param("--resume", "go on from the last training state", type="flag"),
            Param("--init-weights", "start from this checkpoint", type="path", metavar="M.pth"),
            Param("--device", "cpu, cuda or mps; default the best there is", metavar="DEV"),
            Param("--no-register", "leave the registry alone", type="flag"),
            SEED,
            JSON,
        ),
        run=f"{_TRAINING}:train",
    ),
    Action(
        "gauntlet",
        "Play a model against Random and Heuristic",
        verb=("gauntlet",),
        params=(
            Param(
                "model", "checkpoint file, registered model (label or SHA-256), random or heuristic", metavar="MODEL"
            ),
            *CONFIG,
            Param("--games", "games per opponent", type="int", default=100, metavar="N"),
            Param("--simulations", "search simulations a move; 0 plays the bare policy", type="int", metavar="N"),
            Param("--opponents", "comma list", default="random,heuristic", metavar="NAMES"),
            Param("--run", "id of a run to go on with", metavar="ID"),
            Param("--first-block", "lowest opening of the run to play", type="int", default=0, metavar="N"),
            Param("--workers", "processes; default one a core", type="int", metavar="N"),
            SEED,
            JSON,
        ),
        run="ringrift_console.verbs.evaluation:gauntlet",
    ),
)
