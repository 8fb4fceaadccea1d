"""The games that bear on one model, read from the match records: per search, per opponent, with complete seat blocks.

The same network with another search is another player (see docs/ratings.md), so their games are never put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.configs import Config
from backend.databases import open_reader, sqlite_errors, tables
from backend.evaluation.verdict import Games
from backend.paths import Paths


@dataclass(frozen=True, slots=True)
class Played:
    """One game of a candidate as a verdict needs it; ``seq`` orders the games as they were stored."""

    seq: int
    candidate: str
    opponent: str
    seat: int
    opening: str
    won: bool
    crashed: bool
    moves: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All games of one player, a model with one search, as a candidate.

    Attributes:
        seq: of the newest game of the records, whoever played it; 0 without any.
        search: the settings of its search as identities name them, e.g. ``s16``; empty without games.
    """

    games: tuple[Played, ...]
    seq: int
    search: str = ""

    @property
    def unique(self) -> int:
        """Different finished games against anybody."""
        return len({game.moves for game in self.games if not game.crashed})

    def against(self, opponent: str, players: int) -> Games:
        """The games against an opponent: a baseline by its name, or a player by its whole identity.

        Of several versions or settings of an opponent, those played last count.
        """
        own = [game for game in self.games if opponent in (game.opponent, game.opponent.split(":")[0])]
        latest = max(own, key=lambda game: game.seq).opponent if own else ""
        own = [game for game in own if game.opponent == latest]
        finished = [game for game in own if not game.crashed]
        return Games(
            wins=sum(game.won for game in finished),
            games=len(finished),
            unique=len({game.moves for game in finished}),
            crashes=len(own) - len(finished),
            blocks=seat_blocks(finished, players),
            counted=self.unique,
        )


def seat_blocks(games: Sequence[Played], players: int) -> tuple[int, ...] | None:
    """Games won of each complete block, oldest first; None without a complete one.

    A block is one opening with the candidate in each seat once. A seat that was played twice (with another seed of
    the players) counts with its first game.
    """
    blocks: dict[str, dict[int, Played]] = {}
    for game in sorted(games, key=lambda game: game.seq):
        blocks.setdefault(game.opening, {}).setdefault(game.seat, game)
    found = tuple(sum(game.won for game in seats.values()) for seats in blocks.values() if len(seats) == players)
    return found or None


def search_of(identity: str) -> str:
    """The settings of a model's search: what stands behind ``neural:<first digits of the SHA-256>:``."""
    return identity.partition(":")[2].partition(":")[2]


def evidence_of(paths: Paths, config: Config, sha256: str) -> tuple[Evidence, ...]:
    """Reads a model's games: one for each search, most finished games first, then the one played last.

    Games that were made void do not count. Always at least one, without games where there are none.

    Raises:
        UnverifiedError, LockedError, ResourceError: the records cannot be read.
    """
    path = paths.elo_db
    if not path.exists():
        return (Evidence((), 0),)
    connection = open_reader(path)
    try:
        with sqlite_errors(path):
            if "match_games" not in tables(connection):
                return (Evidence((), 0),)
            void = (
                " AND game_id NOT IN (SELECT game_id FROM match_voids)" if "match_voids" in tables(connection) else ""
            )
            rows = connection.execute(
                "SELECT seq, candidate, opponent, candidate_seat, opening, won, termination = 'crash', moves_sha256"
                f" FROM match_games WHERE candidate_sha256 = ? AND config = ?{void} ORDER BY seq",
                (sha256, config.key),
            ).fetchall()
            newest = int(connection.execute("SELECT max(seq) FROM match_games").fetchone()[0] or 0)
    finally:
        connection.close()
    games: dict[str, list[Played]] = {}
    for seq, candidate, opponent, seat, opening, won, crashed, moves in rows:
        game = Played(seq, candidate, opponent, seat, opening, bool(won), bool(crashed), moves)
        games.setdefault(search_of(candidate), []).append(game)
    found = [Evidence(tuple(own), newest, search) for search, own in games.items()]
    found.sort(key=lambda one: (sum(not game.crashed for game in one.games), one.games[-1].seq), reverse=True)
    return tuple(found) or (Evidence((), newest),)
