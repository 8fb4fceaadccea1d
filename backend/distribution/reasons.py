"""Why a delivery did not go on, and what follows from it.

A transport, the receiver and the preflight all speak of trouble in these words, so that the reconciler can decide
without knowing who moved the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Course(StrEnum):
    """What is done about a failure."""

    AGAIN = "again"  # the same transport once more after a pause, then the next one
    NEXT = "next"  # the next transport at once; this one will not work here
    WAIT = "wait"  # nothing until the host has changed: space, reachability, a person; looked at again now and then
    STOP = "stop"  # nothing more for this host, and a person is told
    HALT = "halt"  # nothing more for this file on any host: the source is bad
    NONE = "none"  # somebody wanted it so; nothing more is done and nobody need look


class Reason(StrEnum):
    """What went wrong; the value is stored and shown."""

    NOT_HERE = "not here"  # this machine lacks the engine
    NOT_THERE = "not there"  # the host lacks the engine
    NO_ROUTE = "no route"  # the engine's port cannot be reached
    PORT_IN_USE = "port in use"
    LINK_LOST = "link lost"  # the SSH connection broke, or none came about
    STALLED = "stalled"  # no byte for too long, or far below the others
    ENGINE = "engine failed"  # it crashed or ended with a code that says nothing better
    TRUST = "not trusted"  # a certificate, token or host key was refused
    CORRUPT = "corrupt"  # what arrived has another hash
    TRUNCATED = "truncated"  # what arrived has another size
    DISK_FULL = "disk full"
    UNSAFE = "unsafe path"  # a symlink, or a folder that others may write to
    NOT_LOADABLE = "not loadable"  # the right hash, but it cannot be read as what it says it is
    NOT_LOADABLE_THERE = "not loadable there"  # it can be read on this machine, so it is the host's Python
    SOURCE_CHANGED = "source changed"  # the file here is not the one that was planned
    REFUSED = "refused"  # the host cannot be used: unknown key, login, no Python
    SUPERSEDED = "superseded"  # a newer transfer has put another file there under this name
    CANCELLED = "cancelled"

    @property
    def course(self) -> Course:
        return _COURSES[self]


_COURSES = {
    Reason.NOT_HERE: Course.NEXT,
    Reason.NOT_THERE: Course.NEXT,
    Reason.NO_ROUTE: Course.NEXT,
    Reason.PORT_IN_USE: Course.NEXT,
    Reason.LINK_LOST: Course.WAIT,
    Reason.STALLED: Course.AGAIN,
    Reason.ENGINE: Course.AGAIN,
    Reason.TRUST: Course.STOP,
    Reason.CORRUPT: Course.AGAIN,
    Reason.TRUNCATED: Course.AGAIN,
    Reason.DISK_FULL: Course.WAIT,
    Reason.UNSAFE: Course.STOP,
    Reason.NOT_LOADABLE: Course.HALT,
    Reason.NOT_LOADABLE_THERE: Course.STOP,
    Reason.SOURCE_CHANGED: Course.HALT,
    Reason.REFUSED: Course.WAIT,
    Reason.SUPERSEDED: Course.NONE,
    Reason.CANCELLED: Course.NONE,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One trouble.

    Attributes:
        what: one line for the operator, in the words of whoever noticed.
        hint: what to do about it; empty when nothing need be done.
        blamed: names of hosts that sent bad bytes; they are nobody's source any more.
    """

    reason: Reason
    what: str
    hint: str = ""
    blamed: tuple[str, ...] = ()

    def line(self) -> str:
        text = f"{self.reason}: {self.what}" if self.what else str(self.reason)
        return f"{text} ({self.hint})" if self.hint else text
