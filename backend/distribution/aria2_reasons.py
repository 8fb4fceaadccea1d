"""What aria2 and its sources say as reasons of ours; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.distribution.reasons import Failure, Reason

HEAD = "head"

_KINDS = {
    "missing": (Reason.NOT_THERE, "apt-get install aria2 there"),
    "unsafe": (Reason.UNSAFE, "look at who put it there, then remove it"),
    "port": (Reason.PORT_IN_USE, "see what listens there: ss -ltnp"),
    "address": (Reason.NO_ROUTE, ""),
    "changed": (Reason.SOURCE_CHANGED, "plan the delivery anew"),
    "stalled": (Reason.STALLED, ""),
    "stale": (Reason.CANCELLED, ""),
}
_CODES = {  # EXIT STATUS of aria2c(1)
    2: Reason.STALLED,
    5: Reason.STALLED,
    6: Reason.NO_ROUTE,
    9: Reason.DISK_FULL,
    24: Reason.TRUST,
    32: Reason.CORRUPT,
}
_SOURCES = {  # what all sources say at the end, the worst first
    "changed": (Reason.SOURCE_CHANGED, "the file was changed while it was served", "plan the delivery anew"),
    "token": (Reason.TRUST, "the sources do not know the token", ""),
    "unreachable": (Reason.NO_ROUTE, "no source can be reached", "open the port, or let sshd forward ports"),
    "other": (Reason.ENGINE, "the sources have another file", ""),
}


def ended(last: Mapping[str, Any], sources: Mapping[str, str] | None = None, blamed: Sequence[str] = ()) -> Failure:
    """Why a download has failed.

    Args:
        last: ``kind``, ``code`` and ``message`` of the program on the host.
        sources: what each source that was left said at the end.
        blamed: sources that sent pieces which were wrong twice.
    """
    kind, code, message = str(last.get("kind")), int(last.get("code") or 1), str(last.get("message") or "")
    if kind in _KINDS:
        reason, hint = _KINDS[kind]
        return Failure(reason, message, hint, tuple(blamed))
    if kind == "code":
        said = f"aria2c ended with {code}" + (f", {message}" if message else "")
        if code == 9:
            return Failure(Reason.DISK_FULL, said, "free some space there")
        if not sources and blamed:
            return Failure(Reason.CORRUPT, f"bad bytes from {', '.join(blamed)}", blamed=tuple(blamed))
        if sources and "ok" not in sources.values():
            return nobody(sources, blamed)
        return Failure(_CODES.get(code, Reason.ENGINE), said, "", tuple(blamed))
    return Failure(Reason.ENGINE, message, "", tuple(blamed))


def nobody(sources: Mapping[str, str], blamed: Sequence[str] = ()) -> Failure:
    """Why no source can be used."""
    worst = next((word for word in _SOURCES if word in sources.values()), "other")
    if sources.get(HEAD) in _SOURCES and worst != "changed":
        worst = sources[HEAD]  # the one that should always do
    reason, what, hint = _SOURCES[worst]
    told = ", ".join(f"{name}: {said}" for name, said in sorted(sources.items()))
    return Failure(reason, f"{what} ({told})" if told else what, hint, tuple(blamed))
