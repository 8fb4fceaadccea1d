"""The ai-service's table ``match_history``, whichever of its two modules made it.

One module writes ``participant_a``, ``participant_b``, ``rankings`` and ``winner`` with the time as a number, the other
``winner_id`` with the time as text; files that both have opened hold both. A row becomes a match, with every flaw that
keeps it from being evidence.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.databases import columns
from backend.reference.names import KEYS, config_key, config_of_name, moment, participant

EXCLUDED = {
    "match.no-config": "its board or number of players is none of ours",
    "match.no-players": "it does not say who played",
    "match.no-winner": "no column says who won",
    "match.contradiction": "its columns name different winners",
    "match.strange-winner": "its winner did not play",
    "match.foreign-config": "a player belongs to another config",
    "match.config-as-player": "a player is named like a config, so no file is meant",
    "match.unknown-seats": "it names fewer players than there were, and no baseline among them",
    "match.duplicate": "the same game is stored twice",
}
"""Flaws that take a match out of the ratings."""

KEPT = {
    "match.split-winner": "only one of the two columns names the winner",
    "match.winner-by-ranking": "no column names the winner, the ranking does",
    "match.no-time": "its time cannot be read",
    "match.unlisted-player": "a player is not in the table of participants",
}
"""Flaws that do not."""


@dataclass(frozen=True, slots=True)
class Match:
    """One row.

    Attributes:
        players: participant ids by seat as far as they are known; filled up with the baseline where the row names
            fewer than there were.
        winner: place in ``players``; None when the row cannot be used.
        flaws: names of :data:`EXCLUDED` and :data:`KEPT`.
    """

    id: str
    config: str | None
    players: tuple[str, ...]
    winner: int | None
    at: datetime | None
    flaws: tuple[str, ...]

    @property
    def counts(self) -> bool:
        return self.winner is not None and not any(flaw in EXCLUDED for flaw in self.flaws)


def read_matches(db: sqlite3.Connection, config: str | None = None) -> Iterator[Match]:
    """All rows of a foreign ``match_history``, or those of one config, in the order of the table; none without one.

    Rows that this program added beside ours (``match_games``) are left out: they are known better there.
    """
    there = columns(db, "match_history")
    if not {"board_type", "num_players"} <= there.keys():
        return
    listed = {str(row[0]) for row in _select(db, "participants", ["participant_id"])}
    own = {str(row[0]) for row in _select(db, "match_games", ["game_id"])}
    wanted = (
        "rowid", "id", "participant_a", "participant_b", "participant_ids", "rankings", "winner", "winner_id",
        "board_type", "num_players", "timestamp", "game_id",
    )  # fmt: skip
    names = [name if name in there or name == "rowid" else f"NULL AS {name}" for name in wanted]
    cursor = db.execute(f"SELECT {', '.join(names)} FROM match_history ORDER BY rowid")
    seen: set[str] = set()
    for values in cursor:
        row = dict(zip(wanted, values, strict=True))
        game = str(row["game_id"]) if row["game_id"] is not None else ""
        if game in own and game:
            continue
        match = _match(row, listed, there, again=game in seen)
        if game:
            seen.add(game)
        if config is None or match.config == config:
            yield match


def _select(db: sqlite3.Connection, table: str, names: list[str]) -> list[Any]:
    if not set(names) <= columns(db, table).keys():
        return []
    return db.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()


def _match(row: dict[str, Any], listed: set[str], there: dict[str, str], *, again: bool) -> Match:
    flaws = ["match.duplicate"] if again else []
    config = config_key(row["board_type"], row["num_players"])
    at = moment(row["timestamp"])
    if at is None:
        flaws.append("match.no-time")
    players = _players(row)
    if config is None:
        flaws.append("match.no-config")
    if len(players) < 2:
        flaws.append("match.no-players")
    winner = _winner(row, players, there, flaws) if len(players) >= 2 else None
    if config is not None and len(players) >= 2:
        for player in players:
            if player in KEYS:
                flaws.append("match.config-as-player")
            elif config_of_name(player) not in (None, config):
                flaws.append("match.foreign-config")
            if player not in listed:
                flaws.append("match.unlisted-player")
        players = _filled(players, int(config[-2]), flaws)
    name = row["game_id"] if row["id"] is None else row["id"]
    return Match(
        str(name if name is not None else row["rowid"]), config, players, winner, at, tuple(dict.fromkeys(flaws))
    )


def _players(row: dict[str, Any]) -> tuple[str, ...]:
    given = _json(row["participant_ids"])
    if isinstance(given, list) and given and all(isinstance(name, str) for name in given):
        return tuple(given)
    pair = (row["participant_a"], row["participant_b"])
    return tuple(name for name in pair if isinstance(name, str) and name)


def _winner(row: dict[str, Any], players: tuple[str, ...], there: dict[str, str], flaws: list[str]) -> int | None:
    """Place of the winner. The one who won by name is the first of that name: copies of a player are one player."""
    told = {name: row[name] for name in ("winner", "winner_id") if isinstance(row[name], str) and row[name]}
    ranks = _json(row["rankings"])
    ranked = isinstance(ranks, list) and len(ranks) == len(players) and ranks.count(0) == 1
    best = players[ranks.index(0)] if ranked else None
    named = set(told.values()) | ({best} if best is not None else set())
    if not named:
        flaws.append("match.no-winner")
        return None
    if len(named) > 1:
        flaws.append("match.contradiction")
        return None
    if not told:
        flaws.append("match.winner-by-ranking")
    elif len(told) == 1 and {"winner", "winner_id"} <= there.keys():
        flaws.append("match.split-winner")
    who = named.pop()
    if who not in players:
        flaws.append("match.strange-winner")
        return None
    return ranks.index(0) if ranked and best == who else players.index(who)


def _filled(players: tuple[str, ...], seats: int, flaws: list[str]) -> tuple[str, ...]:
    """Two players in a game of three or four: the baseline sat in all other seats."""
    if len(players) == seats:
        return players
    baselines = [name for name in players if participant(name).baseline is not None]
    if len(players) != 2 or len(baselines) != 1:
        flaws.append("match.unknown-seats")
        return players
    return (*players, *baselines * (seats - 2))


def _json(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
