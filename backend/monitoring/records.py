"""The games that bear on a champion, read from the match records: its background matches, and what was known before."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from backend.databases import open_reader, sqlite_errors, tables
from backend.monitoring.chart import Baseline, Game
from backend.paths import Paths

PREFIX = "monitor-"
"""Run ids of background matches begin with it, then config, model and a number."""


def run_prefix(config: str, sha256: str) -> str:
    """What the ids of a champion's background runs begin with."""
    return f"{PREFIX}{config}-{sha256[:16]}-"


def newest(paths: Paths) -> int:
    """The number of the newest match, whoever played it; 0 without any."""
    if not paths.elo_db.exists():
        return 0
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        return _newest(db)


def _newest(db: sqlite3.Connection) -> int:
    if "match_games" not in tables(db):
        return 0
    return int(db.execute("SELECT coalesce(max(seq), 0) FROM match_games").fetchone()[0])


def games_of(
    paths: Paths, config: str, sha256: str, reference: str, *, since: int, start: int
) -> tuple[Baseline, tuple[Game, ...]]:
    """What was known of a champion against a reference, and its background games after that.

    Only games with the search settings of the newest background game count: with another search it is another player.

    Args:
        reference: a baseline's name, e.g. ``heuristic``; of its versions the one played last in background counts.
        since: the match up to which games are the baseline.
        start: the match after which background games are charted.
    """
    nothing = Baseline(0, 0), ()
    if not paths.elo_db.exists():
        return nothing
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        if not {"match_games", "match_slots"} <= tables(db):
            return nothing
        prefix = run_prefix(config, sha256)
        rows = db.execute(
            "SELECT g.seq, g.candidate, g.opponent, g.opening, g.candidate_seat, g.won, g.crashed, g.termination"
            " FROM match_slots s JOIN match_games g ON g.game_id = s.game_id WHERE s.run_id >= ? AND s.run_id < ?"
            " AND g.candidate_sha256 = ? AND g.config = ? ORDER BY g.seq",
            (prefix, prefix + "~", sha256, config),
        ).fetchall()
        own = [row for row in rows if str(row[2]).partition(":")[0] == reference]
        if not own:
            return nothing
        _, player, opponent = own[-1][:3]
        wins, count = db.execute(
            "SELECT coalesce(sum(won), 0), count(*) FROM match_games WHERE candidate_sha256 = ? AND config = ? AND"
            " opponent = ? AND candidate = ? AND termination != 'crash' AND seq <= ?",
            (sha256, config, opponent, player, since),
        ).fetchone()
    games = tuple(
        Game(seq, opening, seat, bool(won), crashed=termination == "crash" and crashed == seat)
        for seq, candidate, other, opening, seat, won, crashed, termination in own
        if (candidate, other) == (player, opponent) and seq > start
        and (termination != "crash" or crashed == seat)  # what the reference does wrong tells nothing of the champion
    )  # fmt: skip
    return Baseline(int(wins), int(count)), games
