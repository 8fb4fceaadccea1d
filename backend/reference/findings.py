"""What can be found in an installation, how bad it is, and what to do about it; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from backend.reference.matches import EXCLUDED, KEPT

Severity = Literal["problem", "note"]
EXAMPLES = 3

_LEFT_OUT = "left out of the recomputed ratings: ringrift ratings list --config KEY"
_COUNTED = "counted all the same: ringrift ratings list --config KEY"
_PASSED_OVER = "adopt passes it over"

KINDS: dict[str, tuple[Severity, str, str]] = {
    "database.damaged": ("problem", "a database that cannot be read", "restore it from a backup"),
    "database.other-tables": ("problem", "a database whose tables are not those its name says", "move it away"),
    "file.missing": ("problem", "a registered file that is not there", f"bring it back from a host; {_PASSED_OVER}"),
    "file.other-bytes": (
        "problem", "a registered file with other bytes than were registered",
        f"find out which are meant; {_PASSED_OVER}",
    ),
    "file.stale-checksum": (
        "problem", "a .sha256 that belongs to other bytes", "write it anew: sha256sum FILE > FILE.sha256"
    ),
    "file.unsafe": ("problem", "a checkpoint that carries code or objects", "take it from a source you trust"),
    "file.damaged": ("problem", "a checkpoint that is truncated or corrupted", "bring it back from a host or a backup"),
    "file.unregistered": ("note", "a checkpoint that no row of the registry names", "ringrift adopt registers it"),
    "model.config-conflict": (
        "problem", "a model whose weights, notes, name and row name different configs",
        f"mend its .json or its row; {_PASSED_OVER}",
    ),
    "model.no-config": ("note", "a model that does not say which config it plays", _PASSED_OVER),
    "model.alias": ("note", "one file under several names", "ringrift adopt keeps them as names of one model"),
    "model.strange-stage": ("note", "a stage that is none of the registry's", "it is shown as it is"),
    "production.several": (
        "problem", "several production models of one config", "ringrift registry promote names the one that counts"
    ),
    "participant.reused-name": (
        "problem", "a path that has held several files: its history mixes several models",
        "play its matches again: ringrift gauntlet FILE",
    ),
    "rating.foreign-config": (
        "problem", "a stored rating of a model of another config", "ignore it; the recomputed ratings have none"
    ),
    "rating.unbacked": (
        "note", "a stored rating with more games than there are matches", "the recomputed rating is what they show"
    ),
    "rating.anchor-moved": (
        "note", "a baseline that is not at the rating it should be held at", "compare recomputed ratings instead"
    ),
    "rating.elsewhere": ("note", "ratings in other tables or files", "they are not read"),
    "schema.one-module": (
        "note", "match records that only one of the ai-service's two modules can write to", "reading is not affected"
    ),
    **{kind: ("problem", what, _LEFT_OUT) for kind, what in ((k, f"a match: {v}") for k, v in EXCLUDED.items())},
    **{kind: ("note", what, _COUNTED) for kind, what in ((k, f"a match: {v}") for k, v in KEPT.items())},
}  # fmt: skip
"""Kind -> how bad, what it is, what mends or explains it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of finding with how often it was found and the first examples."""

    kind: str
    severity: Severity
    count: int
    what: str
    examples: tuple[str, ...]
    remedy: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was examined and found; problems first.

    Attributes:
        models: registered models and unregistered checkpoints; adopted: how many of them this program keeps.
        matches: foreign match records.
    """

    models: int = 0
    adopted: int = 0
    matches: int = 0
    findings: tuple[Finding, ...] = field(default_factory=tuple)

    @property
    def clean(self) -> bool:
        """Whether there are no problems; notes are none."""
        return not any(one.severity == "problem" for one in self.findings)


def collect(found: Iterable[tuple[str, str]]) -> tuple[Finding, ...]:
    """Findings from (kind, where) pairs; each place of a kind counts once a pair."""
    places: dict[str, list[str]] = {}
    for kind, where in found:
        places.setdefault(kind, []).append(where)
    made = []
    for kind, told in places.items():
        severity, what, remedy = KINDS[kind]
        made.append(Finding(kind, severity, len(told), what, tuple(dict.fromkeys(told))[:EXAMPLES], remedy))
    return tuple(sorted(made, key=lambda one: (one.severity != "problem", one.kind)))
