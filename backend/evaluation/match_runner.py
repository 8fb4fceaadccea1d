"""Plays the games of a gauntlet in a worker: many at once, each player asked for all of its turns together."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import RingRiftError, UnverifiedError
from backend.evaluation.gauntlet import GauntletSettings, MatchSlot
from backend.evaluation.match_record import MatchRecord, MatchSeat, Termination
from backend.evaluation.openings import opening_id, play_opening
from backend.players import make_player
from backend.players.base import Player
from backend.players.live import LiveGame, move_cap
from backend.rules import ENGINE_VERSION, load

_STREAM = 0x4741554E  # keeps these generators apart from those of other uses of the same seed


@dataclass(slots=True)
class _Match:
    slot: MatchSlot
    live: LiveGame
    rng: np.random.Generator
    opening_moves: int
    began: float
    crashed: int = 0


def match_generator(seed: int, slot: MatchSlot) -> np.random.Generator:
    """The generator of one match; it depends on nothing but the run's seed and the slot."""
    opponent = int.from_bytes(hashlib.sha256(slot.opponent.encode()).digest()[:4], "big")
    entropy = [_STREAM, seed, opponent, slot.block, slot.seat]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


class MatchRunner:
    """Matches of one run; a task is a :class:`MatchSlot`, a result the slot with its :class:`MatchRecord`.

    Args:
        players: where others are at hand already: the candidate under its name or file, opponents under their names.
        digests: SHA-256 of the opponents that are models, by name.
    """

    def __init__(
        self,
        settings: GauntletSettings,
        players: Mapping[str, Player] | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        candidate, config = settings.candidate, settings.config
        self._settings = settings
        self._rules = load(config)
        self._cap = move_cap(config)
        if players is None:
            self._candidate = make_player(
                candidate.name, config, model=candidate.model, simulations=candidate.simulations
            )
            players, digests = settings.make_opponents(), settings.digests
        else:
            self._candidate = players[candidate.model or candidate.name]
        if candidate.sha256 and candidate.sha256[:16] not in self._candidate.identity:
            raise UnverifiedError("the checkpoint has changed since the run began", where=str(candidate.model))
        self._opponents, self._digests = players, digests or {}
        self._matches: list[_Match] = []
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    @property
    def active(self) -> int:
        """Matches in hand."""
        return len(self._matches)

    def add(self, task: MatchSlot) -> None:
        """Starts a match with the opening of its block."""
        live = LiveGame(self._rules, self._cap)
        play_opening(live, self._settings.config, self._settings.seed, task.block)
        rng = match_generator(self._settings.seed, task)
        self._matches.append(_Match(task, live, rng, live.played, time.monotonic()))

    def step(self) -> list[Any]:
        """Plays until every match waits for the candidate and has had one choice of it; returns those that ended.

        The opponents go first, so that the candidate is asked about all matches at once: a network takes full batches.
        """
        while opposed := self._waiting(candidate=False):
            for player, turn in opposed:
                self._choose(player, turn)
        for player, turn in self._waiting(candidate=True):
            self._choose(player, turn)
        ended = [match for match in self._matches if match.crashed or match.live.ended]
        self._matches = [match for match in self._matches if not (match.crashed or match.live.ended)]
        return [(match.slot, self._record(match)) for match in ended]

    def _waiting(self, *, candidate: bool) -> list[tuple[Player, list[_Match]]]:
        """The matches in which the candidate, or an opponent, has a choice to make, by player."""
        turns: dict[int, tuple[Player, list[_Match]]] = {}
        for match in self._matches:
            if not match.crashed and not match.live.settle() and (match.live.player == match.slot.seat) == candidate:
                player = self._player(match, match.live.player)
                turns.setdefault(id(player), (player, []))[1].append(match)
        return list(turns.values())

    def _player(self, match: _Match, seat: int) -> Player:
        return self._candidate if seat == match.slot.seat else self._opponents[match.slot.opponent]

    def _choose(self, player: Player, turn: list[_Match]) -> None:
        """Asks once for all; when that fails, asks match by match, so that only the matches that fail crash."""
        before = [match.rng.bit_generator.state for match in turn]
        try:
            moves = player.choose(np.stack([match.live.state for match in turn]), [match.rng for match in turn])
        except Exception:
            traceback.print_exc()
            for match, state in zip(turn, before, strict=True):
                match.rng.bit_generator.state = state
                self._choose_alone(player, match)
            return
        for match, move in zip(turn, moves, strict=True):
            self._play(match, int(move))

    def _choose_alone(self, player: Player, match: _Match) -> None:
        try:
            moves: NDArray[np.int64] = player.choose(match.live.state[None, :].copy(), [match.rng])
        except Exception:
            sys.stderr.write(f"crash of {player.identity} in {match.slot.key}:\n{traceback.format_exc()}")
            match.crashed = match.live.player
            return
        self._play(match, int(moves[0]))

    def _play(self, match: _Match, move: int) -> None:
        try:
            match.live.play(move, checked=True)
        except RingRiftError as error:
            sys.stderr.write(f"crash in {match.slot.key}: {error.line()}\n")
            match.crashed = match.live.player

    def _record(self, match: _Match) -> MatchRecord:
        live, rules, candidate = match.live, self._rules, self._settings.candidate
        termination: Termination = "crash" if match.crashed else "natural" if live.over else "cap"
        seats = tuple(
            MatchSeat(
                self._player(match, seat).identity,
                candidate.sha256 if seat == match.slot.seat else self._digests.get(match.slot.opponent),
            )
            for seat in range(1, rules.players + 1)
        )
        natural = termination == "natural"
        return MatchRecord(
            config=self._settings.config.key,
            seats=seats,
            candidate=match.slot.seat,
            winner=rules.winner(live.state) if natural else 0,
            ranking=tuple(int(rank) for rank in rules.ranking(live.state)) if natural else (),
            reason=rules.reason(live.state) if natural else termination,
            termination=termination,
            opening=opening_id(self._settings.seed, match.slot.block),
            opening_moves=match.opening_moves,
            seed=self._settings.seed,
            moves=live.moves.copy(),
            engine_version=ENGINE_VERSION,
            wall_s=time.monotonic() - match.began,
            worker=self._worker,
            crashed=match.crashed,
        )
