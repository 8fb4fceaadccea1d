"""Errors that a user can cause or must act on, each with its own exit code.

A :class:`RingRiftError` is printed as one line ("what: where. what to do") and never as a traceback; anything else
that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
from enum import IntEnum

from backend.text import plain


class Exit(IntEnum):
    """Exit codes of every verb; part of the public interface (see ``docs/cli.md``)."""

    DONE = 0
    FAILED = 1  # the work itself failed: a mismatch found, a job that ended badly
    USAGE = 2
    REFUSED = 3  # a gate of the lifecycle said no
    NO_EVIDENCE = 4
    LOCKED = 5  # somebody else holds it, or it moved since the plan was made
    RESOURCE = 6  # disk, memory, descriptors
    UNVERIFIED = 7  # truncated, corrupted, wrong checksum
    UNTRUSTED = 8  # carries code or pickled objects
    SCHEMA = 9  # readable, but of another schema, version or config
    SETTINGS = 10  # hosts.yaml or settings cannot be understood
    NOT_FOUND = 11
    INTERRUPTED = 130


class RingRiftError(Exception):
    """A failure to be shown as one line.

    Args:
        what: what is wrong, in the user's words.
        where: the file, row, host or option concerned.
        hint: what to do about it, as an imperative sentence or a command.
    """

    exit_code: Exit = Exit.FAILED

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(self.line())

    def line(self) -> str:
        """The whole message on one line, fit for a terminal whatever the names in it hold."""
        text = f"{self.what}: {self.where}" if self.where else self.what
        return plain(f"{text} ({self.hint})" if self.hint else text)


class UsageError(RingRiftError):
    exit_code = Exit.USAGE


class RefusedError(RingRiftError):
    exit_code = Exit.REFUSED


class NoEvidenceError(RingRiftError):
    exit_code = Exit.NO_EVIDENCE


class LockedError(RingRiftError):
    exit_code = Exit.LOCKED


class ResourceError(RingRiftError):
    exit_code = Exit.RESOURCE


class UnverifiedError(RingRiftError):
    exit_code = Exit.UNVERIFIED


class UntrustedError(RingRiftError):
    exit_code = Exit.UNTRUSTED


class SchemaError(RingRiftError):
    exit_code = Exit.SCHEMA


class SettingsError(RingRiftError):
    exit_code = Exit.SETTINGS


class NotFoundError(RingRiftError):
    exit_code = Exit.NOT_FOUND


_RESOURCE_ERRNOS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would pass the size limit (ulimit -f)",
}
_FORBIDDEN_ERRNOS = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
}


def resource_error(error: OSError, where: str) -> ResourceError | None:
    """Returns the user's error for a full disk or quota, or a place that may not be written to; None for others."""
    if error.errno in _FORBIDDEN_ERRNOS:
        hint = "nothing was changed there; see the mount and the permissions"
        return ResourceError(_FORBIDDEN_ERRNOS[error.errno], where=where, hint=hint)
    what = _RESOURCE_ERRNOS.get(error.errno or 0)
    if what is None:
        return None
    return ResourceError(what, where=where, hint="free some space; what was finished before is kept")
