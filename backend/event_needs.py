"""Troubles that nothing but an event tells of, as needs of the operator. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from backend.snapshot import EventRow, Need

_TROUBLES = {"DEPLOYMENT_FAILED": "", "POLICY_FAILED": "policy of ", "DISTRIBUTION_REFUSED": "not sent: "}
_OVER = {"POLICY_WORKS": "POLICY_FAILED", "DISTRIBUTION_PLANNED": "DISTRIBUTION_REFUSED"}
TOLD_BY_EVENT = (*_TROUBLES, *_OVER)
"""Types of the events that :func:`event_needs` is to be given, the last one of each subject."""
_FADES = timedelta(hours=24)


def event_needs(events: Iterable[EventRow], now: datetime) -> list[Need]:
    """What went wrong within a day, for each subject the last, unless a later event says that it is over."""
    last: dict[tuple[str, str], EventRow] = {}
    for event in sorted(events, key=lambda event: event.id):
        last[_OVER.get(event.type, event.type), event.subject] = event
    found = []
    for event in last.values():
        if event.type in _TROUBLES and now - event.at < _FADES:
            words = _TROUBLES[event.type]
            title = event.payload.get("title")  # says where by itself
            text = f"{words}{title}" if title else f"{words}{event.subject}: {event.payload.get('reason', '')}"
            found.append(Need(text, event.subject, "pulse", "error"))
    return found
