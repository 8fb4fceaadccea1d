"""Matches between models, and the ratings that follow from them."""

from __future__ import annotations

from ringrift_console.actions.action import Action, Param
from ringrift_console.actions.params import CONFIG, JSON, SEED

_RATINGS = "ringrift_console.verbs.ratings"

ELO: tuple[Action, ...] = (
    Action(
        "tournament",
        "Play models of a config against each other and the anchors, paired for what the games tell",
        verb=("tournament",),
        params=(
            *CONFIG,
            Param("--models", "comma list of files, labels or SHA-256; default all registered", metavar="MODELS"),
            Param("--anchors", "comma list", default="heuristic,ladder:2,ladder:8,ladder:32", metavar="NAMES"),
            Param("--games", "games of the run in all", type="int", default=200, metavar="N"),
            Param("--simulations", "search simulations a move; 0 plays the bare policy", type="int", metavar="N"),
            Param("--run", "id of a run to go on with", metavar="ID"),
            Param("--workers", "processes; default one a core", type="int", metavar="N"),
            SEED,
            JSON,
        ),
        run=f"{_RATINGS}:tournament",
    ),
    Action(
        "ratings.list",
        "Ratings of a config's players, from all of its matches",
        verb=("ratings", "list"),
        params=(*CONFIG, JSON),
        run=f"{_RATINGS}:list_ratings",
    ),
    Action(
        "ratings.history",
        "Ratings after each run of matches, with their error bands",
        verb=("ratings", "history"),
        params=(
            *CONFIG,
            Param("--points", "at most so many points", type="int", default=100, metavar="N"),
            JSON,
        ),
        run=f"{_RATINGS}:history",
    ),
    Action(
        "ratings.verify",
        "Compute all stored ratings again from the matches, and check the matches' hashes",
        verb=("ratings", "verify"),
        params=(
            *CONFIG,
            Param("--replay", "play the matches again too", type="flag"),
            JSON,
        ),
        run=f"{_RATINGS}:verify_ratings",
    ),
)
