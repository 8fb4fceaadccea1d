"""Which models are archived or rejected by rule, and which are kept and why; pure.

The rules and their numbers are the contract's (see :mod:`backend.thresholds`), tried in this order: a protected model
is kept; then low Elo, duplicates, experiments, superseded models, age. What is not known never counts against a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from backend.registry.stages import PROTECTED, TRANSITIONS
from backend.thresholds import Thresholds

EXPERIMENTS = ("*_iter*", "*_epoch*", "*_trial*")
"""Names of experiments (contract), compared without regard to case."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a ruling on one model depends on.

    Attributes:
        names: everything it is called: model id, file name, the name of the file it was registered from.
        idle_days: days since its stage last changed, registration included.
        games: rated games.
        elo, elo_low, elo_high: rating with its 95 % interval; None while it has none.
        beaten_by: label of a model of its config that is better with a probability of 95 %; not the model itself.
        duplicate_of: label of an older model with the same bytes.
        in_archive: its file lies in the archive.
        held: why it must stay: a rollback goes to it, a job or transfer uses it, a living model came from it.
    """

    label: str
    stage: str
    names: tuple[str, ...]
    idle_days: float
    games: int = 0
    elo: float | None = None
    elo_low: float | None = None
    elo_high: float | None = None
    beaten_by: str | None = None
    duplicate_of: str | None = None
    in_archive: bool = False
    held: str = ""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a model.

    Attributes:
        action: ``move`` puts the file of an archived or rejected model away; its stage stays.
        folder: of the archive, for everything but ``keep``.
    """

    label: str
    action: Literal["keep", "archive", "reject", "move"]
    reason: str
    folder: str = ""


def rule(facts: Facts, numbers: Thresholds) -> Ruling:
    """The first rule that applies to a model."""
    label = facts.label
    if facts.stage in PROTECTED:
        return Ruling(label, "keep", f"it is in {facts.stage}")
    if facts.held:
        return Ruling(label, "keep", facts.held)
    if facts.stage in ("archived", "rejected"):
        if facts.in_archive:
            return Ruling(label, "keep", f"it is {facts.stage} and put away")
        return Ruling(label, "move", f"it is {facts.stage}, and nothing needs its file where it is", "low_elo")
    if _low(facts, numbers):
        return Ruling(
            label, "reject",
            f"Elo at most {facts.elo_high:.0f}, below {numbers.reject_elo:.0f}, after {facts.games} games", "low_elo",
        )  # fmt: skip
    if "archived" not in TRANSITIONS.get(facts.stage, ()):
        return Ruling(label, "keep", f"its stage is {facts.stage}")
    if facts.duplicate_of is not None:
        return Ruling(label, "archive", f"the same bytes as {facts.duplicate_of}", "duplicates")
    name = experiment_name(facts.names)
    if name is not None and facts.idle_days > numbers.archive_experiment_days:
        why = f"experiment {name}, {facts.idle_days:.1f} days without promotion"
        return Ruling(label, "archive", why, "iter_checkpoints")
    if facts.beaten_by is not None:
        return Ruling(label, "archive", f"superseded by {facts.beaten_by}, which has the higher Elo", "low_elo")
    if facts.idle_days > numbers.archive_days:
        return Ruling(label, "archive", f"{facts.idle_days:.1f} days without promotion", "aged_out")
    return Ruling(label, "keep", f"{facts.idle_days:.1f} days without promotion, less than it takes")


def _low(facts: Facts, numbers: Thresholds) -> bool:
    """Rejected is a model of which even the upper bound is too low, after enough games."""
    return facts.games >= numbers.reject_games and facts.elo_high is not None and facts.elo_high < numbers.reject_elo


def experiment_name(names: tuple[str, ...]) -> str | None:
    """The first name that is one of an experiment, or None."""
    return next((name for name in names for pattern in EXPERIMENTS if fnmatchcase(name.lower(), pattern)), None)
