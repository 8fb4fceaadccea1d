"""``ringrift rules``: replay recordings, measure the engine, play and record games."""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from pathlib import Path

from backend.configs import CONFIGS, parse_config
from backend.errors import Exit, UsageError
from backend.paths import Paths
from ringrift_console.verbs.common import config_of, table, to_json


def replay(args: argparse.Namespace, paths: Paths) -> int:
    """Replays recordings; exit 1 when any ply differs."""
    from backend.rules.replay import replay as replay_file

    reports = []
    for name in args.files:
        report = replay_file(Path(name))
        reports.append(report)
        print(f"{report.file}: {report.games} games, {report.plies} plies, {len(report.mismatches)} mismatches")
        sys.stdout.flush()
    games, plies = sum(r.games for r in reports), sum(r.plies for r in reports)
    found = [mismatch for report in reports for mismatch in report.mismatches]
    print(f"total: {games} games, {plies} plies, {len(found)} mismatches")
    if not found:
        return Exit.DONE
    print(f"\nfirst mismatch: {found[0].text()}")
    return Exit.FAILED


def bench(args: argparse.Namespace, paths: Paths) -> int:
    """Measures decisions and whole random games a second on one core."""
    from backend.rules.measure import measure

    if args.seconds <= 0:
        raise UsageError("--seconds must be positive", where=str(args.seconds))
    configs = [parse_config(key) for key in args.config] if args.config else list(CONFIGS)
    results = []
    for config in configs:
        results.append(measure(config, args.seconds))
        if not args.json:
            sys.stderr.write(f"{config.key}: {results[-1].decisions_per_s:,.0f} decisions/s\n")
    if args.json:
        print(to_json(results))
    else:
        rows = [(r.config, f"{r.decisions_per_s:,.0f}", f"{r.playouts_per_s:,.1f}") for r in results]
        print(table(("config", "decisions/s", "playouts/s"), rows))
    return Exit.DONE


def play(args: argparse.Namespace, paths: Paths) -> int:
    """Plays one game between named players and prints its moves, its last position and its result."""
    import numpy as np

    from backend.players import make_player
    from backend.rules import load
    from backend.rules.layout import TURN

    config = config_of(args)
    assert config is not None
    names = args.players.split(",")
    if len(names) == 1:
        names *= config.players
    if len(names) != config.players:
        raise UsageError(f"{len(names)} players named for {config.players} seats", where=args.players)
    rules = load(config)
    made = {name: make_player(name, config) for name in dict.fromkeys(names)}
    seed = _seed(args, time.time_ns() % 2**32)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed])))
    state = rules.new()
    turn, words = 0, list[str]()
    while not rules.over(state):
        player = rules.player(state)
        if int(state[TURN]) != turn:
            _print_turn(turn, words)
            turn, words = int(state[TURN]), [f"player {player}"]
        move = int(made[names[player - 1]].choose(state[None, :], [rng])[0])
        words.append(rules.move_text(state, move))
        rules.apply(state, move)
    _print_turn(turn, words)
    print(rules.draw(state))
    ranks = rules.ranking(state)
    for seat, name in enumerate(names, 1):
        print(f"  rank {ranks[seat - 1]}: player {seat}, {name}")
    print(f"seed {seed}")
    return Exit.DONE


def _seed(args: argparse.Namespace, default: int) -> int:
    if args.seed is not None and args.seed < 0:
        raise UsageError("the seed must not be negative", where=str(args.seed))
    return default if args.seed is None else int(args.seed)


def _print_turn(turn: int, words: list[str]) -> None:
    if words:
        print(f"{turn:3d} {words[0]}: " + "; ".join(words[1:]))


def record(args: argparse.Namespace, paths: Paths) -> int:
    """Records random games in the shared notation."""
    import numpy as np

    from backend.atomic import atomic_file
    from backend.rules import load
    from backend.rules.record import record_game, row_text, scattered

    config = config_of(args)
    assert config is not None
    if args.games < 1:
        raise UsageError("--games must be positive", where=str(args.games))
    rules = load(config)
    first = _seed(args, 0)
    plies = 0
    with atomic_file(Path(args.output)) as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
        for seed in range(first, first + args.games):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed])))
            start = scattered(rules, rng) if args.scattered else rules.new()
            policy = "by_type" if args.scattered else "uniform"
            for row in record_game(rules, start, rng, policy=policy, seed=seed):
                packed.write(row_text(row).encode())
                plies += "mv" in row
    print(f"{args.output}: {args.games} games, {plies} plies")
    return Exit.DONE
