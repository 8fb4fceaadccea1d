"""What several verbs need: the config an invocation means, JSON output, plain tables."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from backend.configs import Config, make_config, parse_config
from backend.errors import UsageError
from backend.paths import Paths
from backend.text import plain
from ringrift_console.actions import load


def config_of(args: argparse.Namespace, *, required: bool = True) -> Config | None:
    """The config given by ``--config`` or by ``--board-type`` with ``--num-players``.

    Raises:
        UsageError: it is missing though required, incomplete, contradictory or unknown.
    """
    board, players = getattr(args, "board_type", None), getattr(args, "num_players", None)
    key = getattr(args, "config", None)
    named = parse_config(key) if key else None
    if board is None and players is None:
        if named is None and required:
            raise UsageError("no config given", hint="--config hex8_2p, or --board-type hex8 --num-players 2")
        return named
    if named is not None:
        other = make_config(board or named.board, named.players if players is None else players)
        if other != named:
            raise UsageError("two different configs given", where=f"{named.key} and {other.key}")
        return named
    if board is None:
        raise UsageError("--num-players needs --board-type too")
    return make_config(board, 2 if players is None else players)


def to_json(value: Any) -> str:
    """``value`` as JSON text; dataclasses become objects, times ISO text."""

    def default(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        if isinstance(item, datetime):
            return item.isoformat()
        raise TypeError(f"{type(item).__name__} has no JSON form")

    return json.dumps(value, indent=2, default=default)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned by spaces, without trailing blanks; a cell never holds a control character."""
    lines = [list(headings), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def change(plan: str) -> Callable[[argparse.Namespace, Paths], int]:
    """A verb that plans a change with its own parameters and has it carried out."""

    def run(args: argparse.Namespace, paths: Paths) -> int:
        from ringrift_console.verbs.operations import carry_out  # verbs that only read do without

        taken = ("wait", "dry_run", "json", "root", "action")
        params = {name: value for name, value in vars(args).items() if name not in taken}
        return carry_out(args, paths, load(plan)(paths, **params))

    return run
