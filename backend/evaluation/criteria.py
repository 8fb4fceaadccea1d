"""The criteria of a stage for one model: every rule of the contract with what the match records say of it.

One player is judged, the model with one search: all rows are about it. What another search of the model has failed
stands beside them, for a model must not be tried with one search after the other until one passes by luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from backend.configs import Config
from backend.evaluation.evidence import Evidence, evidence_of
from backend.evaluation.statistics import chance
from backend.evaluation.verdict import Outcome, Verdict, judge, production_criteria, staging_criterion
from backend.paths import Paths
from backend.thresholds import Thresholds, thresholds

if TYPE_CHECKING:
    from backend.evaluation.rating_bounds import Rating

HEADING = ("criterion", "required", "measured", "95 % interval", "games (unique)", "evidence", "verdict")
_WORST_FIRST = (Outcome.INVALID, Outcome.FAIL, Outcome.NO_EVIDENCE, Outcome.CONTINUE)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the promote view, in words, with its verdict.

    Attributes:
        more: about how many more games a decision takes; 0 where none would help or nobody can say.
        opponent: whose games bear on it, as slots name it; empty where all do.
    """

    criterion: str
    required: str
    measured: str
    interval: str
    games: str
    evidence: str
    verdict: Outcome
    reason: str
    more: int = 0
    opponent: str = ""

    def cells(self) -> tuple[str, ...]:
        """The line under :data:`HEADING`."""
        return (
            self.criterion, self.required, self.measured, self.interval, self.games, self.evidence, str(self.verdict),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the evidence says about a model and a stage.

    Attributes:
        seq: of the newest match record that was there; the same records give the same assessment.
        champion: whom the candidate had to be better than: SHA-256 of a model, or ``heuristic``.
        search: of the player that was judged, see :class:`~backend.evaluation.evidence.Evidence`.
    """

    stage: str
    rows: tuple[Row, ...]
    seq: int
    champion: str
    search: str
    numbers: Mapping[str, Any]

    @property
    def outcome(self) -> str:
        """The worst of the verdicts."""
        found = {row.verdict for row in self.rows}
        return str(next((one for one in _WORST_FIRST if one in found), Outcome.PASS))

    @property
    def deciding(self) -> Row | None:
        """The first row with the worst verdict; None when all pass."""
        return next((row for row in self.rows if row.verdict == self.outcome), None) if self.outcome != "PASS" else None

    @property
    def why(self) -> str:
        """The deciding criterion in words."""
        row = self.deciding
        return "all criteria are met" if row is None else f"{row.criterion} {row.required}: {row.reason}"

    @property
    def more(self) -> int:
        """About how many more games a decision takes; 0 when none are needed or none would help."""
        return max((row.more for row in self.rows), default=0) if self.outcome in ("CONTINUE", "NO EVIDENCE") else 0

    def table(self) -> tuple[tuple[str, ...], ...]:
        """Heading and rows."""
        return (HEADING, *(row.cells() for row in self.rows))

    def record(self) -> dict[str, Any]:
        """Everything, as JSON values for a decision record."""
        return {
            "stage": self.stage, "outcome": self.outcome, "seq": self.seq, "champion": self.champion,
            "search": self.search,
            "criteria": [asdict(row) | {"verdict": str(row.verdict)} for row in self.rows],
            "thresholds": dict(self.numbers),
        }  # fmt: skip


def assess(
    paths: Paths, config: Config, sha256: str, stage: str, champion: str | None, search: str | None = None
) -> Assessment:
    """Judges a model for a stage by the records as they are.

    Args:
        stage: ``staging`` or ``production``.
        champion: SHA-256 of the production model; without one, a candidate for staging has to be better than
            Heuristic, which holds the scale.
        search: settings that the model is judged with, e.g. ``s16``; those that have played most by default.

    Raises:
        UnverifiedError, LockedError, ResourceError: the records cannot be read.
    """
    from backend.evaluation.rating_bounds import rating_of

    limits = thresholds(config)
    known = evidence_of(paths, config, sha256)
    judged = known[0]
    if search is not None:
        judged = next((one for one in known if one.search == search), Evidence((), judged.seq, search))

    def rows(evidence: Evidence) -> tuple[Row, ...]:
        if stage == "staging":
            return staging_rows(evidence, limits, config.players, champion)
        rating = rating_of(paths, config, sha256, evidence.search)
        return production_rows(evidence, limits, config.players, rating, champion)

    others = [failures(rows(one), one.search) for one in known if one.search != judged.search and one.games]
    found = (*rows(judged), *(row for failed in others for row in failed))
    return Assessment(stage, found, judged.seq, champion or "heuristic", judged.search, asdict(limits))


def failures(rows: Sequence[Row], search: str) -> tuple[Row, ...]:
    """What a player has failed, named by its search."""
    return tuple(replace(row, criterion=f"{row.criterion} at {search}") for row in rows if row.verdict is Outcome.FAIL)


def staging_rows(evidence: Evidence, limits: Thresholds, players: int, champion: str | None) -> tuple[Row, ...]:
    """DEVELOPMENT -> STAGING: enough games, and better than the champion."""
    return _games_row(evidence, limits.staging_games), _delta_row(evidence, limits, players, champion)


def _delta_row(evidence: Evidence, limits: Thresholds, players: int, champion: str | None) -> Row:
    """Better than the champion with the same search, or than Heuristic while there is none."""
    criterion = staging_criterion(limits, players)
    opponent = f"neural:{champion[:16]}" if champion else "heuristic"
    against = f"{opponent}:{evidence.search}" if champion and evidence.search else opponent
    verdict = judge(
        replace(criterion, name="Elo delta" if champion else "Elo delta to Heuristic"),
        evidence.against(against, players),
    )
    required = f"> 0, that is > {100 * criterion.required:.1f} % against {opponent}"
    return replace(_rate_row(verdict), required=required, opponent=champion[:16] if champion else "heuristic")


def production_rows(
    evidence: Evidence, limits: Thresholds, players: int, rating: Rating | None, champion: str | None
) -> tuple[Row, ...]:
    """STAGING -> PRODUCTION: games, Elo, the win rates against the baselines, and better than the champion of now.

    The champion may have come after the model was staged.
    """
    return (
        _games_row(evidence, limits.production_games),
        elo_row(rating, limits, players),
        *(
            replace(
                _rate_row(judge(criterion, evidence.against(criterion.name.lower(), players))),
                opponent=criterion.name.lower(),
            )
            for criterion in production_criteria(limits, players)
        ),
        *([_delta_row(evidence, limits, players, champion)] if champion else ()),
    )


def _games_row(evidence: Evidence, floor: int) -> Row:
    """The contract's number of games, unique ones, against anybody."""
    finished, unique = sum(not game.crashed for game in evidence.games), evidence.unique
    verdict = Outcome.NO_EVIDENCE if not finished else Outcome.PASS if unique >= floor else Outcome.CONTINUE
    reason = "enough" if unique >= floor else "it has not played" if not finished else f"{floor - unique} are missing"
    more = max(0, floor - unique)
    name = f"games at {evidence.search}" if evidence.search else "games"
    return Row(name, f">= {floor}", str(unique), "-", f"{finished} ({unique})", "-", verdict, reason, more)


def _rate_row(verdict: Verdict) -> Row:
    low, high = verdict.interval or (0.0, 1.0)
    evidence = verdict.evidence
    shown = "-" if evidence is None else f"LLR {evidence.llr:+.2f} in {evidence.lower:+.2f}..{evidence.upper:+.2f}"
    return Row(
        verdict.criterion,
        verdict.requirement,
        "-" if verdict.measured is None else f"{100 * verdict.measured:.1f} %",
        "-" if verdict.interval is None else f"{100 * low:.1f}..{100 * high:.1f}",
        f"{verdict.games} ({verdict.unique})",
        shown,
        verdict.verdict,
        verdict.reason,
        verdict.more,
    )


def elo_row(rating: Rating | None, limits: Thresholds, players: int) -> Row:
    """The rating against the contract's: the lower bound, which holds at every look, has to reach it."""
    wanted = limits.production_elo
    odds = 10 ** ((wanted - limits.anchor_elo) / 400)
    share = odds / (odds + players - 1)
    required = f">= {wanted:.0f} (wins {100 * share:.0f} % against Heuristic, chance {100 * chance(players):.0f} %)"
    if rating is None:
        return Row("Elo", required, "-", "-", "0 (0)", "-", Outcome.NO_EVIDENCE, "no game connects it with Heuristic")
    verdict, reason, more = Outcome.CONTINUE, "the interval holds the threshold", 0
    if rating.low >= wanted:
        verdict, reason = Outcome.PASS, "the lower end reaches it"
    elif rating.high < wanted:
        verdict, reason = Outcome.FAIL, "the upper end is below it"
    elif rating.games >= limits.sequential_games:
        verdict, reason = Outcome.FAIL, f"insufficient evidence after {rating.games} games"
    elif more := rating.more(wanted):
        reason += f", about {more} more games"
    low, high = (f"{end:.0f}" if isfinite(end) else "" for end in (rating.low, rating.high))
    evidence = f"at every look, each end {100 * rating.error:.0f} %"
    games = f"{rating.games} ({rating.games})"
    return Row("Elo", required, f"{rating.elo:.0f}", f"{low}..{high}", games, evidence, verdict, reason, more)
