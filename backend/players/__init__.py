"""Players: anything that picks a move. :func:`make_player` makes one by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.configs import Config
from backend.errors import UsageError

if TYPE_CHECKING:
    from backend.players.base import Player

BUILT_IN: tuple[str, ...] = ("random", "heuristic", "ladder")
"""Players that need no model. ``heuristic:e0.05`` plays a random move with chance 0.05; ``ladder:32`` searches over
Heuristic with 32 simulations a decision."""
SIMULATIONS = 32
"""Search simulations a move of a neural player, unless said otherwise."""


def make_player(name: str, config: Config, *, model: str | None = None, simulations: int | None = None) -> Player:
    """The player that ``name`` describes.

    Args:
        name: ``random``, ``heuristic``, ``heuristic:e<chance>``, ``ladder:<simulations>``, ``neural`` (with
            ``model``), or the path of a checkpoint.
        model: the checkpoint of ``neural``.
        simulations: search simulations a move of a neural player; None is its default.

    Raises:
        UsageError: the name means nothing.
        NotFoundError, UntrustedError, UnverifiedError, SchemaError: the model cannot be loaded; nothing stands in.
    """
    base, _, option = name.partition(":")
    if base in BUILT_IN:
        from backend.players.compiling import compile_players
        from backend.rules import load

        rules = load(config)
        compile_players(rules)
        if base == "random" and not option:
            from backend.players.random import RandomPlayer

            return RandomPlayer(rules)
        if base == "heuristic":
            from backend.players.heuristic import HeuristicPlayer

            return HeuristicPlayer(rules, _epsilon(name, option))
        if base == "ladder" and option.isdecimal():
            from backend.players.ladder import make_rung

            return make_rung(rules, int(option))
        hint = "random, heuristic, heuristic:e0.05, ladder:32, or a checkpoint"
        raise UsageError("unknown player", where=name, hint=hint)
    path = model if base == "neural" and model else name
    from backend.players.neural import load_player

    return load_player(path, config, simulations=simulations)


def built_in(name: str) -> bool:
    """Whether ``name`` is that of a player that needs no model."""
    return name.partition(":")[0] in BUILT_IN


def _epsilon(name: str, option: str) -> float:
    if not option:
        return 0.0
    try:
        value = float(option.removeprefix("e")) if option.startswith("e") else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError("unknown player option", where=name, hint="a chance within 0..1, e.g. heuristic:e0.05")
    return value
