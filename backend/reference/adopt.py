"""Adopting an ai-service's models: from what lies there to a plan, and from a confirmed plan to rows of ours.

Only ``registry.db`` is written, in one transaction; no file is moved or changed, and no row of theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.crash import crash_point
from backend.databases import open_reader, sqlite_errors, tables
from backend.errors import NotFoundError, RefusedError
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.reference import adoption
from backend.reference.doctor import Thing, things
from backend.reference.identities import read_identities
from backend.reference.names import participant
from backend.registry.changes import author_of
from backend.registry.rows import read_rows
from backend.registry.schema import reading

if TYPE_CHECKING:
    from backend.state.store import StateStore

_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Choice:
    """One file to adopt: the thing that stands for it, and all its other names."""

    thing: Thing
    names: tuple[tuple[str, str], ...]  # (name, kind)


async def plan_adopt(paths: Paths, *, undo: bool = False) -> Plan:
    """What adopting will do, or taking the last adoption back.

    Raises:
        NotFoundError: there is nothing to adopt, or no adoption.
        RefusedError: the adoption cannot be taken back, because something was built on it.
        UnverifiedError, SchemaError, LockedError: the registry cannot be used.
    """
    return await asyncio.to_thread(_plan_undo if undo else _plan_adopt, paths)


def _plan_adopt(paths: Paths) -> Plan:
    with reading(paths.registry_db) as db:
        rows = read_rows(db, paths) if db is not None else ()
        state = adoption.state(db)
        known = (
            {str(r[0]) for r in db.execute("SELECT sha256 FROM artifacts")}
            if db and "artifacts" in tables(db)
            else set()
        )
    every = list(things(paths, rows))
    chosen = choose(thing for thing in every if thing.sha256 not in known)
    if not chosen:
        raise NotFoundError(
            "there is nothing to adopt", where=str(paths.root), hint="ringrift doctor tells what is there, and why not"
        )
    taken = {choice.thing.sha256 for choice in chosen}
    passed = [thing for thing in every if thing.sha256 not in taken | known or not _fit(thing)]
    names = _participants(paths, taken)
    changes = [
        Change(
            choice.thing.name, "foreign" if choice.thing.row else "not registered",
            f"adopted, {choice.thing.config}" + (f", also {len(choice.names)} other names" if choice.names else ""),
        )
        for choice in chosen
    ]  # fmt: skip
    more = [Change(f"{len(changes) - _SHOWN} more", "", "adopted")] if len(changes) > _SHOWN else []
    return Plan(
        action="adopt",
        title=f"Adopt {len(chosen)} models of another installation",
        params={
            "undo": False,
            "models": [_stored(choice) for choice in chosen],
            "aliases": [[name, kind, choice.thing.sha256] for choice in chosen for name, kind in choice.names]
            + [[name, "participant", sha256] for name, sha256 in names],
        },
        changes=(*changes[:_SHOWN], *more),
        steps=(
            "hash every file again",
            "in one transaction: our tables beside theirs, a row for each model, all its names; theirs stay",
        ),
        command="ringrift adopt",
        undo="ringrift adopt --undo",
        warnings=tuple(f"passed over, {_why(thing)}: {thing.name}" for thing in passed[:_SHOWN]),
        guard={"adoptions registry": state},
    )  # fmt: skip


def _stored(choice: Choice) -> dict[str, Any]:
    thing = choice.thing
    row, file = thing.row, thing.file
    return {
        "sha256": thing.sha256, "path": thing.path, "config": thing.config,
        "label": row.label if row else None, "model_id": row.model_id if row else thing.config,
        "version": row.version if row else None,
        "stage": row.stage if row else file.stage if file else "development",
        "architecture": row.architecture if row else None, "size": file.size if file else row.size if row else 0,
    }  # fmt: skip


def _fit(thing: Thing) -> bool:
    """Whether a thing can be adopted: its bytes are those that were registered, and everybody agrees what it plays."""
    same = thing.row is None or thing.row.sha256 == thing.sha256
    return bool(thing.sha256) and not thing.trouble and same and thing.config is not None and not thing.in_conflict


def _why(thing: Thing) -> str:
    if thing.trouble:
        return thing.trouble
    if thing.row is not None and thing.row.sha256 != thing.sha256:
        return "file.other-bytes"
    return "model.config-conflict" if thing.in_conflict else "model.no-config"


def choose(every: Iterable[Thing]) -> list[Choice]:
    """One thing for each file: a row of the registry before a loose file, production before the rest."""
    groups: dict[str, list[Thing]] = {}
    for thing in every:
        if _fit(thing) and thing.sha256:
            groups.setdefault(thing.sha256, []).append(thing)
    chosen = []
    for same in groups.values():
        first = min(same, key=_rank)
        names = [(other.name, "label" if other.row else "file") for other in same if other is not first]
        chosen.append(Choice(first, tuple(names)))
    return chosen


def _rank(thing: Thing) -> tuple[bool, bool, bool, str]:
    stage = thing.row.stage if thing.row else thing.file.stage if thing.file else ""
    linked = thing.file is not None and thing.file.link is not None
    return thing.row is None, stage != "production", linked, thing.name


def _participants(paths: Paths, taken: set[str | None]) -> list[tuple[str, str]]:
    """Participants of the match records that mean one of these files."""
    if not paths.elo_db.exists():
        return []
    with closing(open_reader(paths.elo_db)) as db, sqlite_errors(paths.elo_db):
        found = read_identities(db, paths)
        if "participants" not in tables(db):
            return []
        ids = [str(row[0]) for row in db.execute("SELECT participant_id FROM participants ORDER BY participant_id")]
    pairs = [(text, found.sha256(participant(text))) for text in ids]
    return [(text, sha256) for text, sha256 in pairs if sha256 is not None and sha256 in taken]


def _plan_undo(paths: Paths) -> Plan:
    with reading(paths.registry_db) as db:
        last = adoption.last(db)
        if db is None or last is None:
            raise NotFoundError("nothing was adopted here", where=str(paths.registry_db))
        why = adoption.built_on(db, last)
        if why:
            raise RefusedError(f"the adoption cannot be taken back: {why}", where=last.operation)
        state = adoption.state(db)
    count = len(last.record["models"])
    return Plan(
        action="adopt",
        title=f"Take the adoption of {count} models back",
        params={"undo": True, "operation": last.operation},
        changes=(
            Change(f"{count} models", "adopted", "foreign"),
            *((Change("our tables in registry.db", "there", "gone"),) if last.record["first"] else ()),
        ),
        steps=("in one transaction: remove the rows that the adoption added, and the tables that it made",),
        command="ringrift adopt --undo",
        undo="ringrift adopt",
        guard={"adoptions registry": state},
    )


async def apply_adopt(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Carries out a plan of :func:`plan_adopt`; the second time changes nothing.

    Raises:
        UnverifiedError, NotFoundError: a file is not what it was; nothing was adopted.
        RefusedError: something was built on the adoption meanwhile.
        LockedError: another program holds the registry.
    """
    author = await author_of(store)
    if plan.params["undo"]:
        done = await asyncio.to_thread(adoption.undo, paths, str(plan.params["operation"]), author)
        event = "ADOPTION_UNDONE"
    else:
        done = await asyncio.to_thread(adoption.adopt, paths, plan.params, author)
        event = "MODELS_ADOPTED"
    crash_point("adopt.committed")
    await store.add_event(event, "registry", done, key=f"{event} {author.operation}")
    return done


async def guard_adoptions(paths: Paths, store: StateStore, which: str) -> str:
    """The state of the registry as far as adoptions depend on it, for the guard of a plan."""

    def read() -> str:
        with reading(paths.registry_db) as db:
            return adoption.state(db)

    return await asyncio.to_thread(read)
