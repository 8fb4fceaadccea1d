"""Troubles that nothing but an event tells of, as needs of the operator. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from backend.snapshot import EventRow, Need

_TROUBLES = {"DEPLOYMENT_FAILED": "", "POLICY_FAILED": "policy of "}
_OVER = {"POLICY_WORKS": "POLICY_FAILED"}
TOLD_BY_EVENT = (*_TROUBLES, *_OVER)
"""Types of the events that :func:`event_needs` is to be given, the last one of each subject."""
_FADES = timedelta(hours=24)


def event_needs(events: Iterable[EventRow], now: datetime) -> list[Need]:
    """What went wrong within a day, for each subject the last, unless a later event says that it is over."""
    last: dict[tuple[str, str], EventRow] = {}
    for event in sorted(events, key=lambda event: event.id):
        last[_OVER.get(event.type, event.type), event.subject] = event
    return [
        Need(
            f"{_TROUBLES[event.type]}{event.subject}: {event.payload.get('reason', '')}",
            event.subject,
            "pulse",
            "error",
        )
        for event in last.values()
        if event.type in _TROUBLES and now - event.at < _FADES
    ]
