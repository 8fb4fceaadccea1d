"""Results of every model against every opponent, counted in the transaction that stores the matches.

A cache: a model's rows are counted anew from its matches whenever it has played, never added to. A reader takes them as
they are and counts only what was stored since, so that a million matches are not looked at for each page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from backend.databases import tables

TABLES = (
    """CREATE TABLE IF NOT EXISTS match_totals (
        sha256 TEXT NOT NULL, opponent TEXT NOT NULL, candidate TEXT NOT NULL, seq INTEGER NOT NULL,
        games INTEGER NOT NULL, wins INTEGER NOT NULL, unique_games INTEGER NOT NULL, crashes INTEGER NOT NULL,
        PRIMARY KEY (sha256, opponent, candidate)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS match_totals_upto (
        id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL)""",
)
_COUNT = (
    "SELECT candidate_sha256, opponent, candidate, max(seq), sum(termination != 'crash'), "
    "sum(won AND termination != 'crash'), count(DISTINCT CASE WHEN termination != 'crash' THEN moves_sha256 END), "
    "sum(termination = 'crash') FROM match_games WHERE candidate_sha256 {} "
    "GROUP BY candidate_sha256, opponent, candidate"
)

Total = tuple[str, str, str, int, int, int, int, int]
"""SHA-256, opponent, candidate with its settings, last match, games, wins, different games, crashes."""


def bring_up(db: sqlite3.Connection) -> None:
    """Counts the models anew that have played since the last time; belongs into the transaction of their matches."""
    for sha256 in _since(db, _upto(db)):
        db.execute(f"INSERT OR REPLACE INTO match_totals {_COUNT.format('= ?')}", (sha256,))
    db.execute("INSERT OR REPLACE INTO match_totals_upto SELECT 1, coalesce(max(seq), 0) FROM match_games")


def totals(db: sqlite3.Connection) -> list[Total]:
    """All results as of now, from the stored counts and the matches after them."""
    if not {"match_totals", "match_totals_upto"} <= tables(db):
        return list(db.execute(_COUNT.format("IS NOT NULL")))
    upto = _upto(db)
    if upto == 0:
        return list(db.execute(_COUNT.format("IS NOT NULL")))
    stored = db.execute("SELECT * FROM match_totals ORDER BY sha256, opponent, candidate").fetchall()
    newer = set(_since(db, upto))
    if not newer:
        return stored
    kept = [row for row in stored if row[0] not in newer]
    return kept + [row for sha256 in newer for row in db.execute(_COUNT.format("= ?"), (sha256,))]


def _upto(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT seq FROM match_totals_upto").fetchone()
    return int(row[0]) if row else 0


def _since(db: sqlite3.Connection, seq: int) -> Iterator[str]:
    query = "SELECT DISTINCT candidate_sha256 FROM match_games WHERE seq > ? AND candidate_sha256 IS NOT NULL"
    return iter([str(row[0]) for row in db.execute(query, (seq,))])
