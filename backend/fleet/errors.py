"""What can go wrong between here and a host; each names the host and what to do."""

from __future__ import annotations

from typing import ClassVar

from backend.errors import RingRiftError


class SshError(RingRiftError):
    """The root of all of them.

    Attributes:
        permanent: asking again is of no use until somebody has changed something; nobody tries on their own.
    """

    permanent: ClassVar[bool] = False


class LinkLost(SshError):
    """The connection broke; whether what was asked for was carried out is not known."""


class HostUnreachable(LinkLost):
    """No connection came about, so nothing was carried out."""


class ExecTimeout(SshError):
    """A command did not end in its time. It may go on running on the host."""


class ChannelRefused(SshError):
    """The host opens no further session on a connection that works (its ``MaxSessions``)."""


class TransferFailed(SshError):
    """A file did not arrive whole; nothing was left at its destination."""


class NoPython(SshError):
    """The host has no ``python3`` that can be run."""

    permanent = True


class HostKeyUnknown(SshError):
    """Nobody has enrolled the host's key yet."""

    permanent = True


class HostKeyChanged(SshError):
    """The host shows another key than the enrolled one."""

    permanent = True


class LoginRefused(SshError):
    """The host does not let us in with this user and key."""

    permanent = True
