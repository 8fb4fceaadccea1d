"""What a plan starts from and whom it reaches: fields filled in from the object in front, and the hosts that follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backend.plans import Plan
from backend.registry.stages import next_stage
from backend.snapshot import HostRow, Snapshot
from ringrift_console.actions import Action, find_model
from ringrift_console.look import Look
from ringrift_console.widgets.line import Line

if TYPE_CHECKING:
    from screens.form import Choice

_NAMED = 6
_ESSENTIAL = "models_essential/"


def given(action: Action, fields: Sequence[Choice], snapshot: Snapshot, subject: str | None) -> dict[str, Any]:
    """What the form of an action can know beforehand: its object, the config of it, the stage that comes next."""
    first = fields[0].dest if fields else ""
    model = find_model(snapshot, subject)
    if first == "config" and model is not None:
        return {first: model.config}
    known: dict[str, Any] = {first: subject} if first else {}
    if action.name == "registry.promote" and model is not None:
        known["stage"] = next_stage(model.stage)
    return known


def hosts_line(plan: Plan, snapshot: Snapshot, look: Look, width: int) -> list[Line]:
    """Which hosts a registry plan reaches: those that are sent the new production file, GPU hosts first."""
    if not plan.action.startswith("registry."):
        return []
    if not any(change.subject.startswith(_ESSENTIAL) for change in plan.changes):
        return _wrapped("none: only the registry and files of this machine change", look, width)
    others = [host for host in snapshot.hosts if not host.local and host.state != "off"]
    others.sort(key=lambda host: (not _gpus(host), host.name))
    if not others:
        return _wrapped("no other host is in hosts.yaml: the file changes on this machine alone", look, width)
    up = [host.name for host in others if host.state == "up"]
    late = [f"{host.name} ({host.state})" for host in others if host.state != "up"]
    said = f"{len(others)} get the file, GPU hosts first: {_names(up)}" if up else f"{len(others)} get the file"
    return _wrapped(said + (f"; when they answer: {_names(late)}" if late else ""), look, width)


def _gpus(host: HostRow) -> bool:
    return bool(host.samples and host.samples[-1].gpus)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return " ".join(names[:_NAMED]) + more


def _wrapped(text: str, look: Look, width: int) -> list[Line]:
    rows = look.glyphs.wrap(text, width - 9)
    return [((f"{'hosts' if n == 0 else '':<9}", "dim"), (row, "text")) for n, row in enumerate(rows)]
