"""``ringrift ratings list | history | verify`` and ``ringrift tournament``."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from typing import Any

# Before NumPy is loaded: its threads spin for each other on a busy machine, and these matrices gain nothing by them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from backend.errors import Exit, NotFoundError, UsageError
from backend.evaluation.rating_history import bands, configs_with_games, current, spec_of
from backend.evaluation.rating_history import history as elo_history
from backend.evaluation.rating_verify import verify
from backend.evaluation.rating_view import model_of
from backend.evaluation.ratings import Ratings, win_chance
from backend.paths import Paths
from backend.reference.rating import recompute
from backend.registry.store import find, model_rows
from ringrift_console.verbs.common import config_of, table, to_json
from ringrift_console.verbs.reference import beside_text


def list_ratings(args: argparse.Namespace, paths: Paths) -> int:
    """Ratings of a config's players; what the reference's own software stored stands below, where there is any."""
    config = config_of(args)
    assert config is not None
    if not paths.elo_db.exists():
        raise NotFoundError("there are no match records", where=str(paths.elo_db), hint="ringrift gauntlet MODEL")
    found = current(paths, config.key)
    beside = recompute(paths, config.key)
    labels = {player: _label(paths, player) for player in (*found.players, *found.unrated)}
    if args.json:
        spec = spec_of(config.key)
        print(
            to_json(
                {
                    "config": config.key,
                    "spec": spec.digest,
                    "pins": dict(spec.pins),
                    "players": [
                        {"player": player, "label": labels[player], "sha256": model_of(player)} | asdict(band)
                        for player, band in bands(found).items()
                    ],
                    "unrated": [{"player": who, "games": games} for who, games in sorted(found.unrated.items())],
                    "seats": [
                        {"seat": seat, "elo": float(edge), "se": float(se)}
                        for seat, (edge, se) in enumerate(zip(found.seat_edge, found.seat_se, strict=True), 1)
                    ],
                    "fit": _fit(found),
                    "stored": [asdict(one) for row in beside.players for one in row.stored] if beside else [],
                    "reference": asdict(beside) if beside else None,
                }
            )
        )
        return Exit.DONE
    if not found.players and not found.unrated and beside is None:
        print(f"no rated matches in {config.key}", file=sys.stderr)
        return Exit.DONE
    anchor = next(iter(spec_of(config.key).pins.values()))
    rows = [
        (
            labels[player],
            f"{band.elo:.0f}",
            band.words(),
            "-" if band.pinned else f"{band.se:.0f}",
            str(band.games),
            f"{win_chance(band.elo - anchor, config.players):.1%}",
        )
        for player, band in bands(found).items()
    ]
    rows += [(labels[who], "-", "unrated", "-", str(games), "-") for who, games in sorted(found.unrated.items())]
    if rows:
        print(table(("PLAYER", "ELO", "95 %", "SE", "GAMES", "WINS AGAINST HEURISTIC"), rows))
        print("\n".join(_notes(found, labels)))
    if beside is not None:
        print(("\n" if found.players or found.unrated else "") + beside_text(beside))
    return Exit.DONE


def history(args: argparse.Namespace, paths: Paths) -> int:
    """Ratings after each run, oldest first."""
    config = config_of(args)
    assert config is not None
    if args.points < 1:
        raise UsageError("--points must be at least 1", where=str(args.points))
    points = elo_history(paths, config.key, args.points)
    if args.json:
        print(to_json({"config": config.key, "points": points}))
        return Exit.DONE
    if not points:
        print(f"no rated matches in {config.key}", file=sys.stderr)
        return Exit.DONE
    rows = []
    for point in points:
        for player, band in point.players.items():
            if not band.pinned:
                rows.append(
                    (str(point.seq), point.at[:16].replace("T", " "), _label(paths, player), f"{band.elo:.0f}",
                     band.words(), str(band.games))
                )  # fmt: skip
    print(table(("MATCH", "TIME (UTC)", "PLAYER", "ELO", "95 %", "GAMES"), rows))
    return Exit.DONE


def verify_ratings(args: argparse.Namespace, paths: Paths) -> int:
    """Computes all stored ratings again; the first thing that does not fit ends it with exit code 7."""
    config = config_of(args, required=False)
    if not paths.elo_db.exists():
        raise NotFoundError("there are no match records", where=str(paths.elo_db))
    checked = [
        verify(paths, key, replay=args.replay) for key in ([config.key] if config else configs_with_games(paths))
    ]
    if args.json:
        print(to_json(checked))
        return Exit.DONE
    for one in checked:
        other = f", {one.other_code} of them made by other code" if one.other_code else ""
        print(
            f"{one.config}: {one.matches} matches and {one.snapshots} rating snapshots verified{other}; "
            f"largest difference {one.largest_difference:.1e} Elo"
        )
    return Exit.DONE


def tournament(args: argparse.Namespace, paths: Paths) -> int:
    """Plays models of a config against each other and against anchors, and rates them."""
    from backend.evaluation.gauntlet import Candidate, run_id_from_environment, seed_of
    from backend.evaluation.tournament import TournamentSettings
    from backend.evaluation.tournament import tournament as play
    from backend.players import built_in
    from backend.progress import Progress
    from ringrift_console.verbs.evaluation import candidate_of

    config = config_of(args)
    assert config is not None
    if args.models is None:
        rows = [row for row in model_rows(paths) if row.config == config.key and row.present]
        wanted = [row.label for row in rows if row.stage not in ("archived", "rejected")]
    else:
        wanted = _words(args.models)
    models: dict[str, Candidate] = {}
    for name in wanted:
        model, _ = candidate_of(paths, name, config, args.simulations)
        if model.sha256 is None:
            raise UsageError("a baseline is an anchor, not a model", where=name, hint="--anchors")
        models.setdefault(model.sha256, model)
    if not models:
        raise UsageError("no model of this config is registered", where=config.key, hint="--models FILE,FILE")
    anchors = tuple(dict.fromkeys(_words(args.anchors)))
    for name in anchors:
        if not built_in(name):
            raise UsageError("not an anchor", where=name, hint="random, heuristic, ladder:32")
    run_id = args.run or run_id_from_environment()
    if args.seed is not None and args.seed < 0:
        raise UsageError("the seed must not be negative", where=str(args.seed))
    seed = seed_of(run_id) if args.seed is None else args.seed
    settings = TournamentSettings(config, tuple(models.values()), anchors, seed)
    progress = Progress(args.games, "games", echo=not args.json)
    result = play(paths, settings, args.games, run_id=run_id, workers=args.workers, progress=progress)
    progress.result(result | {"players": {player: asdict(band) for player, band in result["players"].items()}})
    if args.json:
        print(to_json(result))
        return Exit.DONE
    print(f"{result['games']} games in {config.key}, run {run_id}")
    rows_of = [
        (_label(paths, player), f"{band.elo:.0f}", band.words(), str(band.games))
        for player, band in result["players"].items()
    ]
    print(table(("PLAYER", "ELO", "95 %", "GAMES"), rows_of))
    return Exit.DONE


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _label(paths: Paths, player: str) -> str:
    """A model by its label, or the start of its SHA-256, with its search settings; a baseline by its identity."""
    sha256 = model_of(player)
    if sha256 is None:
        return player
    try:
        name = find(paths, sha256).label
    except NotFoundError:
        name = sha256[:12]
    settings = player.removeprefix(sha256)
    return f"{name}{settings}"


def _fit(found: Ratings) -> dict[str, Any]:
    check = found.check
    pairs = [
        asdict(pair) | {"first": found.players[pair.first], "second": found.players[pair.second]}
        for pair in check.pairs
    ]
    return {
        "chi2": check.chi2, "freedom": check.freedom, "p": check.p, "suspicious": check.suspicious, "pairs": pairs,
    }  # fmt: skip


def _notes(found: Ratings, labels: dict[str, str]) -> list[str]:
    seats = ", ".join(
        f"seat {seat} {edge:+.0f} (SE {se:.0f})"
        for seat, (edge, se) in enumerate(zip(found.seat_edge, found.seat_se, strict=True), 1)
    )
    check, lines = found.check, [f"\nseat edge: {seats}"]
    if check.p is None:
        lines.append("fit: too few pairs to tell")
    else:
        lines.append(f"fit: chi-square {check.chi2:.1f} at {check.freedom} degrees of freedom, p = {check.p:.2g}")
    worst = check.worst
    if check.suspicious and worst is not None:
        lines.append(
            f"suspicious pair: {labels[found.players[worst.first]]} beats {labels[found.players[worst.second]]} in "
            f"{worst.observed / worst.comparisons:.0%} of {worst.comparisons:.0f}, "
            f"the ratings say {worst.expected / worst.comparisons:.0%}"
        )
    if not found.players:
        lines.append("nobody is connected with the anchor: play a gauntlet against heuristic")
    return lines
