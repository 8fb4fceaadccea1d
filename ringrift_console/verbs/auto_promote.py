"""``ringrift auto-promote``: a model's gauntlet, the verdict on it, and the promotion that follows."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backend.configs import Config, parse_config
from backend.errors import Exit, RefusedError, SchemaError, UsageError
from backend.evaluation.rounds import next_round
from backend.locks import FileLock
from backend.paths import Paths
from backend.players import SIMULATIONS
from backend.registry.promotion import assess, champion_of, config_key, plan_promote
from backend.registry.store import find
from backend.snapshot import ModelRow
from ringrift_console.verbs.common import config_of, table, to_json

if TYPE_CHECKING:
    from backend.evaluation.criteria import Assessment
    from backend.evaluation.gauntlet import GauntletSettings

NEXT = {"development": "staging", "staging": "production"}
OPPONENTS = ("heuristic", "random")
_OPEN = ("CONTINUE", "NO EVIDENCE")


@dataclass(slots=True)
class Report:
    """What was played, judged and done."""

    model: str
    config: str
    stage: str
    run_id: str
    games: dict[str, int] = field(default_factory=dict)  # of this run, by opponent
    stages: list[dict[str, Any]] = field(default_factory=list)
    exit: Exit = Exit.REFUSED


def auto_promote(args: argparse.Namespace, paths: Paths) -> int:
    """Judges a model for its next stages, plays what a verdict takes, and promotes it as far as its criteria pass."""
    row, config = _model(args, paths)
    if args.games < 1:
        raise UsageError("--games must be at least 1", where=str(args.games))
    champion = champion_of(paths, row)
    report = Report(row.label, config.key, row.stage, args.run or _run_id(row, champion, args.simulations))
    if args.dry_run:
        _dry_run(args, paths, row, report, champion)
        return Exit.DONE
    with FileLock(paths.console / f"auto-promote-{config.key}.lock", f"auto-promote of {row.label}"):
        try:
            _go(args, paths, row, report)
        except KeyboardInterrupt:
            sys.stderr.write("what was played is kept; the same command goes on from there\n")
            raise
    _print(args, report)
    return report.exit


def _model(args: argparse.Namespace, paths: Paths) -> tuple[ModelRow, Config]:
    row, named = find(paths, args.model), config_of(args, required=False)
    key = config_key(row)
    if named is not None and named.key != key:
        raise SchemaError(f"the model is for {key}, not {named.key}", where=row.label)
    if row.stage not in NEXT:
        raise RefusedError(f"a model that is {row.stage} is not promoted", where=row.label)
    return row, parse_config(key)


def _run_id(row: ModelRow, champion: str | None, simulations: int | None) -> str:
    """The same for the same model, opponents and search, so that the same command goes on with its games."""
    search = "" if simulations is None else f"-s{simulations}"
    return f"auto-{row.sha256[:16]}-{(champion or 'heuristic')[:8]}{search}"


def _search(args: argparse.Namespace) -> str | None:
    """The search that the model is judged with: the one that it plays with, where games are to be played."""
    if args.simulations is None and not args.gauntlet:
        return None
    return f"s{SIMULATIONS if args.simulations is None else args.simulations}"


def _go(args: argparse.Namespace, paths: Paths, row: ModelRow, report: Report) -> None:
    """One stage after the other, until one is refused."""
    settings: GauntletSettings | None = None
    search = _search(args)
    while row.stage in NEXT:
        stage = NEXT[row.stage]
        judged = assess(paths, row, stage, search)
        while args.gauntlet and judged.outcome in _OPEN:
            settings = settings or _settings(args, paths, row, report)
            due = next_round(judged.rows, played(settings, report), args.games)
            if due is None:
                break
            _play(args, paths, settings, report, *due)
            judged = assess(paths, row, stage, search)
        told = {"stage": stage} | judged.record()
        report.stages.append(told)
        sys.stderr.write(f"{stage}: {judged.outcome}, {judged.why}\n")
        if judged.outcome != "PASS":
            if len(report.stages) == 1:  # else it was promoted once, which is what was asked for
                report.exit = Exit.NO_EVIDENCE if judged.outcome == "NO EVIDENCE" else Exit.REFUSED
            return
        code, operation = asyncio.run(_promote(paths, row, stage, search))
        told |= operation
        if code is not Exit.DONE:
            report.exit = code
            return
        report.exit, report.stage = Exit.DONE, stage
        row = find(paths, row.label)


def _settings(args: argparse.Namespace, paths: Paths, row: ModelRow, report: Report) -> GauntletSettings:
    """The gauntlet: the baselines, and the production model where there is one."""
    from backend.evaluation.gauntlet import GauntletSettings, seed_of
    from ringrift_console.verbs.evaluation import candidate_of

    config, champion = parse_config(report.config), champion_of(paths, row)
    candidate, _ = candidate_of(paths, row.label, config, args.simulations)
    rivals = (candidate_of(paths, find(paths, champion).label, config, args.simulations)[0],) if champion else ()
    return GauntletSettings(config, candidate, OPPONENTS, seed_of(report.run_id), rivals)


def played(settings: GauntletSettings, report: Report) -> dict[str, int]:
    """Games of this run by opponent; those first whose games tell most of a rating."""
    first, *others = OPPONENTS
    return {name: report.games.get(name, 0) for name in (first, *settings.digests, *others)}


def _play(
    args: argparse.Namespace, paths: Paths, settings: GauntletSettings, report: Report, opponent: str, games: int
) -> None:
    from backend.evaluation.gauntlet import gauntlet, whole_blocks
    from backend.progress import Progress

    report.games[opponent] = whole_blocks(games, settings.config.players) * settings.config.players
    progress = Progress(report.games[opponent], "games", echo=not args.json)
    due = {opponent: report.games[opponent]}
    gauntlet(paths, settings, due, run_id=report.run_id, workers=args.workers, progress=progress)


async def _promote(paths: Paths, row: ModelRow, stage: str, search: str | None) -> tuple[Exit, dict[str, Any]]:
    """Submits the promotion as an operation, and waits for its end."""
    from backend.state.store import StateStore
    from ringrift_console.verbs.operations import say, wait_for

    plan = await plan_promote(paths, model=row.label, stage=stage, search=search)
    async with await StateStore.open(paths) as store:
        name = await store.submit(plan)
        say(f"{name}: {plan.title}")
        outcome = await wait_for(store, name, None)
    operation = outcome.operation
    if operation.error:
        say(f"{name} {operation.state}: {operation.error}")
    return outcome.exit, {"operation": name, "state": operation.state, "error": operation.error}


def _dry_run(args: argparse.Namespace, paths: Paths, row: ModelRow, report: Report, champion: str | None) -> None:
    """How the criteria stand, and what would be played; nothing is written."""
    names = [*OPPONENTS, *([find(paths, champion).label] if champion else [])]
    found: list[tuple[str, Assessment]] = []
    stage = NEXT[row.stage]
    while True:
        found.append((stage, assess(paths, row, stage, _search(args))))
        if stage not in NEXT:
            break
        stage = NEXT[stage]
    undecided = args.gauntlet and found[0][1].outcome in _OPEN
    playing = f"up to {args.games} games each against {', '.join(names)}, run {report.run_id}" if undecided else "none"
    if args.json:
        print(to_json({
            "model": row.label, "config": report.config, "stage": row.stage, "would_play": playing,
            "stages": [judged.record() for _, judged in found],
        }))  # fmt: skip
        return
    for stage, judged in found:
        print(f"{row.label} to {stage}: {judged.outcome}, {judged.why}")
        print(table(judged.table()[0], judged.table()[1:]))
    print(f"games to play: {playing}")


def _print(args: argparse.Namespace, report: Report) -> None:
    if args.json:
        print(to_json({
            "model": report.model, "config": report.config, "stage": report.stage, "run_id": report.run_id,
            "games": report.games, "stages": report.stages, "exit": int(report.exit),
        }))  # fmt: skip
        return
    done = [told["stage"] for told in report.stages if told.get("state") == "done"]
    print(f"{report.model}: {'promoted to ' + ' and '.join(done) if done else 'not promoted'}; it is {report.stage}")
