"""Production models as they are watched, and alarms about them."""

from __future__ import annotations

from backend.snapshot import Snapshot
from ringrift_console.actions.action import Action, Param, Tier
from ringrift_console.actions.params import ALARM, DRY_RUN, JSON, REASON, WAIT
from ringrift_console.actions.subjects import find_alarm

_MONITOR = "ringrift_console.verbs.monitor"


def _needs_alarm(snapshot: Snapshot, subject: str | None) -> str | None:
    if find_alarm(snapshot, subject):
        return None
    return "no alarm is open" if not snapshot.alarms else "put the cursor on one of the configs with an alarm"


MONITORING: tuple[Action, ...] = (
    Action(
        "monitor.rollback",
        "Roll back from a regression alarm: config, target and reason are filled in",
        "roll back…",
        verb=("monitor", "rollback"),
        params=(
            ALARM,
            Param("--to", "go back to this model; default the last sound one", metavar="MODEL"),
            Param("--reason", "why, in words; default what the alarm says", metavar="TEXT"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_MONITOR}:rollback",
        plan="backend.monitoring.plans:plan_alarm_rollback",
        key="B",
        scope="pulse",
        tier=Tier.PLAN,
        available=_needs_alarm,
    ),
    Action(
        "monitor.ack",
        "Acknowledge a regression alarm: it was looked at, and the model stays",
        "acknowledge…",
        verb=("monitor", "ack"),
        params=(ALARM, REASON, WAIT, DRY_RUN, JSON),
        run=f"{_MONITOR}:ack",
        plan="backend.monitoring.plans:plan_ack",
        key="a",
        scope="pulse",
        tier=Tier.PLAN,
        available=_needs_alarm,
    ),
    Action(
        "monitor.set",
        "Switch background matches and hourly checks of production models on or off",
        "monitor…",
        verb=("monitor", "set"),
        params=(
            Param("mode", "on or off", choices=("on", "off"), metavar="MODE"),
            Param("--games-per-day", "background games a config and day", type="int", metavar="N"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_MONITOR}:set_mode",
        plan="backend.monitoring.plans:plan_set",
        tier=Tier.PLAN,
    ),
    Action(
        "monitor.list",
        "Alarms about production models, newest first",
        verb=("monitor", "list"),
        params=(
            Param("--config", "only this config", metavar="KEY"),
            Param("--all", "those that are acknowledged or closed too", type="flag"),
            JSON,
        ),
        run=f"{_MONITOR}:list_alarms",
    ),
    Action(
        "monitor.show",
        "Everything known of one alarm",
        verb=("monitor", "show"),
        params=(ALARM, JSON),
        run=f"{_MONITOR}:show",
    ),
    Action(
        "monitor.status",
        "What is watched: mode, last look, golden positions and chart of every production model",
        verb=("monitor", "status"),
        params=(JSON,),
        run=f"{_MONITOR}:status",
    ),
    Action(
        "monitor.golden",
        "Compare production models with their fingerprints on the golden positions",
        verb=("monitor", "golden"),
        params=(
            Param(
                "model", "label, SHA-256 or the start of one; none means all in production", repeat="*", metavar="MODEL"
            ),
            Param("--config", "only this config", metavar="KEY"),
            JSON,
        ),
        run=f"{_MONITOR}:golden",
    ),
    Action(
        "monitor.check",
        "Look at production models now, as the monitor does every hour, and raise alarms",
        verb=("monitor", "check"),
        params=(Param("--config", "only this config", metavar="KEY"), JSON),
        run=f"{_MONITOR}:check",
    ),
)
