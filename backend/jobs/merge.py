"""``python -m backend.jobs.merge ROOT KIND FOLDER``: takes what an attempt left in another root into this one.

A process of its own, because it needs NumPy or PyTorch and seconds of hashing. The request ``{config, params,
reported}`` comes on standard input; ``{"result": ...}`` or ``{"error": line, "exit": code}`` goes out. Every merge may
be repeated: games and matches are known by their content, checkpoints by their SHA-256.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from backend.atomic import atomic_file
from backend.configs import parse_config
from backend.errors import RingRiftError
from backend.jobs.merge_foreign import keep_dataset, keep_gauntlet, keep_model, keep_promotion
from backend.jobs.recipes import Output, Params, recipe_of
from backend.paths import Paths

BATCH = 200
Result = dict[str, Any]
_Item = TypeVar("_Item")


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    source = iter(items)
    while batch := list(islice(source, BATCH)):
        yield batch


def merge_games(paths: Paths, config: str, params: Params, folder: Path, reported: Mapping[str, Any]) -> Result:
    """Adds games to the config's database; a game that is there already only gets its place in its run noted.

    Raises:
        LockedError: another process writes to the database.
        UnverifiedError, SchemaError: what came is not such a database.
    """
    from backend.training.games_db import GamesDb

    made = parse_config(config)
    source = folder / "data" / "games" / f"canonical_{config}.db"
    added = 0
    with GamesDb.read(source) as games, GamesDb.write(paths.games_db(made), made, f"merge of {config}") as target:
        for batch in _batches(games.with_slots()):
            added += target.append(batch)
        total = target.count()
    return dict(reported) | {"games_added": added, "games_total": total, "db": str(paths.games_db(made))}


def merge_dataset(paths: Paths, config: str, params: Params, folder: Path, reported: Mapping[str, Any]) -> Result:
    """Puts a dataset in its place once it has been read through."""
    from backend.training.dataset import verify_dataset

    made = parse_config(config)
    source = folder / "data" / "training" / f"{config}.npz"
    verify_dataset(source, config=made)
    target = paths.dataset(made)
    copy_file(source, target)
    return dict(reported) | {"output": str(target), "databases": [str(paths.games_db(made))]}


def merge_model(paths: Paths, config: str, params: Params, folder: Path, reported: Mapping[str, Any]) -> Result:
    """Puts a checkpoint in its place and registers it, once it has been loaded without trusting it."""
    from backend.evaluation.golden.check import check_model
    from backend.registry.hashing import write_sidecar
    from backend.registry.store import find, register
    from backend.training.checkpoint import load_model
    from backend.training.register import candidate_of_file

    source = folder / recipe_of("train").outputs(config, params)[0].name
    loaded = load_model(source, config=parse_config(config))
    target = paths.root / params["save"]
    copy_file(source, target)
    write_sidecar(target, loaded.sha256)
    accuracies = (reported.get("val_policy_accuracy"), reported.get("val_value_accuracy"))
    done = register(paths, candidate_of_file(target, loaded.metadata, *accuracies))
    try:  # the monitor makes up for what fails here
        check_model(paths, find(paths, done.label))
    except RingRiftError as error:
        sys.stderr.write(f"no fingerprint was kept of {done.label}: {error.line()}\n")
    return dict(reported) | {
        "model_id": done.model_id, "version": done.version, "label": done.label, "registered_path": str(done.path),
        "path": str(target), "sha256": loaded.sha256,
    }  # fmt: skip


def merge_matches(paths: Paths, config: str, params: Params, folder: Path, reported: Mapping[str, Any]) -> Result:
    """Adds matches to the records, under the runs they were played in."""
    from backend.evaluation.rating_history import publish
    from backend.evaluation.records import Records, stored_runs
    from backend.registry.store import find

    merged = 0
    source = folder / "data" / "unified_elo.db"
    with Records.open(paths) as records:
        for run_id, spec, matches in stored_runs(source):
            records.begin_run(run_id, config, spec)
            for batch in _batches(matches):
                records.add(run_id, batch)
                merged += len(batch)
            if params.get("run") is None:
                records.end_run(run_id, merged)
    publish(paths, config)
    label = None
    if reported.get("model_sha256") and paths.registry_db.exists():
        try:
            label = find(paths, str(reported["model_sha256"])).label
        except RingRiftError:  # a model that nobody registered has no label
            label = None
    return dict(reported) | {"label": label, "matches": merged}


def merge_files(paths: Paths, outputs: Iterable[Output], folder: Path, reported: Mapping[str, Any]) -> Result:
    """Puts a command's outputs in their places."""
    for output in outputs:
        copy_file(folder / output.name, paths.root / output.name)
    return dict(reported)


def copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, atomic_file(target) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


MERGES: dict[str, Callable[[Paths, str, Params, Path, Mapping[str, Any]], Result]] = {
    "selfplay": merge_games,
    "export": merge_dataset,
    "train": merge_model,
    "gauntlet": merge_matches,
    "ai-service dataset": keep_dataset,
    "ai-service model": keep_model,
    "ai-service gauntlet": keep_gauntlet,
    "ai-service promote": keep_promotion,
}
"""What takes outputs into the root, by a recipe's ``merge`` or its kind; all other kinds leave plain files."""


def main(argv: list[str]) -> int:
    root, kind, folder = argv
    request = json.load(sys.stdin)
    paths, config, params, reported = Paths(Path(root)), request["config"], request["params"], request["reported"]
    try:
        recipe = recipe_of(kind, params)
        merge = MERGES.get(recipe.merge or kind)
        if merge is None:
            result = merge_files(paths, recipe.outputs(config, params), Path(folder), reported)
        else:
            result = merge(paths, config, params, Path(folder), reported)
    except RingRiftError as error:
        answer: dict[str, Any] = {"error": error.line(), "exit": int(error.exit_code)}
    else:
        answer = {"result": result}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
