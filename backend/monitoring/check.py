"""One look at what is in production of a config: golden positions, the deployed file, the chart; alarms come of it.

Everything that is found is stored, so a look may be killed at any point and repeated: an alarm is raised once.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backend.configs import parse_config
from backend.crash import crash_point
from backend.databases import tables
from backend.errors import NotFoundError
from backend.monitoring.chart import CRASHES, Chart, fell, read_chart
from backend.monitoring.records import games_of, newest
from backend.paths import Paths
from backend.registry import pointers
from backend.registry.alarms import raise_alarm, read_alarms
from backend.registry.deployment import production_file
from backend.registry.hashing import sha256_file
from backend.registry.health import FAULTS, earlier_models, last_check, rollback_targets
from backend.registry.schema import reading, writing
from backend.registry.store import find
from backend.thresholds import thresholds

if TYPE_CHECKING:
    from backend.evaluation.golden.check import Checked

REFERENCE = "heuristic"
"""The frozen player that champions are measured against in background: it holds the scale at 1500."""
TARGETS = 3
"""Earlier production models whose golden positions are compared too: a rollback may go to them."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of the watch over a config, as it was stored by the last look.

    Attributes:
        since: the match up to which games are the baseline: the newest when this spell in production was first seen.
        seq: the newest match at the last look; ``at`` its time (Unix seconds).
        chart: :class:`Chart` as JSON values; None before the first background match.
        served_at: when the deployed file was last seen to be right (ISO); empty when it never was.
    """

    config: str
    revision: int
    sha256: str
    since: int
    seq: int
    at: float
    chart: dict[str, Any] | None = None
    served_at: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look found; ``raised`` are the numbers of new alarms."""

    config: str
    model: str | None
    golden: tuple[Checked, ...]
    serving: str
    chart: Chart | None
    raised: tuple[int, ...]


def look(paths: Paths, config: str) -> Looked:
    """Looks at the production model of a config and at those that a rollback may go to.

    Raises:
        UsageError: no such config.
        RefusedError: its production model is another installation's: nothing may be written about it.
        UnverifiedError: the rules of this installation are not those that fingerprints were taken with.
        LockedError, ResourceError: the registry or the match records cannot be used.
    """
    key = parse_config(config).key
    with reading(paths.registry_db) as db:
        pointer = pointers.current(db, key) if db is not None else pointers.Pointer(key)
    if pointer.label is None or pointer.sha256 is None:
        return Looked(key, None, (), "", None, ())
    watch, seq = _watch(paths, pointer), newest(paths)
    golden = check_golden(paths, key)
    serving = _serving(paths, pointer)
    chart = _chart(paths, pointer, watch)
    crash_point("monitor.looked")
    raised = _raise(paths, pointer, watch, golden[0], serving, chart)
    crash_point("monitor.raised")
    served_at = watch.served_at if serving else datetime.now(UTC).isoformat(timespec="milliseconds")
    chart_now = None if chart is None else asdict(chart)
    _note(paths, replace(watch, seq=seq, at=time.time(), chart=chart_now, served_at=served_at))
    return Looked(key, pointer.label, golden, serving, chart, raised)


def check_golden(paths: Paths, config: str) -> tuple[Checked, ...]:
    """The golden check of the production model, first, and of those that a rollback may go to; empty without one."""
    from backend.evaluation.golden.check import check_model

    with reading(paths.registry_db) as db:
        label = None if db is None else pointers.current(db, config).label
    if label is None:
        return ()
    earlier = [row for row in earlier_models(paths, config) if row.stage != "rejected" and not row.foreign]
    return tuple(check_model(paths, row) for row in (find(paths, label), *earlier[:TARGETS]))


def _serving(paths: Paths, pointer: pointers.Pointer) -> str:
    """What is wrong with the deployed copy of the production model; empty when nothing is."""
    if not pointer.revision:  # this program deployed nothing
        return ""
    path = paths.essential / production_file(pointer.config)
    try:
        actual = sha256_file(path)
    except NotFoundError:
        return f"{path.parent.name}/{path.name} is missing"
    if actual != pointer.sha256:
        return f"{path.parent.name}/{path.name} is not the production model: SHA-256 {actual[:12]}"
    return ""


def _watch(paths: Paths, pointer: pointers.Pointer) -> Watched:
    """The watch over this spell in production, begun now if it is new."""
    known = watched(paths).get(pointer.config)
    if known is not None and (known.sha256, known.revision) == (pointer.sha256, pointer.revision):
        return known
    seq = newest(paths)
    return Watched(pointer.config, pointer.revision, str(pointer.sha256), seq, seq, 0.0)


def watched(paths: Paths) -> dict[str, Watched]:
    """The watches of all configs, as the last looks left them."""
    with reading(paths.registry_db) as db:
        return {} if db is None else read_watched(db)


def read_watched(db: sqlite3.Connection) -> dict[str, Watched]:
    """:func:`watched` on a connection."""
    if "monitor_checks" not in tables(db):
        return {}
    return {
        row["config"]: Watched(
            row["config"], row["revision"], row["sha256"], row["since"], row["seq"], row["at"],
            **json.loads(row["state"]),
        )
        for row in db.execute("SELECT * FROM monitor_checks")
    }  # fmt: skip


def _note(paths: Paths, watch: Watched) -> None:
    state = json.dumps({"chart": watch.chart, "served_at": watch.served_at})
    with writing(paths.registry_db) as db:
        db.execute(
            "INSERT OR REPLACE INTO monitor_checks VALUES (?, ?, ?, ?, ?, ?, ?)",
            (watch.config, watch.revision, watch.sha256, watch.since, watch.seq, watch.at, state),
        )


def _chart(paths: Paths, pointer: pointers.Pointer, watch: Watched) -> Chart | None:
    """The chart of the champion; it starts anew behind an alarm that somebody has acknowledged."""
    assert pointer.sha256 is not None
    with reading(paths.registry_db) as db:
        past = () if db is None else read_alarms(db, pointer.config)
    cuts = [
        int(one.evidence.get("seq", 0))
        for one in past
        if one.sha256 == pointer.sha256 and one.cause in ("win rate", "crashes") and one.acked_at is not None
    ]
    start = max([watch.since, *cuts])
    baseline, games = games_of(paths, pointer.config, pointer.sha256, REFERENCE, since=watch.since, start=start)
    if not games:
        return None
    return read_chart(baseline, games, parse_config(pointer.config).players)


def _raise(
    paths: Paths, pointer: pointers.Pointer, watch: Watched, golden: Checked, serving: str, chart: Chart | None
) -> tuple[int, ...]:
    """Raises an alarm for everything that is wrong."""
    found: list[tuple[str, str, dict[str, Any], str | None]] = []
    if golden.outcome in FAULTS:
        found.append((golden.outcome, golden.detail, {"golden": asdict(golden)}, _sound_at(paths, golden.sha256)))
    elif serving:  # where the registered file itself is wrong, the copy of it is no news
        found.append(("serving", serving, {"file": production_file(pointer.config)}, watch.served_at))
    if chart is not None and chart.rings:
        found.append(("win rate", fell(chart, REFERENCE), asdict(chart), None))
    if chart is not None and crashing(chart, thresholds(parse_config(pointer.config)).crash_share):
        games = chart.games + chart.crashes
        detail = f"its player crashed in {chart.crashes} of {games} background games"
        found.append(("crashes", detail, asdict(chart), None))
    if not found:
        return ()
    _, target = rollback_targets(paths, pointer.config)
    label = None if target is None else target.row.label
    more = {} if target is None else {"elo": expected_elo(paths, pointer, target.row.sha256)}
    numbers = [
        raise_alarm(paths, pointer, cause, detail, evidence=evidence | more, target=label, since=since)
        for cause, detail, evidence, since in found
    ]
    return tuple(number for number in numbers if number is not None)


def crashing(chart: Chart, share: float) -> bool:
    """Whether the champion's player crashes more often than verdicts allow."""
    return chart.crashes >= CRASHES and chart.crashes > share * (chart.games + chart.crashes)


def _sound_at(paths: Paths, sha256: str) -> str:
    """When a model's golden check last was sound (ISO); empty when it never was."""
    with reading(paths.registry_db) as db:
        row = None if db is None else last_check(db, sha256)
    return "" if row is None or row["sound_at"] is None else str(row["sound_at"])


def expected_elo(paths: Paths, pointer: pointers.Pointer, target: str) -> dict[str, float] | None:
    """Elo of the champion and of a rollback's target with the error of the gain; None while they are not both rated."""
    from backend.evaluation.rated_games import model_of
    from backend.evaluation.rating_history import current

    try:
        ratings = current(paths, pointer.config)
    except NotFoundError:
        return None
    places = []
    for sha256 in (pointer.sha256, target):
        own = [n for n, player in enumerate(ratings.players) if model_of(player) == sha256]
        if not own:
            return None
        places.append(max(own, key=lambda n: int(ratings.games[n])))
    now, after = places
    spread = ratings.covariance[now, now] + ratings.covariance[after, after] - 2 * ratings.covariance[now, after]
    return {
        "now": round(float(ratings.elo[now]), 1), "after": round(float(ratings.elo[after]), 1),
        "gain_se": round(math.sqrt(max(0.0, float(spread))), 1),
    }  # fmt: skip
