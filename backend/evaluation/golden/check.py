"""Is a registered model still what it was: its file, whether it loads, what it says of the golden positions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from backend.databases import tables
from backend.errors import NotFoundError, RingRiftError, SchemaError
from backend.evaluation.golden.fingerprint import TOLERANCE, Fingerprint, Outputs, outputs_of
from backend.paths import Paths
from backend.registry.changes import refuse_foreign
from backend.registry.files import full_path
from backend.registry.hashing import sha256_file
from backend.registry.schema import reading, writing
from backend.snapshot import ModelRow

Outcome = Literal[
    "sound",  # as it was
    "new",  # no fingerprint was kept; it is now
    "missing",  # its file is not there
    "changed",  # its file is another one
    "unloadable",  # it was played with before, and cannot be loaded now
    "drift",  # the same file says something else
    "unsupported",  # an adopted file of another program, which never played here
]
SOUND: frozenset[Outcome] = frozenset({"sound", "new"})


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome for one model; ``drift`` is the largest difference of a probability, None where none was computed."""

    model: str
    sha256: str
    config: str
    outcome: Outcome
    drift: float | None
    detail: str
    at: str


def check_model(paths: Paths, row: ModelRow) -> Checked:
    """Checks a model and notes the outcome; the first time, its fingerprint is kept.

    Raises:
        RefusedError: it is another installation's, so nothing is written about it.
        UnverifiedError: the rules of this installation give other positions than they should.
        LockedError, ResourceError: the registry cannot be read or written.
    """
    refuse_foreign(row)
    outcome, drift, detail, outputs = _look(paths, row)
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    found = Checked(row.label, row.sha256, row.config or "", outcome, drift, detail, at)
    with writing(paths.registry_db) as db:
        if outputs is not None and outcome == "new":
            db.execute(
                "INSERT OR IGNORE INTO golden_fingerprints VALUES (?, ?, ?, ?, ?, ?)",
                (row.sha256, outputs.suite, row.label, found.config, outputs.fingerprint().text(), at),
            )
        db.execute(
            "INSERT INTO golden_checks VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sha256) DO UPDATE SET"
            " model = excluded.model, config = excluded.config, outcome = excluded.outcome, drift = excluded.drift,"
            " detail = excluded.detail, at = excluded.at, sound_at = coalesce(excluded.sound_at, sound_at)",
            (row.sha256, row.label, found.config, outcome, drift, detail, at, at if outcome in SOUND else None),
        )
    return found


def _look(paths: Paths, row: ModelRow) -> tuple[Outcome, float | None, str, Outputs | None]:
    from backend.training.checkpoint import load_model

    path = full_path(paths, row.path)
    try:
        actual = sha256_file(path)
    except NotFoundError:
        return "missing", None, f"no file at {row.path}", None
    except OSError as error:
        return "missing", None, f"{row.path} cannot be read: {error.strerror}", None
    if actual != row.sha256:
        return "changed", None, f"{row.path} is another file: SHA-256 {actual[:12]}, not {row.sha256[:12]}", None
    known = fingerprints(paths, row.sha256)
    try:
        model = load_model(path)
    except SchemaError as error:
        return ("unloadable" if known else "unsupported"), None, error.line(), None
    except RingRiftError as error:
        return "unloadable", None, error.line(), None
    if row.config is not None and model.config.key != row.config:
        return "unloadable", None, f"it is registered for {row.config} and plays {model.config.key}", None
    outputs = outputs_of(model)
    if outputs.suite not in known:
        return "new", None, "its fingerprint is kept from now on", outputs
    drift = outputs.drift(known[outputs.suite])
    if not drift <= TOLERANCE:
        detail = f"its outputs differ by {drift:.2g} from those at {row.label}'s registration, {TOLERANCE:g} is allowed"
        return "drift", drift if drift != float("inf") else None, detail, outputs
    return "sound", drift, f"its outputs are as they were, to {drift:.1g}", outputs


def fingerprints(paths: Paths, sha256: str) -> dict[str, Fingerprint]:
    """What is kept of a model, by the name of the positions."""
    with reading(paths.registry_db) as db:
        if db is None or "golden_fingerprints" not in tables(db):
            return {}
        rows = db.execute("SELECT suite, outputs FROM golden_fingerprints WHERE sha256 = ?", (sha256,)).fetchall()
    return {str(row["suite"]): Fingerprint.of_text(row["outputs"]) for row in rows}
