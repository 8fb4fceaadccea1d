"""What may go wrong with no fault of ours, in one line."""

from __future__ import annotations

import sqlite3

from backend.errors import RingRiftError, resource_error

TROUBLES = (RingRiftError, OSError, sqlite3.Error)


def trouble_line(error: Exception, where: str) -> str:
    """The line for the operator; ``where`` is told when the error does not say it."""
    if isinstance(error, RingRiftError):
        return error.line()
    if isinstance(error, OSError):
        place = str(error.filename or where)
        known = resource_error(error, place)
        return known.line() if known is not None else f"{error.strerror or error}: {place}"
    return f"{error}: {where}"
