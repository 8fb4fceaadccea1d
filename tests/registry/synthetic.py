"""Match records of players of known strength: the games are made up; the records and all behind them are real."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np

from backend.configs import parse_config
from backend.evaluation.match_record import MatchRecord, MatchSeat
from backend.evaluation.openings import opening_id
from backend.evaluation.records import Records
from backend.paths import Paths

_RUNS = itertools.count()


def play(
    paths: Paths, sha256: str, opponent: str, games: int, *, wins: int | None = None, rate: float | None = None,
    config: str = "hex8_2p", crashes: int = 0, repeat: bool = False, seed: int = 1, opponent_sha256: str | None = None,
    search: str = "s16",
) -> None:  # fmt: skip
    """Stores games of a model against copies of one opponent, block by block.

    Args:
        opponent: identity, e.g. ``heuristic:1``.
        wins: exactly so many are won, spread evenly; else each with the chance ``rate``.
        repeat: all games have the same moves, as two players without chance would play them.
    """
    run = f"r{next(_RUNS)}"
    players = parse_config(config).players
    chance = random.Random(f"{sha256}{opponent}{seed}")
    won = _spread(wins, games) if wins is not None else [chance.random() < (rate or 0.0) for _ in range(games)]
    records: list[tuple[str, MatchRecord]] = []
    for n in range(games + crashes):
        block, seat = divmod(n, players)
        crashed = n >= games
        winner = 0 if crashed else seat + 1 if won[n] else (seat + 1) % players + 1
        ranking = () if crashed else tuple(1 if other == winner else 2 for other in range(1, players + 1))
        moves = np.array([1, 2, 3] if repeat else [chance.getrandbits(31) for _ in range(12)], dtype=np.int64)
        own = MatchSeat(f"neural:{sha256[:16]}:{search}", sha256)
        other = MatchSeat(opponent, opponent_sha256)
        record = MatchRecord(
            config=config,
            seats=tuple(own if place == seat else other for place in range(players)),
            candidate=seat + 1,
            winner=winner,
            ranking=ranking,
            reason="crash" if crashed else "rings",
            termination="crash" if crashed else "natural",
            opening=opening_id(seed, block),
            opening_moves=2,
            seed=seed,
            moves=moves,
            engine_version="test",
            wall_s=0.1,
            worker="made-up",
            crashed=seat + 1 if crashed else 0,
        )
        records.append((f"{opponent}/{block}/{seat + 1}", record))
    with Records.open(paths) as store:
        store.begin_run(run, config, {"candidate": sha256, "opponent": opponent, "seed": seed, "run": run})
        store.add(run, records)


def _spread(wins: int, games: int) -> Sequence[bool]:
    return [(n + 1) * wins // games > n * wins // games for n in range(games)]
