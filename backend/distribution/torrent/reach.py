"""Who reaches whom: what hosts found when they tried the ways of a swarm, before anybody was told to use them.

A port that is shut shows here after one try and not as a stall: the graph is drawn around it. Pure: told the time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

HEAD = "head"
"""The head's own peer, among the names of hosts."""
AGAIN_S = 5.0
"""A way that failed is tried again after that; a port may be opened, and a lost packet is no wall."""
SILENT_S = 6.0
"""A host that has told nothing of a way for that long has not reached the other end."""
NO_WORD = "no word of it"

Way = tuple[str, str]
"""A host, and the one that it dials (:data:`HEAD` for the head)."""


@dataclass(slots=True)
class _Tried:
    """What is known of a way.

    Attributes:
        asked: when the host was asked to try it, last.
        answer: why it did not get through; empty when it did, None before it has answered for the first time.
        open: an answer is awaited.
    """

    asked: float
    answer: str | None = None
    open: bool = True


class Reach:
    """The matrix of a swarm."""

    def __init__(self) -> None:
        self._tried: dict[str, dict[str, _Tried]] = {}

    def ask(self, now: float, who: str, others: Iterable[str]) -> list[str]:
        """Which of these a host must try now; they count as asked from then on."""
        row, found = self._tried.setdefault(who, {}), []
        for other in others:
            known = row.get(other)
            if known is None:
                row[other] = _Tried(now)
            elif known.open and now - known.asked >= SILENT_S:
                known.open, known.answer = False, known.answer or NO_WORD
                continue
            elif known.answer and not known.open and now - known.asked >= AGAIN_S:
                known.asked, known.open = now, True
            else:
                continue
            found.append(other)
        return found

    def heard(self, who: str, other: str, why: str) -> bool:
        """What a host tells of a way, empty when it got through; whether that is news."""
        known = self._known(who, other)
        if known is None:  # it was forgotten meanwhile
            return False
        news = known.answer != why
        known.answer, known.open = why, False
        return news

    def met(self, who: str) -> None:
        """A host is connected with the head, which dials nobody: the way is open, whatever a try has said."""
        known = self._known(who, HEAD)
        if known is not None and known.answer:
            known.answer = ""

    def excuse(self, now: float) -> None:
        """Nobody could be heard: the head was away."""
        for row in self._tried.values():
            for known in row.values():
                known.asked = now if known.open else known.asked

    def waits(self, who: str, others: Collection[str]) -> bool:
        """Whether a host has still to tell of one of these for the first time."""
        return any((known := self._known(who, other)) is None or known.answer is None for other in others)

    def pending(self, who: str) -> bool:
        """Whether an answer of a host is awaited."""
        return any(known.open for known in self._tried.get(who, {}).values())

    def reaches(self, who: str, other: str) -> bool:
        """Whether a host got through to another."""
        known = self._known(who, other)
        return known is not None and known.answer == ""

    def blocked(self) -> frozenset[Way]:
        """All ways that did not get through when they were tried last."""
        return frozenset(
            (who, other) for who, row in self._tried.items() for other, known in row.items() if known.answer
        )

    def of(self, who: str) -> tuple[tuple[str, str], ...]:
        """Whom a host does not reach, and why."""
        return tuple((other, known.answer) for other, known in self._tried.get(who, {}).items() if known.answer)

    def forget(self, name: str) -> None:
        """Somebody left, or listens elsewhere: nothing is known of the ways from and to it."""
        self._tried.pop(name, None)
        for row in self._tried.values():
            row.pop(name, None)

    def _known(self, who: str, other: str) -> _Tried | None:
        return self._tried.get(who, {}).get(other)
